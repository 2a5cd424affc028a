"""All fusion metrics of fused images: in 3D, or slice by slice as papers do."""

from collections.abc import Mapping, Sequence

import numpy as np

from nnunetv2_rmr.evaluation.fusion_metrics.contrast import contrast_scores
from nnunetv2_rmr.evaluation.fusion_metrics.correlation import correlation_scores
from nnunetv2_rmr.evaluation.fusion_metrics.edges import EdgePreservation
from nnunetv2_rmr.evaluation.fusion_metrics.information import information_scores
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import bounding_box
from nnunetv2_rmr.evaluation.fusion_metrics.similarity import StructuralSimilarity, psnr
from nnunetv2_rmr.evaluation.fusion_metrics.vif import VisualInformationFidelity

METRICS = ("EN", "SD", "SF", "AG", "MI", "Q_MI", "Q_NCIE", "CC", "SCD", "Qabf", "VIF", "SSIM", "MS-SSIM", "PSNR")
MIN_SLICE_FRACTION = 0.25  # of the content voxels of the fullest slice

Scores = dict[str, dict[str, float]]  # method -> metric -> value


def fusion_scores(fused: Mapping[str, np.ndarray], sources: Sequence[np.ndarray], mask: np.ndarray) -> Scores:
    """Every metric of METRICS of every fused image, in as many dimensions as the images have (2 or 3).

    fused: images by name of the method, so that what all of them are compared with is prepared once. They and the
    sources: intensities in 0..1, zero outside the mask (see to_unit_range); mask: boolean; all of one shape.
    Raises ValueError for fewer than two sources, different shapes or an empty mask.
    """
    if len(sources) < 2:
        raise ValueError(f"fusion needs at least two sources, got {len(sources)}")
    shapes = {image.shape for image in (*fused.values(), *sources, mask)}
    if len(shapes) > 1:
        raise ValueError(f"fused images, sources and mask must have one shape, got {sorted(shapes)}")
    box = bounding_box(mask)
    mask, sources = mask[box], [source[box] for source in sources]
    values = [source[mask] for source in sources]
    edges, fidelity, similarity = EdgePreservation(mask), VisualInformationFidelity(mask), StructuralSimilarity(mask)
    described = {metric: [metric.describe(source) for source in sources] for metric in (edges, fidelity, similarity)}
    found = {}
    for method, image in fused.items():
        image = image[box]
        image_values = image[mask]
        own = {metric: metric.describe(image) for metric in described}
        of_sources = [{"VIF": fidelity.compare(own[fidelity], described[fidelity][i]),
                       **similarity.compare(own[similarity], described[similarity][i]),
                       "PSNR": psnr(image_values, values[i])} for i in range(len(sources))]
        scores = {
            **information_scores(image_values, values),
            **contrast_scores(image, mask),
            **correlation_scores(image_values, values),
            "Qabf": edges.compare(own[edges], described[edges]),
            **{name: float(np.mean([s[name] for s in of_sources])) for name in of_sources[0]},
        }
        found[method] = {name: scores[name] for name in METRICS}
    return found


def slices_that_count(content: np.ndarray, axis: int) -> list[int]:
    """Indices along the axis of slices with at least a quarter of the fullest slice's voxels in `content`."""
    voxels = np.count_nonzero(content, axis=tuple(a for a in range(content.ndim) if a != axis))
    return np.flatnonzero((voxels > 0) & (voxels >= MIN_SLICE_FRACTION * voxels.max())).tolist()


def slicewise_scores(fused: Mapping[str, np.ndarray], sources: Sequence[np.ndarray], mask: np.ndarray,
                     slices: Sequence[int], axis: int) -> Scores:
    """Mean over the given slices along the axis of each slice's 2D scores; slices without a value are left out.

    Arguments as for fusion_scores, 3D: the intensity map must have been the volume's, not the slices'.
    """
    per_slice = [fusion_scores({method: image.take(i, axis) for method, image in fused.items()},
                               [source.take(i, axis) for source in sources], mask.take(i, axis)) for i in slices]
    return {method: {metric: _nanmean([scores[method][metric] for scores in per_slice]) for metric in METRICS}
            for method in fused}


def _nanmean(values: Sequence[float]) -> float:
    present = [v for v in values if not np.isnan(v)]
    return float(np.mean(present)) if present else float("nan")
