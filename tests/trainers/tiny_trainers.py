# found by nnU-Net through nnUNet_extTrainer, beside our own folder
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


class nnUNetTrainerRMR_tiny(nnUNetTrainerRMR):
    epochs = 4

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = 6
        self.num_val_iterations_per_epoch = 2


class nnUNetTrainer_tiny(nnUNetTrainer):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 4
        self.num_iterations_per_epoch = 6
        self.num_val_iterations_per_epoch = 2
