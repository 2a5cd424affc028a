"""The published encoder of one modality: convolutions around Swin transformer blocks at half resolution."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op, get_matching_convtransp
from torch import nn

CHANNELS, HEADS, WINDOW = 48, 6, 7
STAGES, BLOCKS_PER_STAGE = 2, 3
# With a bias that is trained, every call keeps (windows, heads, n, n) values for a moment in its backward pass, with
# 128 windows of 343 voxels 180 MB in float16. All windows of a 128^3 patch would take 2 GB.
WINDOWS_AT_A_TIME = 128


class ConvPReLU(nn.Sequential):
    """3x3(x3) convolution and PReLU, size kept: (B, in_channels, *spatial) -> (B, out_channels, *spatial)."""

    def __init__(self, conv_op: type[nn.Module], in_channels: int, out_channels: int):
        super().__init__(conv_op(in_channels, out_channels, kernel_size=3, padding=1), nn.PReLU(out_channels))


def windows_along(size: int, window: int, shift: int) -> list[tuple[int, int]]:
    """The windows side by side along an axis, those of one length counted together: (how many, voxels of each).

    Whole ones begin at voxel `shift`, or at 0 if one is as long as the axis; before and behind them is what is left.
    """
    before = shift if size > window else 0
    whole, behind = divmod(size - before, window)
    return [(number, length) for number, length in ((1, before), (whole, window), (1, behind)) if number * length]


class WindowAttention(nn.Module):
    """Multi-head self-attention in (shifted) windows of a 2D or 3D image, with a learned bias per head and relative
    position (Swin transformer, Liu et al. 2021, arXiv:2103.14030).

    Windows at the border are as large as what is left there, and have the biases of their positions. That is what Swin
    transformers compute that pad the image, roll it and mask what the seam has brought together, without the three.

    Input and output (B, *spatial, channels).
    """

    def __init__(self, dim: int, channels: int, heads: int, window: int, shift: int):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(channels, 3 * channels)
        self.position_bias = nn.Parameter(torch.empty(heads, (2 * window - 1) ** dim))
        self.proj = nn.Linear(channels, channels)
        for linear in (self.qkv, self.proj):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        nn.init.trunc_normal_(self.position_bias, std=0.02)

    def bias(self, window: Sequence[int]) -> torch.Tensor:
        """(heads, N, N) for the N voxels of a window that is at most `self.window` long along every axis."""
        index = torch.zeros(1, 1, dtype=torch.long, device=self.position_bias.device)
        for w in window:
            position = torch.arange(w, device=index.device)
            relative = position[:, None] - position + self.window - 1
            index = index[:, None, :, None] * (2 * self.window - 1) + relative[:, None, :]
            index = index.flatten(2).flatten(0, 1)
        return self.position_bias[:, index]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(self._attend(self.qkv(x), []))

    def _attend(self, qkv: torch.Tensor, kinds: list[tuple[int, int]]) -> torch.Tensor:
        """(B, *spatial, 3 C) -> (B, *spatial, C), split axis by axis until all windows have one size.

        kinds: of the axes that are split already, number and edge of the windows.
        """
        dim, axis = qkv.ndim - 2, len(kinds) + 1
        if axis <= dim:
            along = windows_along(qkv.shape[axis], self.window, self.shift)
            parts = qkv.split([number * edge for number, edge in along], dim=axis)
            return torch.cat([self._attend(part, [*kinds, kind]) for part, kind in zip(parts, along)], dim=axis)
        numbers, edges = [number for number, _ in kinds], [edge for _, edge in kinds]
        split = qkv.reshape(len(qkv), *(n for kind in kinds for n in kind), 3, self.heads, -1)
        order = [2 * dim + 1, 0, *range(1, 2 * dim, 2), 2 * dim + 2, *range(2, 2 * dim + 1, 2), 2 * dim + 3]
        windows = split.permute(order).reshape(3, len(qkv) * math.prod(numbers), self.heads, math.prod(edges), -1)
        bias = self.bias(edges).to(qkv.dtype)[None]
        out = torch.cat([F.scaled_dot_product_attention(*part, attn_mask=bias)
                         for part in windows.split(WINDOWS_AT_A_TIME, dim=1)])
        order = [0, *(axis for i in range(dim) for axis in (1 + i, dim + 2 + i)), dim + 1, 2 * dim + 2]
        return out.reshape(len(qkv), *numbers, self.heads, *edges, -1).permute(order).reshape(*qkv.shape[:-1], -1)


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
    and at most 33 thousand in attention, fewer where windows are smaller: 118 thousand in patches of 32 x 64 x 64.

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
        tokens = F.pad(first, [p for n in reversed(sizes) for p in (0, n % 2)])
        tokens = self.blocks(self.embed(tokens).movedim(1, -1))
        tokens = F.layer_norm(tokens, tokens.shape[-1:])
        up = self.upsample(tokens.movedim(-1, 1))
        for axis, n in enumerate(sizes, start=2):
            up = up.narrow(axis, 0, n)
        return self.last(first + up)
