"""Local means over the part of a window that lies inside a mask, by separable filters."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter

Smoothing = Callable[[np.ndarray], np.ndarray]  # a weighted mean of each window; zeros beyond the border, shape kept


def gaussian(sigma: float, radius: int) -> Smoothing:
    """Windows 2 * radius + 1 voxels wide along every axis; sigma in voxels."""
    return partial(gaussian_filter, sigma=sigma, radius=radius, mode="constant")


def box(radius: int) -> Smoothing:
    """Equal weights in windows 2 * radius + 1 voxels wide along every axis."""
    return partial(uniform_filter, size=2 * radius + 1, mode="constant")


class LocalMean:
    """Weighted mean of each window's voxels inside the mask, for every window with its centre inside.

    What lies outside is ignored instead of counted as zero, so that the border of the mask is no edge that all images
    share, and the amount of background does not matter. min_coverage: windows with a smaller part of their weight
    inside the mask are left out; 1 keeps whole windows only, which is how libraries treat the border of an image.
    """

    def __init__(self, mask: np.ndarray, smooth: Smoothing, min_coverage: float = 0.0):
        self.smooth = smooth
        coverage = smooth(mask.astype(np.float32))
        self.centres = mask & (coverage >= min_coverage - 1e-4)  # float32 sums of weights miss 1 by less
        self.coverage = coverage[self.centres]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """image: zero outside the mask, same shape. Returns the means at `centres`, one dimension."""
        return self.smooth(image)[self.centres] / self.coverage

    def volume(self, image: np.ndarray) -> np.ndarray:
        """The means in an array of the image's shape, 0 where there is none."""
        means = np.zeros_like(image)
        means[self.centres] = self(image)
        return means
