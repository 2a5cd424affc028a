"""A page with the viewer alone, for predictions and fused images of one's own."""

from pathlib import Path

from nnunetv2_rmr.evaluation.segmentation_metrics import label_names
from nnunetv2_rmr.files.dataset_json import find_dataset_json, read_dataset_json
from nnunetv2_rmr.files.endings import READABLE
from nnunetv2_rmr.files.input_check import images_in
from nnunetv2_rmr.files.nifti import check_forms
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import GRID_TOLERANCE
from nnunetv2_rmr.report.page import write_page
from nnunetv2_rmr.report.viewer import LABEL, Study, load_study, viewer
from nnunetv2_rmr.settings import channel_names, distinct_names


def write_view(images: Path, predictions: Path | None, cases: list[str], output: Path, labels: Path | None = None,
               fused: Path | None = None) -> list[str]:
    """Write the page of these cases to `output`; it is not written if no case can be shown.

    images: folder in nnU-Net's format. predictions, labels: folders with CASE.nii.gz. fused: the same; None: shown if
    in predictions/fused. The names of modalities and labels are in predictions/dataset.json or in that of the images.
    Returns a message for each case that can not be shown. Raises BadCaseError if dataset.json can not be used.
    """
    near = [folder for folder in (predictions, images, images.absolute().parent) if folder]
    description = read_dataset_json(find_dataset_json(near))
    names = distinct_names(channel_names(description)) if description else []
    ending = description.get("file_ending", ".nii.gz")
    shown: list[Study] = []
    problems = []
    for case in dict.fromkeys(cases):
        try:
            shown.append(_load(case, images, predictions, labels, fused, names, ending))
        except BadCaseError as error:
            problems.append(f"case {case}: {error}")
    if shown:
        write_page(output, "view.html", title=", ".join(s.case for s in shown),
                   viewer=viewer(shown, label_names(description)))
    return problems


def _load(case: str, images: Path, predictions: Path | None, labels: Path | None, fused: Path | None,
          names: list[str], ending: str) -> Study:
    found = sorted((int(m[2]), images / m[0]) for m in images_in(images, ending) if m[1] == case)
    if not found:
        raise BadCaseError(f"{images / case}_0000{ending} does not exist")
    if warning := check_forms([file for _, file in found], GRID_TOLERANCE):
        print(f"WARNING: case {case}: {warning}")
    shown = {names[i] if i < len(names) else f"modality {i}": file for i, file in found}
    fused_files = [(fused or predictions / "fused") / f"{case}{e}" for e in dict.fromkeys((ending, *READABLE))]
    existing = [file for file in fused_files if file.is_file()]
    if fused and not existing:
        raise BadCaseError(f"{fused_files[0]} does not exist")
    if existing:
        shown["fused"] = existing[0]
    return load_study(case, case, shown, {name: folder / f"{case}{ending}" for name, folder in
                                          ((LABEL, labels), ("prediction", predictions)) if folder})
