"""Studies of DICOM files, as the folder of NIfTI files that the importer reads."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from glob import glob
from pathlib import Path

from nnunetv2_rmr.datasets.request import ImportRequest
from nnunetv2_rmr.files.atomic import temporary_folder

IMAGES = "series"  # folder in a case's; beside it the label keeps its place


@contextmanager
def of_files(request: ImportRequest) -> Iterator[ImportRequest]:
    """The same request for files: converted from DICOM, if it is for series, into a folder that is there meanwhile.

    Raises BadCaseError.
    """
    if not request.dicom:
        yield request
        return
    request.declared()  # wrong options are told before all that is converted
    with temporary_folder(request.output_folder / "dicom") as temporary:
        yield _converted(request, temporary)


def _converted(request: ImportRequest, temporary: Path) -> ImportRequest:
    folder, refused = _convert(request, request.input_folder, temporary / "labelled", request.label)
    unlabelled = request.unlabelled
    if unlabelled and unlabelled.resolve() == request.input_folder.resolve():
        unlabelled = folder
    elif unlabelled:
        unlabelled, others = _convert(request, unlabelled, temporary / "unlabelled")
        refused |= {f"{request.unlabelled.name}/{case}": problems for case, problems in others.items()}
    return replace(request, input_folder=folder, modalities={n: f"{IMAGES}/{n}.nii.gz" for n in request.modalities},
                   layout="folders", unlabelled=unlabelled, dicom=False, refused=refused)


def _convert(request: ImportRequest, source: Path, temporary: Path,
             label: str | None = None) -> tuple[Path, dict[str, list[str]]]:
    """A folder named as `source`, and the problems of its cases that are not in it. label: its pattern."""
    from nnunetv2_rmr.dicom.convert import convert_studies

    names, folder = list(request.modalities), temporary / source.resolve().name
    failures = convert_studies(source, request.modalities,
                               lambda case, i: folder / case / IMAGES / f"{names[i]}.nii.gz",
                               num_processes=request.num_processes)
    for case in failures:  # what an unfinished one left
        shutil.rmtree(folder / case, ignore_errors=True)
    for case in [f.name for f in folder.iterdir()] if label else []:
        for file in glob(label.replace("[", "[[]"), root_dir=source / case):
            link = folder / case / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((source / case / file).resolve())
    return folder, {case: [reason] for case, reason in failures.items()}
