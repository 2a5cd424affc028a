"""Visual information fidelity: how much of what an eye could see in a source it can still see in the fused image."""

import numpy as np

from nnunetv2_rmr.evaluation.fusion_metrics.windows import LocalMean, gaussian

RADII = (8, 4, 2, 1)  # of the windows at the four scales, in voxels of the scale; sigma is a fifth of the width
NOISE_VARIANCE = 2 / 255 ** 2  # the customary 2 belongs to intensities in 0..255, ours are in 0..1
_EPSILON = 1e-10 / 255 ** 2


def visual_information_fidelity(fused: np.ndarray, source: np.ndarray, mask: np.ndarray,
                                min_coverage: float = 0.0) -> float:
    """Pixel-domain VIF of the fused image with the source as reference, in 2D or 3D.

    Sheikh & Bovik 2006 (doi:10.1109/TIP.2005.859378), their multi-scale pixel-domain version: Gaussian windows 17, 9,
    5 and 3 voxels wide, each scale filtered by its window and every second voxel kept.
    fused, source: 0..1, zero outside the mask. min_coverage: see LocalMean.
    From 0; 1 for identical images; above 1 if the fused image has the source's structure with more contrast. NaN for a
    constant source.
    """
    kept = total = 0.0
    # only deviations count; around 0 float32 resolves them best
    fused, source = (np.where(mask, image - image[mask].mean(), 0).astype(image.dtype) for image in (fused, source))
    for scale, radius in enumerate(RADII):
        smooth = gaussian((2 * radius + 1) / 5, radius)
        if scale > 0:
            window = LocalMean(mask, smooth, min_coverage)
            every_second = (slice(radius % 2, None, 2),) * mask.ndim  # the grid of unpadded filters
            every_second = tuple(s if n > 1 + s.start else slice(None) for s, n in zip(every_second, mask.shape))
            fused, source = (window.volume(image)[every_second] for image in (fused, source))
            mask = window.centres[every_second]
        window = LocalMean(mask, smooth, min_coverage)
        scale_kept, scale_total = _information(fused, source, window)
        kept += scale_kept
        total += scale_total
    return kept / total if total > 0 else float("nan")


def _information(fused: np.ndarray, source: np.ndarray, window: LocalMean) -> tuple[float, float]:
    """Information an eye gets of the source through the fused image, and directly."""
    mean_f, mean_s = window(fused), window(source)
    var_f = (window(fused * fused) - mean_f * mean_f).clip(0)
    var_s = (window(source * source) - mean_s * mean_s).clip(0)
    cov = window(fused * source) - mean_f * mean_s
    seen = (var_s > _EPSILON) & (var_f > _EPSILON) & (cov > 0)  # elsewhere the fused image shows nothing of the source
    gain = np.where(seen, cov / (var_s + _EPSILON), 0)
    distortion = (var_f - gain * cov).clip(_EPSILON)
    kept = np.log2(1 + gain * gain * var_s / (distortion + NOISE_VARIANCE))
    return float(kept.sum(dtype=np.float64)), float(np.log2(1 + var_s / NOISE_VARIANCE).sum(dtype=np.float64))
