"""Studies of DICOM files, as the folder of NIfTI files that the importer reads."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from glob import glob
from pathlib import Path

from nnunetv2_rmr.datasets.request import ImportRequest
from nnunetv2_rmr.files.atomic import temporary_folder
from nnunetv2_rmr.files.refused import BadCaseError

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
    folder, refused, words = _convert(request, request.input_folder, temporary / "labelled", request.label)
    unlabelled = request.unlabelled
    if unlabelled and unlabelled.resolve() == request.input_folder.resolve():
        unlabelled = folder
    elif unlabelled:
        unlabelled, others, more = _convert(request, unlabelled, temporary / "unlabelled")
        refused |= {f"{request.unlabelled.name}/{case}": problems for case, problems in others.items()}
        words |= more
    return replace(request, input_folder=folder, modalities={n: f"{IMAGES}/{n}.nii.gz" for n in request.modalities},
                   layout="folders", unlabelled=unlabelled, dicom=False, refused=refused, words=words)


def _convert(request: ImportRequest, source: Path, temporary: Path,
             label: str | None = None) -> tuple[Path, dict[str, list[str]], dict[str, str]]:
    """A folder named as `source`, the problems of its cases that are not in it, and words for its files. label: its
    pattern."""
    from nnunetv2_rmr.dicom.convert import convert_studies, match_studies, no_case, words_for_files

    labels = {study: glob(label.replace("[", "[[]"), root_dir=source / study) if label else []
              for study in os.listdir(source)}
    if label and not any(labels.values()):
        raise BadCaseError(f"no file in the folders of {source} is matched by --label {label}")
    folder = temporary / source.resolve().name
    found, failures = match_studies(source, request.modalities, num_processes=request.num_processes)

    def target(case: str, name: str) -> Path:
        return folder / case / IMAGES / f"{name}.nii.gz"

    failures |= convert_studies(found, target, request.num_processes)
    if not found.keys() - failures:
        raise no_case(source, failures)
    for case in failures:  # what an unfinished one left
        shutil.rmtree(folder / case, ignore_errors=True)
    for case in found.keys() - failures:
        for file in labels[case]:
            link = folder / case / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((source / case / file).resolve())
    words = words_for_files(source, found, target) | {str(folder): str(source)}
    return folder, {case: [reason] for case, reason in failures.items()}, words
