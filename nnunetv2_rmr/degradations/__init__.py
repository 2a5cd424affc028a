"""Degradations of a scan, drawn at the end of nnU-Net's training pipeline. Images are normalised, hence signed."""

from nnunetv2_rmr.degradations.base import Degradation
from nnunetv2_rmr.degradations.blur import BlurTransform, gaussian_blur
from nnunetv2_rmr.degradations.degrade import (
    DEFAULT_P_CLEAN,
    DEFAULT_PROBABILITIES,
    DEGRADATIONS,
    DegradeTransform,
    add_degradations,
    degrade_case,
    split_clean_degraded,
)
from nnunetv2_rmr.degradations.foreground import RememberForegroundTransform
from nnunetv2_rmr.degradations.fourier import FourierTransform, corrupt_fourier_locally
from nnunetv2_rmr.degradations.noise import NoiseTransform, add_gaussian_noise, add_rician_noise

__all__ = [
    "DEFAULT_PROBABILITIES",
    "DEFAULT_P_CLEAN",
    "DEGRADATIONS",
    "BlurTransform",
    "Degradation",
    "DegradeTransform",
    "FourierTransform",
    "NoiseTransform",
    "RememberForegroundTransform",
    "add_degradations",
    "add_gaussian_noise",
    "add_rician_noise",
    "corrupt_fourier_locally",
    "degrade_case",
    "gaussian_blur",
    "split_clean_degraded",
]
