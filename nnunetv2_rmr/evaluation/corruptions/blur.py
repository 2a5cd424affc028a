"""Loss of resolution in every direction."""

import numpy as np
import torch

from nnunetv2_rmr.degradations import gaussian_blur
from nnunetv2_rmr.evaluation.corruptions.base import Corruption, Spacing, on_body_signal, tissue_average


@on_body_signal
def blur(signal: np.ndarray, spacing: Spacing, sigma_mm: float, rng: np.random.Generator,
         body: np.ndarray) -> np.ndarray:
    """Gaussian point spread function of standard deviation sigma_mm, over the body only. Nothing is drawn."""
    return tissue_average(lambda image: gaussian_blur(torch.from_numpy(image), sigma_mm, spacing).numpy(), signal, body)


BLUR = Corruption(
    name="blur",
    description="loss of resolution in every direction (Gaussian point spread function)",
    seen=True,
    unit="sigma in mm",
    parameters=(0.8, 1.2, 1.8, 2.6, 4.0),
    apply=blur,
)
