"""Corrupted copies of a folder of images, many cases at a time."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunetv2_rmr.evaluation.corruptions.base import body_mask
from nnunetv2_rmr.evaluation.corruptions.case import corrupt_case
from nnunetv2_rmr.evaluation.corruptions.difference import image_difference
from nnunetv2_rmr.evaluation.corruptions.image_folder import FolderRefused, ImageFolder
from nnunetv2_rmr.evaluation.corruptions.registry import CORRUPTIONS, SEVERITIES
from nnunetv2_rmr.files.atomic import remove_leftovers, replacing, write_json
from nnunetv2_rmr.files.workers import WorkerDied, in_order
from nnunetv2_rmr.inference.fused_writer import write_image

ALL = "all"
RECORD = "corruption.json"


@dataclass(frozen=True)
class Copy:
    """One corrupted copy of the whole folder. modality: its name, or 'all'."""

    corruption: str
    severity: int
    modality: str

    @property
    def folder_name(self) -> str:
        name = f"{self.corruption}_{self.severity}"
        return name if self.modality == ALL else f"{name}_{re.sub(r'[^A-Za-z0-9.-]+', '-', self.modality)}"

    def channels(self, names: tuple[str, ...]) -> list[int]:
        return list(range(len(names))) if self.modality == ALL else [names.index(self.modality)]


@dataclass(frozen=True)
class CorruptRequest:
    """What to write. corruptions, severities, modalities: every combination gets a folder; 'all' as a modality means
    one copy with all modalities corrupted. link: 'copy', 'hard' or 'sym', for files that stay as they are."""

    images: ImageFolder
    output: Path
    corruptions: tuple[str, ...]
    severities: tuple[int, ...] = SEVERITIES
    modalities: tuple[str, ...] = (ALL,)
    seed: int = 0
    link: str = "copy"
    overwrite: bool = False
    num_processes: int = 1

    def copies(self) -> Iterator[Copy]:
        for corruption in self.corruptions:
            for severity in self.severities:
                for modality in self.modalities:
                    yield Copy(corruption, severity, modality)

    def folder(self, copy: Copy) -> Path:
        return self.output / copy.folder_name


def check(request: CorruptRequest) -> None:
    """Everything that can be known before work starts. Raises FolderRefused, TorchIOMissingError."""
    names = request.images.names
    if unknown := [c for c in request.corruptions if c not in CORRUPTIONS]:
        raise FolderRefused(f"--corruption {' '.join(unknown)}: unknown; known: {', '.join(CORRUPTIONS)}")
    if unknown := [m for m in request.modalities if m != ALL and m not in names]:
        raise FolderRefused(f"--modality {' '.join(unknown)}: unknown; the modalities are {', '.join(names)}")
    folders = [request.folder(copy) for copy in request.copies()]
    if len(set(folders)) < len(folders):
        raise FolderRefused("two modalities would get folders of one name; do one of them after the other, with "
                            "different -o")
    if not request.overwrite and (full := [f for f in folders if f.is_dir() and any(f.iterdir())]):
        raise FolderRefused(f"{', '.join(map(str, full))} exist{'s' if len(full) == 1 else ''} already; --overwrite "
                            "replaces the files there")
    rehearsal = np.arange(1, 217, dtype=np.float32).reshape(1, 6, 6, 6)
    for corruption in request.corruptions:  # what is missing for one of them shows here and not after hours
        corrupt_case(rehearsal, (1, 1, 1), corruption, 1, case="rehearsal")


def corrupt_folder(request: CorruptRequest) -> dict[str, str]:
    """Write OUT/NAME_SEVERITY[_MODALITY]/CASE_0000... for all cases, and a record corruption.json in every folder.

    Corrupted modalities are float32 on the input's grid, whatever the input's type was: rounding could turn tissue into
    zeros, which nnU-Net takes for background, and nnU-Net reads every type as float32. Other modalities are the same
    files. A record says what was done and the image difference (see `image_difference`) of every case and modality.

    Returns the cases that failed, with the reason; all others are done. Raises as `check` does.
    """
    check(request)
    remove_leftovers(request.folder(copy) for copy in request.copies())
    differences: dict[Copy, dict[str, dict[str, float]]] = {copy: {} for copy in request.copies()}
    failures: dict[str, str] = {}
    cases = request.images.cases
    ready = enumerate(in_order(_corrupt_one, [(request, case) for case in cases], request.num_processes))
    try:
        for i, result in tqdm(ready, total=len(cases), desc="cases", disable=None):
            case = cases[i]
            if isinstance(result, str | WorkerDied):
                failures[case] = str(result)
                continue
            for copy, values in result.items():
                differences[copy][case] = values
    finally:
        remove_leftovers(request.folder(copy) for copy in request.copies())  # of workers that were killed
    for copy, values in differences.items():
        if values:
            _write_record(request, copy, values)
    return dict(sorted(failures.items()))


def _corrupt_one(request: CorruptRequest, case: str) -> dict[Copy, dict[str, float]] | str:
    """Image differences by copy and modality; or why the case failed."""
    try:
        return dict(_write_copies(request, case))
    except Exception as error:
        return f"{error}" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"


def _write_copies(request: CorruptRequest, case: str) -> Iterator[tuple[Copy, dict[str, float]]]:
    source = request.images
    images, properties = source.read(case)
    body = body_mask(images)
    needed = sorted({c for copy in request.copies() for c in copy.channels(source.names)})
    corrupted, done = images, None
    for copy in request.copies():
        if done != (copy.corruption, copy.severity):  # copies of one modality each share the work
            corrupted = corrupt_case(images, properties["spacing"], copy.corruption, copy.severity, case=case,
                                     channels=needed, seed=request.seed)
            done = (copy.corruption, copy.severity)
        folder = request.folder(copy)
        channels = copy.channels(source.names)
        for channel in range(len(source.names)):
            target = source.file(case, channel, folder)
            if channel in channels:
                write_image(corrupted[channel], str(target), source.reader_writer, source.file_ending, properties)
            else:
                _place(source.file(case, channel), target, request.link)
        if (spacing_file := source.folder / f"{case}.json").is_file():  # of tiff files
            _place(spacing_file, folder / spacing_file.name, request.link)
        yield copy, {source.names[c]: image_difference(images[c], corrupted[c], body) for c in channels}


def _place(source: Path, target: Path, link: str) -> None:
    with replacing(target) as temporary:
        if link == "sym":
            os.symlink(os.path.realpath(source), temporary)
        elif link == "hard":
            os.link(source, temporary)
        else:
            shutil.copyfile(source, temporary)


def _write_record(request: CorruptRequest, copy: Copy, differences: dict[str, dict[str, float]]) -> None:
    corruption = CORRUPTIONS[copy.corruption]
    record = {"corruption": corruption.name, "description": corruption.description,
              "in_default_training": corruption.seen, "severity": copy.severity,
              "parameter": corruption.parameters[copy.severity - 1], "unit": corruption.unit,
              "modality": copy.modality, "seed": request.seed, "images": str(request.images.folder),
              "image_difference": dict(sorted(differences.items()))}
    write_json(record, request.folder(copy) / RECORD)
