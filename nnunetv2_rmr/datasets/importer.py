"""Make an nnU-Net data set of a folder of multi-modal cases: check everything, then build it in one piece.

Three steps, each a function: `check` reads every case and collects all problems, `build` writes the data set into a
temporary folder beside its final place and renames it, `import_dataset` does both.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

import nnunetv2_rmr
from nnunetv2_rmr.datasets.cases import Case, find_cases, id_problems
from nnunetv2_rmr.datasets.inspect_case import Inspection, Rules, WriteJob, inspect_case, is_unchanged, write_file
from nnunetv2_rmr.datasets.labels import default_class_order, labels_for_dataset_json, merged_labels
from nnunetv2_rmr.files.atomic import remove_leftovers, temporary_beside
from nnunetv2_rmr.files.refused import ImportRefused
from nnunetv2_rmr.files.volumes import numbers
from nnunetv2_rmr.files.workers import WorkerDied, as_ready

# Endings nnU-Net's readers take with the full grid; anything else becomes .nii.gz. Its reader for .nii is 3D only.
RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"  # environment variables
ENDINGS_KEPT = {2: (".nii.gz", ".nrrd", ".mha"), 3: (".nii.gz", ".nrrd", ".mha", ".nii")}


@dataclass(frozen=True)
class ImportRequest:
    """What the user asks for; names and defaults follow the options of `nnUNetv2_rmr_import`."""

    input_folder: Path
    modalities: Mapping[str, str]  # pattern by name, in channel order
    label: str  # pattern
    dataset_id: int
    name: str
    output_folder: Path  # nnUNet_raw
    labels: Mapping[str, int] | None = None
    regions: Mapping[str, Sequence[int]] | None = None
    regions_class_order: Sequence[int] | None = None
    ignore_label: int | None = None
    label_map: Mapping[int, int] = field(default_factory=dict)
    layout: str = "auto"
    test_cases: Sequence[str] = ()
    unlabelled_as_test: bool = False
    unlabelled: Path | None = None  # folder
    resample_to: str | None = None
    interpolation: str = "linear"
    link: str = "copy"
    skip_bad_cases: bool = False
    overwrite: bool = False
    num_processes: int = 1
    progress: bool = False

    @property
    def folder_name(self) -> str:
        return f"Dataset{self.dataset_id:03d}_{self.name}"

    @property
    def dataset_folder(self) -> Path:
        return self.output_folder / self.folder_name

    @property
    def rules(self) -> Rules:
        """Raises ImportRefused if labels or regions are declared in a way nnU-Net can not use."""
        declared = None
        if self.labels or self.regions:
            declared = tuple(_values(labels_for_dataset_json(self.labels, self.regions, self.ignore_label)))
        return Rules(tuple(self.modalities), {**self.modalities, "": self.label}, self.label_map, declared,
                     self.resample_to, self.interpolation)


@dataclass
class CheckedDataset:
    """All cases that may be imported, and what the data set will be."""

    training: list[Case]
    test: list[Case]
    unlabelled: list[Case]
    inspections: dict[str, Inspection]  # by Case.source
    labels: dict[str, int | list[int]]
    regions_class_order: list[int] | None
    file_ending: str
    skipped: dict[str, list[str]]  # problems by Case.source
    notes: list[str]


class BadCases(ImportRefused):
    """Raised with everything that is wrong. `problems` by case; what concerns no single case is under ''."""

    def __init__(self, problems: dict[str, list[str]], good: int):
        self.problems = problems
        bad = sum(1 for source in problems if source)
        lines = [f"{bad} of {bad + good} cases can not be imported; nothing was written."]
        for source, texts in problems.items():
            lines += ([f"  {source}"] if source else []) + [f"    - {text}" for text in texts]
        if good and bad:
            lines.append(f"Correct the files, or leave them out with --skip_bad_cases ({good} would be imported).")
        super().__init__("\n".join(lines))


def import_dataset(request: ImportRequest) -> CheckedDataset:
    """Check and build. Raises ImportRefused; then nothing is left behind and an existing data set is untouched."""
    _tidy_up_after_killed_imports(request.dataset_folder)
    refuse_taken_id(request)
    checked = check(request)
    build(request, checked)
    return checked


def refuse_taken_id(request: ImportRequest) -> None:
    """Raise ImportRefused if the folder exists (unless overwrite), or if the id is in use under another name.

    The latter holds for all three nnU-Net folders, because nnU-Net then refuses to work with the id.
    """
    final, source = Path(os.path.realpath(request.dataset_folder)), Path(os.path.realpath(request.input_folder))
    if final == source or final in source.parents:
        raise ImportRefused(f"-i {request.input_folder} lies inside {request.dataset_folder}, which would be replaced")
    if request.dataset_folder.exists() and not request.overwrite:
        raise ImportRefused(f"{request.dataset_folder} exists already; choose another -d, or give --overwrite")
    prefix = f"Dataset{request.dataset_id:03d}_"
    roots = [request.output_folder]
    roots += [Path(p) for v in (RAW, PREPROCESSED, RESULTS) if (p := os.environ.get(v))]
    for root in roots:
        others = [f for f in root.glob(f"{prefix}*") if f.is_dir() and f.name != request.folder_name]
        if others:
            raise ImportRefused(f"-d {request.dataset_id} is in use: {others[0]}. nnU-Net needs one name per id: "
                                "choose another -d, or remove that folder yourself (--overwrite replaces only a data "
                                "set of the same name)")


def check(request: ImportRequest) -> CheckedDataset:
    """Read every file of every case. Raises BadCases with all problems at once, ImportRefused for wrong options."""
    rules = request.rules
    order = _class_order(request)
    found = find_cases(request.input_folder, request.modalities, request.label, request.layout)
    unlabelled = _unlabelled(request, found.cases)
    unlabelled_sources = {c.source for c in unlabelled}
    cases = [c for c in found.cases if c.source not in unlabelled_sources] + unlabelled
    test_sources = _test_sources(request, [c for c in cases if c.source not in unlabelled_sources])
    needs_label = [c.source not in test_sources | unlabelled_sources for c in cases]
    results = _parallel(partial(inspect_case, rules=rules), list(zip(cases, needs_label)), request, "checking cases")
    inspections = {r.source: r for r in results}

    problems = {c.source: list(inspections[c.source].problems) for c in cases}
    for source, texts in id_problems(cases).items():
        problems[source] += texts
    for extra in (_mixed_dimensions(inspections), _same_images(inspections, problems)):
        for source, texts in extra.items():
            problems[source] += texts
    bad = {source: texts for source, texts in problems.items() if texts}
    good = [c for c in cases if c.source not in bad]

    if bad and not any(inspections[c.source].labels for c in cases):
        raise BadCases(bad, len(good))  # no label could be read: what else might be said of labels is beside the point
    seen = {v for c in (good or cases) for v in inspections[c.source].labels or {}}
    try:
        labels = labels_for_dataset_json(request.labels, request.regions, request.ignore_label, seen)
    except ImportRefused as error:
        if not bad:
            raise
        raise BadCases({**bad, "": [str(error)]}, len(good)) from error
    if bad and not request.skip_bad_cases:
        raise BadCases(bad, len(good))
    training = [c for c in good if c.source not in test_sources | unlabelled_sources]
    if not training:
        raise BadCases(bad, len(good)) if bad else ImportRefused(
            "every case is a test case or has no label, none is left for training")
    test = [c for c in good if c.source in test_sources]
    unlabelled = [c for c in good if c.source in unlabelled_sources]
    checked = CheckedDataset(training, test, unlabelled, inspections, labels, order, _ending_of(good, inspections), bad,
                             [])
    checked.notes += _notes(request, checked, found.ignored_folders)
    return checked


def build(request: ImportRequest, checked: CheckedDataset) -> None:
    """Write the data set into a hidden folder beside its final place, then rename it. Raises ImportRefused."""
    temporary = temporary_beside(request.dataset_folder)
    jobs = [job for case in checked.training for job in _jobs(case, checked, temporary, "Tr")]
    jobs += [job for case in checked.test for job in _jobs(case, checked, temporary, "Ts")]
    jobs += [job for case in checked.unlabelled for job in _jobs(case, checked, temporary, "Un")]
    try:
        for folder in sorted({job.target.parent for job in jobs}):
            folder.mkdir(parents=True)
        _parallel(partial(write_file, rules=request.rules, link=request.link), [(job,) for job in jobs], request,
                  "writing files")
        text = json.dumps(dataset_json(request, checked), indent=4, ensure_ascii=False)
        (temporary / "dataset.json").write_text(text + "\n", encoding="utf-8")
        _move_into_place(temporary, request.dataset_folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def dataset_json(request: ImportRequest, checked: CheckedDataset) -> dict:
    """Content of dataset.json: nnU-Net's entries, and under `nnunetv2_rmr_import` what was changed on the way."""
    result = {
        "name": request.name,
        "channel_names": {str(i): name for i, name in enumerate(request.modalities)},
        "labels": checked.labels,
        "numTraining": len(checked.training),
        "file_ending": checked.file_ending,
        "converted_by": f"nnunetv2-rmr {nnunetv2_rmr.__version__}",
        "nnunetv2_rmr_import": {
            "label_map": {str(old): new for old, new in request.label_map.items()},
            "resampled_to": request.resample_to,
            "renamed_cases": {c.id: c.source for c in _cases(checked) if c.id != c.source},
        },
    }
    if checked.regions_class_order is not None:
        result["regions_class_order"] = checked.regions_class_order
    return result


