"""Networks of a few thousand weights."""

import torch
from dynamic_network_architectures.architectures.primus import Primus
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunetv2_rmr.networks.rmrnet import RMRNet

M, CLASSES = 3, 2


def unet(dim: int = 3, cls: type = PlainConvUNet, deep_supervision: bool = False, channels: int = M) -> nn.Module:
    torch.manual_seed(0)
    convs = "n_conv_per_stage" if cls is PlainConvUNet else "n_blocks_per_stage"
    return cls(channels, 3, [4, 6, 8], (nn.Conv2d, nn.Conv3d)[dim - 2], [[3] * dim] * 3,
               [[1] * dim, [2] * dim, [2] * dim], num_classes=CLASSES, n_conv_per_stage_decoder=[1, 1], conv_bias=True,
               norm_op=(nn.InstanceNorm2d, nn.InstanceNorm3d)[dim - 2], norm_op_kwargs={"affine": True},
               nonlin=nn.LeakyReLU, deep_supervision=deep_supervision, **{convs: [1, 1, 1]})


def primus() -> nn.Module:
    return Primus(M, 48, (8, 8, 8), CLASSES, eva_depth=1, eva_numheads=2, input_shape=(16, 16, 16))


def rmrnet(dim: int = 3, extra: int = 0, **options) -> RMRNet:
    return RMRNet(unet(dim, channels=M + extra, **options), M, M + extra, (16,) * dim)


def teach(network: RMRNet) -> RMRNet:
    """Weights for the head's last layer, which starts at zero."""
    torch.manual_seed(1)
    for parameter in network.image_decoder.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network
