"""One linear intensity map per image and volume: what every metric starts from."""

import numpy as np

PERCENTILES = (0.1, 99.9)  # mapped to 0 and 1


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Smallest box that holds all voxels of the mask. Raises ValueError if there are none."""
    if not mask.any():
        raise ValueError("the mask is empty: there is no voxel to evaluate")
    box = []
    for axis in range(mask.ndim):
        (occupied,) = mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)).nonzero()
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)


def to_unit_range(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image's 0.1 and 99.9 percentile inside the mask become 0 and 1, values beyond are clipped.

    image: any unit; mask: boolean, same shape. Returns float32, 0 outside the mask. One map for the whole volume,
    never per slice. Raises ValueError if both percentiles are the same value.
    """
    low, high = np.percentile(image[mask], PERCENTILES)
    if not high > low:
        raise ValueError(f"the {PERCENTILES[0]} and the {PERCENTILES[1]} percentile inside the mask are both {low:g}: "
                         "an image without contrast can not be evaluated")
    scaled = ((image - np.float32(low)) / np.float32(high - low)).astype(np.float32).clip(0, 1)
    scaled[~mask] = 0
    return scaled


def mean_or_nan(values: np.ndarray) -> float:
    """In double precision; NaN of no values."""
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")
