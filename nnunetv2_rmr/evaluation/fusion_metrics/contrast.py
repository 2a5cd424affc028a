"""How much contrast there is in the fused image (SD, SF, AG: all of them reward noise), and how much lesions have."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from nnunetv2_rmr.evaluation.fusion_metrics.intensities import bounding_box, mean_or_nan

LESION_CONTRAST = "lesion contrast"  # the metric, measured beside the others where lesions are labelled
RING_MM = (3.0, 6.0)  # outside of the lesion


def contrast_scores(fused: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """SD, SF and AG in units of the intensity (0..1), per voxel step. fused, mask: any number of dimensions.

    SD: standard deviation. SF (Eskicioglu & Fisher 1995): root of the sum over axes of the mean squared difference
    between neighbours that are both inside the mask. AG: mean over voxels of the root of the mean over axes of the
    squared difference to the next neighbour, all neighbours inside. NaN where no such neighbours exist.
    """
    with_all_neighbours = mask.copy()
    per_axis, squares = [], np.zeros(fused.shape, fused.dtype)
    for axis in range(fused.ndim):
        image, inside, total, counted = (np.moveaxis(array, axis, 0)
                                         for array in (fused, mask, squares, with_all_neighbours))
        square = (image[1:] - image[:-1]) ** 2
        per_axis.append(mean_or_nan(square[inside[1:] & inside[:-1]]))
        total[:-1] += square
        counted[:-1] &= inside[1:]
        counted[-1] = False
    return {
        "SD": float(fused[mask].std(dtype=np.float64)),
        "SF": float(np.sqrt(sum(per_axis))),
        "AG": mean_or_nan(np.sqrt(squares[with_all_neighbours] / fused.ndim)),
    }


class LesionContrast:
    """Contrast of the regions of one case, for any number of images on its grid.

    regions: name -> boolean (D, H, W) or (H, W). body: boolean. spacing: mm per axis. Regions without a voxel in the
    body, or without a voxel of the body in their ring, are left out.
    """

    def __init__(self, regions: Mapping[str, np.ndarray], body: np.ndarray, spacing: Sequence[float]):
        self._healthy = body & ~np.logical_or.reduce(list(regions.values())) if regions else body
        self._regions = {}
        for name, region in regions.items():
            inside = region & body
            ring = _ring(region, spacing) & body if inside.any() else inside
            if ring.any():
                self._regions[name] = inside, ring

    def __call__(self, image: np.ndarray) -> dict[str, float]:
        """Region -> (mean inside - mean in the ring of 3 to 6 mm outside) / standard deviation in the body outside of
        all regions; signed: above 0 for a bright lesion. NaN if there is no contrast in the body.
        """
        deviation = float(image[self._healthy].std(dtype=np.float64)) if self._healthy.any() else 0.0
        return {name: float(image[inside].mean(dtype=np.float64) - image[ring].mean(dtype=np.float64)) / deviation
                if deviation > 0 else float("nan") for name, (inside, ring) in self._regions.items()}


def relative_contrast(fused: Mapping[str, float], sources: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Region -> contrast in the fused image / in the source that shows the region best, by magnitude.

    1: as well as the best source; below 0: dark where that source is bright, or the reverse. NaN where no source has
    any contrast.
    """
    relative = {}
    for name, value in fused.items():
        best = max((source[name] for source in sources), key=abs)
        relative[name] = value / best if best else float("nan")
    return relative


def _ring(region: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Voxels whose distance to the region (to the centre of its nearest voxel) is 3 to 6 mm."""
    margin = [int(np.ceil(RING_MM[1] / mm)) for mm in spacing]
    near = tuple(slice(max(0, along.start - m), along.stop + m) for along, m in zip(bounding_box(region), margin))
    distance = distance_transform_edt(~region[near], sampling=spacing)
    ring = np.zeros_like(region)
    ring[near] = (distance >= RING_MM[0]) & (distance <= RING_MM[1])
    return ring
