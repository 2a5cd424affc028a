"""Attention inside (shifted) windows of a 2D or 3D image (Swin transformer, Liu et al. 2021, arXiv:2103.14030)."""

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import nn

# With a bias that is trained, every call keeps (windows, heads, n, n) values for a moment in its backward pass, with
# 128 windows of 343 voxels 180 MB in float16. All windows of a 128^3 patch would take 2 GB.
WINDOWS_AT_A_TIME = 128


def _kept(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Remembers the constant tensors that `make` returns: each would be a transfer to the GPU, which waits for it."""
    @lru_cache(maxsize=256)
    def made(*arguments):
        with torch.inference_mode(False):  # a training may use what a prediction has made
            return make(*arguments)

    @wraps(make)
    def remembered(*arguments):
        return make(*arguments) if torch.compiler.is_compiling() else made(*arguments)

    return remembered


def window_partition(x: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """(B, *spatial, C) -> (B, *counts, voxels of a window, C); every axis has to be a multiple of its window."""
    dim = len(window)
    counted = [size for n, w in zip(x.shape[1:-1], window) for size in (n // w, w)]
    order = [0, *range(1, 2 * dim, 2), *range(2, 2 * dim + 1, 2), 2 * dim + 1]
    return x.reshape(x.shape[0], *counted, x.shape[-1]).permute(order).flatten(dim + 1, 2 * dim)


def window_reverse(windows: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """The inverse of `window_partition`."""
    dim = len(window)
    spatial = [count * w for count, w in zip(windows.shape[1:dim + 1], window)]
    order = [0, *(axis for i in range(dim) for axis in (1 + i, 1 + dim + i)), 2 * dim + 1]
    x = windows.unflatten(dim + 1, tuple(window)).permute(order)
    return x.reshape(windows.shape[0], *spatial, windows.shape[-1])


def axis_regions(size: int, window: int, shift: int) -> list[list[int]]:
    """Which voxels along one axis may see each other, per window of the padded and cyclically shifted axis.

    An axis of `size` voxels is padded to a multiple of the window and rolled by -shift. Voxels with the same number
    belong together; -1 is padding. The last window of a shifted axis holds the image's end and, from beyond the seam,
    its beginning: two regions.
    """
    padded = -(-size // window) * window
    voxels = [(position + shift) % padded for position in range(padded)]
    regions = [(voxel + window - shift) // window if voxel < size else -1 for voxel in voxels]
    return [regions[start:start + window] for start in range(0, padded, window)]


def _runs(size: int, window: int, shift: int) -> list[tuple[int, list[int]]]:
    """`axis_regions`, numbered from 0 in each window, with neighbouring windows of one pattern counted together:
    (how many, pattern)."""
    patterns = []
    for regions in axis_regions(size, window, shift):
        found = sorted(set(regions) - {-1})
        patterns.append([-1 if r == -1 else found.index(r) for r in regions])
    return [(len(list(group)), pattern) for pattern, group in groupby(patterns)]


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows with a learned bias per head and relative position.

    A window longer than the image shrinks to it (its positions keep their biases) and is not shifted along that axis.
    Padding is never seen: images of any size give what each window's true voxels say.

    Windows at the seam of an axis need a mask and those at its end lack voxels (padding, which costs nothing); the
    others need neither. Masks and biases of all windows in one tensor would take windows x heads x 343 x 343 values,
    gigabytes at 128^3; so the windows of one kind go together, one to three kinds per axis, and not too many at a time.

    Input and output (B, *spatial, channels).
    """

    def __init__(self, dim: int, channels: int, heads: int, window: int, shift: int):
        super().__init__()
        if channels % heads != 0:
            raise ValueError(f"channels must be a multiple of heads, got {channels} and {heads}")
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
        sizes, axes = x.shape[1:-1], list(range(1, x.ndim - 1))
        window = [min(self.window, n) for n in sizes]
        shift = [self.shift if n > self.window else 0 for n in sizes]
        runs = [_runs(n, w, s) for n, w, s in zip(sizes, window, shift)]
        # padded behind the linear layer, which would otherwise work on padding, too
        qkv = self.qkv(x)
        padding = [-n % w for n, w in zip(sizes, window)]
        if any(padding):
            qkv = F.pad(qkv, [0, 0, *(p for amount in reversed(padding) for p in (0, amount))])
        if any(shift):
            qkv = torch.roll(qkv, [-s for s in shift], axes)
        windows = window_partition(qkv, window)
        out = window_reverse(self._attend(windows, runs, self.bias(window).to(qkv.dtype), []), window)
        if any(shift):
            out = torch.roll(out, shift, axes)
        for axis, n in zip(axes, sizes):
            out = out.narrow(axis, 0, n)
        return self.proj(out)

    def _attend(self, windows: torch.Tensor, runs: list, bias: torch.Tensor, patterns: list) -> torch.Tensor:
        """(B, *counts, N, 3 C) -> (B, *counts, N, C), split axis by axis until all windows have the same patterns."""
        axis = len(patterns) + 1
        if axis <= len(runs):
            parts = windows.split([count for count, _ in runs[axis - 1]], dim=axis)
            return torch.cat([self._attend(part, runs, bias, [*patterns, pattern])
                              for part, (_, pattern) in zip(parts, runs[axis - 1])], dim=axis)
        inside = _inside(patterns)
        if padded := len(inside) < windows.shape[-2]:
            whole, inside = windows, _index(tuple(inside), windows.device)
            windows, bias = windows.index_select(-2, inside), bias.index_select(1, inside).index_select(2, inside)
        if any(len(set(pattern) - {-1}) > 1 for pattern in patterns):
            bias = bias.masked_fill(_apart(tuple(map(tuple, patterns)), bias.device), -torch.inf)
        flat = windows.flatten(0, -3).unflatten(-1, (3, self.heads, -1))
        query, key, value = flat.permute(2, 0, 3, 1, 4).unbind(0)
        parts = zip(*(x.split(WINDOWS_AT_A_TIME) for x in (query, key, value)))
        out = torch.cat([F.scaled_dot_product_attention(*part, attn_mask=bias[None]) for part in parts])
        out = out.transpose(1, 2).flatten(2).unflatten(0, windows.shape[:-2])
        return out.new_zeros(*whole.shape[:-1], out.shape[-1]).index_copy(-2, inside, out) if padded else out


def _inside(patterns: list[list[int]]) -> list[int]:
    """Numbers of a window's voxels that are not padding."""
    found = [0]
    for pattern in patterns:
        found = [i * len(pattern) + j for i in found for j, region in enumerate(pattern) if region >= 0]
    return found


@_kept
def _index(numbers: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(numbers, device=device)


@_kept
def _apart(patterns: tuple[tuple[int, ...], ...], device: torch.device) -> torch.Tensor:
    """(n, n), True where two of a window's n voxels that are not padding are in different regions along some axis."""
    together = torch.ones(1, 1, dtype=torch.bool, device=device)
    for pattern in patterns:
        regions = torch.tensor([r for r in pattern if r >= 0], device=device)
        same = regions[:, None] == regions
        together = (together[:, None, :, None] & same[:, None, :]).flatten(2).flatten(0, 1)
    return ~together
