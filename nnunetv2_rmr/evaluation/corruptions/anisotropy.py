"""An acquisition with thick slices."""

import numpy as np

from nnunetv2_rmr.evaluation.corruptions.base import Corruption, Spacing, on_body_signal, tissue_average


def slice_weights(size: int, spacing_mm: float, thickness_mm: float, offset: float) -> np.ndarray:
    """How much of each voxel lies in each slice, rows summing to one: (slices, size).

    Slices follow each other without gaps; their profile is a box. offset: 0 to 1, the part of the first slice that lies
    before the volume.
    """
    edges = np.arange(-offset * thickness_mm, size * spacing_mm, thickness_mm)[:, None]
    voxels = np.arange(size) * spacing_mm
    overlap = np.minimum(edges + thickness_mm, voxels + spacing_mm) - np.maximum(edges, voxels)
    overlap = np.clip(overlap, 0, None)
    overlap = overlap[overlap.sum(1) > 0]
    return overlap / overlap.sum(1, keepdims=True)


def interpolation_weights(size: int, spacing_mm: float, thickness_mm: float, offset: float, slices: int) -> np.ndarray:
    """Linear interpolation from slice centres to voxel centres, constant beyond the outer slices: (size, slices)."""
    position = ((np.arange(size) + 0.5) * spacing_mm + offset * thickness_mm) / thickness_mm - 0.5
    position = np.clip(position, 0, slices - 1)
    return np.clip(1 - np.abs(position[:, None] - np.arange(slices)), 0, None)


@on_body_signal
def thicken_slices(signal: np.ndarray, spacing: Spacing, thickness_mm: float, rng: np.random.Generator,
                   body: np.ndarray) -> np.ndarray:
    """Average over slices of thickness_mm and interpolate linearly back to the grid; axis and offset are drawn.

    The axis is one whose voxels are less than twice as long as the finest: along coarser ones the slices are thick
    already. Averages are over the body only. (TorchIO's RandomAnisotropy takes single voxels instead of averages, that
    is thin slices with gaps.)
    """
    axes = [axis for axis, size in enumerate(signal.shape) if size > 1]
    finest = min(spacing[axis] for axis in axes) if axes else 0
    axes = [axis for axis in axes if spacing[axis] < 2 * finest]
    drawn, offset = rng.random(2)
    if not axes:
        return signal
    axis = axes[int(drawn * len(axes))]
    size = signal.shape[axis]
    if thickness_mm <= spacing[axis]:
        return signal
    down = slice_weights(size, spacing[axis], thickness_mm, offset)
    there_and_back = interpolation_weights(size, spacing[axis], thickness_mm, offset, len(down)) @ down
    there_and_back = there_and_back.astype(np.float32)

    def average(image: np.ndarray) -> np.ndarray:
        return np.moveaxis(np.tensordot(there_and_back, image, (1, axis)), 0, axis)

    return tissue_average(average, signal, body)


ANISOTROPY = Corruption(
    name="anisotropy",
    description="an acquisition with thick slices, interpolated to the grid",
    seen=False,
    unit="slice thickness in mm",
    parameters=(3.0, 4.5, 6.0, 8.0, 10.0),
    apply=thicken_slices,
)
