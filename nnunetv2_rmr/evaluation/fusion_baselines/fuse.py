"""The classical fusion methods by name."""

from collections.abc import Sequence

import numpy as np

from nnunetv2_rmr.evaluation.fusion_baselines.guided import guided
from nnunetv2_rmr.evaluation.fusion_baselines.laplacian import laplacian
from nnunetv2_rmr.evaluation.fusion_baselines.pointwise import average, maximum
from nnunetv2_rmr.evaluation.fusion_baselines.wavelet import wavelet

_METHODS = {method.__name__: method for method in (average, maximum, laplacian, wavelet, guided)}


def fuse(name: str, sources: Sequence[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Fuse by a method of BASELINES (see fusion_baselines/__init__.py).

    sources: float32 in 0..1, zero outside the mask (see to_unit_range); mask: boolean; one shape, 2D or 3D. Returns
    float32, about 0..1, zero outside the mask.
    """
    fused = _METHODS[name](sources, mask).astype(np.float32, copy=False)
    return np.where(mask, fused, np.float32(0))
