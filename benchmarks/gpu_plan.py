"""What a GPU is asked first, when one is at hand for a quarter of an hour.

    python benchmarks/real_dataset.py sarcoma -c 3d_medium -o DATA       # before, where the scans and nnU-Net are
    python benchmarks/gpu_plan.py --data DATA -o OUT --minutes 14

Runs in order, each step's commands side by side: the step's time and memory against nnU-Net; five folds of the sarcomas
at 3 mm by RMR and its two rivals; whether RMR's planner keeps what it promises, on plans that its constants were not
measured on; the published stage 1. Every command's output is OUT/NAME.log, its results lie in OUT/NAME, and it counts
as done when OUT/NAME.done is there: after the minutes are over, or if the machine is taken away, what is done stays,
and the same command goes on with the rest. DATA is moved between machines as it is.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
RIVALS = ("nnUNetTrainerRMR", "nnUNetTrainer_RMRDegradations", "nnUNetTrainer")
STEP = ("--device", "cuda", "--repeats", "10", "--modalities", "2", "4", "--patch", "128", "128", "128")


def steps(data: Path, out: Path, jobs: int) -> list[dict[str, tuple[dict[str, str], list[str]]]]:
    """Name -> (environment, script and arguments), of every step."""
    sarcoma = ["quick_compare.py", "--data", "sarcoma", "--root", str(data), "-c", "3d_medium", "--cross_validate",
               "-o", str(out / "sarcoma"), "--seeds", "0", "1", "2", "3", "4", "--epochs", "16", "--iterations", "4000",
               "--device", "cuda", "--trainers", *RIVALS, "--parts", str(jobs)]
    uncompiled = {"nnUNet_compile": "f"}
    return [
        {"step": (uncompiled, ["training_step.py", *STEP])},
        {f"sarcoma_{part}": (uncompiled, [*sarcoma, "--part", str(part)]) for part in range(jobs)},
        {"planner": (uncompiled, ["planner_memory.py", "--steps", "3", "--data", "brain", "--planners", "M", "L"])},
        {"step_compiled": ({"nnUNet_compile": "t"}, ["training_step.py", *STEP])},
        {"published_stage1": (uncompiled, ["quick_compare.py", "--data", "sarcoma", "--root", str(data), "-c",
                                           "3d_medium", "--cross_validate", "-o", str(out / "published"), "--seeds",
                                           "0", "--epochs", "16", "--iterations", "4000", "--device", "cuda",
                                           "--trainers", "nnUNetTrainerRMR_paper"])},
    ]


def run(step: dict[str, tuple[dict[str, str], list[str]]], out: Path, until: float) -> None:
    jobs = {}
    for name, (environment, (script, *arguments)) in step.items():
        if not (out / f"{name}.done").exists():
            with open(out / f"{name}.log", "a") as log:
                jobs[name] = subprocess.Popen([sys.executable, str(HERE / script), *arguments], stdout=log,
                                              stderr=subprocess.STDOUT, env=os.environ | environment)
    for name, job in jobs.items():
        try:
            code = job.wait(max(0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            job.kill()
            code = "stopped"
        if code == 0:
            (out / f"{name}.done").touch()
        print(f"{name}: {'done' if code == 0 else code} ({out / f'{name}.log'})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what real_dataset.py has made")
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--jobs", type=int, default=5, help="trainings side by side")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * args.minutes
    for step in steps(args.data, args.out, args.jobs):
        if time.monotonic() < until:
            run(step, args.out, until)


if __name__ == "__main__":
    main()
