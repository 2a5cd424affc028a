"""The classical fusion methods by name, and copies of single modalities, which a fusion has to be better than."""

from collections.abc import Sequence

import numpy as np

from nnunetv2_rmr.evaluation.fusion_baselines.guided import guided
from nnunetv2_rmr.evaluation.fusion_baselines.laplacian import laplacian
from nnunetv2_rmr.evaluation.fusion_baselines.pointwise import average, maximum
from nnunetv2_rmr.evaluation.fusion_baselines.wavelet import wavelet
from nnunetv2_rmr.fusion.gradient import gradient

_METHODS = {method.__name__: method for method in (average, maximum, laplacian, wavelet, guided)}


def fuse(name: str, sources: Sequence[np.ndarray], mask: np.ndarray, spacing: Sequence[float] | None = None,
         reference: int = -1) -> np.ndarray:
    """Fuse by a method of METHODS (see fusion_baselines/__init__.py).

    sources: float32 in 0..1, zero outside the mask (see to_unit_range); mask: boolean; one shape, 2D or 3D. spacing: mm
    per axis, 1 by default; reference: number of the reference modality; gradient looks at both, and copy is the
    reference modality. Returns float32, about 0..1, zero outside the mask.
    """
    if name == "copy":
        fused = sources[reference]
    elif name == "gradient":
        fused = gradient(sources, mask, spacing or (1.0,) * mask.ndim, range(len(sources))[reference])
    else:
        fused = _METHODS[name](sources, mask)
    return np.where(mask, fused.astype(np.float32, copy=False), np.float32(0))
