"""Evaluate a folder of fused images, several cases at a time: one intensity map per image, scores of the fused image
and of the baselines by the same rules."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask

from nnunetv2_rmr.evaluation.fusion_baselines import COPY
from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse, pywavelets
from nnunetv2_rmr.evaluation.fusion_metrics.case_files import BODY, NO_MASK, Folders, refuse_segmentation
from nnunetv2_rmr.evaluation.fusion_metrics.contrast import LESION_CONTRAST, LesionContrast, relative_contrast
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import bounding_box, smallest, to_unit_range
from nnunetv2_rmr.evaluation.fusion_metrics.rules import rules
from nnunetv2_rmr.evaluation.fusion_metrics.scores import fusion_scores, slices_that_count, slicewise_scores
from nnunetv2_rmr.evaluation.fusion_metrics.summary import summarise
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.workers import over_cases
from nnunetv2_rmr.fusion.body import body_mask
from nnunetv2_rmr.settings import reference_channel

FUSED = "fused"  # the name of the evaluated image among the methods
MODES = ("3d", "compat")


def evaluate_folder(fused_folder: Path, images_folder: Path, mask: str = BODY, mode: str = "3d",
                    baselines: Sequence[str] = (), dataset_json: Path | None = None, num_processes: int = 1,
                    labels_folder: Path | None = None) -> dict:
    """Summary (see summarise) of all fused images; bad cases are in its "failed_cases" and do not stop the others.

    mode: "3d" or "compat", 2D axial slices. baselines: names of METHODS, fused and scored by the same rules ("copy": a
    copy of every modality). labels_folder: for the contrast of lesions. The other arguments are those of Folders.find.
    Raises BadCaseError, ImportError (see pywavelets); ValueError for another mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if "wavelet" in baselines:
        pywavelets()
    folders = Folders.find(fused_folder, images_folder, mask, dataset_json, labels_folder)
    baselines = tuple(dict.fromkeys(baselines))
    threads = max(1, (os.cpu_count() or 1) // min(num_processes, len(folders.cases)))
    jobs = {case: (case, folders, mode, baselines, threads) for case in folders.cases}
    results, failed = over_cases(evaluate_case, jobs, num_processes, "evaluating")
    methods = [FUSED]
    for name in baselines:
        methods += [COPY + channel for channel in folders.images.names] if name == "copy" else [name]
    return summarise(list(results.values()), failed, methods, rules(folders, mode, methods))


def evaluate_case(case: str, folders: Folders, mode: str, baselines: Sequence[str], threads: int) -> dict:
    """An entry of "metric_per_case". Raises BadCaseError if the case can not be evaluated."""
    channels = folders.images.names
    images, files = folders.read(case), folders.images.files(case)
    content = body_mask(images.sources)
    mask = content if images.mask is None else images.mask
    if folders.mask == NO_MASK:
        mask = np.ones_like(content)
    if not mask.any():
        raise BadCaseError(f"{folders.mask_file(case) or f'case {case}'}: the mask is empty")
    box = bounding_box(mask)
    content, mask = content[box] & mask[box], mask[box]
    sources = [to_unit_range(image[box], mask, file) for image, file in zip(images.sources, files)]
    methods = {FUSED: to_unit_range(images.fused[box], mask, folders.fused_file(case))}
    refuse_segmentation(images.fused, folders.fused_file(case))
    reference = reference_channel(None, list(channels))
    for name in baselines:
        if name == "copy":
            methods |= {COPY + channel: source for channel, source in zip(channels, sources)}
        else:
            fused = fuse(name, sources, mask, images.spacing, reference)
            methods[name] = to_unit_range(fused, mask, f"baseline {name} of case {case}")

    result = {"case": case, "fused_file": folders.fused_file(case), "image_files": files,
              "mask": folders.mask_file(case) or folders.mask, "n_voxels": int(np.count_nonzero(mask))}
    if mode == "compat" and mask.ndim == 3:
        slices = slices_that_count(content, images.axial_axis)
        if not slices:
            raise BadCaseError(f"case {case}: no slice has content inside the mask")
        result["n_slices"] = len(slices)
        scores = slicewise_scores(methods, sources, mask, slices, images.axial_axis)
    else:
        scores = fusion_scores(methods, sources, mask, threads)
    result |= {
        "metrics": {method: dict(of_method.metrics) for method, of_method in scores.items()},
        "sources": {method: dict(zip(channels, of_method.sources)) for method, of_method in scores.items()},
        "copy_of": {method: None if of_method.copy_of is None else channels[of_method.copy_of]
                    for method, of_method in scores.items()},
        "contrast": {}, "relative_contrast": {method: {} for method in methods}}
    if images.label is not None:
        _add_lesion_contrast(result, methods, dict(zip(channels, sources)), mask, images.label[box], images.spacing,
                             folders)
    return result


def _add_lesion_contrast(result: dict, methods: dict[str, np.ndarray], sources: dict[str, np.ndarray],
                         mask: np.ndarray, label: np.ndarray, spacing: tuple[float, ...], folders: Folders) -> None:
    """contrast: of every modality and method, by region. relative_contrast: of the methods. And the metric.

    Without regions in dataset.json every value of the label file is one.
    """
    values = [int(v) for v in np.unique(label[mask]) if v > 0 and v != folders.ignore_label]
    regions = folders.regions or {f"label {value}": value for value in values}
    masks = {name: region_or_label_to_mask(label, region) for name, region in regions.items()}
    contrast = LesionContrast(masks, mask if folders.ignore_label is None else mask & (label != folders.ignore_label),
                              spacing)
    of_sources = {channel: contrast(source) for channel, source in sources.items()}
    of_methods = {method: contrast(image) for method, image in methods.items()}
    result["contrast"] = of_sources | of_methods
    for method, of_method in of_methods.items():
        relative = result["relative_contrast"][method] = relative_contrast(of_method, list(of_sources.values()))
        result["metrics"][method][LESION_CONTRAST] = smallest(relative.values())
