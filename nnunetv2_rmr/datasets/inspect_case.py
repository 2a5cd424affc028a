"""Checking one case and writing one file: what the importer's worker processes do."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_rmr.datasets.cases import Case
from nnunetv2_rmr.files.endings import file_ending
from nnunetv2_rmr.files.nifti import check_forms
from nnunetv2_rmr.files.refused import ImportRefused
from nnunetv2_rmr.files.volumes import (
    GRID_TOLERANCE,
    Grid,
    content_hash,
    label_counts,
    map_labels,
    mapped_counts,
    on_grid,
    read_volume,
    refuse_unusable_values,
    write_volume,
)

LINKS: dict[str, Callable] = {"copy": shutil.copyfile, "hard": os.link, "sym": os.symlink}


@dataclass(frozen=True)
class Rules:
    """What every case is held to."""

    modalities: tuple[str, ...]  # in channel order
    patterns: Mapping[str, str]  # of the modalities, and of the label under ""
    label_map: Mapping[int, int] = field(default_factory=dict)
    declared: tuple[int, ...] | None = None  # label values allowed after the map, None = any
    resample_to: str | None = None  # modality whose grid the others are brought to
    interpolation: str = "linear"

    @property
    def reference(self) -> str:
        return self.resample_to or self.modalities[0]


@dataclass
class Inspection:
    """What one case holds. Only `problems` is complete for a bad case."""

    source: str
    problems: list[str] = field(default_factory=list)
    grid: Grid | None = None  # of the reference modality
    hashes: dict[str, str] = field(default_factory=dict)  # by modality, of images that are not empty
    labels: dict[int, int] | None = None  # voxels by value, mapped; None without a label file
    warnings: list[str] = field(default_factory=list)
    rewrite: set[str] = field(default_factory=set)  # modalities ("" = label) whose voxels or header must change


def inspect_case(case: Case, label_needed: bool, rules: Rules) -> Inspection:
    """Read every file of the case, one at a time, and note all that is wrong."""
    found = Inspection(case.source)
    order = sorted(rules.modalities, key=lambda m: m != rules.reference)  # the reference first, the rest as it was
    for modality in order:
        path = _only_file(case.images[modality], f"modality {modality}", rules.patterns[modality], found.problems)
        if path is not None:
            _collecting(found.problems, lambda path=path, m=modality: _inspect_image(path, m, rules, found))
    if case.labels or label_needed:
        path = _only_file(case.labels, "label", rules.patterns[""], found.problems)
        if path is not None:
            _collecting(found.problems, lambda: _inspect_label(path, rules, found))
    if not found.problems:
        files = [files[0] for files in (*case.images.values(), case.labels) if files]
        _collecting(found.problems, lambda: found.warnings.extend(filter(None, [check_forms(files, GRID_TOLERANCE)])))
    return found


@dataclass(frozen=True)
class WriteJob:
    """One file of the new data set."""

    source: Path
    target: Path
    is_label: bool
    grid: Grid
    unchanged: bool  # True: the bytes of `source` are what is wanted


def write_file(job: WriteJob, rules: Rules, link: str) -> None:
    """Copy or link the file if nothing changes, else bring it to `job.grid`, map labels and write it compressed.

    Raises ImportRefused if reading, linking or writing fails.
    """
    if job.unchanged:
        try:
            LINKS[link](os.path.realpath(job.source), job.target)
        except OSError as error:
            advice = "; use --link sym or copy" if link == "hard" else ""
            raise ImportRefused(f"{job.source}: --link {link} failed ({error.strerror}){advice}") from error
        return
    image = read_volume(job.source)
    if job.is_label:
        image = map_labels(on_grid(image, job.grid, "nearest"), rules.label_map)
    else:
        image = on_grid(image, job.grid, rules.interpolation)
    write_volume(image, job.target)


def _only_file(files: list[Path], what: str, pattern: str, problems: list[str]) -> Path | None:
    if not files:
        problems.append(f"{what} missing: no file matches {pattern}")
    elif len(files) > 1:
        problems.append(f"{what}: {pattern} matches {len(files)} files, one is needed: "
                        f"{', '.join(f.name for f in files)}")
    return files[0] if len(files) == 1 else None


def _collecting(problems: list[str], check: Callable[[], None]) -> None:
    try:
        check()
    except ImportRefused as error:
        problems.append(str(error))


def _inspect_image(path: Path, modality: str, rules: Rules, found: Inspection) -> None:
    image = read_volume(path)
    array = sitk.GetArrayViewFromImage(image)
    _collecting(found.problems, lambda: refuse_unusable_values(path, array))
    if empty := array.min() == array.max():
        found.problems.append(f"{path}: empty, every voxel is {array.flat[0]:g}")
    else:
        found.hashes[modality] = content_hash(array)
    if found.grid is None:
        # Without a readable reference the others are still compared with one another, unless they may be resampled.
        if rules.resample_to in (None, modality):
            found.grid = Grid.of(image)
        return
    placed = _placed(image, path, found.grid, rules.interpolation, rules)
    if placed is not image:
        found.rewrite.add(modality)
        seen = sitk.GetArrayViewFromImage(placed)
        if not empty and seen.min() == seen.max():
            found.problems.append(f"{path}: shows nothing inside the field of view of {rules.reference}")


def _inspect_label(path: Path, rules: Rules, found: Inspection) -> None:
    image = read_volume(path)
    array = sitk.GetArrayViewFromImage(image)
    refuse_unusable_values(path, array)
    try:
        raw = label_counts(array)
    except ImportRefused as error:
        found.problems.append(f"{path}: {error}")
        raw = {}
    counts = mapped_counts(raw, rules.label_map)
    if rules.declared is not None and (undeclared := {v: n for v, n in counts.items() if v not in rules.declared}):
        listed = ", ".join(f"{value} ({voxels} voxels)" for value, voxels in list(undeclared.items())[:10])
        listed += f" and {len(undeclared) - 10} more" if len(undeclared) > 10 else ""
        found.problems.append(
            f"{path}: label values that are not declared: {listed}; declared are {' '.join(map(str, rules.declared))}. "
            "Change values with --map OLD=NEW or declare them")
    if found.grid is not None:
        placed = _placed(image, path, found.grid, "nearest", rules)
        if placed is not image:
            found.rewrite.add("")
            if raw:
                foreground = set(counts) - {0}
                counts = mapped_counts(label_counts(sitk.GetArrayViewFromImage(placed)), rules.label_map)
                if foreground and not set(counts) - {0}:
                    found.problems.append(f"{path}: no label is left inside the field of view of {rules.reference}")
    if any(rules.label_map.get(v, v) != v for v in raw) or _has_rounding_errors(array):
        found.rewrite.add("")
    found.labels = counts


def _placed(image: sitk.Image, path: Path, grid: Grid, how: str, rules: Rules) -> sitk.Image:
    try:
        return on_grid(image, grid, how if rules.resample_to else None)
    except ImportRefused as difference:
        advice = "" if rules.resample_to else "; if that is right, use --resample_to NAME"
        raise ImportRefused(f"{path}: not on the grid of the case: {difference}{advice}") from difference


def _has_rounding_errors(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool((array != array.round()).any())


def is_unchanged(case_file: Path, ending: str, rewrite: bool) -> bool:
    """Whether the file can go into the data set as it is."""
    return not rewrite and file_ending(case_file) == ending
