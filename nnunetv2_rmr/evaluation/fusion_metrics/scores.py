"""All fusion metrics of fused images: in 3D, or slice by slice as papers do."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from nnunetv2_rmr.evaluation.fusion_metrics import information
from nnunetv2_rmr.evaluation.fusion_metrics.contrast import contrast_scores
from nnunetv2_rmr.evaluation.fusion_metrics.edges import EdgePreservation, copied_source
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import bounding_box, mean, smallest
from nnunetv2_rmr.evaluation.fusion_metrics.similarity import StructuralSimilarity, VisualInformationFidelity, psnr

# of every source alone; the smallest over sources is the headline, since a copy of one source wins the means
OF_SOURCE = ("own edges", "Qabf", "VIF", "SSIM", "MI")
SMALLEST = tuple(f"smallest {metric}" for metric in OF_SOURCE)
METRICS = (*SMALLEST, "EN", "SD", "SF", "AG", "MI", "Q_MI", "Q_NCIE", "CC", "SCD", "Qabf", "VIF", "SSIM", "MS-SSIM",
           "PSNR")
MIN_SLICE_FRACTION = 0.25  # of the content voxels of the fullest slice


@dataclass(frozen=True)
class FusionScores:
    """Of one fused image. metrics: name of METRICS -> value. sources: per source, in their order, name of OF_SOURCE ->
    value. copy_of: number of the source that the image is a copy of, see `copied_source`.
    """

    metrics: dict[str, float]
    sources: list[dict[str, float]]
    copy_of: int | None


def fusion_scores(fused: Mapping[str, np.ndarray], sources: Sequence[np.ndarray], mask: np.ndarray,
                  threads: int = 1) -> dict[str, FusionScores]:
    """Every metric of every fused image, in as many dimensions as the images have (2 or 3).

    fused: images by name of the method, so that what all of them are compared with is prepared once; an entry of
    `sources` itself costs less than another image. They and the sources: intensities in 0..1, zero outside the mask
    (see to_unit_range); mask: boolean; all of one shape. Raises ValueError for fewer than two sources, different shapes
    or an empty mask.
    """
    if len(sources) < 2:
        raise ValueError(f"fusion needs at least two sources, got {len(sources)}")
    shapes = {image.shape for image in (*fused.values(), *sources, mask)}
    if len(shapes) > 1:
        raise ValueError(f"fused images, sources and mask must have one shape, got {sorted(shapes)}")
    with ThreadPoolExecutor(threads) as pool:
        case = _Case(sources, mask, pool.map)
        return dict(zip(fused, pool.map(case.scores, fused.values())))


class _Case:
    """What all fused images of a case are compared with."""

    def __init__(self, sources: Sequence[np.ndarray], mask: np.ndarray, run_all=map):
        self.box = bounding_box(mask)
        self.mask, self.given = mask[self.box], sources
        sources = [source[self.box] for source in sources]
        self.values = [source[self.mask] for source in sources]
        self.edges = EdgePreservation(self.mask)
        self.fidelity = VisualInformationFidelity(self.mask)
        self.similarity = StructuralSimilarity(self.mask)
        self.described = list(run_all(self._describe, sources))
        edges = [described[0] for described in self.described]
        self.own = [self.edges.own(e, [other for other in edges if other is not e]) for e in edges]

    def _describe(self, image: np.ndarray) -> tuple:
        return self.edges.describe(image), self.fidelity.describe(image), self.similarity.describe(image)

    def scores(self, image: np.ndarray) -> FusionScores:
        as_source = next((i for i, source in enumerate(self.given) if source is image), None)
        image = image[self.box]
        values = image[self.mask]
        described = self._describe(image) if as_source is None else self.described[as_source]
        edges, fidelity, similarity = described
        of_sources = []
        for (s_edges, s_fidelity, s_similarity), own, s_values in zip(self.described, self.own, self.values):
            of_sources.append({
                "own edges": self.edges.compare_own(own, edges, s_edges), "Qabf": self.edges.compare(edges, [s_edges]),
                "VIF": self.fidelity.compare(fidelity, s_fidelity), **self.similarity.compare(similarity, s_similarity),
                "MI": information.mutual_information(values, s_values), "PSNR": psnr(values, s_values)})
        scores = {
            **{f"smallest {name}": smallest(s[name] for s in of_sources) for name in OF_SOURCE},
            **information.information_scores(values, self.values),
            **contrast_scores(image, self.mask),
            **information.correlation_scores(values, self.values),
            "Qabf": self.edges.compare(edges, [s[0] for s in self.described]),
            **{name: float(np.mean([s[name] for s in of_sources])) for name in ("VIF", "SSIM", "MS-SSIM", "PSNR")},
        }
        copy_of = copied_source(self.edges, edges, [s[0] for s in self.described],
                                [information.pearson(values, s_values) for s_values in self.values])
        return FusionScores({name: scores[name] for name in METRICS},
                            [{name: s[name] for name in OF_SOURCE} for s in of_sources], copy_of)


def slices_that_count(content: np.ndarray, axis: int) -> list[int]:
    """Indices along the axis of slices with at least a quarter of the fullest slice's voxels in `content`."""
    voxels = np.count_nonzero(content, axis=tuple(a for a in range(content.ndim) if a != axis))
    return np.flatnonzero((voxels > 0) & (voxels >= MIN_SLICE_FRACTION * voxels.max())).tolist()


def slicewise_scores(fused: Mapping[str, np.ndarray], sources: Sequence[np.ndarray], mask: np.ndarray,
                     slices: Sequence[int], axis: int) -> dict[str, FusionScores]:
    """Mean over the given slices along the axis of each slice's 2D scores; slices without a value are left out.

    Arguments as for fusion_scores, 3D: the intensity map must have been the volume's, not the slices'. A copy is what
    is one in more than half of the slices.
    """
    per_slice = [fusion_scores({method: image.take(i, axis) for method, image in fused.items()},
                               [source.take(i, axis) for source in sources], mask.take(i, axis)) for i in slices]
    found = {}
    for method in fused:
        scores = [of_slice[method] for of_slice in per_slice]
        metrics = {name: mean(s.metrics[name] for s in scores) for name in METRICS}
        of_sources = [{name: mean(s.sources[i][name] for s in scores) for name in OF_SOURCE}
                      for i in range(len(sources))]
        # the smallest of the means: the mean of each slice's smallest would be another, lower thing
        metrics |= {f"smallest {name}": smallest(s[name] for s in of_sources) for name in OF_SOURCE}
        copy_of, times = Counter(s.copy_of for s in scores).most_common(1)[0]
        found[method] = FusionScores(metrics, of_sources, copy_of if 2 * times > len(scores) else None)
    return found
