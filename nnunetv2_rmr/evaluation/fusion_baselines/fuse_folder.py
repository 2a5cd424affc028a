"""Fused images of a folder of images by a classical method, many cases at a time."""

import os
from pathlib import Path

import numpy as np

from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse, pywavelets
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import bounding_box, to_unit_range
from nnunetv2_rmr.evaluation.image_folder import ImageFolder
from nnunetv2_rmr.files.atomic import remove_leftovers
from nnunetv2_rmr.files.refused import BadCaseError, some_of
from nnunetv2_rmr.files.workers import over_cases
from nnunetv2_rmr.fusion.body import body_mask
from nnunetv2_rmr.inference.fused_writer import write_image
from nnunetv2_rmr.settings import reference_channel


def reference_of(images: ImageFolder, name: str | None) -> int:
    """Number of the modality of this name; None: see reference_channel. Raises BadCaseError."""
    try:
        return reference_channel(name, list(images.names))
    except ValueError:
        raise BadCaseError(f"--reference {name}: unknown, or several; the modalities are "
                            + ", ".join(images.names)) from None


def fuse_folder(images: ImageFolder, output: Path, method: str, reference: int, overwrite: bool,
                num_processes: int) -> dict[str, str]:
    """Write OUT/CASE.nii.gz of all cases: float32, on the input's grid, about 0..1, zero outside the body.

    method: of METHODS. reference: number of the modality that gradient and copy look at. Returns the cases that failed,
    with the reason; all others are done. Raises BadCaseError; ImportError without PyWavelets, if it is needed.
    """
    if method == "wavelet":
        pywavelets()
    if len(images.names) < 2:
        raise BadCaseError(f"-i {images.folder}: fusion needs at least two modalities, found {', '.join(images.names)}")
    if os.path.realpath(output) == os.path.realpath(images.folder):
        raise BadCaseError(f"-o {output}: the fused images would lie among the images they are made of")
    files = {case: output / (case + images.file_ending) for case in images.cases}
    if not overwrite and (there := [str(file) for file in files.values() if file.exists()]):
        raise BadCaseError(f"{some_of(there, 3)} exist{'s' * (len(there) == 1)} "
                           "already; --overwrite replaces")
    remove_leftovers([output])
    jobs = {case: (images, case, file, method, reference) for case, file in files.items()}
    return over_cases(_fuse_case, jobs, num_processes, "fusing")[1]


def _fuse_case(source: ImageFolder, case: str, file: Path, method: str, reference: int) -> None:
    images, properties = source.read(case)
    body = body_mask(images)
    box = bounding_box(body)
    mask = body[box]
    mapped = [to_unit_range(image[box], mask, name) for name, image in zip(source.names, images)]
    fused = np.zeros(body.shape, np.float32)
    fused[box] = fuse(method, mapped, mask, [float(mm) for mm in properties["spacing"]], reference)
    write_image(fused, str(file), source.reader_writer, source.file_ending, properties)
