"""Everything that is claimed about real patients, one command per data set.

    python benchmarks/real_data.py sarcoma -o OUT          # or glioma, brats2021
    python benchmarks/real_data.py sarcoma -o OUT --only labels --folds 0

Scans of ../shared/data are imported, planned, preprocessed and split by patients (real_dataset.py); then every part
trains and tests its trainers on five folds (BraTS: seven) with quick_compare.py, several jobs at a time, each with one
thread. What OUT has is not done again, so a command that was stopped goes on. Every part leaves OUT/PART/cases.csv and
OUT/PART/tables.md: means, and paired differences to the first trainer with 95 % intervals over patients.

comparison: nnU-Net, the same again (another seed), nnU-Net with our degradations (RMR without the image task), DA5,
nnU-Net as wide as RMR is dear, RMR, again, with modality dropout, and the image task alone; clean, degraded, and with
every modality missing. labels: few labelled cases, with and without the others of the fold as scans without labels.
sites (glioma): trained on one hospital's patients, tested on the other's.
"""

import argparse
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from quick_compare import every_case, report
from real_dataset import CONFIGURATION, CONFIGURATIONS, REAL_DATA, make

from nnunetv2_rmr.files.atomic import replacing

HERE = Path(__file__).resolve().parent
FEW_LABELS = {"sarcoma": (4, 16), "glioma": (8, 32)}
AGAIN = 10  # a seed's last digit is its fold: 13 is fold 3 once more
RIVALS = ("nnUNetTrainer", "nnUNetTrainer_RMRDegradations", "nnUNetTrainerRMR")
ONCE = ("nnUNetTrainerDA5", "nnUNetTrainerWide", "nnUNetTrainerRMR_modalityDropout", "nnUNetTrainerRMR_restorationOnly")


@dataclass(frozen=True)
class Part:
    """trainers: the first is what the others are compared with. seeds: folds by their last digit."""

    name: str
    trainers: tuple[str, ...]
    seeds: tuple[int, ...]
    iterations: int
    options: tuple[str, ...] = ()


def parts_of(name: str, folds: list[int], iterations: int) -> list[Part]:
    data = REAL_DATA[name]
    again = tuple(AGAIN + fold for fold in folds)
    parts = [Part("comparison", (*RIVALS, *ONCE), tuple(folds), iterations, ("--missing",)),
             Part("comparison", RIVALS, again, iterations, ("--missing",))]
    for number in FEW_LABELS.get(name, ()):
        trainers = (f"nnUNetTrainerRMR_{number}labels", f"nnUNetTrainerRMR_{number}labels_others")
        parts.append(Part(f"labels_{number}", trainers, tuple(folds), iterations))
    if data.sites:
        parts.append(Part("sites", RIVALS, tuple(data.folds + number for number in range(len(data.sites))), iterations))
    return parts


def train_and_test(part: Part, args: argparse.Namespace) -> None:
    """Raises CalledProcessError if a job failed, after the others are done."""
    out = args.out / part.name
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(HERE / "quick_compare.py"), "--data", args.name, "--root", str(args.out / "data"),
               "-c", args.configuration, "--cross_validate", "-o", str(out), "--epochs", str(args.epochs),
               "--iterations", str(part.iterations), "--device", args.device, "--seeds", *map(str, part.seeds),
               "--trainers", *part.trainers, *part.options, "--parts", str(args.jobs)]
    jobs = []
    for number in range(args.jobs):
        with open(out / f"job_{number}.log", "a") as log:
            jobs.append(subprocess.Popen([*command, "--part", str(number)], stdout=log, stderr=subprocess.STDOUT))
    for number, job in enumerate(jobs):
        if job.wait():
            sys.exit(f"{part.name}: job {number} failed: {out / f'job_{number}.log'}")


def write_tables(parts: list[Part], out: Path) -> None:
    trainers = list(dict.fromkeys(trainer for part in parts for trainer in part.trainers))
    seeds = sorted({seed for part in parts for seed in part.seeds})
    found = every_case(out)
    with replacing(out / "cases.csv") as temporary:
        found.sort_values(["trainer", "seed", "condition", "case"]).to_csv(temporary, index=False, float_format="%.4g")
    with replacing(out / "tables.md") as temporary, open(temporary, "w") as file, redirect_stdout(file):
        report(found, trainers, seeds, cross_validated=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=REAL_DATA)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="PART", help="names of parts, or how they begin; default: all")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=800, help="of the whole training")
    parser.add_argument("-c", dest="configuration", choices=CONFIGURATIONS, default=CONFIGURATION)
    parser.add_argument("--jobs", type=int, default=2, help="at a time, one core each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folds", type=int, nargs="+", help="of patients; default: all")
    args = parser.parse_args()
    folds = list(range(REAL_DATA[args.name].folds))
    if not set(args.folds or folds) <= set(folds):
        parser.error(f"--folds {' '.join(map(str, args.folds))}: those of {args.name} are {' '.join(map(str, folds))}")
    args.out.mkdir(parents=True, exist_ok=True)
    parts = parts_of(args.name, args.folds or folds, args.iterations)
    names = ", ".join(dict.fromkeys(part.name for part in parts))
    parts = [part for part in parts if not args.only or part.name.startswith(tuple(args.only))]
    if not parts:
        parser.error(f"--only {' '.join(args.only)}: the parts of {args.name} are {names}")
    make(args.name, args.out / "data", configuration=args.configuration)
    for part in parts:
        train_and_test(part, args)
        write_tables([other for other in parts if other.name == part.name], args.out / part.name)
        print(f"{part.name}: {args.out / part.name / 'tables.md'}", flush=True)


if __name__ == "__main__":
    main()