def summary(request: ImportRequest, checked: CheckedDataset) -> str:
    """Text for the user: what is in the data set, what to look at, what to type next."""
    # nnU-Net's own function, so that the text can not disagree with what nnU-Net will do.
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

    grids = [g for c in _cases(checked) if (g := checked.inspections[c.source].grid)]
    with_label = sum(checked.inspections[c.source].labels is not None for c in checked.test)
    lines = [f"{request.dataset_folder}",
             f"  {len(checked.training)} training cases, {len(checked.test)} test cases ({with_label} with label)"
             + (f", {len(checked.unlabelled)} without label" if checked.unlabelled else ""),
             f"  size in voxels (x y z): {_distinct([g.size for g in grids])}",
             f"  voxel spacing in mm:    {_distinct([g.spacing for g in grids])}"]
    for i, name in enumerate(request.modalities):
        scheme = get_normalization_scheme(name).__name__
        lines.append(f"  channel {i:04d} {name}: nnU-Net normalises it by {scheme}")
    for name, item in checked.labels.items():
        values = [item] if isinstance(item, int) else item
        if name == "background":
            continue
        counts = [sum((checked.inspections[c.source].labels or {}).get(v, 0) for v in values) for c in checked.training]
        lines.append(f"  label {name} = {' '.join(map(str, values))}: {sum(counts)} voxels, "
                     f"in {sum(n > 0 for n in counts)} of {len(counts)} training cases")
    if checked.regions_class_order is not None:
        written = [f"{name} -> {value}" for name, value in zip(request.regions or {}, checked.regions_class_order)]
        lines.append(f"  predicted regions are written, later over earlier, as: {', '.join(written)}")
    lines += [f"  note: {note}" for note in checked.notes]
    for source, texts in checked.skipped.items():
        lines += [f"  skipped {source}:"] + [f"    - {text}" for text in texts]
    raw, ours = os.environ.get(RAW), Path(os.path.realpath(request.output_folder))
    if raw is None or Path(os.path.realpath(raw)) != ours:
        lines.append(f'nnU-Net looks for data sets in {RAW}: export {RAW}="{ours}"')
    lines.append(f"Next: nnUNetv2_plan_and_preprocess -d {request.dataset_id} --verify_dataset_integrity"
                 "  (-c 3d_fullres: of all configurations only this one)")
    if checked.unlabelled:
        lines.append(f"Then: nnUNetv2_rmr_preprocess_unlabelled -d {request.dataset_id} -c 3d_fullres")
    return "\n".join(lines)


