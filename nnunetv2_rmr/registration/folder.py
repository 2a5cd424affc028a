"""A folder of cases as nnU-Net wants them, CASE_0000.nii.gz ..., brought to the grid of one of the modalities."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from nnunetv2_rmr.files.endings import case_name
from nnunetv2_rmr.files.input_check import check_numbers, files_of_cases
from nnunetv2_rmr.files.nifti import check_forms
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import GRID_TOLERANCE, Grid, on_grid, read_volume, refuse_unusable_values, write_volume
from nnunetv2_rmr.files.workers import over_cases
from nnunetv2_rmr.registration.rigid import register
from nnunetv2_rmr.settings import channel_names, distinct_names


def place_cases(folder: str, target: Path, dataset_json: dict, name: str, registering: bool,
                missing: bool = False) -> tuple[str | list, dict[str, str]]:
    """Writes the cases of `folder`, on the grid of the modality `name`, into `target`, which is made and returned ([]
    if it holds none), and with it the reasons of those that could not be brought there, of which no file is left.

    dataset_json: the model's. registering: whether the other modalities are also registered to it. missing: a case may
    lack modalities, but not that one. Raises BadCaseError for a name that is none of the model's.
    """
    names, ending = distinct_names(channel_names(dataset_json)), dataset_json["file_ending"]
    if name not in names:
        raise BadCaseError(f"--{'register' if registering else 'resample'}_to {name}: is none of the model's "
                           f"modalities ({', '.join(names)})")
    target.mkdir(parents=True)
    jobs = {case_name(files[0], ending): (files, target, names, ending, name, registering, missing)
            for files in files_of_cases(folder, names, ending)}
    done, failures = over_cases(_place_case, jobs, 1, f"to the grid of {name}")
    for case in failures:
        for file in jobs[case][0]:
            (target / os.path.basename(file)).unlink(missing_ok=True)
    for case, lines in done.items():
        print(*(f"{case}, {line}" for line in lines), sep="\n", end="\n" if lines else "")
    return str(target) if done else [], failures


def _place_case(files: Sequence[str], target: Path, names: Sequence[str], ending: str, reference: str,
                registering: bool, missing: bool) -> list[str]:
    """Write the case's files into `target`; what is not changed is copied. Returns what was found out, by modality."""
    if not missing:
        check_numbers(files, names, ending)
    numbered = {int(file[:-len(ending)][-4:]): Path(file) for file in files}
    number = names.index(reference)
    if number not in numbered or max(numbered) >= len(names):
        check_numbers(files, names, ending, f"; {reference} is needed, the others are brought to its grid")
    # now, as what is written below has one opinion of where it lies
    warning = check_forms(list(numbered.values()), GRID_TOLERANCE)
    fixed, lines = _read(numbered[number]), [f"WARNING: {warning}"] if warning else []
    for i, file in numbered.items():
        original = image = fixed if i == number else _read(file)
        if registering and i != number:
            found = register(fixed, image)
            image = found.place(image)
            lines.append(f"{names[i]}: {'WARNING: ' if found.problem else ''}{found}")
        image = on_grid(image, Grid.of(fixed), "linear")
        seen = sitk.GetArrayViewFromImage(image)
        if seen.min() == seen.max() and not (missing and image is original):
            raise BadCaseError(f"{file}: shows nothing inside the field of view of {reference}, every voxel is the "
                               "same there")
        if image is original:
            shutil.copyfile(file, target / file.name)
        else:
            write_volume(image, target / file.name)
    return lines


def _read(file: Path) -> sitk.Image:
    image = read_volume(file)
    refuse_unusable_values(file, sitk.GetArrayViewFromImage(image))
    return image
