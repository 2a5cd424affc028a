"""Checking and writing one case: what the importer's worker processes do."""

import os
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunetv2_rmr.datasets.cases import LABEL, Case
from nnunetv2_rmr.datasets.request import ImportRequest
from nnunetv2_rmr.files import volumes
from nnunetv2_rmr.files.endings import file_ending
from nnunetv2_rmr.files.nifti import check_forms
from nnunetv2_rmr.files.refused import BadCaseError, in_words
from nnunetv2_rmr.registration import misregistration
from nnunetv2_rmr.registration.rigid import Registration, register

LINKS: dict[str, Callable] = {"copy": shutil.copyfile, "hard": os.link, "sym": os.symlink}


@dataclass
class Inspection:
    """What one case holds. Only `problems` is complete for a bad case."""

    case: Case
    problems: list[str] = field(default_factory=list)
    grid: volumes.Grid | None = None  # of the reference modality
    hashes: dict[str, str] = field(default_factory=dict)  # by modality, of images that are not empty
    labels: dict[int, int] = field(default_factory=dict)  # voxels by value, mapped; empty without a label file
    warnings: list[str] = field(default_factory=list)
    rewrite: set[str] = field(default_factory=set)  # modalities, LABEL, whose voxels or header must change
    registrations: dict[str, Registration] = field(default_factory=dict)  # by modality
    coarse: dict[str, np.ndarray] = field(default_factory=dict)  # by modality, see misregistration.py; then empty


def inspect_case(case: Case, request: ImportRequest) -> Inspection:
    """Read every file of the case, one at a time, and note all that is wrong."""
    found = Inspection(case)
    for name in sorted(request.patterns, key=lambda name: name != request.reference):  # the rest stays as it was
        what, pattern, files = f"modality {name}" if name else "label", request.patterns[name], case.files[name]
        if len(files) == 1:
            _noting(found.problems, _inspect_label if name == LABEL else _inspect_image, files[0], name, request, found)
        elif files:
            found.problems.append(f"{what}: {pattern} matches {len(files)} files, one is needed: "
                                  f"{', '.join(f.name for f in files)}")
        elif name != LABEL or case.kind == "Tr":
            found.problems.append(f"{what} missing: no file matches {pattern}")
    if not found.problems:
        warning = _noting(found.problems, check_forms, [f for files in case.files.values() for f in files],
                          volumes.GRID_TOLERANCE)
        found.warnings += [warning] if warning else []
        if not request.register_to:  # else what could be done was done, or is warned of
            spacing = found.grid.spacing[::-1]
            found.warnings += [f"{case.source}: {line}" for line in misregistration.warnings(found.coarse, spacing)]
    for texts in (found.problems, found.warnings):
        texts[:] = [in_words(text, request.words) for text in texts]
    found.coarse.clear()  # would have to travel between processes
    return found


def write_case(found: Inspection, folder: Path, ending: str, request: ImportRequest) -> None:
    """Write the case's files into imagesTr, labelsTr ... of `folder`.

    Files of which nothing changes are copied or linked; others are brought to the case's grid, labels are mapped, and
    all is written compressed. Raises BadCaseError if reading, linking or writing fails.
    """
    case = found.case
    for channel, name in enumerate(request.patterns):
        target = folder / f"images{case.kind}" / f"{case.id}_{channel:04d}{ending}"
        if name == LABEL:
            target = folder / f"labels{case.kind}" / f"{case.id}{ending}"
        for source in case.files[name]:
            target.parent.mkdir(parents=True, exist_ok=True)
            if name not in found.rewrite and file_ending(source) == ending:
                _link(source, target, request.link)
                continue
            image = volumes.read_volume(source)
            if name in found.registrations:
                image = found.registrations[name].place(image)
            image = volumes.on_grid(image, found.grid, request.interpolation if name else "nearest")
            volumes.write_volume(image if name else volumes.map_labels(image, request.label_map), target)


