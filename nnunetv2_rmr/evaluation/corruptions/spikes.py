"""Stripes through the whole image."""

import numpy as np

from nnunetv2_rmr.evaluation.corruptions.base import Corruption, Spacing, magnitude, on_body_signal
from nnunetv2_rmr.evaluation.corruptions.torchio_transforms import apply_torchio

SPIKES = (1, 4)


@on_body_signal
def add_stripes(signal: np.ndarray, spacing: Spacing, strength: float, rng: np.random.Generator,
                body: np.ndarray) -> np.ndarray:
    """Spikes in k-space (torchio.Spike), as electric discharges leave them; their number and places are drawn.

    One spike A in a k-space of N points adds stripes (A / N) cos(...) of RMS A / (N sqrt 2), and the RMS of several
    adds up in squares. TorchIO takes A as a multiple of the largest point; for a signal >= 0 that is its sum.
    """
    positions = rng.uniform(size=(rng.integers(SPIKES[0], SPIKES[1] + 1), 3))
    rms = strength * float(signal[body].std(dtype=np.float64))
    total = float(signal.sum(dtype=np.float64))
    if total == 0:
        return signal
    spike = rms * np.sqrt(2 / len(positions)) * signal.size
    return magnitude(apply_torchio("Spike", signal, spacing, spikes_positions=positions, intensity=spike / total))


SPIKES_IN_K_SPACE = Corruption(
    name="spikes",
    description="stripes through the whole image (1 to 4 spikes in k-space)",
    seen=False,
    unit="RMS of the stripes / standard deviation of the image in the body",
    parameters=(0.2, 0.35, 0.5, 0.7, 0.9),
    apply=add_stripes,
)
