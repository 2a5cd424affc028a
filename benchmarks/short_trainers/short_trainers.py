"""Every trainer of the comparison as NAME_short: of the length in COMPARE_EPOCHS and COMPARE_ITERATIONS, and seeded.

Found by nnU-Net through nnUNet_extTrainer. For the same nnUNet_rmr_seed all trainers see the same patches and start
with the same segmentation network (the published one's first convolution, which sees other channels, aside): in
trainings this short much depends on the start.
"""

import os
from dataclasses import replace

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

from nnunetv2_rmr.networks.fusing import FusingNetwork
from nnunetv2_rmr.networks.planned import planned_network
from nnunetv2_rmr.published.nnUNetTrainerRMR_paper import nnUNetTrainerRMR_paper
from nnunetv2_rmr.training.degradations_only import nnUNetTrainer_RMRDegradations
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR
from nnunetv2_rmr.training.reproducible import SeedNextSample, seed_everything, seed_from_environment


class nnUNetTrainerRMR_modalityDropout(nnUNetTrainerRMR):
    settings = replace(nnUNetTrainerRMR.settings, modality_dropout=0.3)


BASES = (nnUNetTrainer, nnUNetTrainerDA5, nnUNetTrainer_RMRDegradations, nnUNetTrainerRMR, nnUNetTrainerRMR_paper,
         nnUNetTrainerRMR_modalityDropout)


def short(base: type) -> type:
    class Short(base):
        def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                     device: torch.device = torch.device("cuda")):
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = int(os.environ["COMPARE_EPOCHS"])
            self.num_iterations_per_epoch = int(os.environ["COMPARE_ITERATIONS"])
            self.num_val_iterations_per_epoch = 2
            self.save_every = max(1, self.num_epochs // 5)

        def perform_actual_validation(self, save_probabilities: bool = False) -> None:
            pass  # of fold `all` it would be the training cases; the benchmark tests on others

        def initialize(self):
            seed_everything(seed_from_environment())
            super().initialize()
            segmentation = self.network.segmentation if isinstance(self.network, FusingNetwork) else self.network
            seed_everything(seed_from_environment())
            planned = self.configuration_manager
            start = planned_network(planned, len(planned.normalization_schemes),
                                    self.label_manager.num_segmentation_heads, self.enable_deep_supervision).state_dict()
            own = segmentation.state_dict()
            segmentation.load_state_dict({name: start[name] if start[name].shape == value.shape else value
                                          for name, value in own.items()})

        if not issubclass(base, nnUNetTrainerRMR):
            def get_training_transforms(self, *args, **kwargs):
                transforms = super().get_training_transforms(*args, **kwargs)
                transforms.transforms.append(SeedNextSample(seed_from_environment(), 0, 0))
                return transforms

    Short.__name__ = Short.__qualname__ = f"{base.__name__}_short"
    return Short


for _base in BASES:
    globals()[f"{_base.__name__}_short"] = short(_base)
