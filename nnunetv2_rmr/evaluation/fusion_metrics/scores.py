"""All fusion metrics of one fused image: in 3D, or slice by slice as papers do."""

from collections.abc import Sequence

import numpy as np

from nnunetv2_rmr.evaluation.fusion_metrics.contrast import contrast_scores
from nnunetv2_rmr.evaluation.fusion_metrics.correlation import correlation_scores
from nnunetv2_rmr.evaluation.fusion_metrics.edges import edge_preservation
from nnunetv2_rmr.evaluation.fusion_metrics.information import information_scores
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import bounding_box
from nnunetv2_rmr.evaluation.fusion_metrics.similarity import psnr, ssim_scores
from nnunetv2_rmr.evaluation.fusion_metrics.vif import visual_information_fidelity

METRICS = ("EN", "SD", "SF", "AG", "MI", "Q_MI", "Q_NCIE", "CC", "SCD", "Qabf", "VIF", "SSIM", "MS-SSIM", "PSNR")
MIN_SLICE_FRACTION = 0.25  # of the mask voxels of the fullest slice


def fusion_scores(fused: np.ndarray, sources: Sequence[np.ndarray], mask: np.ndarray) -> dict[str, float]:
    """Every metric of METRICS, over the voxels of the mask, in as many dimensions as the images have (2 or 3).

    fused, each source: intensities in 0..1, zero outside the mask (see to_unit_range); mask: boolean; one shape.
    Raises ValueError for fewer than two sources, different shapes or an empty mask.
    """
    if len(sources) < 2:
        raise ValueError(f"fusion needs at least two sources, got {len(sources)}")
    shapes = {image.shape for image in (fused, *sources, mask)}
    if len(shapes) > 1:
        raise ValueError(f"fused image, sources and mask must have one shape, got {sorted(shapes)}")
    box = bounding_box(mask)
    fused, mask, sources = fused[box], mask[box], [source[box] for source in sources]
    fused_values, source_values = fused[mask], [source[mask] for source in sources]
    to_each_source = [{"VIF": visual_information_fidelity(fused, source, mask), **ssim_scores(fused, source, mask),
                       "PSNR": psnr(fused_values, values)} for source, values in zip(sources, source_values)]
    scores = {
        **information_scores(fused_values, source_values),
        **contrast_scores(fused, mask),
        **correlation_scores(fused_values, source_values),
        "Qabf": edge_preservation(fused, sources, mask),
        **{name: float(np.mean([s[name] for s in to_each_source])) for name in to_each_source[0]},
    }
    return {name: scores[name] for name in METRICS}


def slices_that_count(content: np.ndarray, axis: int) -> list[int]:
    """Indices along the axis of slices with at least a quarter of the fullest slice's voxels in `content`."""
    voxels = np.count_nonzero(content, axis=tuple(a for a in range(content.ndim) if a != axis))
    return np.flatnonzero((voxels > 0) & (voxels >= MIN_SLICE_FRACTION * voxels.max())).tolist()


def slicewise_scores(fused: np.ndarray, sources: Sequence[np.ndarray], mask: np.ndarray, slices: Sequence[int],
                     axis: int) -> dict[str, float]:
    """Mean over the given slices along the axis of each slice's 2D scores; slices without a value are left out.

    Arguments as for fusion_scores, 3D: the intensity map must have been the volume's, not the slices'.
    """
    per_slice = [fusion_scores(fused.take(i, axis), [s.take(i, axis) for s in sources], mask.take(i, axis))
                 for i in slices]
    return {name: _nanmean([scores[name] for scores in per_slice]) for name in METRICS}


def _nanmean(values: Sequence[float]) -> float:
    present = [v for v in values if not np.isnan(v)]
    return float(np.mean(present)) if present else float("nan")
