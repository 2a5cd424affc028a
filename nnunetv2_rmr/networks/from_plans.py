"""RMRNet as a network class that plans name, so that nnU-Net builds it without our trainer."""

from __future__ import annotations

import copy
import pydoc
from collections.abc import Sequence

import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunetv2_rmr.losses.coupled import fusion_terms, refinement_terms
from nnunetv2_rmr.networks.memory import kept_bytes
from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.settings import RMRSettings

# At the worst moment of a step there is more than what the backward pass has to keep: gradients of feature maps, and
# the allocator's gaps. Factors of what is kept, from 15 trainings on a GPU (benchmarks/README.md).
PEAK_OF_SEGMENTATION = 1.3
PEAK_OF_FRONT = 1.6


def rmr_architecture(architecture: dict, num_modalities: int, dim: int, front: dict) -> dict:
    """The "architecture" of a configuration in RMR plans, from that of its segmentation network.

    The segmentation network is nested with its own class name, keyword arguments and imports. Its strides are repeated
    outside, where nnU-Net looks for the scales of deep supervision. front: RMRNet's keyword arguments.
    """
    return {
        "network_class_name": f"{RMRNetFromPlans.__module__}.{RMRNetFromPlans.__name__}",
        "arch_kwargs": {"num_modalities": num_modalities, "dim": dim, "front": front, "segmentation": architecture,
                        "strides": architecture["arch_kwargs"]["strides"]},
        "_kw_requires_import": [],
    }


def names_rmrnet(network_class_name: str) -> bool:
    """Whether a configuration's network class is RMRNetFromPlans (or derived from it), so it needs no wrapping."""
    network_class = pydoc.locate(network_class_name)
    return isinstance(network_class, type) and issubclass(network_class, RMRNetFromPlans)


class RMRNetFromPlans(RMRNet):
    """RMRNet from the arguments that nnU-Net's get_network_from_plans passes.

    input_channels: M + extra channels of a cascade. num_modalities: M. dim: 2 or 3, number of spatial axes.
    front: RMRNet's keyword arguments (features, fusion_growth ...). segmentation: "architecture" of the segmentation
    network, as in nnU-Net's plans. strides: the same as the segmentation network's; nnU-Net reads them from the plans.
    deep_supervision: for the segmentation network; None leaves its default.

    Raises ValueError for fewer than two modalities, fewer input channels than modalities, or different strides.
    """

    def __init__(self, input_channels: int, num_classes: int, num_modalities: int, dim: int, front: dict,
                 segmentation: dict, strides: Sequence, deep_supervision: bool | None = None):
        if input_channels < num_modalities:
            raise ValueError(f"the plans' network has num_modalities={num_modalities}, the data only {input_channels} "
                             "input channel(s)")
        kwargs = segmentation["arch_kwargs"]
        if "strides" in kwargs and np.asarray(strides).tolist() != np.asarray(kwargs["strides"]).tolist():
            raise ValueError(f"the plans' architecture holds two different strides: {strides} beside the segmentation "
                             f"network and {kwargs['strides']} in it")
        channels = front.get("features", RMRSettings().features) + input_channels - num_modalities
        network = get_network_from_plans(segmentation["network_class_name"], kwargs,
                                         segmentation["_kw_requires_import"], channels, num_classes, allow_init=False,
                                         deep_supervision=deep_supervision)
        super().__init__(network, num_modalities, dim, **front)
        self.segmentation_channels = channels
        # nnU-Net's own trainers ask for the segmentation alone, and their DDP would wait for gradients that never come.
        # nnUNetTrainerRMR trains these parts and says so itself.
        for head in (self.fusion_decoder, self.all_modalities_decoder):
            if head is not None:
                head.requires_grad_(False)

    @staticmethod
    def initialize(module: nn.Module) -> None:
        # nnU-Net applies this to every module: encoders, fusion and decoder have their own start, see ConvPReLU
        if isinstance(module, RMRNet) and hasattr(module.segmentation, "initialize"):
            module.segmentation.apply(module.segmentation.initialize)

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Bytes of GPU memory that every sample of a batch takes in training. input_size: patch size, without batch
        and channels.

        nnU-Net's planners ask a network for its feature maps by this name; its U-Nets count elements, which come to
        5 to 8 bytes, by the planner. RMR's planners, whose reference values are bytes, ask for stage 2, where training
        needs most: the segmentation network, and around it encoders of M modalities, fusion module with its
        concatenations, fusion decoder on the fused features and on those of every modality, all loss terms with their
        default settings, and the features of the clean pass, which runs without gradients. What these keep for the
        backward pass is found by running them on tensors without data, in float16 (losses in float32) as on a GPU.
        """
        return int(PEAK_OF_SEGMENTATION * self._segmentation_bytes(input_size)
                   + PEAK_OF_FRONT * self._front_bytes(input_size))

    def _segmentation_bytes(self, input_size: Sequence[int]) -> int:
        segmentation = copy.deepcopy(self.segmentation).to("meta").half().requires_grad_(True)
        x = torch.empty(1, self.segmentation_channels, *input_size, device="meta", dtype=torch.float16)

        def loss():
            outputs = segmentation(x)
            outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            return [output.float().softmax(1) for output in outputs]

        return kept_bytes(loss, list(segmentation.parameters()))

    def _front_bytes(self, input_size: Sequence[int]) -> int:
        settings = RMRSettings()
        front = copy.copy(self)  # shares all modules but the segmentation network
        front._modules = {**self._modules, "segmentation": None}
        front = copy.deepcopy(front).to("meta").half().requires_grad_(True)
        clean = torch.empty(1, self.num_modalities, *input_size, device="meta")
        with torch.no_grad():
            clean_features = front(clean.half(), outputs=("features",)).features

        def stage2():
            out = front(clean.half(), outputs=("features", "reconstructions", "fused"))
            return out, fusion_terms(out, clean, 0, settings), refinement_terms(out, clean, clean_features,
                                                                                      settings)

        return kept_bytes(stage2, list(front.parameters())) + clean_features.untyped_storage().nbytes()
