"""What prediction, panels and validation have to know of a network that gives images besides logits."""

import torch
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel


class FusingNetwork(nn.Module):
    """Base of a network of M modalities, `num_modalities`.

    `forward(x)`, x (B, M and extra channels, *spatial), gives the logits; `forward(x, images=True)` logits and images,
    float32: either all modalities restored, (B, M, *spatial), or the fused image itself, (B, 1, *spatial), as
    `num_images` says. Both in normalised intensities (z-scores).
    """

    num_modalities: int
    num_images: int
    segmentation: nn.Module

    @property
    def decoder(self) -> nn.Module:
        """nnU-Net switches deep supervision at `network.decoder`, also if there is none."""
        return getattr(self.segmentation, "decoder", self.segmentation)

    def forward(self, x: torch.Tensor, images: bool = False):
        raise NotImplementedError


def unwrapped(network: nn.Module) -> nn.Module:
    """The network without the wrappers of DDP and torch.compile."""
    network = network.module if isinstance(network, DistributedDataParallel) else network
    return network._orig_mod if isinstance(network, OptimizedModule) else network
