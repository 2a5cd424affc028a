"""Loss of resolution: a wide point spread function, or an acquisition with thick slices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar, sample_scalar

MAX_VOXELS = 8  # a slice has at most: else a scan of a mouse would become a single slice


def axes_without_thick_slices(spacing: Sequence[float]) -> list[int]:
    """The axes whose spacing is less than twice the finest: along coarser ones the slices are thick already."""
    return [axis for axis, s in enumerate(spacing) if s < 2 * min(spacing)]


def gaussian_blur(image: torch.Tensor, sigma_mm: float | Sequence[float], spacing_mm: Sequence[float]) -> torch.Tensor:
    """Blur with a Gaussian point spread function given in mm, the same at every voxel and in every slice.

    Separable: per axis one product with the matrix G[i, j] ~ exp(-(x_i - x_j)^2 / 2 sigma^2), x in mm, every row of
    which sums to one. So voxels beyond the border count nothing, constants stay constant, and the cost does not depend
    on sigma. image: (..., D, H, W) or (..., H, W). sigma_mm: one for all axes or one per axis; 0 leaves an axis alone.
    """
    sigmas = [float(sigma_mm)] * len(spacing_mm) if np.isscalar(sigma_mm) else [float(s) for s in sigma_mm]
    blurred = image
    for axis, (sigma, spacing) in enumerate(zip(sigmas, spacing_mm, strict=True), start=image.ndim - len(spacing_mm)):
        if sigma == 0 or image.shape[axis] == 1:
            continue
        x = torch.arange(image.shape[axis], dtype=torch.float64) * float(spacing)
        kernel = torch.exp(-0.5 * ((x[:, None] - x) / sigma) ** 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).to(image)
        if axis == image.ndim - 1:
            blurred = blurred @ kernel.T
        else:
            blurred = (kernel @ blurred.flatten(axis + 1)).reshape(image.shape)
    return image.clone() if blurred is image else blurred


def draw_blur(shape: Sequence[int], spacing: Sequence[float], *, sigma: RandomScalar = (0.5, 2.0),
              thick_slice_sigma: RandomScalar = (1.0, 3.0), p_thick_slices: float = 0.5) -> dict[str, Any]:
    """Blur: with probability `p_thick_slices` along one random axis only (thick slices), else the same on every axis.

    Sigmas are factors of the data set's finest spacing, so that they suit a mouse scan as well as a man's. A slice
    profile of full width w has sigma w / 2.355: factors 1 to 3 are slices of 2.4 to 7 finest voxels.
    """
    finest = min(spacing)
    if np.random.uniform() < p_thick_slices:
        axis = np.random.choice(axes_without_thick_slices(spacing))
        sigma_mm = [0.0] * len(spacing)
        sigma_mm[axis] = float(sample_scalar(thick_slice_sigma)) * finest
    else:
        sigma_mm = [float(sample_scalar(sigma)) * finest] * len(spacing)
    return {"sigma_mm": tuple(sigma_mm), "spacing_mm": spacing}


def thick_slice_matrix(size: int, spacing_mm: float, thickness_mm: float, start: float) -> np.ndarray:
    """(size, size): what slices of thickness_mm, interpolated linearly back to the voxels, make of a line of voxels.

    Slices follow each other without gaps and have a box profile; each holds the mean of what it covers. Beyond the
    centres of the outer slices the image is constant. Every row sums to one. start: 0 to 1, the part of the first slice
    that lies before the image.
    """
    edges = np.arange(-start * thickness_mm, size * spacing_mm - 1e-6, thickness_mm)
    low = np.arange(size) * spacing_mm
    covered = np.minimum(edges[:, None] + thickness_mm, low + spacing_mm) - np.maximum(edges[:, None], low)
    covered = covered.clip(0)
    edges, covered = edges[covered.sum(1) > 0], covered[covered.sum(1) > 0]
    to_slices = covered / covered.sum(1, keepdims=True)
    position = (low + 0.5 * spacing_mm - edges[0]) / thickness_mm - 0.5  # in slices
    distance = position.clip(0, len(edges) - 1)[:, None] - np.arange(len(edges))
    return (1 - np.abs(distance)).clip(0) @ to_slices


def thicken_slices(image: torch.Tensor, axis: int, spacing_mm: float, thickness_mm: float,
                   start: float) -> torch.Tensor:
    """Average over slices of thickness_mm along one axis, whose voxels are spacing_mm wide, and interpolate back (see
    `thick_slice_matrix`); slices that are not thicker leave the image as it is.

    Voxels that are exactly 0 are background (see `artefacts.to_signal`): they stay so and count in no average.
    """
    if thickness_mm <= spacing_mm:
        return image.clone()
    matrix = torch.from_numpy(thick_slice_matrix(image.shape[axis], spacing_mm, thickness_mm, start)).to(image)

    def average(x: torch.Tensor) -> torch.Tensor:
        return torch.tensordot(matrix, x, ([1], [axis])).movedim(0, axis)

    body = image != 0
    if body.all():
        return average(image)
    weight = average(body.to(image.dtype))
    return torch.where(body, average(image) / torch.where(body, weight, 1), image)


def draw_thick_slices(shape: Sequence[int], spacing: Sequence[float], *,
                      thickness: RandomScalar = (3.0, 6.0)) -> dict[str, Any]:
    """Thick slices across a random axis: a sagittal, coronal or axial acquisition, or low in-plane resolution in 2D.

    thickness: in mm, the unit of the test-time anisotropy, whose severities 1 to 3 the default spans. At most 8 of the
    finest voxels.
    """
    axis = int(np.random.choice(axes_without_thick_slices(spacing)))
    return {"axis": axis, "spacing_mm": spacing[axis],
            "thickness_mm": min(float(sample_scalar(thickness)), MAX_VOXELS * min(spacing)),
            "start": float(np.random.uniform())}
