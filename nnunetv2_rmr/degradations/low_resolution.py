"""An acquisition with fewer, thicker voxels along one axis, interpolated to the grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar, sample_scalar

from nnunetv2_rmr.degradations.base import Degradation

MAX_VOXELS = 8  # a slice has at most: else a scan of a mouse would become a single slice


def thick_slice_matrix(size: int, spacing_mm: float, thickness_mm: float, start: float) -> np.ndarray:
    """(size, size): what slices of thickness_mm, interpolated linearly back to the voxels, make of a line of voxels.

    Slices follow each other without gaps and have a box profile; each holds the mean of what it covers. Beyond the
    centres of the outer slices the image is constant. Every row sums to one.

    start: 0 to 1, the part of the first slice that lies before the image.
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


def thicken_slices(
    image: torch.Tensor, axis: int, spacing_mm: float, thickness_mm: float, start: float
) -> torch.Tensor:
    """Average over slices of thickness_mm along one axis and interpolate back.

    Voxels that are exactly 0 are background (see `to_signal`): they stay so and count in no average.

    Args:
        image: one modality, (D, H, W) or (H, W), normalised.
        axis: across the slices.
        spacing_mm: of the voxels along it; slices that are not thicker leave the image as it is.
        thickness_mm: of the slices.
        start: 0 to 1, see `thick_slice_matrix`.
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


class LowResolutionTransform(Degradation):
    """Thick slices across a random axis: a sagittal, coronal or axial acquisition, or low in-plane resolution in 2D.

    The axis is drawn among those whose spacing is less than twice the finest: along coarser ones the slices are thick
    already.

    Args:
        spacing: of the patches in mm, one per spatial axis.
        thickness: in mm; a pair (low, high) is drawn from uniformly, per modality. The same unit as the benchmark's,
            whose severities 1 to 3 the default spans. At most 8 of the finest voxels.
    """

    def __init__(self, spacing: Sequence[float], thickness: RandomScalar = (3.0, 6.0)) -> None:
        super().__init__()
        self.spacing = tuple(float(s) for s in spacing)
        self.thickness = thickness

    def draw(self, shape: tuple[int, ...]) -> dict[str, Any]:
        finest = min(self.spacing)
        axis = int(np.random.choice([i for i, s in enumerate(self.spacing) if s < 2 * finest]))
        return {
            "axis": axis,
            "spacing_mm": self.spacing[axis],
            "thickness_mm": min(float(sample_scalar(self.thickness)), MAX_VOXELS * finest),
            "start": float(np.random.uniform()),
        }

    @staticmethod
    def corrupt(image: torch.Tensor, **parameters: Any) -> torch.Tensor:
        return thicken_slices(image, **parameters)
