# ruff: noqa: E402 (threads do not survive a fork, so there is one before anything is imported)
"""Do the tests fail if a property breaks? Breaks them one by one, in copies, and runs the tests that must notice.

    python tests/mutate.py [--only NAME ...] [--list] [-j N]

What is broken stands in mutations.py. The working tree is never touched. Each mutation's tests run in a fork of one
process that has imported torch and nnU-Net already; the package comes from the mutation's own copy. Exit status 1 if a
mutation survives, if its old text is not there exactly once, or if its tests fail without it.
"""

from __future__ import annotations

import os

for library in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD",
                "nnUNet_def_n_proc"):  # the last: no process waits for another to start
    os.environ[library] = "1"

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
for module in ("torch._dynamo", "nnunetv2.training.nnUNetTrainer.nnUNetTrainer", "monai.networks.nets", "torchio",
               "nnunetv2.inference.predict_from_raw_data", "torchmetrics", "skimage.metrics", "scipy.stats", "pywt"):
    with suppress(ImportError):
        import_module(module)

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("nnunetv2_rmr", "trainers", "tests", "docs", "pyproject.toml", "README.md")
OPTIONS = ("-x", "-q", "-m", "not slow", "-k", "not compiles", "-p", "no:cacheprovider")  # no compiler in a fork
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
    lost = [f"{m.name}: its old text is not in {m.file} exactly once: {m.old}" for m in chosen
            if (ROOT / "nnunetv2_rmr" / m.file).read_text(encoding="utf-8").count(m.old) != 1]
    if arguments.list or lost or not chosen:
        print(*lost or [f"{m.name}   ({m.file})" for m in chosen] or ["no mutation has such a name"], sep="\n")
        return int(not arguments.list or bool(lost))
    gc.freeze()  # or every child looks through all of torch
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary, "whole")
        whole.mkdir()
        for name in COPIED:
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, whole / name)
        tests = list(dict.fromkeys(test for m in chosen for test in m.tests))
        if os.waitpid(start(whole, tests), 0)[1] != 0:
            print(whole.with_suffix(".log").read_text(), "the tests fail without any mutation", sep="\n")
            return 1
        print(f"without any mutation all tests pass: {' '.join(tests)}", flush=True)
        survivors = 0
        for number, (mutation, status) in enumerate(run_all(chosen, whole, arguments.j), 1):
            survivors += status != KILLED
            print(f"{number}/{len(chosen)} {status}: {mutation.name}", flush=True)
    print(f"{len(chosen) - survivors} killed, {survivors} not")
    return int(survivors > 0)


def run_all(mutations: Sequence[Mutation], whole: Path, processes: int) -> Iterator[tuple[Mutation, str]]:
    """Each mutation with what became of it, in the order in which they are done."""
    running, left = {}, list(mutations)
    while running or left:
        while left and len(running) < processes:
            mutation, own = left.pop(0), whole.with_name(f"mutated_{len(left)}")
            shutil.copytree(whole, own)
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
    if (process := os.fork()) != 0:
        return process
    status = 3
    try:
        signal.alarm(SECONDS * len(tests))
        sys.stdout = sys.stderr = folder.with_suffix(".log").open("w", buffering=1)
        for stream in (1, 2):
            os.dup2(sys.stdout.fileno(), stream)
        sys.modules["__main__"].__file__ = None  # what the tests start need not be this script
        os.chdir(folder)
        sys.path[0] = os.environ["PYTHONPATH"] = str(folder)
        status = pytest.main([*OPTIONS, *tests])
        assert sys.modules["nnunetv2_rmr"].__file__.startswith(str(folder)), "another package was tested"
    except BaseException:
        status = 3
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
