"""What has to be true of a case's images before they are worth predicting; every message names the file."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_rmr.files.nifti import check_forms, check_nifti, is_nifti
from nnunetv2_rmr.files.refused import ImportRefused
from nnunetv2_rmr.files.volumes import GRID_TOLERANCE, Grid, numbers, refuse_unusable_values


class BadCaseError(ValueError):
    """The input of one case can not be used. The message names the file and says what to do."""


def images_in(folder: str | Path, file_ending: str) -> list[re.Match]:
    """Of every file named like CASE_0000.nii.gz the name (group 0), the case (1) and the modality's number (2).

    Only of what can be read like a file: reading a pipe would wait for ever.
    """
    pattern = re.compile(rf"([^.].*)_(\d{{4}}){re.escape(file_ending)}")
    return [match for file in os.listdir(folder)
            if (match := pattern.fullmatch(file)) and os.path.isfile(os.path.join(folder, file))]


def files_of_cases(folder: str, names: Sequence[str], file_ending: str) -> list[list[str]]:
    """Of every case of a folder its files; both sorted, as nnU-Net has them, which takes any file for a case's.

    Other files of this ending are named and passed over. names: the model's modalities. Raises ValueError if no file
    has a case's name.
    """
    images = sorted(images_in(folder, file_ending), key=lambda image: image.group(1, 2))
    if not images:
        wanted = ", ".join(f"CASE_{i:04d}{file_ending} ({name})" for i, name in enumerate(names))
        raise ValueError(f"no case in {folder}: the files of one have to be named {wanted}")
    others = {file for file in os.listdir(folder) if file.endswith(file_ending) and not file.startswith(".")}
    if others := others.difference(image[0] for image in images):
        print(f"passed over, since not named like CASE_0000{file_ending}: {', '.join(sorted(others))}")
    cases: dict[str, list[str]] = {}
    for image in images:
        cases.setdefault(image[1], []).append(os.path.join(folder, image[0]))
    return list(cases.values())


def check_files(files: Sequence[str], made_of_them: Sequence[str] = ()) -> None:
    """All files are there, complete, and on one grid, whoever reads them. Raises BadCaseError.

    Readers do not tell: SimpleITK fills a truncated NIfTI file with zeros, and nnU-Net only warns of other origins.
    made_of_them: more files, written by a program that has read the others; they lie where it took these to lie.
    """
    originals, files = files, [*files, *made_of_them]
    for file in files:
        if not os.path.isfile(file):
            raise BadCaseError(f"{file} does not exist")
    try:
        for file in files:
            check_nifti(Path(file))
        grids = [_grid(file) for file in files]
        warning = check_forms(originals, GRID_TOLERANCE)
    except (ImportRefused, RuntimeError) as error:
        raise BadCaseError(f"{error}; copy or export it again") from None
    for file, grid in zip(files[1:], grids[1:]):
        if grid is None or grids[0] is None:
            continue
        if not grid.is_close(grids[0]):
            raise BadCaseError(f"{file} does not lie on the grid of {files[0]} ({grid.difference(grids[0])}): "
                               f"resample the modalities to one grid first")
        if not np.allclose(grid.spacing, grids[0].spacing):  # nnU-Net's reader refuses it, without a word
            raise BadCaseError(f"{file} has voxels of {numbers(grid.spacing)} mm, {files[0]} of "
                               f"{numbers(grids[0].spacing)} mm: resample the modalities to one grid first")
    if warning:
        print(f"WARNING: {warning}")


def _grid(file: str) -> Grid | None:
    """The grid by the file's header; None for formats that have none."""
    if not file.lower().endswith((*SimpleITKIO.supported_file_endings, *NibabelIO.supported_file_endings)):
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        if is_nifti(file):  # sheared axes, which nnU-Net reads with nibabel then
            return Grid.of_affine(nibabel.load(file))
        raise RuntimeError(f"{file}: can not be read") from None
    if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise RuntimeError(f"{file}: holds complex numbers, one real value per voxel is needed (the magnitude, say)")
    return Grid.of(reader)


def _expected_and_given(files: Sequence[str], names: Sequence[str], file_ending: str) -> tuple[str, list, set]:
    """The case's name, its files CASE_0000, CASE_0001 ... as they should be, and those that are there."""
    stem = os.path.basename(files[0])[:-(len(file_ending) + 5)]
    return stem, [f"{stem}_{i:04d}{file_ending}" for i in range(len(names))], {os.path.basename(f) for f in files}


