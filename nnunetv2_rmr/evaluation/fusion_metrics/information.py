"""How much information there is, EN, and is shared with the sources: MI, Q_MI, Q_NCIE, by histograms; CC, SCD."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np

BINS = 256  # of equal width over 0..1


def quantise(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 -> index of their bin, 0..255."""
    return np.minimum(values * BINS, BINS - 1).astype(np.uint8)


def entropy(counts: np.ndarray) -> float:
    """Shannon entropy of a histogram of any shape, in bits."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def joint_entropy(a: np.ndarray, b: np.ndarray) -> float:
    """Of two quantised images (one dimension, same length), in bits."""
    return entropy(np.bincount(a.astype(np.intp) * BINS + b, minlength=BINS ** 2))


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """I(A;B) in bits, of the values of two images in 0..1, one dimension each."""
    a, b = quantise(a), quantise(b)
    return sum(entropy(np.bincount(image, minlength=BINS)) for image in (a, b)) - joint_entropy(a, b)


def information_scores(fused: np.ndarray, sources: Sequence[np.ndarray]) -> dict[str, float]:
    """EN, MI, Q_MI and Q_NCIE. fused and each source: values in 0..1 of the voxels that count, one dimension.

    EN = H(F). MI = sum over sources of I(S;F). Q_MI = sum over sources of 2 I(S;F) / (H(S) + H(F)) (Hossny et al.
    2008, doi:10.1049/el:20081754). Q_NCIE (Wang, Shen, Jin 2008): 1 + sum of l/n log_256(l/n) over the eigenvalues l of
    the matrix of nonlinear correlation coefficients of the n = sources + 1 images, H(X) + H(Y) - H(X,Y) in base 256,
    with ones on the diagonal. Q_MI is NaN if a source and the fused image are constant.
    """
    images = [quantise(image) for image in (*sources, fused)]
    single = [entropy(np.bincount(image, minlength=BINS)) for image in images]
    n = len(images)
    mutual = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            mutual[i, j] = mutual[j, i] = single[i] + single[j] - joint_entropy(images[i], images[j])
    shared = mutual[-1, :-1]
    sums = np.array(single[:-1]) + single[-1]
    with np.errstate(invalid="ignore"):
        q_mi = float((2 * shared / sums).sum())
    return {"EN": single[-1], "MI": float(shared.sum()), "Q_MI": q_mi, "Q_NCIE": correlation_entropy(mutual)}


def correlation_entropy(mutual: np.ndarray) -> float:
    """Q_NCIE of the (n, n) matrix of mutual information in bits; its diagonal is not looked at."""
    correlation = mutual / np.log2(BINS)
    np.fill_diagonal(correlation, 1)
    parts = np.linalg.eigvalsh(correlation) / len(correlation)
    parts = parts[parts > 0]  # x log x -> 0
    return float(1 + (parts * np.log(parts)).sum() / np.log(BINS))


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
