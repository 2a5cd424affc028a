"""The published encoder of one modality: convolutions around Swin transformer blocks at half resolution."""

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op, get_matching_convtransp
from torch import nn

from nnunetv2_rmr.published.window_attention import WindowAttention

CHANNELS, HEADS, WINDOW = 48, 6, 7
STAGES, BLOCKS_PER_STAGE = 2, 3


class ConvPReLU(nn.Sequential):
    """3x3(x3) convolution and PReLU, size kept: (B, in_channels, *spatial) -> (B, out_channels, *spatial)."""

    def __init__(self, conv_op: type[nn.Module], in_channels: int, out_channels: int):
        super().__init__(conv_op(in_channels, out_channels, kernel_size=3, padding=1), nn.PReLU(out_channels))


class SwinBlock(nn.Module):
    """Window attention and a two-layer perceptron (4 x channels), each on normalised input and added to it.

    Input and output (B, *spatial, channels).
    """

    def __init__(self, dim: int, channels: int, heads: int, window: int, shift: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(dim, channels, heads, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        for linear in (self.mlp[0], self.mlp[2]):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SwinEncoder(nn.Module):
    """Encoder of RMR as published (Zhang et al., AAAI 2024), in 2D and 3D and for patches of any size.

    Convolutions 1 -> 24 -> 48; embedding of 2x2(x2) patches; two stages of three Swin blocks (48 channels, 6 heads,
    window 7, the second of each stage shifted by 3) without down-sampling, layer normalisation without parameters;
    transposed convolution back to full resolution, added to the first convolutions' output; convolutions
    48 -> 24 -> features. No dropout, as published.

    In 3D with 16 features 359 thousand parameters. Multiply-adds per voxel: 73 thousand in the convolutions, 5 thousand
    in embedding and up-sampling, and an eighth (there are as many tokens) of six blocks of 28 thousand in linear layers
    and 33 thousand in attention: 123 thousand, where half the patch is a multiple of 7 along every axis. Elsewhere
    some windows are smaller: 118 thousand in patches of 32 x 64 x 64.

    Input (B, 1, *spatial), output (B, features, *spatial).
    """

    def __init__(self, dim: int, features: int = 16):
        super().__init__()
        conv_op = convert_dim_to_conv_op(dim)
        half = CHANNELS // 2
        self.first = nn.Sequential(ConvPReLU(conv_op, 1, half), ConvPReLU(conv_op, half, CHANNELS))
        self.embed = conv_op(CHANNELS, CHANNELS, kernel_size=2, stride=2)
        self.blocks = nn.Sequential(*(
            SwinBlock(dim, CHANNELS, HEADS, WINDOW, shift=WINDOW // 2 if i % 2 == 1 else 0)
            for _ in range(STAGES) for i in range(BLOCKS_PER_STAGE)))
        self.upsample = get_matching_convtransp(conv_op)(CHANNELS, CHANNELS, kernel_size=2, stride=2, bias=False)
        self.last = nn.Sequential(ConvPReLU(conv_op, CHANNELS, half), ConvPReLU(conv_op, half, features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        sizes = first.shape[2:]
        tokens = first
        if any(n % 2 for n in sizes):
            tokens = F.pad(tokens, [p for n in reversed(sizes) for p in (0, n % 2)])
        tokens = self.blocks(self.embed(tokens).movedim(1, -1))
        tokens = F.layer_norm(tokens, tokens.shape[-1:])
        up = self.upsample(tokens.movedim(-1, 1))
        for axis, n in enumerate(sizes, start=2):
            up = up.narrow(axis, 0, n)
        return self.last(first + up)
