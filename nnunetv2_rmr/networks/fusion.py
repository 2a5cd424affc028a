"""Fusion module: the features of all modalities -> the shared features that both tasks use."""

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from torch import nn

from nnunetv2_rmr.networks.blocks import ConvPReLU


class DenseFusion(nn.Module):
    """Dense block on the concatenated features of all modalities (RMR, AAAI 2024).

    `layers` convolutions of `growth` filters, each of which sees the input and everything before it, and a last
    convolution to `out_channels`. The published module has growth 16 and 5 layers and its last convolution sees only
    the fifth; with `collect` the last one is 1x1(x1) and sees all of them, which lets few and narrow layers do.

    Input (B, in_channels, *spatial), output (B, out_channels, *spatial).
    """

    def __init__(self, dim: int, in_channels: int, out_channels: int = 16, growth: int = 8, layers: int = 3,
                 collect: bool = True, convolutions: str = "near_identity"):
        super().__init__()
        conv_op = convert_dim_to_conv_op(dim)
        self.collect = collect
        self.layers = nn.ModuleList(ConvPReLU(conv_op, in_channels + i * growth, growth, convolutions)
                                    for i in range(layers))
        if collect:
            self.last = nn.Sequential(conv_op(in_channels + layers * growth, out_channels, kernel_size=1),
                                      nn.PReLU(init=1) if convolutions == "near_identity" else nn.PReLU(out_channels))
        else:
            self.last = ConvPReLU(conv_op, growth, out_channels, convolutions)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            new = layer(x)
            x = torch.cat((x, new), dim=1)
        return self.last(x if self.collect else new)
