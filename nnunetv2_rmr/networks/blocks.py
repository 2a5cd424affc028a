"""The one building block that encoders, fusion module and fusion decoder share."""

from torch import nn


class ConvPReLU(nn.Sequential):
    """3x3(x3) convolution and PReLU, size kept: (B, in_channels, *spatial) -> (B, out_channels, *spatial).

    He initialisation for PReLU's initial slope of .25, so that activations keep their scale through the
    normalisation-free part of the network.
    """

    def __init__(self, conv_op: type[nn.Module], in_channels: int, out_channels: int):
        conv = conv_op(in_channels, out_channels, kernel_size=3, padding=1)
        nn.init.kaiming_normal_(conv.weight, a=0.25)
        nn.init.zeros_(conv.bias)
        super().__init__(conv, nn.PReLU())
