"""Linear correlation with the sources: CC, SCD."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np


def correlation_scores(fused: np.ndarray, sources: Sequence[np.ndarray]) -> dict[str, float]:
    """CC and SCD. fused and each source: the values of the voxels that count, one dimension.

    CC = mean over sources of Pearson's r(S, F). SCD (Aslantas & Bendes 2015, doi:10.1016/j.aeue.2015.09.004) is
    r(F - B, A) + r(F - A, B) for two sources A and B; for more it is the mean of that over all pairs of sources, so its
    range stays -2..2. NaN if an image or a difference is constant.
    """
    covariance = np.cov(np.stack([*sources, fused]), dtype=np.float64)
    f, sources_n = len(sources), range(len(sources))

    def r(covariance_xy: float, variance_x: float, variance_y: float) -> float:
        # differences of equal images have a variance of rounding errors
        tiny = 1e-12 * covariance.trace()
        return float(covariance_xy / np.sqrt(variance_x * variance_y)) if min(variance_x, variance_y) > tiny \
            else float("nan")

    def of_difference(a: int, b: int) -> float:
        """r(F - B, A), from the covariances alone."""
        variance = covariance[f, f] + covariance[b, b] - 2 * covariance[f, b]
        return r(covariance[f, a] - covariance[b, a], variance, covariance[a, a])

    return {
        "CC": float(np.mean([r(covariance[s, f], covariance[s, s], covariance[f, f]) for s in sources_n])),
        "SCD": float(2 * np.mean([of_difference(a, b) for a, b in permutations(sources_n, 2)])),
    }


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two images, one dimension each. NaN if one is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(a, b, dtype=np.float64)[0, 1])
