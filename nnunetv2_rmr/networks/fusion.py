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
        # A convolution of concatenated channels is the sum of one for each part. So nothing is concatenated, which
        # would be copied and kept for the backward pass again and again, and all layers see a part in one convolution.
        convs, activations = [layer[0] for layer in self.layers], [layer[1] for layer in self.layers]
        growth, start = convs[0].out_channels, x.shape[1]
        sums = self._convolve(x, [c.weight[:, :start] for c in convs], torch.cat([c.bias for c in convs]), padding=1)
        last = self._convolve(x, [self.last[0].weight[:, :start]], self.last[0].bias) if self.collect else None
        for i, activation in enumerate(activations):
            new = activation(sums[:, :growth])
            part = slice(start + i * growth, start + (i + 1) * growth)
            if i + 1 < len(convs):
                sums = sums[:, growth:] + self._convolve(new, [c.weight[:, part] for c in convs[i + 1:]], padding=1)
            if self.collect:
                last = last + self._convolve(new, [self.last[0].weight[:, part]])
        return self.last[1](last) if self.collect else self.last(new)

    def _convolve(self, x: torch.Tensor, weights: list[torch.Tensor], bias: torch.Tensor | None = None,
                  padding: int = 0) -> torch.Tensor:
        convolve = torch.nn.functional.conv3d if x.ndim == 5 else torch.nn.functional.conv2d
        return convolve(x, torch.cat(weights), bias, padding=padding)
