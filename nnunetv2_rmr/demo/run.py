"""The demo from the first file to the last."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

from nnunetv2_rmr.datasets.phantom import write_phantom_dataset
from nnunetv2_rmr.demo.degraded import DEGRADATIONS, write_degraded
from nnunetv2_rmr.demo.fusion import facts_of_case, psnr_of_case
from nnunetv2_rmr.demo.job import (
    DATASET_ID,
    DATASET_NAME,
    TRAINERS,
    Model,
    dice_per_case,
    plan_and_preprocess,
    set_environment,
    train,
)
from nnunetv2_rmr.demo.progress import Progress
from nnunetv2_rmr.demo.report import write_page
from nnunetv2_rmr.demo.results import CONDITIONS, DemoOptions, DemoResults
from nnunetv2_rmr.files.atomic import write_json

LARGE = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "degraded", "predictions")  # kept only if asked for
LOG = "demo.log"
SMALL = ("demo.html", "results.json", LOG)
MIN_CASES = 5  # nnU-Net makes five folds


class DemoRefused(Exception):
    """The demo can not start as asked. The message is for the user."""


def prepare_folder(options: DemoOptions) -> None:
    """Create the folder, or empty it of an earlier demo's files. Raises DemoRefused where that could do harm."""
    if options.cases < MIN_CASES:
        raise DemoRefused(f"--cases {options.cases}: nnU-Net's five folds need at least {MIN_CASES} cases")
    out = options.out
    if out.exists() and not out.is_dir():
        raise DemoRefused(f"--out {out}: is a file")
    found = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
    if found and not options.overwrite:
        raise DemoRefused(f"--out {out}: the folder is not empty; choose another one, or replace an earlier demo with "
                          "--overwrite")
    if found and LOG not in found:  # the first thing that a demo writes; nnU-Net's folders can be anybody's
        raise DemoRefused(f"--out {out}: is no earlier demo's folder ({LOG} is not there); --overwrite replaces those "
                          "only")
    strangers = sorted({*found} - {*LARGE, *SMALL}) or _other_datasets(out)
    if strangers:
        raise DemoRefused(f"--out {out}: holds {', '.join(strangers[:3])}{' ...' if len(strangers) > 3 else ''}, which "
                          "no demo has written; --overwrite replaces earlier demos only")
    for name in found:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    out.mkdir(parents=True, exist_ok=True)


def _other_datasets(out: Path) -> list[str]:
    """What nnU-Net's folders hold beside the demo's data set."""
    ours = f"Dataset{DATASET_ID:03d}_{DATASET_NAME}"
    return sorted(f"{folder.name}/{path.name}" for folder in out.glob("nnUNet_*") for path in folder.iterdir()
                  if path.name != ours)


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    with open(log, "a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        yield


def expected_seconds(options: DemoOptions) -> dict[str, float]:
    """Of every step, in order, as measured on two CPU cores; the progress display scales them to the machine."""
    voxels = 1.0
    for edge in options.patch_size:
        voxels *= edge
    iteration = 0.45 * (voxels / 76800) * (options.features / 12)
    iterations = options.epochs * (options.iterations + 0.4 * options.validation_iterations)
    n_predictions = len(TRAINERS) * len(CONDITIONS) * options.test_cases
    return {
        "simulate the data": 2.1 * (options.cases + options.test_cases),
        "plan and preprocess": 5,
        "train nnU-Net": iteration * iterations,
        "train RMR": 1.2 * iteration * iterations,
        "degrade the test images": 0.3 * options.test_cases * len(DEGRADATIONS),
        "predict": 4.6 * n_predictions,
        "evaluate": 1 + 0.5 * options.test_cases,
        "write the page": 1,
    }


def run_demo(options: DemoOptions, stream: TextIO = sys.stdout) -> DemoResults:
    """Run all of it in a prepared folder; progress goes to `stream`, everything nnU-Net says to out/demo.log."""
    results = DemoResults(options)
    progress = Progress(expected_seconds(options), stream)
    try:
        with _output_to(options.out / LOG):
            _run(options, results, progress)
    finally:
        progress.close()
    results.seconds.update(progress.seconds)
    return results


def _run(options: DemoOptions, results: DemoResults, progress: Progress) -> None:
    out, tick = options.out, progress.tick
    with progress.step("simulate the data", options.cases + options.test_cases):
        write_phantom_dataset(out / "nnUNet_raw", DATASET_ID, DATASET_NAME, options.cases, options.test_cases,
                              options.seed, options.spacing_mm, tick)
    with progress.step("plan and preprocess", 3):
        set_environment(out)
        plan_and_preprocess(list(options.patch_size), options.features, options.stages, tick)
    for trainer, name in zip(TRAINERS, ("train nnU-Net", "train RMR")):
        with progress.step(name, options.epochs * options.iterations):
            results.trainings[trainer] = train(trainer, options.device, options.epochs, options.iterations,
                                               options.validation_iterations, options.seed, tick)
    with progress.step("degrade the test images", len(DEGRADATIONS)):
        for kind in DEGRADATIONS:
            write_degraded(kind, results.images("clean"), results.images(kind), options.seed)
            tick()
    with progress.step("predict", len(TRAINERS) * len(CONDITIONS)):
        for trainer in TRAINERS:
            model = Model(results.trainings[trainer], options.device)
            for condition in CONDITIONS:
                model.predict(results.images(condition), results.predictions(trainer, condition))
                tick()
    with progress.step("evaluate", len(CONDITIONS)):
        for condition in CONDITIONS:
            for trainer in TRAINERS:
                results.dice.setdefault(trainer, {})[condition] = \
                    dice_per_case(results.labels, results.predictions(trainer, condition))
            results.psnr[condition] = {case: psnr_of_case(results, condition, case) for case in results.cases}
            tick()
        results.fusion.update({case: facts_of_case(results, case) for case in results.cases})
    with progress.step("write the page", 1):
        results.seconds.update(progress.seconds)
        write_page(results, out / "demo.html")
        write_json({"dice": results.dice, "psnr_db": results.psnr, "fusion": results.fusion,
                    "seconds": results.seconds, "cases": options.cases,
                    "epochs": options.epochs, "iterations_per_epoch": options.iterations, "seed": options.seed},
                   out / "results.json")
        if not options.keep:
            for name in LARGE:
                shutil.rmtree(out / name, ignore_errors=True)
