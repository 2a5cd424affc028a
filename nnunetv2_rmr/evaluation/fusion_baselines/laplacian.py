"""Laplacian pyramid fusion: strongest detail of any source at every scale, average of what remains."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import correlate1d

from nnunetv2_rmr.evaluation.fusion_baselines.selection import strongest

LEVELS = 4  # of detail, fewer if the image gets shorter than the kernel along every axis
KERNEL = np.array((1, 4, 6, 4, 1)) / 16


def laplacian(sources: Sequence[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Burt & Adelson 1983 (doi:10.1109/TCOM.1983.1095851), their 5-tap kernel along each axis (2D or 3D)."""
    details: list[np.ndarray] = []
    remaining = list(sources)
    while len(details) < LEVELS and max(remaining[0].shape) >= len(KERNEL):
        reduced = [_reduce(image) for image in remaining]
        details.append(strongest([image - _expand(small, image.shape) for image, small in zip(remaining, reduced)]))
        remaining = reduced
    fused = np.mean(remaining, axis=0, dtype=np.float32)
    for detail in reversed(details):
        fused = _expand(fused, detail.shape) + detail
    return fused


def _reduce(image: np.ndarray) -> np.ndarray:
    """Smoothed, every second voxel."""
    for axis in range(image.ndim):
        image = correlate1d(image, KERNEL, axis, mode="mirror")
    return image[(slice(None, None, 2),) * image.ndim]


def _expand(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Twice the size, interpolated by the kernel; `shape` says whether the last voxel is one of the old ones."""
    for axis, length in enumerate(shape):
        spread = np.zeros((*image.shape[:axis], length, *image.shape[axis + 1:]), image.dtype)
        spread[tuple(slice(None, None, 2) if a == axis else slice(None) for a in range(image.ndim))] = image
        image = correlate1d(spread, 2 * KERNEL, axis, mode="mirror") if length > 1 else spread
    return image
