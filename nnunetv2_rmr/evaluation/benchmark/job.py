"""A benchmark from its arguments to its results: checks, the loop over cases, and what is made of the records."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunetv2_rmr.evaluation.benchmark.examples import choose, write_examples
from nnunetv2_rmr.evaluation.benchmark.model import BenchmarkModel, check_comparable
from nnunetv2_rmr.evaluation.benchmark.records import CaseRecords, gather
from nnunetv2_rmr.evaluation.benchmark.run import LabelledCases, run_case, to_do
from nnunetv2_rmr.evaluation.benchmark.summary import tables, write_summary
from nnunetv2_rmr.evaluation.image_folder import ImageFolder
from nnunetv2_rmr.evaluation.scan_degradations.conditions import ALL, KNOWN, Condition, conditions
from nnunetv2_rmr.evaluation.segmentation_metrics import label_names, labels_and_regions
from nnunetv2_rmr.files.atomic import remove_leftovers, write_json
from nnunetv2_rmr.files.input_check import images_in, surplus_images
from nnunetv2_rmr.files.refused import BadCaseError, some_of

SETTINGS = "benchmark.json"


@dataclass(frozen=True)
class BenchmarkOptions:
    """images, labels: folders in nnU-Net's format. reference: name of the model that others are compared with."""

    images: Path
    labels: Path
    out: Path
    reference: str
    kinds: tuple[str, ...] = KNOWN
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    modalities: tuple[str, ...] = (ALL,)
    tolerance_mm: float = 2.0
    seed: int = 0
    n_bootstrap: int = 10000
    num_parts: int = 1
    part_id: int = 0


class Benchmark:
    """Raises BadCaseError at once for everything that could not work out later."""

    def __init__(self, options: BenchmarkOptions, models: Sequence[BenchmarkModel]):
        check_comparable(models)
        remove_leftovers([options.out])
        self.options, self.models = options, list(models)
        self.problems: list[str] = []  # why pictures for the report are missing
        description, channels = models[0].dataset_json, models[0].channels
        if unknown := [m for m in options.modalities if m not in (ALL, *channels)]:
            raise BadCaseError(f"--modalities {' '.join(unknown)}: choose from {ALL}, {', '.join(channels)}")
        images = ImageFolder.open(options.images, models[0].folder / "dataset.json", only_read=True)
        # "mean": tables mean all labels by it
        labels = {"label mean" if name == "mean" else name: values
                  for name, values in labels_and_regions(description["labels"]).items()}
        self.cases = LabelledCases(images, options.labels, labels, description["labels"].get("ignore"),
                                   options.tolerance_mm, options.seed)
        check_folders(self.cases)
        self.part = images.cases[options.part_id::options.num_parts]
        self.planned = conditions(options.kinds, options.severities, options.modalities, channels)
        self.keys: list[tuple[str, Condition]] = [(m.name, condition) for condition in self.planned for m in models]
        self.settings = {
            "models": {model.name: model.description() for model in models},
            "images": os.path.realpath(options.images), "label_folder": os.path.realpath(options.labels),
            "seed": options.seed, "tolerance_mm": options.tolerance_mm, "cases": list(images.cases),
            "labels": labels, "label_values": label_names(description), "modalities": channels,
            "trained_on": {model.name: model.trained_on for model in models},
            "fusing": [model.name for model in models if model.fuses],
            "planned": [asdict(condition) for condition in self.planned],
        }
        keep_settings(options.out, self.settings)

    def run(self, tick: Callable[[int], None]) -> None:
        """Predict this part's cases. tick(n) after n predictions."""
        for case in self.part:  # said now, not after hours; run_case records it
            if to_do(CaseRecords(self.options.out, case), self.planned, self.models):
                try:
                    self.cases.check_reference(case)
                except BadCaseError as error:
                    print(f"ERROR: {case} can not be scored and is not predicted: {error}", file=sys.stderr)
        for case in self.part:
            run_case(case, self.cases, self.models, self.planned, self.options.out, tick)

    def finish(self) -> tuple[dict | None, list[dict], int]:
        """Results of all parts together: summary (None while predictions are to be made), failures, how many are left.

        With failures the summary holds the rest, and which of them no model is judged by.
        """
        options = self.options
        finished, failed, left = gather(options.out, self.settings["cases"], self.keys)
        if left or not finished:
            return None, failed, left
        summary = write_summary(options.out, finished, failed, self.settings, options.reference, options.n_bootstrap)
        chosen = choose(tables(finished)[0], [m.name for m in self.models], options.reference)
        self.problems = write_examples(options.out, chosen, self.cases, self.models)
        return summary, failed, left


def keep_settings(out: Path, settings: dict) -> None:
    """Write benchmark.json. What is resumed has to be what was begun, or the records would not belong together: else
    BadCaseError is raised."""
    file, models = out / SETTINGS, settings["models"]
    if file.exists():
        begun = json.loads(file.read_text())
        for key in ("seed", "tolerance_mm", "images", "label_folder"):
            if begun[key] != settings[key]:
                raise BadCaseError(f"-o {out} was begun with {key} {begun[key]}, not {settings[key]}: choose "
                                       "another folder")
        for name, model in models.items():
            before = begun["models"].get(name, model)
            if changed := [k for k, v in model.items() if k != "folder" and before.get(k) != v]:
                raise BadCaseError(f"-m {name}: another model than the one -o {out} was begun with (its "
                                       f"{', '.join(changed)} differ): choose another folder or name")
        models = begun["models"] | models  # the records of models that are not asked for now are still there
    write_json(settings | {"models": models}, file)


def check_folders(cases: LabelledCases) -> None:
    """Raises BadCaseError naming every file that is missing, or that is of no modality."""
    images = cases.images
    if not cases.label_folder.is_dir():
        raise BadCaseError(f"-l {cases.label_folder}: no such folder")
    needed = [file for case in images.cases for file in (*images.files(case), str(cases.label_file(case)))]
    if missing := [file for file in needed if not os.path.isfile(file)]:
        raise BadCaseError(f"{len(missing)} file(s) missing: {some_of(missing)}")
    n = len(images.names)
    if surplus := surplus_images(images_in(images.folder, images.file_ending), n):
        raise BadCaseError(f"-i {images.folder}: {surplus}: the models have {n} modalities, 0000 to {n - 1:04d}")
