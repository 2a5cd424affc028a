"""nnU-Net's trainer with a network that also restores the modalities, of which the fused image is made."""

import os
from dataclasses import replace
from os.path import join

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import distributed as dist

from nnunetv2_rmr.datasets.unlabelled import unlabelled_dataset
from nnunetv2_rmr.degradations.degrade import add_degradations, degradation_arguments
from nnunetv2_rmr.files.atomic import remove_leftovers
from nnunetv2_rmr.inference.stock_predictor import let_stock_predictor_save_fused
from nnunetv2_rmr.losses.restoration import CONSISTENCY, TERMS, RMRLoss
from nnunetv2_rmr.networks.fusing import unwrapped
from nnunetv2_rmr.networks.mean_teacher import MeanTeacher
from nnunetv2_rmr.networks.planned import planned_network, takes_deep_supervision
from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.settings import RMRSettings, channel_names, reference_channel, refuse_version_0_1, unlabelled_cases
from nnunetv2_rmr.training.panel import plot_loss_terms, save_panel, track_picture
from nnunetv2_rmr.training.reads_data_only import ReadsDataOnly
from nnunetv2_rmr.training.reproducible import SeedNextSample, seed_everything, seed_from_environment
from nnunetv2_rmr.training.unlabelled import number_in_batch, partly_unlabelled_batches, unused_scans
from nnunetv2_rmr.training.validation import export_validation_fusion, whole_files

Z_SCORES = ("ZScoreNormalization", "CTNormalization")


