"""Encoders: full-resolution features of one modality each."""

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from torch import nn

from nnunetv2_rmr.networks.blocks import ConvPReLU
from nnunetv2_rmr.networks.swin_encoder import SwinEncoder


class ConvEncoder(nn.Module):
    """Lean convolutional encoder of one modality, without down-sampling and without normalisation.

    Two 3x3(x3) convolutions with PReLU. No normalisation layer, as in the published encoder: the features have to
    carry absolute intensities to the fusion decoder. About 2 thousand multiply-adds per voxel with 8 features.

    Input (B, 1, *spatial), output (B, features, *spatial).
    """

    def __init__(self, dim: int, features: int = 8, convolutions: str = "near_identity"):
        super().__init__()
        conv_op = convert_dim_to_conv_op(dim)
        self.layers = nn.Sequential(ConvPReLU(conv_op, 1, features, convolutions),
                                    ConvPReLU(conv_op, features, features, convolutions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.layers
        x = first[0](x)
        if x.ndim == 5 and x.device.type == "cpu":
            # there narrow convolutions are up to twice as fast with the channels last, and all that follow keep it so
            x = x.contiguous(memory_format=torch.channels_last_3d)
        return second(first[1](x))


# name in the settings -> class(dim, features, convolutions)
ENCODERS: dict[str, type[nn.Module]] = {"conv": ConvEncoder, "swin": SwinEncoder}
