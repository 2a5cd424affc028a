"""Degraded copies of a folder of images, many cases at a time."""

import os
import re
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from nnunetv2_rmr.evaluation.image_folder import ImageFolder
from nnunetv2_rmr.evaluation.scan_degradations import (
    SCAN_DEGRADATIONS,
    degrade_scans,
    image_difference,
    nonzero_body,
    try_out,
)
from nnunetv2_rmr.evaluation.scan_degradations.conditions import ALL, Condition
from nnunetv2_rmr.files.atomic import remove_leftovers, replacing, write_json
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.workers import over_cases
from nnunetv2_rmr.inference.fused_writer import write_image

Copies = dict[Condition, Path]  # what a degraded copy of the whole folder is, and its own folder


def copies_of(images: ImageFolder, output: Path, names: Sequence[str], severities: Sequence[int],
              modalities: Sequence[str], overwrite: bool) -> Copies:
    """OUT/NAME_SEVERITY[_MODALITY] of every combination; 'all' as a modality: one copy with all of them degraded.

    Everything that can be known before work starts is checked. Raises BadCaseError; ImportError without TorchIO, if it
    is needed.
    """
    if unknown := [n for n in names if n not in SCAN_DEGRADATIONS]:
        raise BadCaseError(f"--corruption {' '.join(unknown)}: unknown; known: {', '.join(SCAN_DEGRADATIONS)}")
    if unknown := [m for m in modalities if m not in (ALL, *images.names)]:
        raise BadCaseError(f"--modality {' '.join(unknown)}: unknown; the modalities are {', '.join(images.names)}")
    copies = {}
    for name, severity, modality in product(names, severities, modalities):
        suffix = "" if modality == ALL else "_" + re.sub(r"[^A-Za-z0-9.-]+", "-", modality)
        copies[Condition(name, severity, modality)] = output / f"{name}_{severity}{suffix}"
    folders = set(copies.values())
    if len(folders) < len(copies):
        raise BadCaseError("two modalities would get folders of one name; do one of them after the other, with "
                           "different -o")
    if not overwrite and (full := sorted(str(f) for f in folders if f.is_dir() and any(f.iterdir()))):
        raise BadCaseError(f"{', '.join(full)} exist{'s' if len(full) == 1 else ''} already; --overwrite replaces the "
                           "files there")
    try_out(names)
    return copies


def degrade_folder(images: ImageFolder, copies: Copies, seed: int, link: str, num_processes: int) -> dict[str, str]:
    """Write CASE_0000... of all cases, and a record corruption.json, in the folder of every copy.

    Degraded modalities are float32 on the input's grid, whatever the input's type was: rounding could turn tissue into
    zeros, which nnU-Net takes for background, and nnU-Net reads every type as float32. Other modalities are the same
    files; link: 'copy', 'hard' or 'sym', how they get there. A record says what was done and the image difference (see
    `image_difference`) of every case and modality. Returns the cases that failed, with the reason; all others are done.
    """
    remove_leftovers(copies.values())
    try:
        done, failures = over_cases(_write_copies, {case: (images, case, copies, seed, link) for case in images.cases},
                                    num_processes, "degrading")
    finally:
        remove_leftovers(copies.values())  # of workers that were killed
    for copy, folder in copies.items() if done else ():
        kind = SCAN_DEGRADATIONS[copy.corruption]
        write_json({"corruption": kind.name, "description": kind.description, "in_default_training": kind.trained,
                    "severity": copy.severity, "parameter": kind.parameters[copy.severity - 1], "unit": kind.unit,
                    "modality": copy.modality, "seed": seed, "images": str(images.folder),
                    "image_difference": {case: done[case][copy] for case in sorted(done)}}, folder / "corruption.json")
    return failures


def _write_copies(source: ImageFolder, case: str, copies: Copies, seed: int,
                  link: str) -> dict[Condition, dict[str, float]]:
    """Of every copy and degraded modality the image difference."""
    images, properties = source.read(case)
    body = nonzero_body(images)
    needed = sorted({c for copy in copies for c in copy.channels(source.names)})
    degraded, done, differences = images, None, {}
    for copy, folder in copies.items():
        if done != (copy.corruption, copy.severity):  # copies of one modality each share the work
            done = copy.corruption, copy.severity
            degraded = degrade_scans(images, properties["spacing"], *done, case=case, channels=needed, seed=seed)
        channels = copy.channels(source.names)
        for channel in range(len(source.names)):
            target = source.file(case, channel, folder)
            if channel in channels:
                write_image(degraded[channel], str(target), source.reader_writer, source.file_ending, properties)
            else:
                _place(source.file(case, channel), target, link)
        if (spacing_file := source.folder / f"{case}.json").is_file():  # of tiff files
            _place(spacing_file, folder / spacing_file.name, link)
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
