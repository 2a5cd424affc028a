"""What all degradations of scans have in common: they act on the signal of the body and leave the background alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from scipy import ndimage

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class ScanDegradation:
    """One kind of damage at five severities.

    description: what is simulated. parameters: of severity 1 to 5, ever stronger; unit: theirs. trained: whether RMR's
    default training has degradations of this kind.
    simulate(signal, spacing, parameter, rng, body): a pure function; signal (Z, Y, X) float32, at least 0 in the body
    and 0 outside; spacing in mm in the same axis order; body boolean (Z, Y, X). Returns an array of the same shape.
    Generators in the same state give the same realisation at every parameter: the same noise field, the same moves.
    """

    name: str
    simulate: Callable[[np.ndarray, Spacing, Any, np.random.Generator, np.ndarray], np.ndarray]
    parameters: tuple[float, float, float, float, float]
    description: str
    unit: str
    trained: bool = False

    def apply(self, volume: np.ndarray, spacing: Spacing, parameter: float, rng: np.random.Generator,
              body: np.ndarray) -> np.ndarray:
        """A float32 copy of a volume (Z, Y, X) of raw intensities, outside the body as it was.

        The field of view that `simulate` sees is the body's bounding box, so that zeros around it change nothing.
        Signal is what an image has above zero or, if it has negative values (CT, images already normalised), above its
        lowest value in the body.
        """
        result = np.array(volume, dtype=np.float32)
        if not body.any():
            return result
        (box,) = ndimage.find_objects(body.astype(np.uint8))
        inside = body[box]
        floor = min(np.float32(0), result[box][inside].min())
        signal = np.where(inside, result[box] - floor, np.float32(0))
        degraded = self.simulate(signal, spacing, parameter, rng, inside)
        result[box][inside] = degraded[inside] + floor
        return result


def nonzero_body(images: np.ndarray) -> np.ndarray:
    """Where any modality is not zero, holes filled: nnU-Net's mask. (C, Z, Y, X) -> boolean (Z, Y, X).

    A scan with air around the head has no zeros to speak of; all of it counts as body then.
    """
    if images.shape[1] == 1:  # in 3D every hole of a single slice is open
        return create_nonzero_mask(images[:, 0])[None]
    return create_nonzero_mask(images)


def tissue_average(average: Callable[[np.ndarray], np.ndarray], signal: np.ndarray, body: np.ndarray) -> np.ndarray:
    """A local average over the body only. Background is what was cut away, not tissue without signal: averaging over it
    would darken the rim of the body, which no scanner does."""
    weight = average(body.astype(np.float32))
    return average(np.where(body, signal, np.float32(0))) / np.maximum(weight, np.finfo(np.float32).tiny)
