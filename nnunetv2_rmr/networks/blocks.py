"""The one building block that encoders, fusion module and fusion decoder share."""

import torch
from torch import nn

CONVOLUTIONS = ("near_identity", "plain")


class ConvPReLU(nn.Sequential):
    """3x3(x3) convolution and PReLU, size kept: (B, in_channels, *spatial) -> (B, out_channels, *spatial).

    "near_identity": output channel i starts as input channel i modulo in_channels plus small noise, and the PReLU
    starts linear (slope 1, one for all channels, learned from there). So encoders and fusion module hand the z-scored
    modalities on from the first iteration, and the segmentation network behind them starts as quickly as on the raw
    images. With He-initialised rectifying layers it was stuck with empty segmentations much longer (see
    benchmarks/README.md).
    "plain", as published: PyTorch's initialisation and one slope per channel, from .25.
    """

    def __init__(self, conv_op: type[nn.Module], in_channels: int, out_channels: int,
                 convolutions: str = "near_identity"):
        if convolutions not in CONVOLUTIONS:
            raise ValueError(f"convolutions must be among {CONVOLUTIONS}, got {convolutions!r}")
        conv = conv_op(in_channels, out_channels, kernel_size=3, padding=1)
        if convolutions == "plain":
            super().__init__(conv, nn.PReLU(out_channels))
            return
        nn.init.kaiming_normal_(conv.weight, a=1)
        nn.init.zeros_(conv.bias)
        with torch.no_grad():
            conv.weight.mul_(0.3)
            centre = (1,) * len(conv.kernel_size)
            for i in range(out_channels):
                conv.weight[(i, i % in_channels, *centre)] += 1
        super().__init__(conv, nn.PReLU(init=1))
