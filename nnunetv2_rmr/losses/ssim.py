"""Structural similarity in 2D and 3D, differentiable, with a separable Gaussian window."""

import math
from collections.abc import Sequence

import torch

from nnunetv2_rmr.losses.filters import crop_border, separable_filter

SIGMA = 1.5  # voxels; Wang et al. 2004, as is the radius below (an 11-tap window)
RADIUS = 5


def _gaussian(radius: int) -> tuple[float, ...]:
    weights = [math.exp(-(i ** 2) / (2 * SIGMA ** 2)) for i in range(-radius, radius + 1)]
    return tuple(w / sum(weights) for w in weights)


def ssim(x: torch.Tensor, y: torch.Tensor, data_range: torch.Tensor | float) -> torch.Tensor:
    """Mean SSIM per image (see `ssim_map`). x, y: (B, C, *spatial). Returns (B, C)."""
    return ssim_map(x, y, data_range).flatten(2).mean(-1)


def ssim_radii(spatial: Sequence[int]) -> list[int]:
    """By how many voxels `ssim_map` is smaller than the images, at each end of each axis."""
    return [min(RADIUS, (n - 1) // 2) for n in spatial]


def ssim_map(x: torch.Tensor, y: torch.Tensor, data_range: torch.Tensor | float) -> torch.Tensor:
    """SSIM of every voxel, Wang et al. 2004: Gaussian window (sigma 1.5, 11 taps), K1 = .01, K2 = .03.

    x, y: (B, C, *spatial). data_range: L, a number or (B, C). Returns values of at most 1, (B, C, *smaller): only for
    voxels whose window lies inside the image; along axes shorter than 11 voxels the window is shortened to fit.
    """
    if x.shape != y.shape:
        raise ValueError(f"ssim needs images of one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    spatial = x.shape[2:]
    radii = ssim_radii(spatial)
    kernels = [_gaussian(r) for r in radii]
    # in two calls, so that nothing of y is differentiated if only x is a network's output
    mean_x, mean_xx, mean_xy = crop_border(separable_filter(torch.stack((x, x * x, x * y)), kernels), radii)
    mean_y, mean_yy = crop_border(separable_filter(torch.stack((y, y * y)), kernels), radii)
    var_x = mean_xx - mean_x * mean_x
    var_y = mean_yy - mean_y * mean_y
    cov = mean_xy - mean_x * mean_y
    span = torch.as_tensor(data_range, dtype=x.dtype, device=x.device)
    span = span.reshape(*span.shape, *[1] * len(spatial))
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return luminance * structure
