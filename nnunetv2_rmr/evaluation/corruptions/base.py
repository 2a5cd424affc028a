"""What every corruption has in common: it acts on the signal of the body and leaves the background alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from scipy import ndimage

Spacing = tuple[float, float, float]
Apply = Callable[[np.ndarray, Spacing, Any, np.random.Generator, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Corruption:
    """One kind of damage at five severities.

    name: as in CORRUPTIONS. description: what is simulated. seen: whether RMR's default training has degradations of
    this kind. unit: of the parameters. parameters: of severity 1 to 5, ever stronger.
    apply(volume, spacing, parameter, rng, body): a pure function; volume (Z, Y, X) float32 raw intensities, spacing in
    mm in the same axis order, body boolean (Z, Y, X). Returns float32 of the same shape, outside the body as it was.
    Generators in the same state give the same realisation at every parameter: the same noise field, the same moves.
    """

    name: str
    description: str
    seen: bool
    unit: str
    parameters: tuple
    apply: Apply


def body_mask(images: np.ndarray) -> np.ndarray:
    """Where any modality is not zero, holes filled: nnU-Net's mask. (C, Z, Y, X) -> boolean (Z, Y, X).

    A scan with air around the head has no zeros to speak of; all of it counts as body then.
    """
    if images.shape[1] == 1:  # in 3D every hole of a single slice is open
        return create_nonzero_mask(images[:, 0])[None]
    return create_nonzero_mask(images)


def on_body_signal(simulate: Apply) -> Apply:
    """Let `simulate` see the field of view that holds the body, and signal that is zero where there is none.

    The field of view is the body's bounding box, so that zeros around it change nothing. Signal is what an image has
    above zero or, if it has negative values (CT, images already normalised), above its lowest value in the body.
    """

    @wraps(simulate)
    def apply(volume: np.ndarray, spacing: Spacing, parameter: Any, rng: np.random.Generator,
              body: np.ndarray) -> np.ndarray:
        result = np.array(volume, dtype=np.float32)
        if not body.any():
            return result
        (box,) = ndimage.find_objects(body.astype(np.uint8))
        inside = body[box]
        floor = min(np.float32(0), result[box][inside].min())
        signal = np.where(inside, result[box] - floor, np.float32(0))
        corrupted = simulate(signal, spacing, parameter, rng, inside)
        result[box][inside] = corrupted[inside] + floor
        return result

    return apply


def magnitude(image: np.ndarray) -> np.ndarray:
    """What a scanner stores of an image with negative values: their magnitude. (Setting them to zero would let nnU-Net
    take them for background.)"""
    return np.abs(image)


def tissue_average(average: Callable[[np.ndarray], np.ndarray], signal: np.ndarray, body: np.ndarray) -> np.ndarray:
    """A local average over the body only. Background is what was cut away, not tissue without signal: averaging over it
    would darken the rim of the body, which no scanner does."""
    weight = average(body.astype(np.float32))
    return average(np.where(body, signal, np.float32(0))) / np.maximum(weight, np.finfo(np.float32).tiny)
