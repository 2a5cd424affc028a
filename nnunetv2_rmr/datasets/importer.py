"""Make an nnU-Net data set of a folder of multi-modal cases: check everything, then build it in one piece.

Three steps, each a function: `check` reads every case and collects all problems, `build` writes the data set into a
temporary folder beside its final place and renames it, `import_dataset` does both.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

import nnunetv2_rmr
from nnunetv2_rmr.datasets.cases import LABEL, Case, find_cases, id_problems
from nnunetv2_rmr.datasets.dicom import of_files
from nnunetv2_rmr.datasets.inspect_case import Inspection, inspect_case, write_case
from nnunetv2_rmr.datasets.labels import default_class_order, labels_for_dataset_json, merged_labels, values_of
from nnunetv2_rmr.datasets.request import ImportRequest
from nnunetv2_rmr.files.atomic import remove_leftovers, temporary_folder
from nnunetv2_rmr.files.endings import file_ending
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import numbers
from nnunetv2_rmr.files.workers import DIED, in_order

RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"  # environment variables
# Endings nnU-Net's readers take with the full grid; anything else becomes .nii.gz. Its reader for .nii is 3D only.
ENDINGS_KEPT = {2: (".nii.gz", ".nrrd", ".mha"), 3: (".nii.gz", ".nrrd", ".mha", ".nii")}


@dataclass
class CheckedDataset:
    """All cases that may be imported, and what the data set will be."""

    cases: list[Inspection]
    labels: dict[str, int | list[int]]
    regions_class_order: list[int] | None
    skipped: dict[str, list[str]]  # problems by Case.source
    notes: list[str] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Inspection]:
        """Tr, Ts or Un."""
        return [found for found in self.cases if found.case.kind == kind]

    @property
    def renamed(self) -> dict[str, str]:
        """Where cases come from whose ids had to be made safe, by id."""
        return {c.case.id: c.case.source for c in self.cases if c.case.id != c.case.source}

    @property
    def file_ending(self) -> str:
        endings = {file_ending(f) for found in self.cases for files in found.case.files.values() for f in files}
        kept = ENDINGS_KEPT[self.cases[0].grid.dimension]
        return endings.pop() if len(endings) == 1 and endings <= {*kept} else ".nii.gz"


def import_dataset(request: ImportRequest) -> CheckedDataset:
    """Check and build. Raises BadCaseError; then nothing is left behind and an existing data set is untouched."""
    _tidy_up_after_killed_imports(request.dataset_folder)
    refuse_taken_id(request)
    with of_files(request) as request:
        checked = check(request)
        build(request, checked)
    return checked


def refuse_taken_id(request: ImportRequest) -> None:
    """Raise BadCaseError if the folder exists (unless overwrite), or if the id is in use under another name.

    The latter holds for all three nnU-Net folders, because nnU-Net then refuses to work with the id.
    """
    final, source = Path(os.path.realpath(request.dataset_folder)), Path(os.path.realpath(request.input_folder))
    if final == source or final in source.parents:
        raise BadCaseError(f"-i {request.input_folder} lies inside {request.dataset_folder}, which would be replaced")
    if request.dataset_folder.exists() and not request.overwrite:
        raise BadCaseError(f"{request.dataset_folder} exists already; choose another -d, or give --overwrite")
    prefix = f"Dataset{request.dataset_id:03d}_"
    roots = [request.output_folder]
    roots += [Path(p) for v in (RAW, PREPROCESSED, RESULTS) if (p := os.environ.get(v))]
    for root in roots:
        others = [f for f in root.glob(f"{prefix}*") if f.is_dir() and f.name != request.dataset_folder.name]
        if others:
            raise BadCaseError(f"-d {request.dataset_id} is in use: {others[0]}. nnU-Net needs one name per id: "
                                "choose another -d, or remove that folder yourself (--overwrite replaces only a data "
                                "set of the same name)")


def check(request: ImportRequest) -> CheckedDataset:
    """Read every file of every case. Raises BadCaseError for wrong options, or with all problems at once."""
    request.declared()  # wrong options are told before hours of reading
    order = _class_order(request)
    cases, ignored = find_cases(request.input_folder, request.patterns, request.layout)
    jobs = [(case, request) for case in _with_kinds(request, cases)]
    inspections = _parallel(inspect_case, jobs, request, "checking cases")
    _compare(inspections)
    good = [i for i in inspections if not i.problems]
    bad = {**request.refused, **{i.case.source: i.problems for i in inspections if i.problems}}

    if bad and not any(i.labels for i in inspections):
        raise _refused(bad, len(good))  # no label could be read: what else might be said of labels is beside the point
    seen = {value for i in good or inspections for value in i.labels}
    try:
        labels = labels_for_dataset_json(request.labels, request.regions, request.ignore_label, seen)
    except BadCaseError as error:
        if not bad:
            raise
        raise _refused({**bad, "": [str(error)]}, len(good)) from error
    if bad and not request.skip_bad_cases:
        raise _refused(bad, len(good))
    checked = CheckedDataset(good, labels, order, bad)
    if not checked.of_kind("Tr"):
        why = "every case is a test case or has no label, none is left for training"
        raise _refused(bad, len(good)) if bad else BadCaseError(why)
    checked.notes += _notes(request, checked, ignored)
    return checked


def build(request: ImportRequest, checked: CheckedDataset) -> None:
    """Write the data set into a hidden folder beside its final place, then rename it. Raises BadCaseError."""
    with temporary_folder(request.dataset_folder) as temporary:
        temporary.mkdir(parents=True)
        _parallel(write_case, [(found, temporary, checked.file_ending, request) for found in checked.cases], request,
                  "writing cases")
        text = json.dumps(dataset_json(request, checked), indent=4, ensure_ascii=False)
        (temporary / "dataset.json").write_text(text + "\n", encoding="utf-8")
        _move_into_place(temporary, request.dataset_folder)


def dataset_json(request: ImportRequest, checked: CheckedDataset) -> dict:
    """Content of dataset.json: nnU-Net's entries, and under `nnunetv2_rmr_import` what was changed on the way."""
    result = {
        "name": request.name,
        "channel_names": {str(i): name for i, name in enumerate(request.modalities)},
        "labels": checked.labels,
        "numTraining": len(checked.of_kind("Tr")),
        "file_ending": checked.file_ending,
        "converted_by": f"nnunetv2-rmr {nnunetv2_rmr.__version__}",
        "nnunetv2_rmr_import": {
            "label_map": {str(old): new for old, new in request.label_map.items()},
            "resampled_to": request.resample_to,
            "registered_to": request.register_to,
            "renamed_cases": checked.renamed,
        },
    }
    if checked.regions_class_order is not None:
        result["regions_class_order"] = checked.regions_class_order
    return result


