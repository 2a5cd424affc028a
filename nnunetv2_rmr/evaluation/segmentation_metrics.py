"""Dice, HD95 and normalised surface distance of one segmentation, by nnU-Net's own conventions where it has them."""

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import compute_tp_fp_fn_tn, region_or_label_to_mask
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects, generate_binary_structure

from nnunetv2_rmr.datasets.labels import values_of

LabelOrRegion = int | tuple[int, ...]
NAN = float("nan")


def labels_and_regions(labels: dict) -> dict[str, LabelOrRegion]:
    """Name -> foreground label, or tuple of labels of a region, in the order of dataset.json's "labels"."""
    found = {}
    for name, value in labels.items():
        values = tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),)
        if name != "ignore" and set(values) != {0}:
            found[name] = values if isinstance(value, (list, tuple)) else values[0]
    return found


def label_names(description: dict) -> dict[int, str]:
    """Value -> name by dataset.json (`description`). Of regions, the name of the one that is written as this value."""
    labels = {name: value for name, value in description.get("labels", {}).items() if name != "background"}
    if (order := description.get("regions_class_order")) is not None:
        regions = [name for name, value in labels.items() if name != "ignore"]
        return dict(zip(order, regions))
    return {int(value): name for name, value in labels.items() if not isinstance(value, list)}


def declared_values(labels: dict[str, LabelOrRegion], ignore_label: int | None) -> set[int]:
    """Values that a label map with these labels and regions (see labels_and_regions) may hold."""
    return {0, *values_of(labels)} | ({ignore_label} if ignore_label is not None else set())


def segmentation_scores(reference: np.ndarray, prediction: np.ndarray, label: LabelOrRegion, spacing: tuple[float, ...],
                        tolerance_mm: float, ignore_label: int | None = None) -> dict[str, float]:
    """Dice (0..1), HD95 (mm) and NSD (0..1) of one label or region.

    reference, prediction: labels (Z, Y, X); spacing in mm, in that order. Dice is nnU-Net's, the ignored voxels too.
    Nothing in either: all three NaN, as in nnU-Net. Nothing in one of them: Dice and NSD 0, and HD95, which is then
    undefined, is the diagonal of the image (the largest distance there could be).
    """
    ignored = reference == ignore_label if ignore_label is not None else None
    masks = [region_or_label_to_mask(segmentation, label) for segmentation in (reference, prediction)]
    tp, fp, fn, _ = compute_tp_fp_fn_tn(*masks, ignored)
    if tp + fp + fn == 0:
        return {"Dice": NAN, "HD95": NAN, "NSD": NAN}
    if tp + fn == 0 or tp + fp == 0:
        # without the depth of a single slice, which nnU-Net makes up
        edges = [n * mm for n, mm in zip(reference.shape, spacing) if n > 1]
        return {"Dice": 0.0, "HD95": float(np.linalg.norm(edges)), "NSD": 0.0}
    if ignored is not None:
        masks = [mask & ~ignored for mask in masks]
    distances = surface_distances(*masks, spacing)
    return {"Dice": float(2 * tp / (2 * tp + fp + fn)),
            "HD95": float(max(np.percentile(d, 95) for d in distances)),
            "NSD": float(sum((d <= tolerance_mm).sum() for d in distances) / sum(map(len, distances)))}


def surface_distances(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm from every surface voxel of a to the surface of b, and from b's to a's. Neither may be empty.

    a, b: boolean (Z, Y, X). The surface are the voxels of the mask with a face towards its outside, or the image's.
    """
    # an image of one voxel in an axis (2D) has no faces there; where the image ends, the mask does
    faces = generate_binary_structure(a.ndim, 1)[tuple(slice(1, 2) if n == 1 else slice(None) for n in a.shape)]
    box = find_objects((a | b).astype(np.uint8))[0]
    a, b = a[box], b[box]
    surfaces = [mask & ~binary_erosion(mask, faces) for mask in (a, b)]
    to_surface = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    return to_surface[1][surfaces[0]], to_surface[0][surfaces[1]]
