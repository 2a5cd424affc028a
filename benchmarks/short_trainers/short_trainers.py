"""Every trainer of the comparison as NAME_short: of the length in COMPARE_EPOCHS and COMPARE_ITERATIONS, and seeded.

Found by nnU-Net through nnUNet_extTrainer. For the same nnUNet_rmr_seed all trainers see the same patches and start
with the same segmentation network; where its inputs are shared features that start as modalities, each of these has its
modality's weights, divided by the number of features that start as it. In trainings this short much depends on the
start: some never leave the answer "background everywhere", and a first convolution of its own decides about that.
"""

import os
from dataclasses import replace

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunetv2_rmr.networks.start import modality_of_feature
from nnunetv2_rmr.training import ablations
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR
from nnunetv2_rmr.training.paper import nnUNetTrainerRMR_paper
from nnunetv2_rmr.training.reproducible import SeedNextSample, seed_everything, seed_from_environment

WITH_BIAS_FIELD = {"none": 0.2, "noise": 0.2, "blur": 0.2, "fourier": 0.2, "bias_field": 0.2}


class nnUNetTrainerRMR_biasField(nnUNetTrainerRMR):
    settings = replace(nnUNetTrainerRMR.settings, degradation_probabilities=WITH_BIAS_FIELD)


class nnUNetTrainer_RMRDegradations_biasField(ablations.nnUNetTrainer_RMRDegradations):
    def __init__(self, plans: dict, *args, **kwargs):
        super().__init__(plans | {"rmr": {"degradation_probabilities": WITH_BIAS_FIELD}}, *args, **kwargs)


class nnUNetTrainerRMR_allModalities(nnUNetTrainerRMR):
    settings = replace(nnUNetTrainerRMR.settings, all_modalities_weight=0.5)


class nnUNetTrainerRMR_saliency(nnUNetTrainerRMR):
    settings = replace(nnUNetTrainerRMR.settings, intensity_target="saliency")


class nnUNetTrainerRMR_uncertainty(nnUNetTrainerRMR):
    settings = replace(nnUNetTrainerRMR.settings, balance="uncertainty")


class nnUNetTrainerRMR_lightFusion(nnUNetTrainerRMR):
    settings = replace(nnUNetTrainerRMR.settings, intensity_weight=0.1, gradient_weight=0.1, refinement_weight=0.05)


class nnUNetTrainerRMR_modalityDropout(nnUNetTrainerRMR):
    settings = replace(nnUNetTrainerRMR.settings, modality_dropout=0.3)


class nnUNetTrainerRMR_untilNovember2026(nnUNetTrainerRMR):
    """With the defaults that RMR had in all comparisons until 2026-11-26."""

    settings = replace(nnUNetTrainerRMR.settings, intensity_norm="l1", intensity_weight=0.5, p_clean=0.35,
                       front_clip=None)


class nnUNetTrainerRMR_16features(nnUNetTrainerRMR):
    settings = replace(nnUNetTrainerRMR.settings, features=16)


BASES = (nnUNetTrainer, nnUNetTrainerDA5, ablations.nnUNetTrainer_RMRDegradations, nnUNetTrainerRMR,
         nnUNetTrainerRMR_paper, ablations.nnUNetTrainerRMR_noFusionLoss, ablations.nnUNetTrainerRMR_noSegmentationLoss,
         ablations.nnUNetTrainerRMR_noRefinement, ablations.nnUNetTrainerRMR_noDegradations,
         ablations.nnUNetTrainerRMR_frozenAutoencoder, ablations.nnUNetTrainerRMR_oneStage,
         nnUNetTrainer_RMRDegradations_biasField, nnUNetTrainerRMR_biasField, nnUNetTrainerRMR_allModalities,
         nnUNetTrainerRMR_saliency, nnUNetTrainerRMR_uncertainty, nnUNetTrainerRMR_lightFusion,
         nnUNetTrainerRMR_modalityDropout, nnUNetTrainerRMR_untilNovember2026, nnUNetTrainerRMR_16features)


def of_features(weight: torch.Tensor, features: int, reference: int) -> torch.Tensor:
    """A convolution's weight for inputs (B, modalities, ...) -> one for (B, features, ...) that start as modalities."""
    modalities = weight.shape[1]
    shown = [modality_of_feature(i, modalities, reference) for i in range(features)]
    count = torch.tensor([shown.count(modality) for modality in shown]).reshape(1, -1, *[1] * (weight.ndim - 2))
    return weight[:, shown] / count


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
            of_rmr = isinstance(self, nnUNetTrainerRMR)
            segmentation = self.rmrnet.segmentation if of_rmr else self.network
            seed_everything(seed_from_environment())
            planned = self.configuration_manager
            start = get_network_from_plans(
                planned.network_arch_class_name, planned.network_arch_init_kwargs,
                planned.network_arch_init_kwargs_req_import, len(planned.normalization_schemes),
                self.label_manager.num_segmentation_heads, deep_supervision=self.enable_deep_supervision).state_dict()
            own = segmentation.state_dict()
            for name, value in own.items():
                if start[name].shape == value.shape:
                    own[name] = start[name]
                elif of_rmr and self.settings.starts_as_modalities:
                    own[name] = of_features(start[name], value.shape[1], self.reference)
            segmentation.load_state_dict(own)

        if not issubclass(base, nnUNetTrainerRMR):
            def get_training_transforms(self, *args, **kwargs):
                transforms = super().get_training_transforms(*args, **kwargs)
                transforms.transforms.append(SeedNextSample(seed_from_environment(), 0, 0))
                return transforms

    Short.__name__ = Short.__qualname__ = f"{base.__name__}_short"
    return Short


for _base in BASES:
    globals()[f"{_base.__name__}_short"] = short(_base)
