"""Fused images of a folder of images by a classical method, many cases at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse, pywavelets
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import bounding_box, to_unit_range
from nnunetv2_rmr.evaluation.image_folder import FolderRefused, ImageFolder
from nnunetv2_rmr.files.atomic import remove_leftovers
from nnunetv2_rmr.files.workers import over_cases
from nnunetv2_rmr.fusion.body import body_mask
from nnunetv2_rmr.inference.fused_writer import write_image
from nnunetv2_rmr.settings import reference_channel


@dataclass(frozen=True)
class FuseRequest:
    """What to write. method: of METHODS. reference: number of the modality that gradient and copy look at."""

    images: ImageFolder
    output: Path
    method: str
    reference: int
    overwrite: bool = False
    num_processes: int = 1

    def file(self, case: str) -> Path:
        return self.output / (case + self.images.file_ending)


def reference_of(images: ImageFolder, name: str | None) -> int:
    """Number of the modality of this name; None: see reference_channel. Raises FolderRefused."""
    try:
        return reference_channel(name, list(images.names))
    except ValueError:
        raise FolderRefused(f"--reference {name}: unknown, or several; the modalities are "
                            + ", ".join(images.names)) from None


def fuse_folder(request: FuseRequest) -> dict[str, str]:
    """Write OUT/CASE.nii.gz of all cases: float32, on the input's grid, about 0..1, zero outside the body.

    Returns the cases that failed, with the reason; all others are done. Raises FolderRefused; ImportError
    without PyWavelets, if it is needed.
    """
    if request.method == "wavelet":
        pywavelets()
    if len(request.images.names) < 2:
        raise FolderRefused(f"-i {request.images.folder}: fusion needs at least two modalities, found "
                            + ", ".join(request.images.names))
    if os.path.realpath(request.output) == os.path.realpath(request.images.folder):
        raise FolderRefused(f"-o {request.output}: the fused images would lie among the images they are made of")
    cases = request.images.cases
    if not request.overwrite and (there := [str(f) for c in cases if (f := request.file(c)).exists()]):
        raise FolderRefused(f"{', '.join(there[:3])}{' ...' if len(there) > 3 else ''} exist{'s' * (len(there) == 1)} "
                            "already; --overwrite replaces")
    remove_leftovers([request.output])
    return over_cases(_fuse_case, {case: (request, case) for case in cases}, request.num_processes, "fusing")[1]


def _fuse_case(request: FuseRequest, case: str) -> None:
    source = request.images
    images, properties = source.read(case)
    body = body_mask(images)
    box = bounding_box(body)
    mask = body[box]
    mapped = [to_unit_range(image[box], mask, name) for name, image in zip(source.names, images)]
    fused = np.zeros(body.shape, np.float32)
    fused[box] = fuse(request.method, mapped, mask, [float(mm) for mm in properties["spacing"]], request.reference)
    write_image(fused, str(request.file(case)), source.reader_writer, source.file_ending, properties)
