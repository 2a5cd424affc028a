"""Degraded copies of a folder of images, many cases at a time."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from nnunetv2_rmr.evaluation.image_folder import ImageFolder
from nnunetv2_rmr.evaluation.scan_degradations.base import nonzero_body
from nnunetv2_rmr.evaluation.scan_degradations.degrade_scans import SEVERITIES, degrade_scans, image_difference, try_out
from nnunetv2_rmr.evaluation.scan_degradations.kinds import SCAN_DEGRADATIONS
from nnunetv2_rmr.files.atomic import remove_leftovers, replacing, write_json
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.workers import over_cases
from nnunetv2_rmr.inference.fused_writer import write_image

ALL = "all"
RECORD = "corruption.json"


@dataclass(frozen=True)
class Copy:
    """One degraded copy of the whole folder. modality: its name, or 'all'."""

    name: str
    severity: int
    modality: str

    @property
    def folder_name(self) -> str:
        name = f"{self.name}_{self.severity}"
        return name if self.modality == ALL else f"{name}_{re.sub(r'[^A-Za-z0-9.-]+', '-', self.modality)}"

    def channels(self, names: tuple[str, ...]) -> list[int]:
        return list(range(len(names))) if self.modality == ALL else [names.index(self.modality)]


@dataclass(frozen=True)
class DegradeRequest:
    """What to write. names (of SCAN_DEGRADATIONS), severities, modalities: every combination gets a folder; 'all' as a
    modality means one copy with all modalities degraded. link: 'copy', 'hard' or 'sym', for files that stay as they
    are."""

    images: ImageFolder
    output: Path
    names: tuple[str, ...]
    severities: tuple[int, ...] = SEVERITIES
    modalities: tuple[str, ...] = (ALL,)
    seed: int = 0
    link: str = "copy"
    overwrite: bool = False
    num_processes: int = 1

    @property
    def copies(self) -> dict[Copy, Path]:
        """Every copy and its folder."""
        copies = [Copy(*each) for each in product(self.names, self.severities, self.modalities)]
        return {copy: self.output / copy.folder_name for copy in copies}


def check(request: DegradeRequest) -> None:
    """Everything that can be known before work starts. Raises BadCaseError, ImportError."""
    modalities = request.images.names
    if unknown := [n for n in request.names if n not in SCAN_DEGRADATIONS]:
        raise BadCaseError(f"--corruption {' '.join(unknown)}: unknown; known: {', '.join(SCAN_DEGRADATIONS)}")
    if unknown := [m for m in request.modalities if m != ALL and m not in modalities]:
        raise BadCaseError(f"--modality {' '.join(unknown)}: unknown; the modalities are {', '.join(modalities)}")
    folders = set(request.copies.values())
    if len(folders) < len(request.copies):
        raise BadCaseError("two modalities would get folders of one name; do one of them after the other, with "
                            "different -o")
    if not request.overwrite and (full := sorted(str(f) for f in folders if f.is_dir() and any(f.iterdir()))):
        raise BadCaseError(f"{', '.join(full)} exist{'s' if len(full) == 1 else ''} already; --overwrite replaces the "
                            "files there")
    try_out(request.names)


def degrade_folder(request: DegradeRequest) -> dict[str, str]:
    """Write OUT/NAME_SEVERITY[_MODALITY]/CASE_0000... for all cases, and a record corruption.json in every folder.

    Degraded modalities are float32 on the input's grid, whatever the input's type was: rounding could turn tissue into
    zeros, which nnU-Net takes for background, and nnU-Net reads every type as float32. Other modalities are the same
    files. A record says what was done and the image difference (see `image_difference`) of every case and modality.

    Returns the cases that failed, with the reason; all others are done. Raises as `check` does.
    """
    check(request)
    copies = request.copies
    remove_leftovers(copies.values())
    try:
        done, failures = over_cases(_write_copies, {case: (request, case) for case in request.images.cases},
                                    request.num_processes, "degrading")
    finally:
        remove_leftovers(copies.values())  # of workers that were killed
    for copy in copies if done else ():
        _write_record(request, copy, {case: differences[copy] for case, differences in done.items()})
    return failures


def _write_copies(request: DegradeRequest, case: str) -> dict[Copy, dict[str, float]]:
    """Of every copy and degraded modality the image difference."""
    source = request.images
    images, properties = source.read(case)
    body = nonzero_body(images)
    needed = sorted({c for copy in request.copies for c in copy.channels(source.names)})
    degraded, done, differences = images, None, {}
    for copy, folder in request.copies.items():
        if done != (copy.name, copy.severity):  # copies of one modality each share the work
            degraded = degrade_scans(images, properties["spacing"], copy.name, copy.severity, case=case,
                                     channels=needed, seed=request.seed)
            done = (copy.name, copy.severity)
        channels = copy.channels(source.names)
        for channel in range(len(source.names)):
            target = source.file(case, channel, folder)
            if channel in channels:
                write_image(degraded[channel], str(target), source.reader_writer, source.file_ending, properties)
            else:
                _place(source.file(case, channel), target, request.link)
        if (spacing_file := source.folder / f"{case}.json").is_file():  # of tiff files
            _place(spacing_file, folder / spacing_file.name, request.link)
        differences[copy] = {source.names[c]: image_difference(images[c], degraded[c], body) for c in channels}
    return differences


def _place(source: Path, target: Path, link: str) -> None:
    with replacing(target) as temporary:
        if link == "sym":
            os.symlink(os.path.realpath(source), temporary)
        elif link == "hard":
            os.link(source, temporary)
        else:
            shutil.copyfile(source, temporary)


def _write_record(request: DegradeRequest, copy: Copy, differences: dict[str, dict[str, float]]) -> None:
    kind = SCAN_DEGRADATIONS[copy.name]
    record = {"corruption": kind.name, "description": kind.description, "in_default_training": kind.trained,
              "severity": copy.severity, "parameter": kind.parameters[copy.severity - 1], "unit": kind.unit,
              "modality": copy.modality, "seed": request.seed, "images": str(request.images.folder),
              "image_difference": dict(sorted(differences.items()))}
    write_json(record, request.copies[copy] / RECORD)
