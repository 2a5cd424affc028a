"""The classical fusion methods, and copies of single modalities, which a fusion has to be better than."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import correlate1d, laplace

from nnunetv2_rmr.evaluation.fusion_metrics.windows import LocalMean, box, gaussian
from nnunetv2_rmr.fusion.gradient import gradient

PYRAMID_LEVELS = 4  # of detail, fewer if the image gets shorter than the kernel along every axis
KERNEL = np.array((1, 4, 6, 4, 1)) / 16  # of the pyramid
WAVELET, WAVELET_LEVELS, WAVELET_MODE = "db2", 3, "symmetric"  # fewer levels if the image is too small for them
# Of guided-filter fusion as published (section III), in voxels; epsilon for intensities in 0..1
BASE_RADIUS = 15  # of the mean that separates base and detail
SALIENCY_SIGMA, SALIENCY_RADIUS = 5.0, 5
BASE_WEIGHT = (45, 0.3)  # radius and epsilon of the guided filter
DETAIL_WEIGHT = (7, 1e-6)


def fuse(name: str, sources: Sequence[np.ndarray], mask: np.ndarray, spacing: Sequence[float] | None = None,
         reference: int = -1) -> np.ndarray:
    """Fuse by a method of METHODS (see fusion_baselines/__init__.py).

    sources: float32 in 0..1, zero outside the mask (see to_unit_range); mask: boolean; one shape, 2D or 3D. spacing: mm
    per axis, 1 by default; reference: number of the reference modality; gradient looks at both, and copy is the
    reference modality. Returns float32, about 0..1, zero outside the mask. Raises ImportError, see `pywavelets`.
    """
    if name == "copy":
        fused = sources[reference]
    elif name == "gradient":
        fused = gradient(sources, mask, spacing or (1.0,) * mask.ndim, range(len(sources))[reference])
    elif name == "average":
        fused = np.mean(sources, axis=0, dtype=np.float32)
    elif name == "maximum":
        fused = np.maximum.reduce(sources)
    else:
        fused = {"laplacian": laplacian, "wavelet": wavelet, "guided": guided}[name](sources, mask)
    return np.where(mask, fused.astype(np.float32, copy=False), np.float32(0))


def laplacian(sources: Sequence[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Laplacian pyramid, strongest detail of any source at every scale, average of what remains: Burt & Adelson 1983
    (doi:10.1109/TCOM.1983.1095851), their 5-tap kernel along each axis (2D or 3D)."""
    details: list[np.ndarray] = []
    remaining = list(sources)
    while len(details) < PYRAMID_LEVELS and max(remaining[0].shape) >= len(KERNEL):
        reduced = [_reduce(image) for image in remaining]
        details.append(strongest([image - _expand(small, image.shape) for image, small in zip(remaining, reduced)]))
        remaining = reduced
    fused = np.mean(remaining, axis=0, dtype=np.float32)
    for detail in reversed(details):
        fused = _expand(fused, detail.shape) + detail
    return fused


def _reduce(image: np.ndarray) -> np.ndarray:
    """Smoothed, every second voxel."""
    for axis in range(image.ndim):
        image = correlate1d(image, KERNEL, axis, mode="mirror")
    return image[(slice(None, None, 2),) * image.ndim]


def _expand(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Twice the size, interpolated by the kernel; `shape` says whether the last voxel is one of the old ones."""
    for axis, length in enumerate(shape):
        spread = np.zeros((*image.shape[:axis], length, *image.shape[axis + 1:]), image.dtype)
        spread[tuple(slice(None, None, 2) if a == axis else slice(None) for a in range(image.ndim))] = image
        image = correlate1d(spread, 2 * KERNEL, axis, mode="mirror") if length > 1 else spread
    return image


def wavelet(sources: Sequence[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Discrete wavelet transform, strongest detail coefficient of any source, average of the approximations: Li,
    Manjunath & Mitra 1995 (doi:10.1006/gmip.1995.1022)."""
    pywt = pywavelets()
    levels = min(WAVELET_LEVELS, pywt.dwtn_max_level(sources[0].shape, WAVELET))
    transforms = [pywt.wavedecn(image, WAVELET, WAVELET_MODE, levels) for image in sources]
    fused = [np.mean([t[0] for t in transforms], axis=0, dtype=np.float32)]
    for per_source in zip(*(t[1:] for t in transforms)):
        fused.append({band: strongest([details[band] for details in per_source]) for band in per_source[0]})
    image = pywt.waverecn(fused, WAVELET, WAVELET_MODE)
    return image[tuple(slice(n) for n in sources[0].shape)]  # odd lengths come back one longer


def pywavelets():
    """The module. Raises ImportError with what to type, also for callers who want to know before they start."""
    try:
        import pywt
    except ImportError:
        raise ImportError("the baseline 'wavelet' needs PyWavelets: pip install \"nnunetv2-rmr[benchmark]\", or choose "
                          "another") from None
    return pywt


def strongest(coefficients: Sequence[np.ndarray]) -> np.ndarray:
    """Per position the coefficient of largest magnitude, with its sign; the first source's if several are."""
    chosen = np.array(coefficients[0])
    for other in coefficients[1:]:
        np.copyto(chosen, other, where=np.abs(other) > np.abs(chosen))
    return chosen


def guided(sources: Sequence[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Guided-filter fusion, of two scales whose weights follow the edges of each source: Li, Kang & Hu 2013
    (doi:10.1109/TIP.2013.2244222) with their parameters, in 2D or 3D, windows inside the mask."""
    base_mean = LocalMean(mask, box(BASE_RADIUS))
    saliency_mean = LocalMean(mask, gaussian(SALIENCY_SIGMA, SALIENCY_RADIUS))
    most_salient = np.argmax([saliency_mean(np.abs(laplace(s, mode="nearest")) * mask) for s in sources], axis=0)
    means = {parameters: LocalMean(mask, box(parameters[0])) for parameters in (BASE_WEIGHT, DETAIL_WEIGHT)}
    sums = {parameters: [0.0, 0.0] for parameters in means}  # weighted layers, weights; at the voxels of the mask
    for i, source in enumerate(sources):
        base = base_mean(source)
        layers = {BASE_WEIGHT: base, DETAIL_WEIGHT: source[mask] - base}
        decision = np.zeros(source.shape, np.float32)
        decision[mask] = most_salient == i
        for parameters, mean in means.items():
            weight = _guided_filter(decision, source, mask, mean, parameters[1]).clip(0, 1)
            sums[parameters][0] += weight * layers[parameters]
            sums[parameters][1] += weight
    fused = np.zeros(mask.shape, np.float32)
    fused[mask] = sum(layer / np.maximum(weight, 1e-6) for layer, weight in sums.values())
    return fused


def _guided_filter(image: np.ndarray, guide: np.ndarray, mask: np.ndarray, mean: LocalMean,
                   epsilon: float) -> np.ndarray:
    """He, Sun & Tang 2013 (doi:10.1109/TPAMI.2012.213): the image smoothed, except across edges of the guide.

    image, guide: zero outside the mask. Returns the values at the voxels of the mask.
    """
    mean_image, mean_guide = mean(image), mean(guide)
    slope, offset = np.zeros(mask.shape, np.float32), np.zeros(mask.shape, np.float32)
    slope[mask] = (mean(image * guide) - mean_image * mean_guide) / (mean(guide * guide) - mean_guide ** 2 + epsilon)
    offset[mask] = mean_image - slope[mask] * mean_guide
    return mean(slope) * guide[mask] + mean(offset)
