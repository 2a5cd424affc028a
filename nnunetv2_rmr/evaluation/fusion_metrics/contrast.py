"""How much contrast the fused image has: SD, SF, AG. All of them reward noise."""

import numpy as np


def contrast_scores(fused: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """SD, SF and AG in units of the intensity (0..1), per voxel step. fused, mask: any number of dimensions.

    SD: standard deviation. SF (Eskicioglu & Fisher 1995): root of the sum over axes of the mean squared difference
    between neighbours that are both inside the mask. AG: mean over voxels of the root of the mean over axes of the
    squared difference to the next neighbour, all neighbours inside. NaN where no such neighbours exist.
    """
    with_all_neighbours = mask.copy()
    per_axis, squares = [], np.zeros(fused.shape, fused.dtype)
    for axis in range(fused.ndim):
        here, there = _without(fused.ndim, axis, -1), _without(fused.ndim, axis, 0)
        both = mask[here] & mask[there]
        square = (fused[there] - fused[here]) ** 2
        per_axis.append(_mean(square[both]))
        squares[here] += square
        with_all_neighbours[here] &= mask[there]
        with_all_neighbours[_only(fused.ndim, axis, -1)] = False
    return {
        "SD": float(fused[mask].std(dtype=np.float64)),
        "SF": float(np.sqrt(sum(per_axis))),
        "AG": _mean(np.sqrt(squares[with_all_neighbours] / fused.ndim)),
    }


def _without(ndim: int, axis: int, end: int) -> tuple[slice, ...]:
    """Everything but the first (end 0) or last (end -1) voxel along the axis."""
    return tuple((slice(1, None) if end == 0 else slice(-1)) if a == axis else slice(None) for a in range(ndim))


def _only(ndim: int, axis: int, index: int) -> tuple:
    return tuple(index if a == axis else slice(None) for a in range(ndim))


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")