def _class_order(request: ImportRequest) -> list[int] | None:
    if not request.regions:
        if request.regions_class_order:
            raise ImportRefused("--regions_class_order needs --regions")
        return None
    order = list(request.regions_class_order or default_class_order(request.regions))
    merged_labels(request.regions, order)
    return order


def _test_sources(request: ImportRequest, cases: list[Case]) -> set[str]:
    wanted = set(request.test_cases)
    unknown = wanted - {c.id for c in cases} - {c.source for c in cases}
    if unknown:
        raise ImportRefused(f"--test_cases {' '.join(sorted(unknown))}: no such case; the cases are "
                            f"{', '.join(c.source for c in cases[:5])}{' ...' if len(cases) > 5 else ''}")
    return {c.source for c in cases
            if c.id in wanted or c.source in wanted or (request.unlabelled_as_test and not c.labels)}


def _unlabelled(request: ImportRequest, cases: list[Case]) -> list[Case]:
    """Cases of request.unlabelled, whose labels, if any, are passed over; of the folder of -i those without a label."""
    if request.unlabelled is None:
        return []
    if os.path.realpath(request.unlabelled) == os.path.realpath(request.input_folder):
        return [c for c in cases if not c.labels]
    found = find_cases(request.unlabelled, request.modalities, None, request.layout, "--unlabelled").cases
    taken = {c.source for c in cases}
    return [replace(c, source=f"{request.unlabelled.name}/{c.source}") if c.source in taken else c for c in found]


def _cases(checked: CheckedDataset) -> list[Case]:
    return checked.training + checked.test + checked.unlabelled


def _parallel(work: Callable, jobs: Sequence[tuple], request: ImportRequest, text: str) -> list:
    """work(*job) of every job, in order, with a progress bar."""
    results = [None] * len(jobs)
    ready = as_ready(work, jobs, request.num_processes)
    for i, result in tqdm(ready, total=len(jobs), desc=text, disable=not request.progress):
        if isinstance(result, WorkerDied):
            raise ImportRefused(f"{text}: {result}")
        results[i] = result
    return results


