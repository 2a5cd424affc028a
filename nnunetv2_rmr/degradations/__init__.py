"""Degradations of a scan, drawn at the end of nnU-Net's training pipeline. Images are normalised, hence signed.

By default training draws noise, blur and Fourier corruption; bias fields, ghosts, low resolution and spikes are there
to be switched on (setting degradation_probabilities). Motion and gamma stay out for good: the benchmark needs kinds of
damage that no model of this package was trained on. See docs/degradations.md.
"""

from nnunetv2_rmr.degradations.base import Degradation
from nnunetv2_rmr.degradations.bias_field import BiasFieldTransform, shade
from nnunetv2_rmr.degradations.blur import BlurTransform, gaussian_blur
from nnunetv2_rmr.degradations.degrade import (
    DEGRADATIONS,
    DegradeTransform,
    add_degradations,
    degrade_case,
    split_clean_degraded,
)
from nnunetv2_rmr.degradations.foreground import RememberForegroundTransform
from nnunetv2_rmr.degradations.fourier import FourierTransform, corrupt_fourier_locally
from nnunetv2_rmr.degradations.ghosting import GhostingTransform, add_ghosts
from nnunetv2_rmr.degradations.low_resolution import LowResolutionTransform, thicken_slices
from nnunetv2_rmr.degradations.noise import NoiseTransform, add_gaussian_noise, add_rician_noise
from nnunetv2_rmr.degradations.spikes import SpikesTransform, add_stripes

__all__ = [
    "DEGRADATIONS",
    "BiasFieldTransform",
    "BlurTransform",
    "Degradation",
    "DegradeTransform",
    "FourierTransform",
    "GhostingTransform",
    "LowResolutionTransform",
    "NoiseTransform",
    "RememberForegroundTransform",
    "SpikesTransform",
    "add_degradations",
    "add_gaussian_noise",
    "add_ghosts",
    "add_rician_noise",
    "add_stripes",
    "corrupt_fourier_locally",
    "degrade_case",
    "gaussian_blur",
    "shade",
    "split_clean_degraded",
    "thicken_slices",
]
