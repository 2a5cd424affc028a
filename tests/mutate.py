# ruff: noqa: E402 (threads do not survive a fork, so there is one before anything is imported)
"""Do the tests fail if a property breaks? Breaks them one by one, in copies, and runs the tests that must notice.

    python tests/mutate.py [--only NAME ...] [--list] [-j N]

What is broken stands in mutations.py. The working tree is never touched. Each mutation's tests run in a fork of one
process that has imported torch and nnU-Net already; the package comes from the mutation's own copy. Exit status 1 if a
mutation survives, if its old text is not there exactly once, or if its tests fail without it.
"""

from __future__ import annotations

import os

for library in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[library] = "1"
os.environ["nnUNet_def_n_proc"] = "1"  # and no process waits for another to start
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"

import argparse
import gc
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation

# what takes seconds to import; some are extras
for module in ("torch._dynamo", "nnunetv2.training.nnUNetTrainer.nnUNetTrainer", "dynamic_network_architectures",
               "nnunetv2.inference.predict_from_raw_data", "monai.networks.nets", "torchio", "torchmetrics",
               "skimage.metrics", "matplotlib.pyplot", "scipy.stats", "nibabel", "pywt"):
    with suppress(ImportError):
        import_module(module)

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("nnunetv2_rmr", "trainers", "tests", "docs", "pyproject.toml", "README.md")
SECONDS = 300  # a mutation may make a loop endless, which counts as noticed
KILLED, SURVIVED, BROKEN = "killed", "SURVIVED", "BROKEN: its tests could not run"
STATUS = {0: SURVIVED, 1: KILLED, -signal.SIGALRM: KILLED}  # of pytest: 1 if a test failed, more if none could run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these mutations alone: parts of names or of files")
    parser.add_argument("--list", action="store_true", help="names of the mutations, nothing else")
    parser.add_argument("-j", type=int, default=1, metavar="N", help="processes at once, %(default)s by default")
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS
              if not arguments.only or any(part in f"{m.file} {m.name}" for part in arguments.only)]
    if arguments.list:
        print(*(f"{m.name}   ({m.file})" for m in chosen), sep="\n")
        return 0
    lost = [f"{m.name}: {reason}" for m in chosen if (reason := why_not_applicable(m))]
    if lost or not chosen:
        print(*lost or ["no mutation has such a name"], sep="\n")
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        gc.freeze()  # or every child looks through all of torch
        folder = Path(temporary)
        whole = Path(folder, "whole")
        copy_to(whole)
        tests = list(dict.fromkeys(test for m in chosen for test in m.tests))
        if os.waitpid(start(whole, tests), 0)[1] != 0:
            print(whole.with_suffix(".log").read_text(), "the tests fail without any mutation", sep="\n")
            return 1
        print(f"{len(tests)} tests or files of tests pass without any mutation", flush=True)
        survivors = 0
        for number, (mutation, status) in enumerate(run_all(chosen, folder, arguments.j), 1):
            survivors += status != KILLED
            print(f"{number}/{len(chosen)} {status}: {mutation.name}", flush=True)
    print(f"{len(chosen) - survivors} killed, {survivors} not")
    return int(survivors > 0)


def why_not_applicable(mutation: Mutation) -> str | None:
    found = (ROOT / "nnunetv2_rmr" / mutation.file).read_text(encoding="utf-8").count(mutation.old)
    return None if found == 1 else f"its old text is {found} times in {mutation.file}, not once: {mutation.old!r}"


def copy_to(folder: Path) -> None:
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)


def run_all(mutations: Sequence[Mutation], folder: Path, processes: int) -> Iterator[tuple[Mutation, str]]:
    """Each mutation with what became of it, in the order in which they are done."""
    running, left = {}, list(mutations)
    while running or left:
        while left and len(running) < processes:
            mutation = left.pop(0)
            own = folder / f"mutated_{len(left)}"
            shutil.copytree(folder / "whole", own)  # compiled already
            file = own / "nnunetv2_rmr" / mutation.file
            file.write_text(file.read_text(encoding="utf-8").replace(mutation.old, mutation.new), encoding="utf-8")
            running[start(own, mutation.tests)] = mutation, own
        process, status = os.wait()
        mutation, own = running.pop(process)
        found = STATUS.get(os.waitstatus_to_exitcode(status), BROKEN)
        if found == BROKEN:
            print(own.with_suffix(".log").read_text())
        shutil.rmtree(own)
        yield mutation, found


def start(folder: Path, tests: Sequence[str]) -> int:
    """The process that runs them with the package of this folder; what they print goes to a log beside it."""
    sys.stdout.flush()
    if (process := os.fork()) != 0:
        return process
    status = 3
    try:
        signal.alarm(SECONDS)
        sys.stdout = sys.stderr = folder.with_suffix(".log").open("w", buffering=1)
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
        sys.modules["__main__"].__file__ = None  # what the tests start need not be this script
        os.chdir(folder)
        sys.path[0] = str(folder)
        os.environ["PYTHONPATH"] = str(folder)
        status = pytest.main(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests])
        if not sys.modules["nnunetv2_rmr"].__file__.startswith(str(folder)):
            status = 3
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
