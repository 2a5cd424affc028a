"""Ghosts: faint displaced copies along the phase-encoding axis."""

import numpy as np

from nnunetv2_rmr.evaluation.corruptions.base import Corruption, Spacing, magnitude, on_body_signal
from nnunetv2_rmr.evaluation.corruptions.torchio_transforms import apply_torchio

GHOSTS = (2, 5)


@on_body_signal
def add_ghosts(signal: np.ndarray, spacing: Spacing, amplitude: float, rng: np.random.Generator,
               body: np.ndarray) -> np.ndarray:
    """Every n-th plane of k-space is scaled (torchio.Ghosting), as periodic motion or flow does; axis and n are drawn.

    Scaling every n-th plane by 1 - s puts n - 1 copies of amplitude s / n into the image, a field of view / n apart, so
    s = n * amplitude. The central plane is kept.
    """
    axes = [axis for axis, size in enumerate(signal.shape) if size > 1]
    axis = int(axes[rng.integers(len(axes))])
    ghosts = int(rng.integers(GHOSTS[0], GHOSTS[1] + 1))
    return magnitude(apply_torchio("Ghosting", signal, spacing, num_ghosts=ghosts, axis=axis,
                                   intensity=ghosts * amplitude, restore=None))


GHOSTING = Corruption(
    name="ghosting",
    description="displaced copies along the phase-encoding axis (periodic motion, flow)",
    seen=False,
    unit="amplitude of every ghost / amplitude of the image",
    parameters=(0.05, 0.1, 0.15, 0.2, 0.3),
    apply=add_ghosts,
)