def summary(request: ImportRequest, checked: CheckedDataset) -> str:
    """Text for the user: what is in the data set, what to look at, what to type next."""
    # nnU-Net's own function, so that the text can not disagree with what nnU-Net will do.
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

    training, test, unlabelled = (checked.of_kind(kind) for kind in ("Tr", "Ts", "Un"))
    with_label = sum(bool(found.case.files[LABEL]) for found in test)
    lines = [f"{request.dataset_folder}",
             f"  {len(training)} training cases, {len(test)} test cases ({with_label} with label)"
             + (f", {len(unlabelled)} without label" if unlabelled else ""),
             f"  size in voxels (x y z): {_distinct([found.grid.size for found in checked.cases])}",
             f"  voxel spacing in mm:    {_distinct([found.grid.spacing for found in checked.cases])}"]
    for i, name in enumerate(request.modalities):
        scheme = get_normalization_scheme(name).__name__
        lines.append(f"  channel {i:04d} {name}: nnU-Net normalises it by {scheme}")
    for name, item in checked.labels.items():
        if name == "background":
            continue
        values = values_of({name: item})
        counts = [sum(found.labels.get(v, 0) for v in values) for found in training]
        lines.append(f"  label {name} = {' '.join(map(str, values))}: {sum(counts)} voxels, "
                     f"in {sum(n > 0 for n in counts)} of {len(counts)} training cases")
    if checked.regions_class_order is not None:
        written = [f"{name} -> {value}" for name, value in zip(request.regions or {}, checked.regions_class_order)]
        lines.append(f"  predicted regions are written, later over earlier, as: {', '.join(written)}")
    lines += [f"  {found.case.source}, {name}: {registration}"
              for found in checked.cases for name, registration in found.registrations.items()
              if not registration.problem]  # which is among the notes
    lines += [f"  note: {note}" for note in checked.notes]
    for source, texts in checked.skipped.items():
        lines += [f"  skipped {source}:"] + [f"    - {text}" for text in texts]
    raw, ours = os.environ.get(RAW), Path(os.path.realpath(request.output_folder))
    if raw is None or Path(os.path.realpath(raw)) != ours:
        lines.append(f'nnU-Net looks for data sets in {RAW}: export {RAW}="{ours}"')
    lines.append(f"Next: nnUNetv2_plan_and_preprocess -d {request.dataset_id} --verify_dataset_integrity"
                 "  (-c 3d_fullres: of all configurations only this one)")
    if unlabelled:
        lines.append(f"Then: nnUNetv2_rmr_preprocess_unlabelled -d {request.dataset_id} -c 3d_fullres")
    return "\n".join(lines)


