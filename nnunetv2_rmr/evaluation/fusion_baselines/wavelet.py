"""Wavelet fusion: strongest detail coefficient of any source, average of the approximations."""

from collections.abc import Sequence

import numpy as np

from nnunetv2_rmr.evaluation.fusion_baselines.selection import strongest

WAVELET, LEVELS, MODE = "db2", 3, "symmetric"  # fewer levels if the image is too small for them


class PyWaveletsMissing(ImportError):
    """The optional package for this baseline is not installed."""


def wavelet(sources: Sequence[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Discrete wavelet transform, choose-max rule: Li, Manjunath & Mitra 1995 (doi:10.1006/gmip.1995.1022).

    Raises PyWaveletsMissing.
    """
    pywt = load_pywavelets()
    levels = min(LEVELS, pywt.dwtn_max_level(sources[0].shape, WAVELET))
    transforms = [pywt.wavedecn(image, WAVELET, MODE, levels) for image in sources]
    fused = [np.mean([t[0] for t in transforms], axis=0, dtype=np.float32)]
    for per_source in zip(*(t[1:] for t in transforms)):
        fused.append({band: strongest([details[band] for details in per_source]) for band in per_source[0]})
    image = pywt.waverecn(fused, WAVELET, MODE)
    return image[tuple(slice(n) for n in sources[0].shape)]  # odd lengths come back one longer


def load_pywavelets():
    """The module. Raises PyWaveletsMissing with what to type."""
    try:
        import pywt
    except ImportError:
        raise PyWaveletsMissing("the baseline 'wavelet' needs PyWavelets: pip install \"nnunetv2-rmr[benchmark]\", "
                                "or choose another") from None
    return pywt
