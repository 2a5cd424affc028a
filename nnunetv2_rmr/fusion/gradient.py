"""Gradient-domain fusion: every modality's edges, over the coarse scales of the reference modality."""

from collections.abc import Sequence

import numpy as np
from scipy.fft import dctn, idctn

COARSE_MM = 3.0  # standard deviation of the Gaussian whose low-pass image the reference modality decides
COARSE_VOXELS = 1.5  # but at least as many of the shortest edge: on coarse grids nothing would be left to the gradients
COARSE_WEIGHT = 0.75  # of that image against the gradients, per mm^2; less on such grids
BRIGHT = 1.5  # standard deviations above the median from which a modality's own bright spots are added to it


def gradient(sources: Sequence[np.ndarray], mask: np.ndarray, spacing: Sequence[float],
             reference: int) -> np.ndarray:
    """The image F of least |grad F - g|^2 + w |G(F - B)|^2 over the mask: a screened Poisson equation, solved by DCT.

    sources: zero outside the mask; mask: boolean; one shape, 2D or 3D. spacing: mm per axis. Returns F in the units of
    sources[reference], any value outside the mask.

    g: the sources' gradients in units of their own spread (root mean square over the mask), averaged with their squared
    magnitudes as weights: a smooth form of taking the strongest of them (Perez et al. 2003, doi:10.1145/882262.882269,
    mixed gradients), each with its own sign. Structure tensors (Socolinsky & Wolff 2002, doi:10.1109/TIP.2002.999679)
    weaken an edge that one modality has alone by the root of their number. B: the reference modality, and what another
    has brighter than 1.5 standard deviations above its median and than the rest of the others (an enhancing rim, a hot
    spot), in the same units. G: Gaussian, 3 mm, on coarse grids 1.5 voxels. docs/fusion_metrics.md says how these were
    chosen: by the contrast of lesions first, by the smallest Qabf over sources second.
    """
    ndim, spacing = mask.ndim, np.asarray(spacing, np.float32)
    both = [mask[_ahead(ndim, axis)] & mask[_behind(ndim, axis)] for axis in range(ndim)]
    spreads = np.array([_spread(source, both, mask, spacing) for source in sources])
    scale = np.divide(spreads[reference], spreads, out=np.zeros_like(spreads), where=spreads > 0).astype(np.float32)

    field = [np.zeros(mask.shape, np.float32) for _ in range(ndim)]
    weights = np.zeros(mask.shape, np.float32)
    for source, factor in zip(sources, scale):
        steps = _differences(source * factor, both, spacing)
        strength = sum(step ** 2 for step in steps)
        weights += strength
        for component, step in zip(field, steps):
            component += strength * step
    weights[weights == 0] = 1
    field = [component / weights for component in field]

    coarse, median = _coarse_image(sources, mask, scale, reference)
    return _solve(field, coarse, spacing) + median


def _coarse_image(sources: Sequence[np.ndarray], mask: np.ndarray, scale: np.ndarray,
                  reference: int) -> tuple[np.ndarray, np.float32]:
    """B without the reference's median, 0 outside the mask; and that median."""
    scores, deviations = [], []
    for source in sources:
        values = source[mask]
        deviations.append(values.std() or np.float32(1))
        scores.append((source - np.median(values)) / deviations[-1])
    coarse = scores[reference] * deviations[reference]
    others = [i for i in range(len(sources)) if i != reference]
    for i in others:
        rest = np.maximum.reduce([np.full_like(scores[i], BRIGHT), *(scores[j] for j in others if j != i)])
        coarse += (scores[i] - rest).clip(0) * (deviations[i] * scale[i])
    coarse[~mask] = 0
    return coarse, np.median(sources[reference][mask])


def _solve(field: list[np.ndarray], coarse: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """field: d/dx per mm, between a voxel and the next, per axis. Neumann borders: DCT-II diagonalises both terms."""
    coarse_mm = max(COARSE_MM, COARSE_VOXELS * float(min(spacing)))
    divergence = np.zeros_like(coarse)
    stiffness = lowpass = np.float32(0)
    for axis, (component, mm) in enumerate(zip(field, spacing)):
        ahead, behind = _ahead(coarse.ndim, axis), _behind(coarse.ndim, axis)
        divergence[behind] += component[behind] / mm
        divergence[ahead] -= component[behind] / mm
        shape = [-1 if a == axis else 1 for a in range(coarse.ndim)]
        frequency = (np.pi * np.arange(coarse.shape[axis]) / coarse.shape[axis]).astype(np.float32)  # per voxel
        stiffness = stiffness + ((2 - 2 * np.cos(frequency)) / mm ** 2).reshape(shape)
        lowpass = lowpass + ((frequency * coarse_mm / mm) ** 2).reshape(shape)
    lowpass = COARSE_WEIGHT * COARSE_MM / coarse_mm * np.exp(-lowpass)  # G twice
    solution = (lowpass * dctn(coarse) - dctn(divergence)) / np.maximum(stiffness + lowpass, np.float32(1e-9))
    return idctn(solution, overwrite_x=True)


def _spread(source: np.ndarray, both: list[np.ndarray], mask: np.ndarray, spacing: np.ndarray) -> float:
    steps = _differences(source, both, spacing)
    return float(np.sqrt(sum(np.square(step).sum(dtype=np.float64) for step in steps) / mask.sum()))


def _differences(image: np.ndarray, both: list[np.ndarray], spacing: np.ndarray) -> list[np.ndarray]:
    """Per axis the difference to the next voxel per mm, at the first of the two; 0 unless both are in the mask."""
    found = []
    for axis, (pair, mm) in enumerate(zip(both, spacing)):
        step = np.zeros(image.shape, np.float32)
        behind = _behind(image.ndim, axis)
        step[behind] = np.where(pair, image[_ahead(image.ndim, axis)] - image[behind], 0) / mm
        found.append(step)
    return found


def _ahead(ndim: int, axis: int) -> tuple[slice, ...]:
    return tuple(slice(1, None) if a == axis else slice(None) for a in range(ndim))


def _behind(ndim: int, axis: int) -> tuple[slice, ...]:
    return tuple(slice(None, -1) if a == axis else slice(None) for a in range(ndim))
