"""One case: read, one intensity map per image, scores of the fused image and of the baselines by the same rules."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse
from nnunetv2_rmr.evaluation.fusion_metrics.case_files import NO_MASK, CaseFiles, read_case, refuse_segmentation
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import body_mask, bounding_box, to_unit_range
from nnunetv2_rmr.evaluation.fusion_metrics.scores import fusion_scores, slices_that_count, slicewise_scores
from nnunetv2_rmr.inference.input_check import BadCaseError

FUSED = "fused"  # the name of the evaluated image among the methods
MODES = ("3d", "compat")


@dataclass(frozen=True)
class Request:
    """What is the same for every case."""

    channels: Sequence[str]
    file_ending: str
    reader: type[BaseReaderWriter]
    mode: str
    baselines: Sequence[str]


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
    for name in request.baselines:
        methods[name] = _mapped(fuse(name, sources, mask), mask, f"baseline {name} of case {files.case}")

    result = {"case": files.case, "fused_file": files.fused, "image_files": list(files.images),
              "mask": files.mask, "n_voxels": int(np.count_nonzero(mask))}
    if request.mode == "compat" and mask.ndim == 3:
        slices = slices_that_count(content, images.axial_axis)
        if not slices:
            raise BadCaseError(f"case {files.case}: no slice has content inside the mask")
        result["n_slices"] = len(slices)
        scores = slicewise_scores(methods, sources, mask, slices, images.axial_axis)
    else:
        scores = fusion_scores(methods, sources, mask)
    return {**result, "metrics": scores}


def _mapped(image: np.ndarray, mask: np.ndarray, source: str) -> np.ndarray:
    try:
        return to_unit_range(image, mask)
    except ValueError as error:
        raise BadCaseError(f"{source}: {error}") from None
