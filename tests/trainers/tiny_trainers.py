# found by nnU-Net through nnUNet_extTrainer, beside our own folder
import os
import signal

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_rmr.published.nnUNetTrainerRMR_paper import nnUNetTrainerRMR_paper
from nnunetv2_rmr.training.degradations_only import nnUNetTrainer_RMRDegradations
from nnunetv2_rmr.training.fusion_only import nnUNetTrainerRMR_fusionOnly
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


def killed_at(moment: str) -> bool:
    return os.environ.get("TINY_KILLED_AT") == moment


def kill_this_process(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Tiny:
    """Four epochs of six iterations. Dies like a killed process at the moment named in TINY_KILLED_AT.

    TINY_ONLY_TRAINS saves tests that look at the training alone the time of nnU-Net's plots and the final validation.
    """

    epochs = 4
    iterations_per_epoch = 6

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.epochs
        self.num_iterations_per_epoch = self.iterations_per_epoch
        self.num_val_iterations_per_epoch = 2
        self.iterations = 0
        if "TINY_ONLY_TRAINS" in os.environ:
            self.logger.plot_progress_png = lambda folder: None  # 30 x 54 inches, two seconds an epoch

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

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        if "TINY_ONLY_TRAINS" not in os.environ:
            super().perform_actual_validation(save_probabilities)


class nnUNetTrainerRMR_tiny(Tiny, nnUNetTrainerRMR):
    pass


class nnUNetTrainerRMR_1epoch_tiny(nnUNetTrainerRMR_tiny):
    """One iteration, for networks that are slow on a CPU."""

    epochs = 1

    def on_train_start(self) -> None:
        self.num_iterations_per_epoch = self.num_val_iterations_per_epoch = 1
        super().on_train_start()


class nnUNetTrainerRMR_paper_tiny(Tiny, nnUNetTrainerRMR_paper):
    epochs, iterations_per_epoch = 2, 2  # one for each stage; its encoders are slow on a CPU


class nnUNetTrainer_RMRDegradations_tiny(Tiny, nnUNetTrainer_RMRDegradations):
    pass


class nnUNetTrainerRMR_tiny_still(nnUNetTrainerRMR_tiny):
    def configure_optimizers(self):
        optimizer, scheduler = super().configure_optimizers()
        scheduler.initial_lr = 0.0
        return optimizer, scheduler


class nnUNetTrainerRMR_fusionOnly_tiny(Tiny, nnUNetTrainerRMR_fusionOnly):
    pass


class nnUNetTrainer_tiny(Tiny, nnUNetTrainer):
    pass


class FixedBatches:
    """Batch i is always the same, whoever asks; a process gets the part `samples` of it. No augmentation."""

    def __init__(self, start: int, size: int, samples: slice, modalities: int, patch, scales, degrade: bool):
        self.index, self.size, self.samples, self.degrade = start, size, samples, degrade
        self.modalities, self.patch, self.scales = modalities, patch, scales

    def __next__(self) -> dict:
        generator = torch.Generator().manual_seed(self.index)
        self.index += 1
        coarse = torch.randn(self.size, self.modalities, 4, 4, 4, generator=generator)
        data = clean = torch.nn.functional.interpolate(coarse, size=tuple(self.patch), mode="trilinear")
        if self.degrade:
            data = torch.cat((clean, clean + 0.3 * torch.randn(clean.shape, generator=generator)), dim=1)
        label = (clean[:, :1] > 0.3).float() + (clean[:, :1] > 0.6)
        target = [torch.nn.functional.interpolate(label, scale_factor=tuple(s))[self.samples] for s in self.scales]
        return {"data": data[self.samples], "target": target}


class nnUNetTrainerRMR_fixed(nnUNetTrainerRMR_tiny):
    """Trains on batches that do not depend on the number of processes."""

    def get_dataloaders(self):
        self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()  # sets the axes of mirroring
        first = self.local_rank * self.batch_size
        batch = (self.configuration_manager.batch_size, slice(first, first + self.batch_size),
                 len(self.configuration_manager.normalization_schemes), self.configuration_manager.patch_size,
                 self._get_deep_supervision_scales())
        return (FixedBatches(self.current_epoch * self.num_iterations_per_epoch, *batch, degrade=True),
                FixedBatches(10_000 + self.current_epoch * self.num_val_iterations_per_epoch, *batch, degrade=False))
