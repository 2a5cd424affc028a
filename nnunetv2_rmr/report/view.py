"""A page with the viewer alone, for predictions of one's own."""

from __future__ import annotations

import json
from pathlib import Path

from nnunetv2_rmr.evaluation.segmentation_metrics import label_names
from nnunetv2_rmr.files.atomic import remove_leftovers, replacing
from nnunetv2_rmr.files.endings import READABLE
from nnunetv2_rmr.files.input_check import images_in
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.report.html import page, tag
from nnunetv2_rmr.report.viewer import LoadedStudy, Study, load_study, viewer
from nnunetv2_rmr.settings import channel_names, distinct_names

FILE_ENDING = ".nii.gz"


def write_view(images: Path, predictions: Path, cases: list[str], output: Path,
               labels: Path | None = None) -> list[str]:
    """Write the page of these cases to `output`; it is not written if no case can be shown.

    images: folder in nnU-Net's format. predictions: folder with CASE.nii.gz, perhaps fused/CASE.nii.gz and
    dataset.json. labels: folder with CASE.nii.gz.
    Returns a message for each case that can not be shown. Raises BadCaseError if dataset.json can not be used.
    """
    description = _description(predictions)
    names = distinct_names(channel_names(description)) if description else []
    ending = description.get("file_ending", FILE_ENDING)
    shown: list[LoadedStudy] = []
    problems = []
    for case in dict.fromkeys(cases):
        try:
            shown.append(load_study(_study(case, images, predictions, labels, names, ending)))
        except BadCaseError as error:
            problems.append(f"case {case}: {error}")
    remove_leftovers([output.parent])
    if shown:
        content = page(", ".join(s.study.case for s in shown), tag("h1", "Predictions in three planes"),
                       viewer(shown, label_names(description)))
        with replacing(output) as temporary:
            Path(temporary).write_text(content, encoding="utf-8")
    return problems


def _description(predictions: Path) -> dict:
    file = predictions / "dataset.json"
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadCaseError(f"{file}: can not be read ({error})") from None


def _study(case: str, images: Path, predictions: Path, labels: Path | None, names: list[str], ending: str) -> Study:
    found = sorted((int(m[2]), images / m[0]) for m in images_in(images, ending) if m[1] == case)
    if not found:
        raise BadCaseError(f"{images / case}_0000{ending} does not exist")
    modalities = {names[i] if i < len(names) else f"modality {i}": file for i, file in found}
    segmentation = predictions / f"{case}{ending}"
    if not segmentation.is_file():
        raise BadCaseError(f"{segmentation} does not exist")
    for fused in (predictions / "fused" / f"{case}{e}" for e in dict.fromkeys((ending, *READABLE))):
        if fused.is_file():
            modalities["fused"] = fused
            break
    segmentations = {"expert label": labels / f"{case}{ending}"} if labels else {}
    return Study(case, case, modalities, {**segmentations, "prediction": segmentation})
