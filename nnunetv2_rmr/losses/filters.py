"""Separable filters on 2D and 3D images."""

from collections.abc import Sequence
from functools import lru_cache

import torch

Kernels = Sequence[Sequence[float]]


@lru_cache(maxsize=64)
def _band(weights: tuple[float, ...], length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The correlation with an odd-length kernel along an axis of this length as a matrix (length, length)."""
    radius = len(weights) // 2
    band = torch.zeros(length, length, dtype=dtype)
    for position, weight in enumerate(weights):
        shift = position - radius
        if abs(shift) < length:
            band.diagonal(shift).fill_(weight)
    return band.to(device)


def _correlate(x: torch.Tensor, weights: tuple[float, ...], axis: int) -> torch.Tensor:
    """Correlation along one axis; zeros beyond the border, size kept.

    As a product with a band matrix: most of its multiplications are with zeros, but it reads and writes x once, while
    sums of shifted copies do so for every weight, and that is what takes the time.
    """
    band = _band(weights, x.shape[axis], x.dtype, x.device)
    if axis == x.ndim - 1:
        return x @ band.T
    return (band @ x.flatten(axis + 1)).reshape(x.shape)


class _SeparableFilter(torch.autograd.Function):
    """Its gradient is the same filter with reversed kernels, so nothing has to be kept for the backward pass."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        ctx.kernels = kernels
        first_spatial = x.ndim - len(kernels)
        for i, weights in enumerate(kernels):
            x = _correlate(x, weights, first_spatial + i)
        return x

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        if not ctx.needs_input_grad[0]:
            return None, None
        return _SeparableFilter.apply(grad, [tuple(reversed(w)) for w in ctx.kernels]), None


def separable_filter(x: torch.Tensor, kernels: Kernels) -> torch.Tensor:
    """Correlate the last len(kernels) axes of x with one odd-length kernel each; values beyond the border are zero.

    x: (..., *spatial). Returns the same shape. Border values see zeros: crop them where that matters.
    """
    for weights in kernels:
        if len(weights) % 2 == 0:
            raise ValueError(f"kernels must have odd lengths, got {len(weights)}")
    return _SeparableFilter.apply(x, [tuple(float(w) for w in weights) for weights in kernels])


def crop_border(x: torch.Tensor, margins: Sequence[int]) -> torch.Tensor:
    """Drop margins[i] voxels on both sides of the i-th of the last len(margins) axes."""
    for i, margin in enumerate(margins):
        axis = x.ndim - len(margins) + i
        x = x.narrow(axis, margin, x.shape[axis] - 2 * margin)
    return x


def sobel_magnitude(x: torch.Tensor) -> torch.Tensor:
    """Sum over axes of absolute Sobel responses, in intensity units per voxel (kernels normalised, border cropped).

    x: (B, C, *spatial), each axis at least 3 long. Returns (B, C, *(spatial - 2)).
    Definition: method.md / RMR's gradient loss, G = |S_z| + |S_y| + |S_x|.
    """
    dim = x.ndim - 2
    if min(x.shape[2:]) < 3:
        raise ValueError(f"the Sobel filter needs at least 3 voxels along every axis, got shape {tuple(x.shape)}")
    smooth, derivative = (0.25, 0.5, 0.25), (-0.5, 0.0, 0.5)
    total = 0
    for axis in range(dim):
        kernels = [derivative if i == axis else smooth for i in range(dim)]
        total = total + crop_border(separable_filter(x, kernels), [1] * dim).abs()
    return total