def _refused(problems: dict[str, list[str]], good: int) -> BadCaseError:
    """All that is wrong; problems: by case, what concerns no single one under ''. good: number of other cases."""
    bad = sum(1 for source in problems if source)
    lines = [f"{bad} of {bad + good} cases can not be imported; nothing was written."]
    for source, texts in problems.items():
        lines += ([f"  {source}"] if source else []) + [f"    - {text}" for text in texts]
    if good and bad:
        lines.append(f"Correct the files, or leave them out with --skip_bad_cases ({good} would be imported).")
    return BadCaseError("\n".join(lines))


def _class_order(request: ImportRequest) -> list[int] | None:
    if not request.regions:
        if request.regions_class_order:
            raise BadCaseError("--regions_class_order needs --regions")
        return None
    order = list(request.regions_class_order or default_class_order(request.regions))
    merged_labels(request.regions, order)
    return order


def _with_kinds(request: ImportRequest, cases: list[Case]) -> list[Case]:
    """All cases, test cases and unlabelled ones marked; those of request.unlabelled, whose labels, if any, are passed
    over, come last."""
    same = request.unlabelled and os.path.realpath(request.unlabelled) == os.path.realpath(request.input_folder)
    labelled = [case for case in cases if case.files[LABEL] or not same]
    others = [case for case in cases if same and not case.files[LABEL]]
    if request.unlabelled and not same:
        taken = {case.source for case in cases}
        found = find_cases(request.unlabelled, request.modalities, request.layout, "--unlabelled")[0]
        others = [replace(c, source=f"{request.unlabelled.name}/{c.source}") if c.source in taken else c for c in found]
    wanted = {*request.test_cases}
    if unknown := wanted.difference(*((case.id, case.source) for case in labelled), request.refused):
        raise BadCaseError(f"--test_cases {' '.join(sorted(unknown))}: no such case; the cases are "
                            f"{', '.join(c.source for c in labelled[:5])}{' ...' if len(labelled) > 5 else ''}")
    for case in labelled:
        if wanted & {case.id, case.source} or (request.unlabelled_as_test and not case.files[LABEL]):
            case.kind = "Ts"
    return labelled + [replace(case, kind="Un") for case in others]


def _parallel(work: Callable, jobs: Sequence[tuple], request: ImportRequest, text: str) -> list:
    """work(*job) of every job, in order, with a progress bar."""
    results = []
    for result in tqdm(in_order(work, jobs, request.num_processes), total=len(jobs), desc=text,
                       disable=None):
        if result is DIED:
            raise BadCaseError(f"{text}: {DIED.message}")
        results.append(result)
    return results


