"""One case: read, one intensity map per image, scores of the fused image and of the baselines by the same rules."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_rmr.evaluation.fusion_baselines import COPY
from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse
from nnunetv2_rmr.evaluation.fusion_metrics.case_files import NO_MASK, CaseFiles, read_case, refuse_segmentation
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import bounding_box, to_unit_range
from nnunetv2_rmr.evaluation.fusion_metrics.lesion_contrast import LesionContrast, relative_contrast
from nnunetv2_rmr.evaluation.fusion_metrics.scores import fusion_scores, slices_that_count, slicewise_scores
from nnunetv2_rmr.evaluation.segmentation_metrics import LabelOrRegion
from nnunetv2_rmr.files.input_check import BadCaseError
from nnunetv2_rmr.fusion.body import body_mask
from nnunetv2_rmr.settings import reference_channel

FUSED = "fused"  # the name of the evaluated image among the methods
LESION_CONTRAST = "lesion contrast"  # the metric
MODES = ("3d", "compat")


@dataclass(frozen=True)
class Request:
    """What is the same for every case. regions: by dataset.json; without any, every value of the label file is one."""

    channels: Sequence[str]
    file_ending: str
    reader: type[BaseReaderWriter]
    mode: str
    baselines: Sequence[str]
    regions: dict[str, LabelOrRegion] = field(default_factory=dict)
    ignore_label: int | None = None
    threads: int = os.cpu_count() or 1

    @property
    def methods(self) -> list[str]:
        """What is scored, in the tables' order: "copy" among the baselines stands for a copy of every modality."""
        return [FUSED, *expanded(self.baselines, self.channels)]


def expanded(baselines: Iterable[str], channels: Sequence[str]) -> list[str]:
    """Names of the baselines in tables."""
    return [name for baseline in baselines
            for name in ([COPY + channel for channel in channels] if baseline == "copy" else [baseline])]


def evaluate_case(files: CaseFiles, request: Request) -> dict:
    """An entry of "metric_per_case". Raises BadCaseError if the case can not be evaluated."""
    images = read_case(files, request.channels, request.file_ending, request.reader)
    content = body_mask(images.sources)
    mask = content if images.mask is None else images.mask
    if files.mask == NO_MASK:
        mask = np.ones_like(content)
    try:
        box = bounding_box(mask)
    except ValueError as error:
        raise BadCaseError(f"{files.mask}: {error}") from None
    content, mask = content[box] & mask[box], mask[box]
    sources = [_mapped(image[box], mask, file) for image, file in zip(images.sources, files.images)]
    methods = {FUSED: _mapped(images.fused[box], mask, files.fused)}
    refuse_segmentation(images.fused, files)
    reference = reference_channel(None, list(request.channels))
    for name in request.baselines:
        if name == "copy":
            methods |= {COPY + channel: source for channel, source in zip(request.channels, sources)}
        else:
            fused = fuse(name, sources, mask, images.spacing, reference)
            methods[name] = _mapped(fused, mask, f"baseline {name} of case {files.case}")

    result = {"case": files.case, "fused_file": files.fused, "image_files": list(files.images),
              "mask": files.mask, "n_voxels": int(np.count_nonzero(mask))}
    if request.mode == "compat" and mask.ndim == 3:
        slices = slices_that_count(content, images.axial_axis)
        if not slices:
            raise BadCaseError(f"case {files.case}: no slice has content inside the mask")
        result["n_slices"] = len(slices)
        scores = slicewise_scores(methods, sources, mask, slices, images.axial_axis)
    else:
        scores = fusion_scores(methods, sources, mask, request.threads)
    result |= {
        "metrics": {method: dict(of_method.metrics) for method, of_method in scores.items()},
        "sources": {method: dict(zip(request.channels, of_method.sources)) for method, of_method in scores.items()},
        "copy_of": {method: None if of_method.copy_of is None else request.channels[of_method.copy_of]
                    for method, of_method in scores.items()},
        "contrast": {}, "relative_contrast": {method: {} for method in methods}}
    if images.label is not None:
        _refuse_unknown_labels(images.label, files.label, request)
        _add_lesion_contrast(result, methods, sources, mask, images.label[box], images.spacing, request)
    return result


def _refuse_unknown_labels(label: np.ndarray, file: str, request: Request) -> None:
    """Raises BadCaseError for labels that dataset.json does not know: they would be lesions to nobody."""
    known = {0, request.ignore_label}.union(*(region if isinstance(region, tuple) else (region,)
                                              for region in request.regions.values()))
    if request.regions and (unknown := sorted({int(value) for value in np.unique(label)} - known)):
        raise BadCaseError(f"{file}: holds label{'s' * (len(unknown) > 1)} {', '.join(map(str, unknown))}, which "
                           f"dataset.json does not name ({', '.join(request.regions)}): give the one that belongs to "
                           "these label files (-d)")


def _add_lesion_contrast(result: dict, methods: dict[str, np.ndarray], sources: list[np.ndarray], mask: np.ndarray,
                         label: np.ndarray, spacing: tuple[float, ...], request: Request) -> None:
    """contrast: of every modality and method, by region. relative_contrast: of the methods. And the metric."""
    values = [int(v) for v in np.unique(label[mask]) if v > 0 and v != request.ignore_label]
    regions = request.regions or {f"label {value}": value for value in values}
    masks = {name: region_or_label_to_mask(label, region) for name, region in regions.items()}
    contrast = LesionContrast({name: region for name, region in masks.items() if region.any()},
                              mask if request.ignore_label is None else mask & (label != request.ignore_label), spacing)
    of_sources = [contrast(source) for source in sources]
    of_methods = {method: contrast(image) for method, image in methods.items()}
    relative = {method: relative_contrast(values, of_sources) for method, values in of_methods.items()}
    result["contrast"] = dict(zip(request.channels, of_sources)) | of_methods
    result["relative_contrast"] = relative
    for method, values in relative.items():
        result["metrics"][method][LESION_CONTRAST] = min((v for v in values.values() if not np.isnan(v)),
                                                         default=float("nan"))


def _mapped(image: np.ndarray, mask: np.ndarray, source: str) -> np.ndarray:
    try:
        return to_unit_range(image, mask)
    except ValueError as error:
        raise BadCaseError(f"{source}: {error}") from None
