"""How similar the fused image is to a source: SSIM, MS-SSIM, PSNR, and visual information fidelity (VIF);
and how well it restores the clean one."""

from dataclasses import dataclass

import numpy as np
import torch

from nnunetv2_rmr.evaluation.fusion_metrics.intensities import mean_or_nan
from nnunetv2_rmr.evaluation.fusion_metrics.windows import LocalMean, gaussian

SIGMA, RADIUS = 1.5, 5  # of the window, in voxels (11 taps)
K1, K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
VIF_RADII = (8, 4, 2, 1)  # of VIF's windows at the four scales, in voxels of the scale; sigma is a fifth of the width
NOISE_VARIANCE = 2 / 255 ** 2  # the customary 2 belongs to intensities in 0..255, ours are in 0..1
_EPSILON = 1e-10 / 255 ** 2


def psnr(fused: np.ndarray, source: np.ndarray) -> float:
    """10 log10(1 / mean squared error) in dB; images of values in 0..1, one dimension. Infinite if they are equal."""
    mse = float(np.square(fused - source, dtype=np.float64).mean())
    return float("inf") if mse == 0 else float(-10 * np.log10(mse))


@dataclass(frozen=True)
class _Scale:
    """An image at one scale, and its local statistics at the centres of the windows."""

    image: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class StructuralSimilarity:
    """SSIM (Wang et al. 2004, doi:10.1109/TIP.2003.819861) and MS-SSIM (Wang et al. 2003,
    doi:10.1109/ACSSC.2003.1292216), in 2D or 3D, for any number of images on one mask, with data range 1.

    Each of the five scales of MS-SSIM averages blocks of 2 voxels along each axis (those inside the mask).
    min_coverage: see LocalMean.
    """

    def __init__(self, mask: np.ndarray, min_coverage: float = 0.0):
        self._masks = [mask]
        for _ in SCALE_WEIGHTS[1:]:
            self._masks.append(_block_sums(self._masks[-1].astype(np.float32)) > 0)
        self._windows = [LocalMean(m, gaussian(SIGMA, RADIUS), min_coverage) for m in self._masks]

    def describe(self, image: np.ndarray) -> list[_Scale]:
        """What `compare` needs of an image: 0..1, zero outside the mask."""
        scales = []
        for scale, window in enumerate(self._windows):
            if scale > 0:
                count = _block_sums(self._masks[scale - 1].astype(np.float32))
                image = _block_sums(image) / np.maximum(count, 1)
            mean = window(image)
            scales.append(_Scale(image, mean, window(image * image) - mean * mean))
        return scales

    def compare(self, x: list[_Scale], y: list[_Scale]) -> dict[str, float]:
        """SSIM, -1..1, and MS-SSIM, 0..1, means over the mask.

        A scale of negative mean, as between images of opposite contrast, counts as 0 in MS-SSIM.
        """
        means = []  # per scale: of the similarity, of its structure term alone
        for a, b, window in zip(x, y, self._windows):
            product = a.mean * b.mean
            covariance = window(a.image * b.image) - product
            structure = (2 * covariance + K2 ** 2) / (a.variance + b.variance + K2 ** 2)
            luminance = (2 * product + K1 ** 2) / (a.mean ** 2 + b.mean ** 2 + K1 ** 2)
            means.append((mean_or_nan(luminance * structure), mean_or_nan(structure)))
        terms = [structure for _, structure in means[:-1]] + [means[-1][0]]
        multi_scale = np.prod(np.maximum(terms, 0) ** np.array(SCALE_WEIGHTS))  # NaN stays NaN
        return {"SSIM": means[0][0], "MS-SSIM": float(multi_scale)}


def _block_sums(image: np.ndarray) -> np.ndarray:
    """Sums of blocks of 2 voxels along each axis; zeros beyond the border."""
    for axis, length in enumerate(image.shape):
        image = np.add.reduceat(image, np.arange(0, length, 2), axis)
    return image