def _compare(inspections: Sequence[Inspection]) -> None:
    """Note problems of cases beside each other: ids, 2D among 3D, and images that occur twice."""
    problems = id_problems([found.case for found in inspections])
    dimensions = Counter(found.grid.dimension for found in inspections if found.grid).most_common()
    for found in inspections:
        found.problems += problems[found.case.source]
        if found.grid and found.grid.dimension != dimensions[0][0]:
            found.problems.append(f"the images are {found.grid.dimension}D, those of most other cases "
                                  f"{dimensions[0][0]}D")
    first: dict[str, tuple[Inspection, str]] = {}
    # of two cases the one without other problems, else the first, counts as the original
    for found in sorted(inspections, key=lambda i: (bool(i.problems), i.case.source)):
        for modality, content in found.hashes.items():
            original, same = first.setdefault(content, (found, modality))
            if original is not found or same != modality:
                where = "of the same case" if original is found else f"of case {original.case.source}"
                found.problems.append(f"duplicate: the {modality} image has the same content as the {same} image "
                                      f"{where}")


def _replaced(final: Path) -> Path:
    """Where a data set is while another takes its place."""
    return final.with_name(f".{final.name}.replaced")


def _move_into_place(temporary: Path, final: Path) -> None:
    """Rename; a data set that stood there is removed only once the new one is in its place."""
    old = _replaced(final)
    if final.exists():
        final.rename(old)
    try:
        temporary.rename(final)
    except OSError:
        if old.exists():
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _tidy_up_after_killed_imports(final: Path) -> None:
    old = _replaced(final)
    if old.exists() and not final.exists():  # killed between two renames
        old.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    remove_leftovers([final.parent])


def _notes(request: ImportRequest, checked: CheckedDataset, ignored: list[str]) -> list[str]:
    notes = []
    if ignored:
        more = " ..." if len(ignored) > 10 else ""
        notes.append(f"folders without any matching file, ignored: {', '.join(ignored[:10])}{more}")
    if checked.renamed:
        notes.append(f"case ids made safe: {', '.join(f'{old} -> {new}' for new, old in checked.renamed.items())}")
    for name in request.modalities:
        if name.casefold() != "ct" and re.search(r"(?<![a-z])l?d?ct(?![a-z])", name.casefold()):
            notes.append(f"modality {name}: nnU-Net uses its CT normalisation only for the exact name CT; this one is "
                         "normalised like MRI (z-score)")
    training = checked.of_kind("Tr")
    if empty := [found.case.source for found in training if not found.labels.keys() - {0}]:
        notes.append(f"training cases with nothing but background: {', '.join(empty)}")
    if absent := {*values_of(checked.labels)}.difference({0}, *(found.labels for found in training)):
        notes.append(f"declared label values that no training case holds: {' '.join(map(str, sorted(absent)))}")
    if request.regions:
        for label, written in merged_labels(request.regions, checked.regions_class_order or []).items():
            notes.append(f"labels {label} and {written} lie in the same regions: predictions hold {written} for both")
    notes += [f"WARNING: {warning}" for found in checked.cases for warning in found.warnings]
    earlier = Path(os.environ.get(PREPROCESSED, ""), request.dataset_folder.name)
    if PREPROCESSED in os.environ and earlier.exists():
        # planning again would keep its fingerprint and its folds, which may hold cases that are gone
        notes.append(f"{earlier} stems from an earlier import: remove it, then run planning and preprocessing again")
    return notes


def _distinct(items: list[tuple]) -> str:
    counted = Counter(numbers(i) for i in items).most_common()
    if len(counted) <= 3:
        return ", ".join(f"{text} ({n} cases)" for text, n in counted)
    axes = list(zip(*items))
    return f"from {numbers(tuple(map(min, axes)))} to {numbers(tuple(map(max, axes)))}, {len(counted)} different"
