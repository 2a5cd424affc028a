"""The demo from the first file to the last: data, two trainings, and the benchmark of the two models."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from nnunetv2_rmr.datasets.phantom import write_phantom_dataset
from nnunetv2_rmr.demo import job
from nnunetv2_rmr.demo.job import DATASET, DemoOptions

LOG, BENCHMARK = "demo.log", "benchmark"
NAMES = ("nnU-Net", "RMR")  # of job.TRAINERS
STEPS = ("simulate the data", "plan and preprocess", *(f"train {name}" for name in NAMES), "benchmark", "report")
KINDS, SEVERITY = ("noise", "blur", "bias_field"), 3  # the last one is not in RMR's training


class DemoRefused(Exception):
    """The demo can not start as asked. The message is for the user."""


def prepare_folder(options: DemoOptions) -> None:
    """Create the folder, or empty it of an earlier demo's files. Raises DemoRefused where it holds something else."""
    out = options.out
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


@contextmanager
def show_step(stream: TextIO, name: str, ticks: int = 1) -> Iterator[Callable]:
    """A step of the job, done in the body, which calls what it is given up to `ticks` times: a bar on a terminal, a
    line at its beginning elsewhere, and a line at its end."""
    heading = f"[{STEPS.index(name) + 1}/{len(STEPS)}] {name}"
    began = time.monotonic()
    with tqdm(total=ticks, desc=heading, file=stream, disable=not stream.isatty(), leave=False) as bar:
        if bar.disable:
            print(heading, file=stream, flush=True)
        yield bar.update
    print(f"{heading}: done in {tqdm.format_interval(time.monotonic() - began)}", file=stream, flush=True)


def run_demo(options: DemoOptions) -> dict:
    """Run all of it in a prepared folder; progress goes to stdout, everything nnU-Net says to out/demo.log.

    Returns the benchmark's summary.
    """
    step = partial(show_step, sys.stdout)
    with open(options.out / LOG, "a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        return _run(options, step)


def _run(options: DemoOptions, step: Callable) -> dict:
    out = options.out
    with step(STEPS[0], options.cases + options.test_cases) as tick:
        write_phantom_dataset(out / "nnUNet_raw", job.DATASET_ID, job.DATASET_NAME, options.cases, options.test_cases,
                              options.seed, options.spacing_mm, tick)
    with step(STEPS[1]):
        job.set_environment(out)
        job.plan_and_preprocess(options)
    models = {}
    for trainer, name in zip(job.TRAINERS, NAMES):
        with step(f"train {name}", options.epochs * options.iterations) as tick:
            models[name] = job.train(trainer, options, tick)
    benchmark = _benchmark(options, models)
    with step("benchmark", len(benchmark.part) * len(benchmark.keys)) as tick:
        benchmark.run(tick)
    with step("report"):
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
    loaded = [BenchmarkModel(name, folder, (job.FOLD,), "checkpoint_final.pth", torch.device(options.device),
                             mirroring=False, step_size=0.75) for name, folder in models.items()]
    return Benchmark(BenchmarkOptions(raw / "imagesTs", raw / "labelsTs", options.out / BENCHMARK, NAMES[0],
                                      KINDS, (SEVERITY,), seed=options.seed), loaded)
