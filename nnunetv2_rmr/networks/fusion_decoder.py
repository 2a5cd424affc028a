"""Fusion decoder: features -> one image. Decodes the fused image and, in the autoencoder, every modality."""

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from torch import nn

from nnunetv2_rmr.networks.blocks import ConvPReLU


class FusionDecoder(nn.Module):
    """`layers` 3x3(x3) convolutions to `hidden` channels, then 1x1(x1) to one image (or several); linear output.

    The published decoder has hidden 8 and 4 layers. Input (B, in_channels, *spatial), output (B, images, *spatial) in
    the units of the network's input (normalised intensities, z-scores for MRI).
    """

    def __init__(self, dim: int, in_channels: int = 16, hidden: int = 8, layers: int = 1,
                 convolutions: str = "near_identity", images: int = 1):
        super().__init__()
        conv_op = convert_dim_to_conv_op(dim)
        self.layers = nn.Sequential(
            *(ConvPReLU(conv_op, in_channels if i == 0 else hidden, hidden, convolutions) for i in range(layers)),
            conv_op(hidden, images, kernel_size=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)
