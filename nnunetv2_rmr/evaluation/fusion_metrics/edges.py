"""How well the edges of the sources are preserved, Qabf (also called Q_G), and whether the image is a copy of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import binary_erosion, correlate1d

PARAMETER_SET = "Xydeas-Petrovic 2000"
STRENGTH = (0.9994, -15.0, 0.5)  # Gamma, kappa, sigma of the sigmoid for edge strength
ORIENTATION = (0.9879, -22.0, 0.8)  # and for edge orientation
WEIGHT_EXPONENT = 1  # L: a voxel weighs as much as the source's edge is strong
STRONGEST = 0.9  # quantile of a source's edge strength above which edges may be its own
FEWEST_OWN = 50  # voxels
COMPLETE = 0.975  # Qabf of identical images
CORRELATION = 0.99  # above: a copy
OWN_EDGES = 0.05  # below, for every other source: a copy, if the image shows the source itself
SHOWS_ITSELF = 0.5  # Qabf of the source


@dataclass(frozen=True)
class _Edges:
    gradient: np.ndarray  # (axes, voxels), Sobel
    strength: np.ndarray  # (voxels,)

    @cached_property
    def median(self) -> float:
        return float(np.median(self.strength))

    def at(self, voxels: np.ndarray) -> "_Edges":
        return _Edges(self.gradient[:, voxels], self.strength[voxels])


class EdgePreservation:
    """Qabf of Xydeas & Petrovic 2000 (doi:10.1049/el:20000267) with their parameters, in 2D or 3D.

    Voxels count whose whole Sobel window (3 voxels along each axis) lies inside the mask. The orientation difference is
    the angle between the gradients as lines without sign, 0..90 degrees; in 2D that is the published difference of
    arctangents.
    """

    def __init__(self, mask: np.ndarray):
        self._counted = binary_erosion(mask, np.ones((3,) * mask.ndim, bool))

    def describe(self, image: np.ndarray) -> _Edges:
        """What `compare` needs of an image of the mask's shape."""
        responses = []
        for derivative_axis in range(image.ndim):
            response = image
            for axis in range(image.ndim):
                response = correlate1d(response, (-1, 0, 1) if axis == derivative_axis else (1, 2, 1), axis)
            responses.append(response[self._counted])
        gradient = np.stack(responses)
        return _Edges(gradient, np.sqrt((gradient ** 2).sum(0)))

    def compare(self, fused: _Edges, sources: list[_Edges]) -> float:
        """0..0.975 (identical images do not reach 1). NaN if no source has an edge."""
        preserved = weights = 0.0
        for source in sources:
            weight = source.strength ** WEIGHT_EXPONENT
            preserved += float((_quality(source, fused) * weight).sum(dtype=np.float64))
            weights += float(weight.sum(dtype=np.float64))
        return preserved / weights if weights > 0 else float("nan")

    def own(self, source: _Edges, others: list[_Edges]) -> list[np.ndarray]:
        """Which of the counted voxels are the source's own edges, that no other source could have given: its gradient
        is among its strongest tenth, and that of each of the others not above its median. Boolean, (voxels,).

        One set; or, if that has fewer than 50 voxels, a set for each of the others alone.
        """
        if not source.strength.size:
            return [np.zeros(0, bool)]
        strongest = source.strength > np.quantile(source.strength, STRONGEST)
        flat = [strongest & (other.strength <= other.median) for other in others]  # the median may be 0
        of_all = np.logical_and.reduce([strongest, *flat])
        return [of_all] if np.count_nonzero(of_all) >= FEWEST_OWN else flat or [of_all]

    def compare_own(self, own: list[np.ndarray], fused: _Edges, source: _Edges) -> float:
        """Qabf of one source over its own edges, as `own` found them, 0..0.975; of several sets the smallest. NaN if
        all have fewer than 50 voxels.
        """
        found = [self.compare(fused.at(voxels), [source.at(voxels)]) for voxels in own
                 if np.count_nonzero(voxels) >= FEWEST_OWN]
        return min(found, default=float("nan"))


def _quality(source: _Edges, fused: _Edges) -> np.ndarray:
    weaker, stronger = np.minimum(source.strength, fused.strength), np.maximum(source.strength, fused.strength)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.nan_to_num(weaker / stronger)
        cosine = np.abs((source.gradient * fused.gradient).sum(0)) / (source.strength * fused.strength)
    # without an edge in one of the images there is no orientation to preserve
    alignment = 1 - np.arccos(np.nan_to_num(cosine).clip(0, 1)) * np.float32(2 / np.pi)
    return _sigmoid(ratio, STRENGTH) * _sigmoid(alignment, ORIENTATION)


def _sigmoid(x: np.ndarray, parameters: tuple[float, float, float]) -> np.ndarray:
    gamma, kappa, sigma = parameters
    return gamma / (1 + np.exp(kappa * (x - sigma)))


def copied_source(metric: EdgePreservation, fused: _Edges, sources: Sequence[_Edges],
                  correlations: Sequence[float]) -> int | None:
    """Number of the source that the fused image is a copy of; None if it is none.

    A copy correlates with a source (Pearson's r inside the body) by more than .99; or it shows the source (Qabf of at
    least .5, so of inverted contrast, too) and none of the others: their own edges, where the source's gradient is
    below its median, all come out below .05.

    fused, sources: of metric.describe. correlations: of the fused image with every source.
    """
    closest = max(range(len(sources)), key=lambda i: np.nan_to_num(correlations[i], nan=-1.0))
    if correlations[closest] > CORRELATION:
        return closest
    for i, source in enumerate(sources):
        if metric.compare(fused, [source]) < SHOWS_ITSELF:
            continue
        others = [metric.compare_own(metric.own(other, [source]), fused, other)
                  for j, other in enumerate(sources) if j != i]
        others = [value for value in others if not np.isnan(value)]
        if others and max(others) < OWN_EDGES:
            return i
    return None
