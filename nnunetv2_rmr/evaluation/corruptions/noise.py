"""Thermal noise."""

import numpy as np
import torch

from nnunetv2_rmr.degradations import add_rician_noise
from nnunetv2_rmr.evaluation.corruptions.base import Corruption, Spacing, on_body_signal


@on_body_signal
def add_noise(signal: np.ndarray, spacing: Spacing, sigma: float, rng: np.random.Generator,
              body: np.ndarray) -> np.ndarray:
    """Rician noise; sigma of either channel in standard deviations of the image in the body."""
    sigma_raw = sigma * float(signal[body].std(dtype=np.float64))
    return add_rician_noise(torch.from_numpy(signal), sigma_raw, seed=int(rng.integers(2 ** 31)), floor=0.0).numpy()


NOISE = Corruption(
    name="noise",
    description="thermal noise of an MRI magnitude image (Rician)",
    seen=True,
    unit="sigma of either channel / standard deviation of the image in the body",
    parameters=(0.2, 0.35, 0.5, 0.7, 0.9),
    apply=add_noise,
)
