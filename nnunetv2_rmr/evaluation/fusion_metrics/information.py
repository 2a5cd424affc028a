"""How much information: EN, and how much of it is shared with the sources: MI, Q_MI, Q_NCIE. All from histograms."""

from collections.abc import Sequence

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
