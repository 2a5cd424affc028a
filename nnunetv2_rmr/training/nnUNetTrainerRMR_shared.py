"""The next design of RMR, beside the present one until it has been measured: one network, all of it shared."""

from __future__ import annotations

import os
from dataclasses import replace
from os.path import join

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import distributed as dist

from nnunetv2_rmr.degradations.degrade import add_degradations, drawn_by
from nnunetv2_rmr.losses.restoration import TERMS, SegmentationAndRestorationLoss
from nnunetv2_rmr.networks.build import takes_deep_supervision
from nnunetv2_rmr.networks.shared import SharedRMRNet
from nnunetv2_rmr.settings import RMRSettings, channel_names, reference_channel
from nnunetv2_rmr.training.reproducible import SeedNextSample, seed_everything, seed_from_environment
from nnunetv2_rmr.training.validation import export_validation_fusion

RESTORATION_WEIGHT = 2.0


class nnUNetTrainerRMR_shared(nnUNetTrainer):
    """nnU-Net's network, untouched, learns to segment degraded patches; a head on its last features and the raw
    modalities learns to restore every modality from them. The fused image is the gradient fusion of the restored
    modalities (evaluation/fusion_baselines/gradient.py), so it holds all of them whatever the head has learned.

    nnU-Net's own train_step runs: the network takes clean and degraded patch together, the loss its outputs.
    """

    settings = RMRSettings()

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        names = channel_names(dataset_json)
        if len(names) < 2:
            raise NotImplementedError(f"{type(self).__name__} fuses two or more modalities, but the data set "
                                      f"{plans['dataset_name']} has one channel only ({names[0]}): use nnUNetTrainer")
        settings = RMRSettings.from_plans(plans, self.settings)
        self.reference = reference_channel(settings.reference_modality, names)
        self.settings = replace(settings, reference_modality=self.reference)
        super().__init__(self.settings.into_plans(plans), configuration, fold, dataset_json, device)
        for term in TERMS:
            self.logger.local_logger.my_fantastic_logging.setdefault(f"loss_{term}", [])

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels: int,
                                   num_output_channels: int, enable_deep_supervision: bool = True):
        # the plans' own network first, so that it draws the weights that nnU-Net's trainer would draw
        segmentation = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision)
        return SharedRMRNet(segmentation, len(configuration_manager.normalization_schemes), num_input_channels,
                            configuration_manager.patch_size)

    def initialize(self):
        # before the weights are drawn
        if (seed := seed_from_environment()) is not None:
            seed_everything(seed)
        if not takes_deep_supervision(self.configuration_manager):
            self.enable_deep_supervision = False
        super().initialize()

    def _build_loss(self):
        # nnU-Net's, which also serves its validation_step, and the restoration loss beside it
        return SegmentationAndRestorationLoss(super()._build_loss(), RESTORATION_WEIGHT)

    def get_training_transforms(self, *args, **kwargs):
        # an instance method, where nnU-Net has a static one, because the degradations need spacing and settings
        transforms = add_degradations(
            super().get_training_transforms(*args, **kwargs), num_modalities=len(channel_names(self.dataset_json)),
            spacing=self.configuration_manager.spacing, p_clean=self.settings.p_clean, clean_targets=True,
            **drawn_by(self.settings, self.configuration_manager))
        return self._seeded(transforms, stream=0, batches_before=self.current_epoch * self.num_iterations_per_epoch)

    def get_validation_transforms(self, *args, **kwargs):
        # only to seed them; the online validation sees clean patches, so its pseudo Dice compares with nnU-Net's
        transforms = super().get_validation_transforms(*args, **kwargs)
        return self._seeded(transforms, stream=1, batches_before=self.current_epoch * self.num_val_iterations_per_epoch)

    def _seeded(self, transforms, stream: int, batches_before: int):
        seed = seed_from_environment()
        if seed is not None and get_allowed_n_proc_DA() <= 1:
            stream += 2 * self.local_rank  # the processes of a distributed training draw different samples
            transforms.transforms.append(SeedNextSample(seed, stream, batches_before * self.batch_size))
        return transforms

    def on_train_epoch_end(self, train_outputs: list[dict]):
        # to log the loss terms one by one
        super().on_train_epoch_end(train_outputs)
        terms = self.loss.take_terms()
        if self.is_ddp:
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, terms)
            terms = {name: float(np.mean([part[name] for part in gathered])) for name in TERMS}
        for name, value in terms.items():
            self.logger.log(f"loss_{name}", value, self.current_epoch)
        self.print_to_log_file("loss terms, unweighted:", ", ".join(f"{n} {v:.4f}" for n, v in terms.items()))

    def save_checkpoint(self, filename: str) -> None:
        # nnU-Net writes in place: a process killed meanwhile would leave a broken checkpoint and lose the one before
        temporary = join(os.path.dirname(filename), "checkpoint.tmp")  # one name: what a kill left is overwritten
        super().save_checkpoint(temporary)
        if self.local_rank == 0 and not self.disable_checkpointing:
            os.replace(temporary, filename)

    def perform_actual_validation(self, save_probabilities: bool = False):
        # before nnU-Net's, at whose end one process alone computes scores: the others would wait for it too long
        export_validation_fusion(self)
        super().perform_actual_validation(save_probabilities)
