"""One linear intensity map per image and volume, what every metric starts from; and numbers of which some may be NaN.
"""

from collections.abc import Iterable

import numpy as np
from scipy.ndimage import find_objects

from nnunetv2_rmr.files.refused import BadCaseError

PERCENTILES = (0.1, 99.9)  # mapped to 0 and 1


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Smallest box that holds all voxels of the mask. Raises BadCaseError if there are none."""
    if not mask.any():
        raise BadCaseError("the mask is empty: there is no voxel to evaluate")
    return find_objects(mask.astype(np.uint8))[0]


def to_unit_range(image: np.ndarray, mask: np.ndarray, name: str = "image") -> np.ndarray:
    """The image's 0.1 and 99.9 percentile inside the mask become 0 and 1, values beyond are clipped.

    image: any unit; mask: boolean, same shape. Returns float32, 0 outside the mask. One map for the whole volume,
    never per slice. Raises BadCaseError, naming the image, if both percentiles are the same value.
    """
    low, high = np.percentile(image[mask], PERCENTILES)
    if not high > low:
        raise BadCaseError(f"{name}: the {PERCENTILES[0]} and the {PERCENTILES[1]} percentile inside the mask are both "
                           f"{low:g}: an image without contrast can not be evaluated")
    scaled = ((image - np.float32(low)) / np.float32(high - low)).astype(np.float32).clip(0, 1)
    scaled[~mask] = 0
    return scaled


def numbers(values: Iterable[float | None]) -> list[float]:
    """Those that are neither None nor NaN."""
    return [v for v in values if v is not None and not np.isnan(v)]


def smallest(values: Iterable[float | None]) -> float:
    """Of `numbers`; NaN if there are none."""
    return min(numbers(values), default=float("nan"))


def mean(values: Iterable[float | None]) -> float:
    """Of `numbers`; NaN if there are none."""
    return mean_or_nan(np.array(numbers(values)))


def mean_or_nan(values: np.ndarray) -> float:
    """In double precision; NaN of no values."""
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")
