"""Visual information fidelity: how much of what an eye could see in a source it can still see in the fused image."""

from dataclasses import dataclass

import numpy as np

from nnunetv2_rmr.evaluation.fusion_metrics.windows import LocalMean, gaussian

RADII = (8, 4, 2, 1)  # of the windows at the four scales, in voxels of the scale; sigma is a fifth of the width
NOISE_VARIANCE = 2 / 255 ** 2  # the customary 2 belongs to intensities in 0..255, ours are in 0..1
_EPSILON = 1e-10 / 255 ** 2


@dataclass(frozen=True)
class _Scale:
    """An image at one scale, and its local statistics at the centres of the windows."""

    image: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class VisualInformationFidelity:
    """Pixel-domain VIF with a source as reference, in 2D or 3D, for any number of images on one mask.

    Sheikh & Bovik 2006 (doi:10.1109/TIP.2005.859378), their multi-scale pixel-domain version: Gaussian windows 17, 9,
    5 and 3 voxels wide, each scale filtered by its window and every second voxel kept. min_coverage: see LocalMean.
    """

    def __init__(self, mask: np.ndarray, min_coverage: float = 0.0):
        self._mask = mask
        self._shrinking: list[tuple[LocalMean, tuple[slice, ...]]] = []  # from each scale to the next
        self._windows: list[LocalMean] = []
        for scale, radius in enumerate(RADII):
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