def _mixed_dimensions(inspections: Mapping[str, Inspection]) -> dict[str, list[str]]:
    dimensions = {s: i.grid.dimension for s, i in inspections.items() if i.grid}
    if len(set(dimensions.values())) < 2:
        return {}
    usual = Counter(dimensions.values()).most_common(1)[0][0]
    return {source: [f"the images are {own}D, those of most other cases {usual}D"]
            for source, own in dimensions.items() if own != usual}


def _same_images(inspections: Mapping[str, Inspection], problems: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Images that occur twice. Of two cases the one without other problems, else the first, counts as the original."""
    first: dict[str, tuple[str, str]] = {}
    result: dict[str, list[str]] = {}
    for source in sorted(inspections, key=lambda s: (bool(problems[s]), s)):
        for modality, content in inspections[source].hashes.items():
            if content in first:
                other, other_modality = first[content]
                where = "of the same case" if other == source else f"of case {other}"
                result.setdefault(source, []).append(
                    f"duplicate: the {modality} image has the same content as the {other_modality} image {where}")
            else:
                first[content] = (source, modality)
    return result


def _ending_of(cases: list[Case], inspections: Mapping[str, Inspection]) -> str:
    files = [f for c in cases for fs in [*c.images.values(), c.labels] for f in fs]
    dimension = next(i.grid.dimension for c in cases if (i := inspections[c.source]).grid)
    return next((e for e in ENDINGS_KEPT[dimension] if all(is_unchanged(f, e, False) for f in files)), ".nii.gz")


def _jobs(case: Case, checked: CheckedDataset, folder: Path, kind: str) -> list[WriteJob]:
    found, ending = checked.inspections[case.source], checked.file_ending
    assert found.grid is not None  # a good case has all modalities

    def job(source: Path, target: Path, rewrite: str, is_label: bool) -> WriteJob:
        return WriteJob(source, target, is_label, found.grid, is_unchanged(source, ending, rewrite in found.rewrite))

    jobs = [job(files[0], folder / f"images{kind}" / f"{case.id}_{i:04d}{ending}", modality, False)
            for i, (modality, files) in enumerate(case.images.items())]
    return jobs + [job(f, folder / f"labels{kind}" / f"{case.id}{ending}", "", True) for f in case.labels]


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
    renamed = [f"{c.source} -> {c.id}" for c in _cases(checked) if c.id != c.source]
    if renamed:
        notes.append(f"case ids made safe: {', '.join(renamed)}")
    for name in request.modalities:
        if name.casefold() != "ct" and re.search(r"(?<![a-z])l?d?ct(?![a-z])", name.casefold()):
            notes.append(f"modality {name}: nnU-Net uses its CT normalisation only for the exact name CT; this one is "
                         "normalised like MRI (z-score)")
    empty = [c.source for c in checked.training if not set(checked.inspections[c.source].labels or {}) - {0}]
    if empty:
        notes.append(f"training cases with nothing but background: {', '.join(empty)}")
    seen = {v for c in checked.training for v in checked.inspections[c.source].labels or {}}
    absent = set(_values(checked.labels)) - seen - {0}
    if absent:
        notes.append(f"declared label values that no training case holds: {' '.join(map(str, sorted(absent)))}")
    if request.regions:
        for label, written in merged_labels(request.regions, checked.regions_class_order or []).items():
            notes.append(f"labels {label} and {written} lie in the same regions: predictions hold {written} for both")
    notes += [f"WARNING: {warning}" for c in _cases(checked) for warning in checked.inspections[c.source].warnings]
    preprocessed = os.environ.get(PREPROCESSED)
    if preprocessed and (Path(preprocessed) / request.folder_name).exists():
        # planning again would keep its fingerprint and its folds, which may hold cases that are gone
        notes.append(f"{Path(preprocessed) / request.folder_name} stems from an earlier import: remove it, then run "
                     "planning and preprocessing again")
    return notes


def _values(labels: Mapping[str, int | list[int]]) -> list[int]:
    return sorted({v for item in labels.values() for v in ([item] if isinstance(item, int) else item)})


def _distinct(items: list[tuple], most: int = 3) -> str:
    counted = Counter(numbers(i) for i in items).most_common()
    if len(counted) <= most:
        return ", ".join(f"{text} ({n} cases)" for text, n in counted)
    axes = list(zip(*items))
    return f"from {numbers(tuple(map(min, axes)))} to {numbers(tuple(map(max, axes)))}, {len(counted)} different"
