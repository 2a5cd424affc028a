"""The one building block that encoders, fusion module and fusion decoder share."""

import torch
from torch import nn


class ConvPReLU(nn.Sequential):
    """3x3(x3) convolution and PReLU, size kept: (B, in_channels, *spatial) -> (B, out_channels, *spatial).

    It starts close to the identity: output channel i is input channel i modulo in_channels plus small noise, and the
    PReLU starts linear (slope 1, learned from there). So encoders and fusion module hand the z-scored modalities on
    from the first iteration, and the segmentation network behind them starts as quickly as on the raw images. With
    He-initialised rectifying layers it was stuck with empty segmentations much longer (see benchmarks/README.md).
    """

    def __init__(self, conv_op: type[nn.Module], in_channels: int, out_channels: int):
        conv = conv_op(in_channels, out_channels, kernel_size=3, padding=1)
        nn.init.kaiming_normal_(conv.weight, a=1)
        nn.init.zeros_(conv.bias)
        with torch.no_grad():
            conv.weight.mul_(0.3)
            centre = (1,) * len(conv.kernel_size)
            for i in range(out_channels):
                conv.weight[(i, i % in_channels, *centre)] += 1
        super().__init__(conv, nn.PReLU(init=1))
