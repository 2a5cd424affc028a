"""Whether a patient's modalities lie on one another, judged by their mutual information at a coarse resolution.

docs/registration.md says how well that works.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

COARSE_MM, REACH_MM, BINS = 4.0, 24.0, 24
LEAST_VOXELS = 5000  # fewer do not fill the joint histogram of BINS * BINS values
# What counts as misregistered; measured by benchmarks/misregistration.py
LEAST_SHIFT_MM, LEAST_GAIN = 3.0, 0.06


@dataclass(frozen=True)
class Shift:
    """What the best shift of one modality against another would bring. before, after: mutual information in nats."""

    mm: np.ndarray  # along the axes of the arrays; that by which the moving one would have to be moved back
    before: float
    after: float

    @property
    def suspicious(self) -> bool:
        # the root: what is weakly related needs a smaller gain, but a larger part of what it has
        return (np.linalg.norm(self.mm) > LEAST_SHIFT_MM
                and self.after - self.before > LEAST_GAIN * np.sqrt(self.before))


def coarse(image: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Means of blocks of about COARSE_MM an edge, of an image (D, H, W) with a spacing in mm."""
    blocks = [min(block, n + 1) for block, n in zip(_blocks(spacing), image.shape)]
    sizes = [n // block for n, block in zip(image.shape, blocks)]
    cut = image[tuple(slice(0, n * block) for n, block in zip(sizes, blocks))]
    shape = [n for pair in zip(sizes, blocks) for n in pair]
    return cut.reshape(shape).mean(tuple(range(1, len(shape), 2)), dtype=np.float32)


def _blocks(spacing: Sequence[float]) -> list[int]:
    return [max(1, round(COARSE_MM / mm)) for mm in spacing]


def warnings(images: Mapping[str, np.ndarray], spacing: Sequence[float]) -> list[str]:
    """A line for every modality that seems to lie elsewhere than the first one.

    images: by name what `coarse` makes of images on one grid. spacing: of that grid before, in mm.
    """
    images = {name: image for name, image in images.items() if image.size and image.min() < image.max()}
    first, spacing = next(iter(images), None), np.multiply(spacing, _blocks(spacing))
    lines = []
    for name in list(images)[1:]:
        if (shift := best_shift(images[first], images[name], spacing)) and shift.suspicious:
            lines.append(f"{name} seems to lie {np.linalg.norm(shift.mm):.0f} mm away from {first} (so shifted, their "
                         f"mutual information is {shift.after:.2f} instead of {shift.before:.2f}): look at both, and "
                         "if it is so, use --register_to NAME")
    return lines


def best_shift(fixed: np.ndarray, moving: np.ndarray, spacing: Sequence[float]) -> Shift | None:
    """The nearest shift better than all around it, within REACH_MM and a quarter of the image; None: too few voxels.

    fixed, moving: coarse images (D, H, W). spacing: theirs, in mm.
    """
    if fixed.size < LEAST_VOXELS:
        return None
    fixed, moving = _binned(fixed), _binned(moving)
    reach = [min(int(REACH_MM / mm), n // 4) for mm, n in zip(spacing, fixed.shape)]
    score = cache(lambda shift: _mutual_information(fixed, moving, shift))
    steps = list(itertools.product((-1, 0, 1), repeat=fixed.ndim))
    here, best = None, (0,) * fixed.ndim
    while best != here:
        here = best
        around = [tuple(np.add(here, step).tolist()) for step in steps]
        best = max((shift for shift in around if all(abs(n) <= most for n, most in zip(shift, reach))),
                   key=lambda shift: (score(shift), shift == here))
    between = [_vertex([score(tuple(np.add(here, n * axis).tolist())) for n in (-1, 0, 1)]) if most else 0.0
               for axis, most in zip(np.eye(fixed.ndim, dtype=int), reach)]
    return Shift((np.array(here) + between) * spacing, score((0,) * fixed.ndim), score(here))


def _vertex(scores: list[float]) -> float:
    """Where, between the voxels, the parabola through three neighbours is highest."""
    curvature = scores[0] - 2 * scores[1] + scores[2]
    return float(np.clip((scores[0] - scores[2]) / (2 * curvature), -0.5, 0.5)) if curvature < 0 else 0.0


def _binned(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / (max(high - low, 1e-9) / BINS), 0, BINS - 1).astype(np.intp)


def _mutual_information(fixed: np.ndarray, moving: np.ndarray, shift: tuple[int, ...]) -> float:
    """In nats, of the voxels fixed[x] and moving[x + shift] that both have."""
    in_fixed = tuple(slice(max(0, -n), size - max(0, n)) for n, size in zip(shift, fixed.shape))
    in_moving = tuple(slice(max(0, n), size - max(0, -n)) for n, size in zip(shift, fixed.shape))
    pairs = (fixed[in_fixed] * BINS + moving[in_moving]).ravel()
    joint = np.bincount(pairs, minlength=BINS * BINS).reshape(BINS, BINS) / pairs.size
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())
