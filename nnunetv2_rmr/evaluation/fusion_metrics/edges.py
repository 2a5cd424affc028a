"""How well the edges of the sources are preserved: Qabf, also called Q_G."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_erosion, correlate1d

PARAMETER_SET = "Xydeas-Petrovic 2000"
STRENGTH = (0.9994, -15.0, 0.5)  # Gamma, kappa, sigma of the sigmoid for edge strength
ORIENTATION = (0.9879, -22.0, 0.8)  # and for edge orientation
WEIGHT_EXPONENT = 1  # L: a voxel weighs as much as the source's edge is strong


def edge_preservation(fused: np.ndarray, sources: Sequence[np.ndarray], mask: np.ndarray) -> float:
    """Qabf of Xydeas & Petrovic 2000 (doi:10.1049/el:20000267) with their parameters, in 2D or 3D.

    fused, each source, mask: one shape. Voxels count whose whole Sobel window (3 voxels along each axis) lies inside
    the mask. The orientation difference is the angle between the gradients as lines without sign, 0..90 degrees, which
    in 2D is the published difference of arctangents. 0..0.975 (identical images do not reach 1); NaN without edges.
    """
    counted = binary_erosion(mask, np.ones((3,) * mask.ndim, bool))
    of_fused = _gradient(fused, counted)
    preserved = weights = 0.0
    for source in sources:
        of_source = _gradient(source, counted)
        strength = np.sqrt((of_source ** 2).sum(0))
        weight = strength ** WEIGHT_EXPONENT
        preserved += float((_quality(of_source, strength, of_fused) * weight).sum(dtype=np.float64))
        weights += float(weight.sum(dtype=np.float64))
    return preserved / weights if weights > 0 else float("nan")


def _gradient(image: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Sobel responses (axes, voxels) at the counted voxels."""
    responses = []
    for derivative_axis in range(image.ndim):
        response = image
        for axis in range(image.ndim):
            response = correlate1d(response, (-1, 0, 1) if axis == derivative_axis else (1, 2, 1), axis)
        responses.append(response[counted])
    return np.stack(responses)


def _quality(of_source: np.ndarray, strength: np.ndarray, of_fused: np.ndarray) -> np.ndarray:
    fused_strength = np.sqrt((of_fused ** 2).sum(0))
    weaker, stronger = np.minimum(strength, fused_strength), np.maximum(strength, fused_strength)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.nan_to_num(weaker / stronger)
        cosine = np.abs((of_source * of_fused).sum(0)) / (strength * fused_strength)
    # without an edge in one of the images there is no orientation to preserve
    alignment = 1 - np.arccos(np.nan_to_num(cosine).clip(0, 1)) * np.float32(2 / np.pi)
    return _sigmoid(ratio, STRENGTH) * _sigmoid(alignment, ORIENTATION)


def _sigmoid(x: np.ndarray, parameters: tuple[float, float, float]) -> np.ndarray:
    gamma, kappa, sigma = parameters
    return gamma / (1 + np.exp(kappa * (x - sigma)))