def _link(source: Path, target: Path, link: str) -> None:
    try:
        LINKS[link](os.path.realpath(source), target)
    except OSError as error:
        advice = "; use --link sym or copy" if link == "hard" else ""
        raise BadCaseError(f"{source}: --link {link} failed ({error.strerror}){advice}") from error


def _noting(problems: list[str], check: Callable, *arguments: Any) -> Any:
    """check(*arguments); if it raises what a file can be the reason for, None, and a problem more. arguments: the file
    first."""
    try:
        return check(*arguments)
    except BadCaseError as error:
        problems.append(str(error))
    except (ValueError, ArithmeticError, RuntimeError) as error:  # that nobody has thought of; the other cases go on
        traceback.print_exc()
        problems.append(f"{arguments[0]}: can not be checked ({type(error).__name__}: {error}); please report this")


def _inspect_image(path: Path, modality: str, request: ImportRequest, found: Inspection) -> None:
    image = volumes.read_volume(path)
    array = sitk.GetArrayViewFromImage(image)
    _noting(found.problems, volumes.refuse_unusable_values, path, array)
    if empty := array.min() == array.max():
        found.problems.append(f"{path}: empty, every voxel is {array.flat[0]:g}")
    else:
        found.hashes[modality] = volumes.content_hash(array)
    if found.grid is None:
        # Without a readable reference the others are still compared with one another, unless they may be resampled.
        if request.resample_to in (None, modality):
            found.grid = volumes.Grid.of(image)
            found.coarse[modality] = misregistration.coarse(array, image.GetSpacing()[::-1])
        return
    if request.register_to:
        fixed = volumes.read_volume(found.case.files[request.register_to][0])
        found.registrations[modality] = registration = register(fixed, image)
        if registration.problem:
            found.warnings.append(f"{found.case.source}, {modality}: {registration}")
        image = registration.place(image)
    placed = _placed(image, path, modality, request.interpolation, request, found)
    seen = sitk.GetArrayViewFromImage(placed)
    found.coarse[modality] = misregistration.coarse(seen, found.grid.spacing[::-1])
    if not empty and seen.min() == seen.max():
        found.problems.append(f"{path}: shows nothing inside the field of view of {request.reference}")


def _inspect_label(path: Path, name: str, request: ImportRequest, found: Inspection) -> None:
    image = volumes.read_volume(path)
    array = sitk.GetArrayViewFromImage(image)
    raw = _noting(found.problems, volumes.label_counts, path, array) or {}
    found.labels = volumes.mapped_counts(raw, request.label_map)
    try:
        volumes.refuse_undeclared(path, found.labels, request.declared())
    except BadCaseError as error:
        found.problems.append(f"{error}. Change values with --map OLD=NEW or declare them")
    rounding_errors = array.dtype.kind == "f" and (array != array.round()).any()
    if rounding_errors or any(request.label_map.get(value, value) != value for value in raw):
        found.rewrite.add(name)
    if found.grid is None:
        return
    placed = _placed(image, path, name, "nearest", request, found)
    if raw and placed is not image:
        foreground = found.labels.keys() - {0}
        seen = volumes.label_counts(path, sitk.GetArrayViewFromImage(placed))
        found.labels = volumes.mapped_counts(seen, request.label_map)
        if foreground and not found.labels.keys() - {0}:
            found.problems.append(f"{path}: no label is left inside the field of view of {request.reference}")


def _placed(image: sitk.Image, path: Path, name: str, how: str, request: ImportRequest,
            found: Inspection) -> sitk.Image:
    """The image on the case's grid; notes if it was not there. Raises BadCaseError."""
    try:
        placed = volumes.on_grid(image, found.grid, how if request.resample_to else None)
    except BadCaseError as difference:
        advice = "" if request.resample_to else "; if that is right, use --resample_to NAME"
        raise BadCaseError(f"{path}: not on the grid of the case: {difference}{advice}") from difference
    if placed is not image:
        found.rewrite.add(name)
    return placed
