"""The rival: nnU-Net with the degradations that RMR trains on, and nothing else."""

from functools import partial

from nnunetv2_rmr.degradations.degrade import add_degradations, degradation_arguments, only_degraded
from nnunetv2_rmr.settings import RMRSettings, channel_names
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR
from nnunetv2_rmr.training.reads_data_only import ReadsDataOnly


class nnUNetTrainer_RMRDegradations(ReadsDataOnly):
    """nnU-Net's own network and loss, and RMR's degradations as further augmentation: RMR without the image task.

    Shows whether a gain comes from the method or from its augmentation. Both see the same patches.
    """

    def get_training_transforms(self, *args, **kwargs):
        # an instance method, where nnU-Net has a static one, because the degradations need spacing and settings
        settings = RMRSettings.from_plans(self.plans_manager.plans, nnUNetTrainerRMR.settings)
        num_modalities = len(channel_names(self.dataset_json))
        transforms = add_degradations(
            super().get_training_transforms(*args, **kwargs), num_modalities=num_modalities,
            spacing=self.configuration_manager.spacing, clean_targets=True,
            **degradation_arguments(settings, self.configuration_manager))
        transforms.transforms.append(partial(only_degraded, num_modalities))
        return transforms
