"""Guided-filter fusion (GFF): two-scale fusion whose weights follow the edges of each source."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import laplace

from nnunetv2_rmr.evaluation.fusion_metrics.windows import LocalMean, box, gaussian

# As published (section III), in voxels; epsilon for intensities in 0..1
BASE_RADIUS = 15  # of the mean that separates base and detail
SALIENCY_SIGMA, SALIENCY_RADIUS = 5.0, 5
BASE_WEIGHT = (45, 0.3)  # radius and epsilon of the guided filter
DETAIL_WEIGHT = (7, 1e-6)


def guided(sources: Sequence[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Li, Kang & Hu 2013 (doi:10.1109/TIP.2013.2244222) with their parameters, in 2D or 3D, windows inside the mask."""
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
