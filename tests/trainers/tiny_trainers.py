# found by nnU-Net through nnUNet_extTrainer, beside our own folder
import os
import signal

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


def killed_at(moment: str) -> bool:
    return os.environ.get("TINY_KILLED_AT") == moment


def kill_this_process(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class nnUNetTrainerRMR_tiny(nnUNetTrainerRMR):
    """Four epochs of six iterations. Dies like a killed process at the moment named in TINY_KILLED_AT."""

    epochs = 4

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = 6
        self.num_val_iterations_per_epoch = 2
        self.iterations = 0

    def train_step(self, batch: dict) -> dict:
        self.iterations += 1
        if killed_at(f"iteration {self.iterations}"):
            kill_this_process()
        return super().train_step(batch)

    def save_checkpoint(self, filename: str) -> None:
        if killed_at(f"{os.path.basename(filename)} of epoch {self.current_epoch}"):
            def write_half(checkpoint, file):
                with open(file, "wb") as f:
                    f.write(b"half a checkpoint")
                kill_this_process()
            torch.save = write_half
        super().save_checkpoint(filename)


class nnUNetTrainer_tiny(nnUNetTrainer):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 4
        self.num_iterations_per_epoch = 6
        self.num_val_iterations_per_epoch = 2


class nnUNetTrainer_1epoch_tiny(nnUNetTrainer_tiny):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 1
