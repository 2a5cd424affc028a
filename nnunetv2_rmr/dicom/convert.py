"""DICOM series to NIfTI files, by dcm2niix, checked against the headers of the slices."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from nnunetv2_rmr.dicom.geometry import same_place
from nnunetv2_rmr.dicom.series import Series, matched_series, refuse_unreadable_voxels
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import Grid, read_volume, write_volume
from nnunetv2_rmr.files.workers import over_cases

# No file of the user's defaults (-g), no sidecar (-b), no comments of the scanner's staff in the header (-c); slices of
# one series make one volume however they were exposed (-m), as the headers have been found to say.
OPTIONS = ("-g", "i", "-b", "n", "-ba", "y", "-c", "", "-m", "y", "-z", "i", "-f", "image")


def match_studies(folder: Path, patterns: Mapping[str, str], allow_missing: bool = False,
                  num_processes: int = 1) -> tuple[dict[str, dict[str, Series]], dict[str, str]]:
    """The series of every case, by modality, and the reasons of cases in which they are not found (`matched_series`).

    folder: holds a folder for each case, named as the case. Raises BadCaseError if they are found in no case.
    """
    studies = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not studies:
        raise BadCaseError(f"{folder}: has to hold a folder of DICOM files for each case, but there is no folder in it")
    jobs = {study.name: (study, patterns, allow_missing) for study in studies}
    found, failures = over_cases(matched_series, jobs, num_processes, "reading DICOM headers")
    if not found:
        raise no_case(folder, failures)
    return found, failures


def no_case(folder: Path, failures: Mapping[str, str]) -> BadCaseError:
    return BadCaseError(f"no case in {folder} can be converted (it has to hold a folder for each case):"
                        + "".join(f"\n  {case}: {reason}" for case, reason in failures.items()))


def convert_studies(cases: Mapping[str, Mapping[str, Series]], target: Callable[[str, str], Path],
                    num_processes: int = 1) -> dict[str, str]:
    """Writes an image file of every modality of every case; returns the reasons of those that could not be converted,
    of which no file is left. target: the file for a case and a modality."""
    jobs = {case: ({target(case, name): s for name, s in series.items()},) for case, series in cases.items()}
    return over_cases(convert_study, jobs, num_processes, "converting DICOM")[1]


def words_for_files(folder: Path, cases: Mapping[str, Mapping[str, Series]],
                    target: Callable[[str, str], Path]) -> dict[str, str]:
    """What messages can say (`in_words`) in the place of each file: study in `folder`, modality and series."""
    return {str(target(case, name)): f"{folder / case}: {name} (series {s})" for case, series in cases.items()
            for name, s in series.items()}


def convert_study(files: Mapping[Path, Series]) -> None:
    """All of them, or none. Raises BadCaseError."""
    try:
        for target, series in files.items():
            convert_series(series, target)
    except BaseException:
        for target in files:
            target.unlink(missing_ok=True)
        raise


def convert_series(series: Series, target: Path) -> None:
    """One volume, axes and values as dcm2niix makes them. target: its ending is the format. Raises BadCaseError."""
    grid = series.grid()
    for file in series.files:
        refuse_unreadable_voxels(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".dcm2niix-") as folder:
        file = _run_dcm2niix(series, Path(folder))
        image = read_volume(file)
        if not same_place(Grid.of(image), grid):
            raise BadCaseError(f"series {series}: dcm2niix has put it elsewhere than its headers do: "
                               + Grid.of(image).difference(grid))
        if target.name.endswith(".nii.gz"):
            file.replace(target)
        else:
            write_volume(image, target)


def _run_dcm2niix(series: Series, folder: Path) -> Path:
    """The one file that it makes of the series in `folder`. Raises BadCaseError."""
    import dcm2niix

    source, made = folder / "dicom", folder / "nifti"
    source.mkdir()
    made.mkdir()
    for i, file in enumerate(series.files):
        (source / f"{i:06d}.dcm").symlink_to(file.resolve())
    run = subprocess.run([dcm2niix.bin, *OPTIONS, "-o", made, source], capture_output=True, text=True, errors="replace")
    files = [f.name for f in made.iterdir()]
    if run.returncode != 0 or files != ["image.nii.gz"]:
        said = " ".join((run.stdout + run.stderr).replace(str(source), "").split("\n")[2:]).strip()
        raise BadCaseError(f"series {series}: dcm2niix makes {len(files)} files of it, one is needed; it says: {said}")
    return made / files[0]
