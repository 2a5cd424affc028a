"""Local corruption of the Fourier spectrum: RMR's own degradation."""

import numpy as np
import torch

from nnunetv2_rmr.degradations import corrupt_fourier_locally
from nnunetv2_rmr.evaluation.corruptions.base import Corruption, Spacing, magnitude, on_body_signal

SHARE = 0.8  # of the body's bounding box; up to 0.4 in training
EDGE_MM = (12, 24)  # as in training, where it is in finest voxels
MIN_EDGE = 4  # voxels; a smaller box has hardly a spectrum
AMPLITUDE_SIGMA = 0.5  # frequency bins, as in training


@on_body_signal
def corrupt_fourier(signal: np.ndarray, spacing: Spacing, strength: float, rng: np.random.Generator,
                    body: np.ndarray) -> np.ndarray:
    """Corrupted spectra in random boxes; strength 1 replaces what is in the middle of a box.

    The background is set to the mean of the body first, which is what nnU-Net's normalisation makes of it in training.
    """
    edge_mm, seed = rng.uniform(*EDGE_MM), int(rng.integers(2 ** 31))
    edge = [max(MIN_EDGE, round(edge_mm / s)) for s in spacing]  # cut to the image where that is smaller
    filled = np.where(body, signal, signal[body].mean())
    return magnitude(corrupt_fourier_locally(torch.from_numpy(filled), SHARE, strength, edge, AMPLITUDE_SIGMA,
                                             seed).numpy())


FOURIER = Corruption(
    name="fourier",
    description="patches of ripples and lost structure (local corruption of the Fourier spectrum)",
    seen=True,
    unit="strength in boxes that cover 80 % of the body (1: their middle is replaced)",
    parameters=(0.2, 0.4, 0.6, 0.8, 1.0),
    apply=corrupt_fourier,
)
