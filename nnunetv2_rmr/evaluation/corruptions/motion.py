"""A patient who moves during the scan."""

import numpy as np

from nnunetv2_rmr.evaluation.corruptions.base import Corruption, Spacing, magnitude, on_body_signal
from nnunetv2_rmr.evaluation.corruptions.torchio_transforms import apply_torchio

MOVES = (2, 4, 6)  # even: the centre of k-space, half way, lies between two moves
DEGREES_PER_MM = 0.5
JITTER = 0.2  # of the time between two moves


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


@on_body_signal
def move(signal: np.ndarray, spacing: Spacing, shift_mm: float, rng: np.random.Generator,
         body: np.ndarray) -> np.ndarray:
    """Rigid moves between parts of k-space (torchio.Motion, after Shaw et al. 2019).

    The number of moves, their times, directions and axes and the slow phase-encoding axis are drawn. During each move's
    part of the scan the body lies shift_mm off its place, turned by half as many degrees; while the centre of k-space
    is acquired it lies in its place, so that labels stay right.
    """
    axes = [axis for axis, size in enumerate(signal.shape) if size > 1]
    phase_axis = axes[rng.integers(len(axes))]
    moves = int(rng.choice(MOVES))
    times = (np.arange(1, moves + 1) + rng.uniform(-JITTER, JITTER, moves)) / (moves + 1)
    shifts = np.array([_direction(rng) for _ in range(moves)])
    turns = np.array([_direction(rng) for _ in range(moves)])
    if len(axes) < 3:  # a single slice moves within its plane
        flat = [axis for axis in range(3) if axis not in axes]
        shifts[:, flat] = 0
        turns[:, axes] = 0

    order = [axis for axis in range(3) if axis != phase_axis] + [phase_axis]  # TorchIO's phase axis is the last
    moved = apply_torchio("Motion", signal.transpose(order), tuple(spacing[axis] for axis in order),
                          degrees=shift_mm * DEGREES_PER_MM * turns[:, order], translation=shift_mm * shifts[:, order],
                          times=times, image_interpolation="linear")
    return magnitude(moved.transpose(np.argsort(order)))


MOTION = Corruption(
    name="motion",
    description="a patient who moves 2 to 6 times during the scan (rigid moves between parts of k-space)",
    seen=False,
    unit="mm off the place, and half as many degrees",
    parameters=(0.3, 0.6, 1.0, 1.5, 2.2),
    apply=move,
)
