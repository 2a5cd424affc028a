"""Smooth shading."""

import numpy as np

from nnunetv2_rmr.evaluation.corruptions.base import Corruption, Spacing, on_body_signal
from nnunetv2_rmr.evaluation.corruptions.torchio_transforms import apply_torchio

ORDER = 3
COEFFICIENTS = (ORDER + 1) * (ORDER + 2) * (ORDER + 3) // 6  # of a polynomial in three variables


@on_body_signal
def shade(signal: np.ndarray, spacing: Spacing, strength: float, rng: np.random.Generator,
          body: np.ndarray) -> np.ndarray:
    """Multiply by a gain whose logarithm is a polynomial of order 3 (torchio.BiasField), with drawn coefficients.

    The logarithm has mean 0 and standard deviation `strength` in the body: a constant gain is no shading, and nnU-Net
    normalises it away.
    """
    coefficients = rng.uniform(-1, 1, COEFFICIENTS).tolist()
    log_gain = np.log(apply_torchio("BiasField", np.ones_like(signal), spacing, coefficients=coefficients, order=ORDER))
    inside = log_gain[body].astype(np.float64)
    if inside.std() == 0:  # a body of one voxel
        return signal
    log_gain = (log_gain - inside.mean()) / inside.std()
    return (signal * np.exp(strength * log_gain)).astype(np.float32)


BIAS_FIELD = Corruption(
    name="bias_field",
    description="smooth shading (receive coil, transmit field)",
    seen=False,
    unit="standard deviation of the logarithm of the gain in the body",
    parameters=(0.04, 0.08, 0.12, 0.16, 0.2),
    apply=shade,
)
