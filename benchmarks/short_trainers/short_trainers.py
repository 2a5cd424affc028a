"""Every trainer of the comparison as NAME_short: of the length in COMPARE_EPOCHS and COMPARE_ITERATIONS, and seeded.

Found by nnU-Net through nnUNet_extTrainer. For the same nnUNet_rmr_seed, with at most one data augmentation worker, all
trainers see the same places of the same cases, RMR and RMRDegradations bitwise the same patches, and start with the
same segmentation network (the published one's first convolution, which sees other channels, and the wider one aside):
in trainings this short much depends on the start.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_rmr.losses.restoration import RMRLoss
from nnunetv2_rmr.networks.planned import planned_network
from nnunetv2_rmr.networks.rmrnet import RMRNet, TrainingOutputs
from nnunetv2_rmr.published.nnUNetTrainerRMR_paper import nnUNetTrainerRMR_paper
from nnunetv2_rmr.training import fusion_only
from nnunetv2_rmr.training.degradations_only import nnUNetTrainer_RMRDegradations
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR
from nnunetv2_rmr.training.reproducible import SeedNextSample, seed_everything, seed_from_environment

WIDER = 1 / 64  # of the planned features, a step of the search


class nnUNetTrainerWide(nnUNetTrainer):
    """nnU-Net with more features in every stage: at least as many multiply-adds as RMR in training, and as few as that
    allows."""

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels: int,
                                   num_output_channels: int, enable_deep_supervision: bool = True):
        patch, planned = configuration_manager.patch_size, configuration_manager.network_arch_init_kwargs
        with torch.device("meta"):
            rmr = RMRNet(planned_network(configuration_manager, num_input_channels, num_output_channels, False),
                         len(configuration_manager.normalization_schemes), num_input_channels, patch)

        def build(factor: float, **options) -> torch.nn.Module:
            features = [round(n * factor) for n in planned["features_per_stage"]]
            return get_network_from_plans(
                configuration_manager.network_arch_class_name, planned | {"features_per_stage": features},
                configuration_manager.network_arch_init_kwargs_req_import, num_input_channels, num_output_channels,
                **options)

        def multiply_adds(network: torch.nn.Module, **options) -> int:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(torch.empty(1, num_input_channels, *patch, device="meta"), **options)
            return counter.get_total_flops() // 2

        factor, wanted = 1.0, multiply_adds(rmr, images=True)
        with torch.device("meta"):
            while multiply_adds(build(factor, allow_init=False, deep_supervision=False)) < wanted:
                factor += WIDER
        return build(factor, allow_init=True, deep_supervision=enable_deep_supervision)


class nnUNetTrainerRMR_modalityDropout(nnUNetTrainerRMR):
    settings = replace(nnUNetTrainerRMR.settings, modality_dropout=0.3)


class RestorationAlone(RMRLoss):
    def forward(self, outputs, target) -> torch.Tensor:
        if not isinstance(outputs, TrainingOutputs):
            return super().forward(outputs, target)
        several = isinstance(outputs.logits, (list, tuple))
        logits = [scale.detach() for scale in outputs.logits] if several else outputs.logits.detach()
        return super().forward(outputs._replace(logits=logits), target)


class nnUNetTrainerRMR_restorationOnly(nnUNetTrainerRMR):
    """The image task alone: the segmentation's loss is there, its gradient is not."""

    def _build_loss(self):
        loss = super()._build_loss()
        return RestorationAlone(loss.segmentation, loss.restoration_weight)


class nnUNetTrainerRMR_fusionOnly(fusion_only.nnUNetTrainerRMR_fusionOnly):
    """From nnU-Net's own model of the same fold and seed, which OUT has to have."""

    def on_train_start(self) -> None:
        vanilla = self.output_folder.replace(type(self).__name__, "nnUNetTrainer_short")
        load_pretrained_weights(self.network, os.path.join(vanilla, "checkpoint_final.pth"))
        super().on_train_start()


def few_labels(number: int, use_others: bool) -> type:
    """RMR with this many labelled cases of the fold, drawn once for each; with the others as scans without labels, or
    without them."""

    class FewLabels(nnUNetTrainerRMR):
        settings = replace(nnUNetTrainerRMR.settings, unlabelled_fraction=0.5 if use_others else 0.0)

        def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                     device: torch.device = torch.device("cuda")):
            splits = json.loads(Path(nnUNet_preprocessed, plans["dataset_name"], "splits_final.json").read_text())
            cases = splits[fold]["train"]
            self.labelled = sorted(np.random.default_rng([number, fold]).choice(cases, number, replace=False).tolist())
            self.others = sorted({*cases} - {*self.labelled})
            super().__init__(plans, configuration, fold, dataset_json, device)

        def find_unlabelled(self, plans: dict, configuration: str):
            identifier = PlansManager(plans).get_configuration(configuration).data_identifier
            folder = Path(nnUNet_preprocessed, plans["dataset_name"], identifier)
            return infer_dataset_class(str(folder))(str(folder), self.others)

        def do_split(self):
            return self.labelled, super().do_split()[1]

    FewLabels.__name__ = FewLabels.__qualname__ = f"nnUNetTrainerRMR_{number}labels{'_others' if use_others else ''}"
    return FewLabels


FEW = (4, 8, 16, 32)
BASES = (nnUNetTrainer, nnUNetTrainerDA5, nnUNetTrainerWide, nnUNetTrainer_RMRDegradations, nnUNetTrainerRMR,
         nnUNetTrainerRMR_modalityDropout, nnUNetTrainerRMR_restorationOnly,
         nnUNetTrainerRMR_fusionOnly, nnUNetTrainerRMR_paper,
         *(few_labels(number, use_others) for number in FEW for use_others in (False, True)))


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
            seed_everything(seed_from_environment())
            start = planned_network(self.configuration_manager, self.num_input_channels,
                                    self.label_manager.num_segmentation_heads, self.enable_deep_supervision)
            network = self.network.segmentation if isinstance(self, nnUNetTrainerRMR_paper) else self.network
            own = network.state_dict()
            network.load_state_dict(own | {name: value for name, value in start.state_dict().items()
                                           if own[name].shape == value.shape})

        def on_epoch_start(self):
            super().on_epoch_start()  # of RMR this seeds, too
            seed_everything(seed_from_environment(), self.current_epoch)  # the epoch's first sample

        if not issubclass(base, nnUNetTrainerRMR):  # which does this itself

            def get_training_transforms(self, *args, **kwargs):
                transforms = super().get_training_transforms(*args, **kwargs)
                samples_before = self.current_epoch * self.num_iterations_per_epoch * self.batch_size
                transforms.transforms.append(SeedNextSample(seed_from_environment(), 0, samples_before))
                return transforms

    Short.__name__ = Short.__qualname__ = f"{base.__name__}_short"
    return Short


for _base in BASES:
    globals()[f"{_base.__name__}_short"] = short(_base)
