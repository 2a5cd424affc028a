"""Trainers that each leave one thing out, to see what it does. Compare them with nnUNetTrainer and nnUNetTrainerRMR."""

from dataclasses import replace

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_rmr.degradations.degrade import add_degradations, drawn_by
from nnunetv2_rmr.settings import RMRSettings, channel_names
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


class OnlyDegraded:
    """Last transform: (2C + E, *spatial) as DegradeTransform leaves it -> the degraded modalities and the extras."""

    def __init__(self, num_modalities: int):
        self.num_modalities = num_modalities

    def __call__(self, **data_dict) -> dict:
        return data_dict | {"image": data_dict["image"][self.num_modalities:]}


class nnUNetTrainer_RMRDegradations(nnUNetTrainer):
    """nnU-Net with RMR's degradations as further augmentation and nothing else: no fusion, one stage, one loss.

    The rival that RMR has to beat: whether a gain comes from the method or from its augmentation.
    """

    def get_training_transforms(self, *args, **kwargs):
        # an instance method, where nnU-Net has a static one, because the degradations need spacing and settings
        settings = RMRSettings.from_plans(self.plans_manager.plans, nnUNetTrainerRMR.settings)
        num_modalities = len(channel_names(self.dataset_json))
        transforms = add_degradations(
            super().get_training_transforms(*args, **kwargs), num_modalities=num_modalities,
            spacing=self.configuration_manager.spacing, p_clean=settings.p_clean,
            **drawn_by(settings, self.configuration_manager))
        transforms.transforms.append(OnlyDegraded(num_modalities))
        return transforms


DEFAULTS = nnUNetTrainerRMR.settings


class nnUNetTrainerRMR_noFusionLoss(nnUNetTrainerRMR):
    """Nothing is asked of the fused image: the shared features serve the segmentation alone."""

    settings = replace(DEFAULTS, intensity_weight=0.0, gradient_weight=0.0)


class nnUNetTrainerRMR_noSegmentationLoss(nnUNetTrainerRMR):
    """Fusion alone: its segmentations are those of an untrained network."""

    settings = replace(DEFAULTS, segmentation_weight=0.0)


class nnUNetTrainerRMR_noRefinement(nnUNetTrainerRMR):
    """Degraded patches, but no constraint that their features and reconstructions be those of clean ones."""

    settings = replace(DEFAULTS, refinement_weight=0.0)


class nnUNetTrainerRMR_noDegradations(nnUNetTrainerRMR):
    """Every patch as nnU-Net augments it: what is left of the robustness."""

    settings = replace(DEFAULTS, p_clean=1.0)


class nnUNetTrainerRMR_frozenAutoencoder(nnUNetTrainerRMR):
    """Encoders and fusion decoder keep what they learned in stage 1, as published."""

    settings = replace(DEFAULTS, freeze_autoencoder=True)


class nnUNetTrainerRMR_oneStage(nnUNetTrainerRMR):
    """Everything together from the first epoch on."""

    settings = replace(DEFAULTS, stage1_fraction=0.0)