def wrong_numbers(files: Sequence[str], names: Sequence[str], file_ending: str) -> str | None:
    """Which of a case's files CASE_0000, CASE_0001 ... are missing or none of the modalities (names); None if all is
    well. files: those that are there."""
    stem, expected, have = _expected_and_given(files, names, file_ending)
    missing = [f"{file} ({name})" for file, name in zip(expected, names) if file not in have]
    surplus = sorted(have - set(expected))
    told = [f"{', '.join(missing)} missing in {os.path.dirname(files[0]) or '.'}"] * bool(missing)
    told += [f"remove {', '.join(surplus)}, which is none of the {len(names)} modalities"] * bool(surplus)
    return f"case {stem}: {'; '.join(told)}" if told else None


def _explain_channels(files: Sequence[str], names: Sequence[str], file_ending: str) -> str:
    told = wrong_numbers(files, names, file_ending)
    return f"{told}; add what is missing, or give --missing to predict without it" if "missing" in told else told


def absent_channels(files: Sequence[str], names: Sequence[str], file_ending: str) -> list[int]:
    """Indices of the modalities of which a case has no file; by the files' names, CASE_0000, CASE_0001 ...

    A list of as many files as modalities may have other names (from Python). Raises BadCaseError if a file belongs to
    none of the modalities.
    """
    stem, expected, have = _expected_and_given(files, names, file_ending)
    numbered = re.compile(rf"{re.escape(stem)}_\d{{4}}{re.escape(file_ending)}")
    if len(files) == len(names) and not all(numbered.fullmatch(file) for file in have):
        return []
    if surplus := have - set(expected):
        raise BadCaseError(f"case {stem}: remove {', '.join(sorted(surplus))} (the model's modalities are "
                           + ", ".join(f"{i:04d}={name}" for i, name in enumerate(names)) + ")")
    return [i for i, file in enumerate(expected) if file not in have]


def _check_numbers(files: Sequence[str], names: Sequence[str], file_ending: str) -> None:
    """As many files as modalities may still be other ones: CASE_0000, CASE_0002, CASE_0003. Raises BadCaseError."""
    stem, expected, have = _expected_and_given(files, names, file_ending)
    numbered = re.compile(rf"{re.escape(stem)}_\d{{4}}{re.escape(file_ending)}")
    if all(numbered.fullmatch(file) for file in have) and have != set(expected):
        raise BadCaseError(_explain_channels(files, names, file_ending))


def check_array(data: np.ndarray, names: Sequence[str], files: Sequence[str] = (), file_ending: str = "",
                absent: Sequence[int] = ()) -> None:
    """All modalities there, finite, and with more than one value each.

    data: (C, D, H, W). names: the model's modalities. files, file_ending: where data came from, for the messages.
    absent: indices of modalities that are allowed to be missing and not looked at. Raises BadCaseError.
    """
    if len(data) == len(names) == len(files) and not absent:
        _check_numbers(files, names, file_ending)
    if len(data) != len(names):
        found = f"{len(data)} modalit{'y' if len(data) == 1 else 'ies'} given, the model needs {len(names)} " \
                f"({', '.join(names)})"
        raise BadCaseError(f"{_explain_channels(files, names, file_ending)} ({found})" if files else found)
    given = [i for i in range(len(names)) if i not in absent]
    if not given:
        raise BadCaseError(f"{', '.join(files) or 'the image'}: zero in every voxel of every modality")
    with_file = range(len(names)) if len(files) == len(names) else given
    sources = dict(zip(with_file, files)) if len(files) == len(with_file) else {}
    for i in given:
        channel, source = data[i], sources.get(i, f"channel {i} ({names[i]})")
        try:
            refuse_unusable_values(Path(source), channel)
        except ImportRefused as error:
            raise BadCaseError(f"{error}: replace them in the image and run again") from None
        if channel.min() == channel.max():
            raise BadCaseError(f"{source} is constant (every voxel is {channel.min():g}): an empty image can not be "
                               "normalised; export it again"
                               + (", or give --missing to predict without it" if channel.min() == 0 else ""))
