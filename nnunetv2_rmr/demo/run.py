"""The demo from the first file to the last: data, two trainings, and the benchmark of the two models."""

import math
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_rmr.datasets.phantom import write_phantom_dataset
from nnunetv2_rmr.demo.job import (
    DATASET,
    DATASET_ID,
    DATASET_NAME,
    FOLD,
    TRAINERS,
    plan_and_preprocess,
    set_environment,
    train,
)
from nnunetv2_rmr.demo.progress import Progress

LOG, BENCHMARK = "demo.log", "benchmark"
NAMES = ("nnU-Net", "RMR")  # of TRAINERS
KINDS, SEVERITY = ("noise", "blur", "bias_field"), 3  # the last one is not in RMR's training


@dataclass(frozen=True)
class DemoOptions:
    """out: folder of all results. cases: for training and validation together, 5 or more (nnU-Net makes five folds).

    iterations, validation_iterations: per epoch. spacing_mm: edge of the voxels. patch_size: in voxels, axes Z, Y, X.
    features: of the first of the network's `stages` stages. keep: leave data and models in `out`.
    """

    out: Path
    cases: int = 12
    test_cases: int = 4
    epochs: int = 16
    iterations: int = 25
    validation_iterations: int = 4
    spacing_mm: float = 2.5
    patch_size: tuple[int, int, int] = (32, 40, 32)
    features: int = 12
    stages: int = 4
    device: str = "cpu"
    seed: int = 0
    keep: bool = False
    overwrite: bool = False


class DemoRefused(Exception):
    """The demo can not start as asked. The message is for the user."""


def prepare_folder(options: DemoOptions) -> None:
    """Create the folder, or empty it of an earlier demo's files. Raises DemoRefused where it holds something else."""
    out = options.out
    if out.exists() and not out.is_dir():
        raise DemoRefused(f"--out {out}: is a file")
    if out.is_dir() and any(out.iterdir()):
        if not (out / LOG).is_file():  # the first thing that a demo writes
            raise DemoRefused(f"--out {out}: the folder is not empty, nor an earlier demo's ({LOG} is not there)")
        if not options.overwrite:
            raise DemoRefused(f"--out {out}: the folder is not empty; --overwrite replaces the earlier demo in it")
        remove_large(out)
        shutil.rmtree(out / BENCHMARK, ignore_errors=True)
        (out / LOG).unlink()
    out.mkdir(parents=True, exist_ok=True)


def remove_large(out: Path) -> None:
    """Data and models of the demo. nnU-Net's folders may hold other data sets, which stay."""
    for folder in out.glob("nnUNet_*"):
        shutil.rmtree(folder / DATASET, ignore_errors=True)
        with suppress(OSError):  # not empty
            folder.rmdir()


def expected_seconds(options: DemoOptions) -> dict[str, float]:
    """Of every step, in order, as measured on two CPU cores; the progress display scales them to the machine."""
    # mostly of convolutions, relative to a patch of 76,800 voxels
    iteration = 0.45 * (math.prod(options.patch_size) / 76800) * (options.features / 12)
    iterations = options.epochs * (options.iterations + 0.4 * options.validation_iterations)
    predictions = len(TRAINERS) * (1 + len(KINDS)) * options.test_cases
    return {
        "simulate the data": 2.1 * (options.cases + options.test_cases),
        "plan and preprocess": 5,
        "train nnU-Net": iteration * iterations,
        "train RMR": 1.2 * iteration * iterations,
        "benchmark": 2 * predictions,
        "report": 10,
    }


def run_demo(options: DemoOptions) -> dict:
    """Run all of it in a prepared folder; progress goes to stdout, everything nnU-Net says to out/demo.log.

    Returns the benchmark's summary.
    """
    progress = Progress(expected_seconds(options), sys.stdout)
    with progress.bar, open(options.out / LOG, "a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        return _run(options, progress)


def _run(options: DemoOptions, progress: Progress) -> dict:
    out, tick = options.out, progress.tick
    with progress.step("simulate the data", options.cases + options.test_cases):
        write_phantom_dataset(out / "nnUNet_raw", DATASET_ID, DATASET_NAME, options.cases, options.test_cases,
                              options.seed, options.spacing_mm, tick)
    with progress.step("plan and preprocess"):
        set_environment(out)
        plan_and_preprocess(list(options.patch_size), options.features, options.stages)
    models = {}
    for trainer, name in zip(TRAINERS, NAMES):
        with progress.step(f"train {name}", options.epochs * options.iterations):
            models[name] = train(trainer, options.device, options.epochs, options.iterations,
                                 options.validation_iterations, options.seed, tick)
    benchmark = _benchmark(options, models)
    with progress.step("benchmark", len(benchmark.part) * len(benchmark.keys)):
        benchmark.run(lambda predictions: [tick() for _ in range(predictions)])
    with progress.step("report"):
        from nnunetv2_rmr.report.write import write_report

        summary, failed, _ = benchmark.finish()
        if failed:
            raise RuntimeError(f"prediction of {failed[0]['case']}: {failed[0]['error']}")
        write_report(out / BENCHMARK)
        if not options.keep:
            remove_large(out)
    return summary


def _benchmark(options: DemoOptions, models: dict[str, Path]):
    """As nnUNetv2_rmr_benchmark makes it."""
    import torch  # takes seconds, and the first steps need none

    from nnunetv2_rmr.evaluation.benchmark.job import Benchmark, BenchmarkOptions
    from nnunetv2_rmr.evaluation.benchmark.model import BenchmarkModel

    raw = options.out / "nnUNet_raw" / DATASET
    # tiles overlap by a quarter instead of half, and there is no mirroring: a small part of the time
    loaded = [BenchmarkModel(name, folder, (FOLD,), "checkpoint_final.pth", torch.device(options.device),
                             mirroring=False, step_size=0.75) for name, folder in models.items()]
    return Benchmark(BenchmarkOptions(raw / "imagesTs", raw / "labelsTs", options.out / BENCHMARK, NAMES[0],
                                      KINDS, (SEVERITY,), seed=options.seed), loaded)
