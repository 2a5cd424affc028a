"""Another contrast: intensities on a curve."""

import numpy as np

from nnunetv2_rmr.evaluation.corruptions.base import Corruption, Spacing, on_body_signal


@on_body_signal
def bend_intensities(signal: np.ndarray, spacing: Spacing, exponent: float, rng: np.random.Generator,
                     body: np.ndarray) -> np.ndarray:
    """signal^g, g = exponent or 1 / exponent (drawn), brought back to the mean and standard deviation in the body.

    What a gamma curve does to mean and deviation nnU-Net's normalisation undoes, so it would only feign a difference.
    Dark voxels can get below zero by it.
    """
    exponent = exponent if rng.random() < 0.5 else 1 / exponent
    inside = signal[body].astype(np.float64)
    if inside.std() == 0:
        return signal
    bent = (inside / inside.mean()) ** exponent
    result = signal.copy()
    result[body] = (bent - bent.mean()) * (inside.std() / bent.std()) + inside.mean()
    return result


GAMMA = Corruption(
    name="gamma",
    description="another contrast (intensities raised to a power)",
    seen=False,
    unit="exponent, or its inverse",
    parameters=(1.5, 2.0, 2.5, 3.0, 4.0),
    apply=bend_intensities,
)
