"""Shorter trainings and timings of an epoch, named like nnU-Net's nnUNetTrainer_5epochs and so on."""

from dataclasses import replace

import torch
from nnunetv2.training.nnUNetTrainer.variants.benchmarking.nnUNetTrainerBenchmark_5epochs import (
    nnUNetTrainerBenchmark_5epochs,
)
from nnunetv2.training.nnUNetTrainer.variants.benchmarking.nnUNetTrainerBenchmark_5epochs_noDataLoading import (
    nnUNetTrainerBenchmark_5epochs_noDataLoading,
)

from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


class nnUNetTrainerRMR_5epochs(nnUNetTrainerRMR):
    epochs = 5


class nnUNetTrainerRMR_20epochs(nnUNetTrainerRMR):
    epochs = 20


class nnUNetTrainerRMR_50epochs(nnUNetTrainerRMR):
    epochs = 50


class nnUNetTrainerRMR_100epochs(nnUNetTrainerRMR):
    epochs = 100


class nnUNetTrainerRMR_250epochs(nnUNetTrainerRMR):
    epochs = 250


class nnUNetTrainerRMRBenchmark_5epochs(nnUNetTrainerBenchmark_5epochs, nnUNetTrainerRMR):
    """Five epochs as they are in a training. Like nnU-Net's needs a GPU and fold 0, writes benchmark_result.json."""

    settings = replace(nnUNetTrainerRMR.settings, panel_every=0)


class nnUNetTrainerRMRBenchmark_5epochs_noDataLoading(nnUNetTrainerBenchmark_5epochs_noDataLoading,
                                                      nnUNetTrainerRMRBenchmark_5epochs):
    """Five epochs with one and the same batch, so that nothing waits for data."""

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        # nnU-Net's batch has the channels of the network; training ones have the clean modalities before them
        data = self.dummy_batch["data"]
        modalities = len(self.configuration_manager.normalization_schemes)
        self.dummy_training_batch = self.dummy_batch | {"data": torch.cat((data[:, :modalities], data), dim=1)}

    def train_step(self, batch: dict) -> dict:
        return super().train_step(self.dummy_training_batch)
