"""`--series` and `--dicom` of the commands that predict: folders of DICOM files become the folder of images that
nnU-Net reads, and outputs become DICOM."""

from collections.abc import Mapping
from pathlib import Path

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.settings import channel_names, distinct_names

SERIES = "--series"


def convert_input(studies: str, folder: Path, series: Mapping[str, str], dataset_json: dict,
                  allow_missing: bool) -> tuple[str, dict[str, str]]:
    """Images CASE_0000, CASE_0001 ... of every study in `folder`, which is returned, and the reasons of those of which
    there are none. Raises BadCaseError if the series are not the model's modalities, or no study can be converted.
    """
    from nnunetv2_rmr.dicom.convert import convert_studies

    patterns = _by_channel(series, distinct_names(channel_names(dataset_json)))
    return str(folder), convert_studies(Path(studies), patterns,
                                        lambda case, i: folder / f"{case}_{i:04d}{dataset_json['file_ending']}",
                                        allow_missing)


def _by_channel(series: Mapping[str, str], names: list[str]) -> dict[str, str]:
    """The patterns in the order of the model's modalities, which are `names`."""
    folded = {name.casefold(): pattern for name, pattern in series.items()}
    wanted = [name.casefold() for name in names]
    if len(folded) < len(series) or folded.keys() != set(wanted):
        raise BadCaseError(f"{SERIES} names {', '.join(series)}, but the modalities of the model are "
                           f"{', '.join(names)}: give each of them one pattern")
    return {name: folded[key] for name, key in zip(names, wanted)}


def check_grid(name: str | None, dataset_json: dict, reference: int) -> None:
    """Raises BadCaseError if outputs on the grid of modality `name` can not be series of the reference modality."""
    wanted = distinct_names(channel_names(dataset_json))[reference]
    if name not in (None, wanted):
        raise BadCaseError(f"--dicom: outputs are made a series of {wanted}, whose units the fused image has, so they "
                           f"have to lie on its grid, not on that of {name}")


def write_dicom_outputs(studies: Path, output: Path, series: Mapping[str, str], dataset_json: dict, model: str,
                        reference: int, fuses: bool, allow_missing: bool) -> None:
    """For every study whose outputs are whole and newer than those it has as DICOM; prints what could not be done."""
    from nnunetv2_rmr.files.whole_files import is_whole
    from nnunetv2_rmr.files.workers import over_cases

    names, ending = distinct_names(channel_names(dataset_json)), dataset_json["file_ending"]
    jobs = {}
    for study in sorted(folder for folder in studies.iterdir() if folder.is_dir()):
        files = [output / f"{study.name}{ending}"] + [output / "fused" / f"{study.name}{ending}"] * fuses
        made = output / "dicom" / study.name
        if all(map(is_whole, files)) and not (
                made.is_dir() and made.stat().st_mtime > max(file.stat().st_mtime for file in files)):
            jobs[study.name] = (study, output, _by_channel(series, names), dataset_json, model, names[reference],
                                allow_missing)
    _, failures = over_cases(_write_one, jobs, 1, "writing DICOM")
    print(f"DICOM: {output / 'dicom'}", *(f"ERROR: case {case}: no DICOM ({why})" for case, why in failures.items()),
          sep="\n")


def _write_one(study: Path, output: Path, patterns: Mapping[str, str], dataset_json: dict, model: str, reference: str,
               allow_missing: bool) -> None:
    from nnunetv2_rmr.dicom.series import matched_series
    from nnunetv2_rmr.dicom.write import write_dicom

    chosen = matched_series(study, patterns, allow_missing)
    if reference not in chosen:
        raise BadCaseError(f"{study}: without {reference} there is no series that the outputs could belong to")
    write_dicom(study.name, output, chosen[reference].files, dataset_json, model, list(chosen))
