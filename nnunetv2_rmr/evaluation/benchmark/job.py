"""A benchmark from its arguments to its results: checks, the loop over cases, and what is made of the records."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunetv2_rmr.evaluation.benchmark.conditions import ALL, KNOWN, Condition, conditions
from nnunetv2_rmr.evaluation.benchmark.examples import choose, write_examples
from nnunetv2_rmr.evaluation.benchmark.model import BenchmarkModel, BenchmarkRefused, check_comparable
from nnunetv2_rmr.evaluation.benchmark.records import gather
from nnunetv2_rmr.evaluation.benchmark.run import Case, Scoring, run_case
from nnunetv2_rmr.evaluation.benchmark.summary import tables, write_summary
from nnunetv2_rmr.evaluation.image_folder import reader_writer_of
from nnunetv2_rmr.evaluation.segmentation_metrics import label_names, labels_and_regions
from nnunetv2_rmr.files.atomic import remove_leftovers, write_json
from nnunetv2_rmr.files.input_check import images_in, surplus_images
from nnunetv2_rmr.files.refused import some_of

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
    """Raises BenchmarkRefused at once for everything that could not work out later."""

    def __init__(self, options: BenchmarkOptions, models: Sequence[BenchmarkModel]):
        check_comparable(models)
        remove_leftovers([options.out])
        self.options, self.models = options, list(models)
        self.problems: list[str] = []  # why pictures for the report are missing
        description, channels = models[0].dataset_json, models[0].channels
        if unknown := [m for m in options.modalities if m not in (ALL, *channels)]:
            raise BenchmarkRefused(f"--modalities {' '.join(unknown)}: choose from {ALL}, {', '.join(channels)}")
        self.cases = find_cases(options, description["file_ending"], len(channels))
        self.part = self.cases[options.part_id::options.num_parts]
        self.planned = conditions(options.kinds, options.severities, options.modalities, channels)
        self.keys: list[tuple[str, Condition]] = [(m.name, condition) for condition in self.planned for m in models]
        self.reader = reader_writer_of(description, str(self.cases[0].files[0]))()
        labels = labels_and_regions(description["labels"])
        self.scoring = Scoring(labels, description["labels"].get("ignore"), options.tolerance_mm, options.seed)
        self.settings = {
            "models": {model.name: model.description() for model in models},
            "images": os.path.realpath(options.images), "label_folder": os.path.realpath(options.labels),
            "seed": options.seed, "tolerance_mm": options.tolerance_mm, "cases": [case.name for case in self.cases],
            "labels": labels, "label_values": label_names(description), "modalities": channels,
            "trained_on": {model.name: model.trained_on for model in models},
            "fusing": [model.name for model in models if model.fuses],
            "planned": [asdict(condition) for condition in self.planned],
        }
        keep_settings(options.out, self.settings)

    def run(self, tick: Callable[[int], None]) -> None:
        """Predict this part's cases. tick(n) after n predictions."""
        for case in self.part:
            run_case(case, self.models, self.planned, self.reader, self.scoring, self.options.out, tick)

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
        cases = {case.name: case for case in self.cases}
        self.problems = write_examples(options.out, chosen, cases, self.models, self.reader, options.seed)
        return summary, failed, left


def keep_settings(out: Path, settings: dict) -> None:
    """Write benchmark.json. What is resumed has to be what was begun, or the records would not belong together: else
    BenchmarkRefused is raised."""
    file, models = out / SETTINGS, settings["models"]
    if file.exists():
        begun = json.loads(file.read_text())
        for key in ("seed", "tolerance_mm", "images", "label_folder"):
            if begun[key] != settings[key]:
                raise BenchmarkRefused(f"-o {out} was begun with {key} {begun[key]}, not {settings[key]}: choose "
                                       "another folder")
        for name, model in models.items():
            before = begun["models"].get(name, model)
            if changed := [k for k, v in model.items() if k != "folder" and before.get(k) != v]:
                raise BenchmarkRefused(f"-m {name}: another model than the one -o {out} was begun with (its "
                                       f"{', '.join(changed)} differ): choose another folder or name")
        models = begun["models"] | models  # the records of models that are not asked for now are still there
    write_json(settings | {"models": models}, file)


def find_cases(options: BenchmarkOptions, ending: str, n_channels: int) -> list[Case]:
    """All cases of the images' folder. Raises BenchmarkRefused naming every file that is missing."""
    for flag, folder in (("-i", options.images), ("-l", options.labels)):
        if not folder.is_dir():
            raise BenchmarkRefused(f"{flag} {folder}: no such folder")
    images = images_in(options.images, ending)
    names = sorted({image[1] for image in images})
    if not names:
        raise BenchmarkRefused(f"-i {options.images}: no files CASE_0000{ending} there")
    cases = [Case(name, tuple(options.images / f"{name}_{i:04d}{ending}" for i in range(n_channels)),
                  options.labels / f"{name}{ending}") for name in names]
    if missing := [str(file) for case in cases for file in (*case.files, case.label) if not file.is_file()]:
        raise BenchmarkRefused(f"{len(missing)} file(s) missing: {some_of(missing)}")
    if surplus := surplus_images(images, n_channels):
        raise BenchmarkRefused(f"-i {options.images}: {surplus}: the models have {n_channels} modalities, 0000 to "
                               f"{n_channels - 1:04d}")
    return cases
