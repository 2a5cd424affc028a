"""How similar the fused image is to a source: SSIM, MS-SSIM, PSNR."""

import numpy as np

from nnunetv2_rmr.evaluation.fusion_metrics.windows import LocalMean, gaussian

SIGMA, RADIUS = 1.5, 5  # of the window, in voxels (11 taps)
K1, K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def psnr(fused: np.ndarray, source: np.ndarray) -> float:
    """10 log10(1 / mean squared error) in dB; images of values in 0..1, one dimension. Infinite if they are equal."""
    mse = float(np.square(fused - source, dtype=np.float64).mean())
    return float("inf") if mse == 0 else float(-10 * np.log10(mse))


def ssim_scores(fused: np.ndarray, source: np.ndarray, mask: np.ndarray, min_coverage: float = 0.0) -> dict[str, float]:
    """SSIM (Wang et al. 2004, doi:10.1109/TIP.2003.819861) and MS-SSIM (Wang et al. 2003,
    doi:10.1109/ACSSC.2003.1292216), in 2D or 3D, mean over the mask.

    fused, source: 0..1 (the data range is 1), zero outside the mask. min_coverage: see LocalMean. -1..1 and 0..1.
    Each of the five scales of MS-SSIM averages blocks of 2 voxels along each axis (those inside the mask). A scale of
    negative mean, as between images of opposite contrast, counts as 0.
    """
    product = 1.0
    single_scale = None
    for scale, weight in enumerate(SCALE_WEIGHTS):
        luminance, structure = _terms(fused, source, LocalMean(mask, gaussian(SIGMA, RADIUS), min_coverage))
        similarity = _mean(luminance * structure)
        if single_scale is None:
            single_scale = similarity
        last = scale == len(SCALE_WEIGHTS) - 1
        product *= np.maximum(similarity if last else _mean(structure), 0) ** weight  # keeps NaN
        if not last:
            (fused, source), mask = _halved((fused, source), mask)
    return {"SSIM": single_scale, "MS-SSIM": float(product)}


def _terms(x: np.ndarray, y: np.ndarray, window: LocalMean) -> tuple[np.ndarray, np.ndarray]:
    """Luminance, and contrast times structure, at every centre."""
    mean_x, mean_y = window(x), window(y)
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    cov = window(x * y) - product
    variances = window(x * x + y * y) - squares
    return (2 * product + K1 ** 2) / (squares + K1 ** 2), (2 * cov + K2 ** 2) / (variances + K2 ** 2)


def _halved(images: tuple[np.ndarray, ...], mask: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Means over the voxels inside the mask of blocks of 2 along each axis; a block without any is outside."""
    count = _block_sums(mask.astype(np.float32))
    return [_block_sums(image) / np.maximum(count, 1) for image in images], count > 0


def _block_sums(image: np.ndarray) -> np.ndarray:
    for axis in range(image.ndim):
        if image.shape[axis] % 2:
            image = np.pad(image, [(0, int(a == axis)) for a in range(image.ndim)])
        first = tuple(slice(0, None, 2) if a == axis else slice(None) for a in range(image.ndim))
        second = tuple(slice(1, None, 2) if a == axis else slice(None) for a in range(image.ndim))
        image = image[first] + image[second]
    return image


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")