def restoration_scores(restored: torch.Tensor, clean: torch.Tensor, inside: torch.Tensor) -> dict[str, float]:
    """PSNR in dB and SSIM of `restored` against `clean`.

    All (D, H, W); inside: boolean, the voxels with data. The 0.1 and the 99.9 percentile of `clean` inside the mask
    become 0 and 1 in both images (if both are one value, its range counts as 1). PSNR = 10 log10(1 / MSE inside the
    mask), infinite for equal images. SSIM: mean over the mask, windows see only their part inside, see
    StructuralSimilarity.
    """
    mask = inside.cpu().numpy()
    restored, clean = (image.cpu().numpy().astype(np.float64) for image in (restored, clean))
    low, high = np.quantile(clean[mask], (0.001, 0.999))
    span = high - low or 1.0
    with np.errstate(divide="ignore"):
        psnr = float(-10 * np.log10(np.square((restored[mask] - clean[mask]) / span).mean()))
    metric = StructuralSimilarity(mask)
    x, y = (metric.describe(np.where(mask, (image - low) / span, 0).astype(np.float32)) for image in (restored, clean))
    return {"PSNR": psnr, "SSIM": metric.compare(x, y)["SSIM"]}


class VisualInformationFidelity:
    """Pixel-domain VIF with a source as reference, in 2D or 3D, for any number of images on one mask.

    Sheikh & Bovik 2006 (doi:10.1109/TIP.2005.859378), their multi-scale pixel-domain version: Gaussian windows 17, 9,
    5 and 3 voxels wide, each scale filtered by its window and every second voxel kept. min_coverage: see LocalMean.
    """

    def __init__(self, mask: np.ndarray, min_coverage: float = 0.0):
        self._mask = mask
        self._shrinking: list[tuple[LocalMean, tuple[slice, ...]]] = []  # from each scale to the next
        self._windows: list[LocalMean] = []
        for scale, radius in enumerate(VIF_RADII):
            smooth = gaussian((2 * radius + 1) / 5, radius)
            if scale > 0:
                window = LocalMean(mask, smooth, min_coverage)
                start = radius % 2  # the grid of unpadded filters
                every_second = tuple(slice(start if n > start else 0, None, 2) for n in mask.shape)
                self._shrinking.append((window, every_second))
                mask = window.centres[every_second]
            self._windows.append(LocalMean(mask, smooth, min_coverage))

    def describe(self, image: np.ndarray) -> list[_Scale]:
        """What `compare` needs of an image: 0..1, zero outside the mask."""
        # only deviations count; around 0 float32 resolves them best
        image = np.where(self._mask, image - image[self._mask].mean(), 0).astype(image.dtype)
        scales = []
        for scale, window in enumerate(self._windows):
            if scale > 0:
                shrink, every_second = self._shrinking[scale - 1]
                image = shrink.volume(image)[every_second]
            mean = window(image)
            scales.append(_Scale(image, mean, (window(image * image) - mean * mean).clip(0)))
        return scales

    def compare(self, fused: list[_Scale], source: list[_Scale]) -> float:
        """From 0; 1 for identical images; above 1 if the fused image has the source's structure with more contrast.

        NaN for a constant source.
        """
        kept = total = 0.0
        for f, s, window in zip(fused, source, self._windows):
            covariance = window(f.image * s.image) - f.mean * s.mean
            # elsewhere the fused image shows nothing of the source
            seen = (s.variance > _EPSILON) & (f.variance > _EPSILON) & (covariance > 0)
            gain = np.where(seen, covariance / (s.variance + _EPSILON), 0)
            distortion = (f.variance - gain * covariance).clip(_EPSILON)
            kept += _sum_of_logs(gain * gain * s.variance / (distortion + NOISE_VARIANCE))
            total += _sum_of_logs(s.variance / NOISE_VARIANCE)
        return kept / total if total > 0 else float("nan")


def _sum_of_logs(signal_to_noise: np.ndarray) -> float:
    return float(np.log2(1 + signal_to_noise).sum(dtype=np.float64))