class nnUNetTrainerRMR(ReadsDataOnly):
    """nnU-Net's network, untouched, learns to segment degraded patches; a head on its last features and the raw
    modalities learns to restore every modality from them. The fused image is the gradient fusion of the restored
    modalities (fusion/), so it holds all of them whatever the head has learned.

    nnU-Net's own train_step runs: the network takes clean and degraded patch together, the loss its outputs.
    `settings` holds every choice; see RMRSettings for how to change one.
    """

    settings = RMRSettings()
    epochs: int | None = None  # None: nnU-Net's number. Its variants set it, see variants.py
    loss_terms = TERMS
    learns_from_unlabelled = True  # if the settings say so
    clean_targets = True  # nnU-Net's own noise, blur and low resolution reach the degraded patch only

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        # to refuse what can not be fused, and to let the settings travel with the model
        names = channel_names(dataset_json)
        if len(names) < 2:
            raise NotImplementedError(f"{type(self).__name__} fuses two or more modalities, but the data set "
                                      f"{plans['dataset_name']} has one channel only ({names[0]}): use nnUNetTrainer")
        self.settings.refuse_contradiction(plans, type(self).__name__)
        settings = RMRSettings.from_plans(plans, self.settings)
        chosen = settings.changed()
        # resolved now, so that the model keeps its reference modality whatever later versions take as default; by
        # number where channels share a name, as they do if they are named by their normalisation
        self.reference = reference_channel(settings.reference_modality, names)
        unique = [name.casefold() for name in names].count(names[self.reference].casefold()) == 1
        self.settings = replace(settings, reference_modality=names[self.reference] if unique else self.reference)
        _refuse_other_than_z_scores(plans, configuration, names)
        self.unlabelled = None
        if settings.unlabelled_fraction and self.learns_from_unlabelled:
            self.unlabelled = self.find_unlabelled(plans, configuration)
        number = len(self.unlabelled.identifiers) if self.unlabelled else 0
        super().__init__(self.settings.into_plans(plans, number), configuration, fold, dataset_json, device)
        self.print_to_log_file("RMR settings other than the defaults:", chosen or "none")
        if unused := unused_scans(self):
            self.print_to_log_file(f"WARNING: {unused}")
        if number:
            self.loss_terms = (*self.loss_terms, CONSISTENCY)
        if not takes_deep_supervision(self.configuration_manager):
            self.enable_deep_supervision = False
        if self.epochs is not None:
            self.num_epochs = self.epochs
            self.save_every = max(1, self.epochs // 10)  # nnU-Net's 50 would leave a short training nothing to resume
        for term in self.loss_terms:
            self.logger.local_logger.my_fantastic_logging.setdefault(f"loss_{term}", [])
        self._last_batch = None
        if (seed := seed_from_environment()) is not None:
            seed_everything(seed)  # before the weights are drawn

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels: int,
                                   num_output_channels: int, enable_deep_supervision: bool = True):
        meet_model(plans_manager.plans)
        # the plans' own network first, so that it draws the weights that nnU-Net's trainer would draw
        segmentation = planned_network(configuration_manager, num_input_channels, num_output_channels,
                                       enable_deep_supervision)
        network = RMRNet(segmentation, len(configuration_manager.normalization_schemes), num_input_channels,
                         configuration_manager.patch_size)
        return MeanTeacher(network) if unlabelled_cases(plans_manager.plans) else network

    def find_unlabelled(self, plans: dict, configuration: str) -> nnUNetBaseDataset | None:
        """The data set's preprocessed scans without labels, if it has any. Not for the second stage of a cascade: it
        would need a first stage's segmentation of them."""
        manager = PlansManager(plans).get_configuration(configuration)
        return None if manager.previous_stage_name else unlabelled_dataset(plans["dataset_name"],
                                                                           manager.data_identifier)

    def _build_loss(self):
        # nnU-Net's, which also serves its validation_step, and the restoration loss beside it
        return RMRLoss(super()._build_loss(), self.settings.restoration_weight,
                       self.settings.consistency_weight if self.unlabelled else None, self.label_manager.has_regions)

    def get_dataloaders(self):
        # where there are scans without labels, a part of every batch is from these
        if self.unlabelled is None:
            return super().get_dataloaders()
        number = number_in_batch(self.settings.unlabelled_fraction, self.batch_size)
        unwrapped(self.network).num_unlabelled = number
        self.print_to_log_file(f"Learning from {len(self.unlabelled.identifiers)} scans without labels, too: {number} "
                               f"of the {self.batch_size} samples of every batch")
        with partly_unlabelled_batches(self.unlabelled, number):
            return super().get_dataloaders()

    def get_training_transforms(self, *args, **kwargs):
        # an instance method, where nnU-Net has a static one, because the degradations need spacing and settings
        transforms = add_degradations(
            super().get_training_transforms(*args, **kwargs), num_modalities=len(channel_names(self.dataset_json)),
            spacing=self.configuration_manager.spacing, clean_targets=self.clean_targets,
            **degradation_arguments(self.settings, self.configuration_manager))
        return self._seeded(transforms, stream=0, batches_before=self.current_epoch * self.num_iterations_per_epoch)

    def get_validation_transforms(self, *args, **kwargs):
        # only to seed them; the online validation sees clean patches, so its pseudo Dice compares with nnU-Net's
        transforms = super().get_validation_transforms(*args, **kwargs)
        return self._seeded(transforms, stream=1, batches_before=self.current_epoch * self.num_val_iterations_per_epoch)

    def _seeded(self, transforms, stream: int, batches_before: int):
        seed, workers = seed_from_environment(), get_allowed_n_proc_DA()
        if seed is not None and workers <= 1:
            stream += 2 * self.local_rank  # the processes of a distributed training draw different samples
            transforms.transforms.append(SeedNextSample(seed, stream, batches_before * self.batch_size))
        elif seed is not None and stream == 0:  # each would count its own samples, and all would draw the same
            self.print_to_log_file(f"WARNING: nnUNet_rmr_seed={seed} does not seed the training patches: that takes at "
                                   f"most one data augmentation worker (nnUNet_n_proc_DA=1), not {workers}")
        return transforms

    def on_epoch_start(self):
        # whatever draws random numbers in the network (drop path) resumes as it would go on, and draws others in each
        # process of a distributed training, which all begin with torch's default state
        super().on_epoch_start()
        self.loss.progress = self.current_epoch / self.num_epochs
        seed = seed_from_environment()
        if seed is not None:
            torch.manual_seed(seed + self.current_epoch + 10**6 * self.local_rank)
        elif self.is_ddp:
            torch.seed()

    def train_step(self, batch: dict) -> dict:
        # nnU-Net's, and a batch for the panel
        self._last_batch = batch
        return super().train_step(batch)

    def on_epoch_end(self):
        # to log the loss terms one by one, and to draw them and a panel; before nnU-Net's, which saves a checkpoint: a
        # training that goes on from there has all pictures
        terms = self.loss.take()
        if self.is_ddp:
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, terms)
            terms = {name: float(np.mean([part[name] for part in gathered])) for name in terms}
        for name, value in terms.items():
            self.logger.log(f"loss_{name}", value, self.current_epoch)
        self.print_to_log_file("loss terms, unweighted:", ", ".join(
            f"{name} {value:.4f}" for name, value in terms.items() if not np.isnan(value)))
        if self.local_rank == 0:
            self._draw(self.current_epoch)
        super().on_epoch_end()

    def _draw(self, epoch: int) -> None:
        remove_leftovers([self.output_folder, join(self.output_folder, "panels")])  # of a training that was killed
        plot_loss_terms(self.logger.local_logger.my_fantastic_logging, self.loss_terms,
                        join(self.output_folder, "progress_rmr.png"))
        every = max(1, self.num_epochs // 10) if self.settings.panel_every is None else self.settings.panel_every
        if every > 0 and ((epoch + 1) % every == 0 or epoch == self.num_epochs - 1):
            panel = join(self.output_folder, "panels", f"epoch_{epoch:04d}.png")
            save_panel(self, self._last_batch, panel)
            track_picture(self.logger, "panel", panel, epoch)

    def save_checkpoint(self, filename: str) -> None:
        # nnU-Net writes in place: a process killed meanwhile would leave a broken checkpoint and lose the one before
        temporary = join(os.path.dirname(filename), "checkpoint.tmp")  # one name: what a kill left is overwritten
        super().save_checkpoint(temporary)
        if self.local_rank == 0 and not self.disable_checkpointing:
            os.replace(temporary, filename)

    def perform_actual_validation(self, save_probabilities: bool = False):
        # before nnU-Net's, at whose end one process alone computes scores: the others would wait for it too long
        if self.settings.validation_fusion:
            export_validation_fusion(self)
        # a disk that is full, or a kill, would leave half a segmentation, which nnU-Net then takes for a whole one
        with whole_files(join(self.output_folder, "validation")):
            super().perform_actual_validation(save_probabilities)


def meet_model(plans: dict) -> None:
    """To be called where a network of ours is built, as nnU-Net does for every model it loads: the one place where a
    stock predictor meets our package, and weights of version 0.1 would meet a network of other names.
    """
    if os.environ.get("nnUNet_rmr_save_fused", "0").lower() in ("1", "true", "t"):
        let_stock_predictor_save_fused()
    refuse_version_0_1(plans)


def _refuse_other_than_z_scores(plans: dict, configuration: str, names: list[str]) -> None:
    schemes = PlansManager(plans).get_configuration(configuration).normalization_schemes
    other = [f"{name} ({scheme})" for name, scheme in zip(names, schemes) if scheme not in Z_SCORES]
    if other:
        raise ValueError("RMR degrades and restores in units of standard deviations, so every channel needs "
                         f"{' or '.join(Z_SCORES)}. Not so: {', '.join(other)}. Name the channel's modality in "
                         "dataset.json (MRI sequence, PET: z-scores; CT), plan and preprocess again")
