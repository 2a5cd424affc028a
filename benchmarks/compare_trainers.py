"""Do the trainers differ? Same data, plans, patches and seeds for all: trained, benchmarked, and compared over seeds.

    python benchmarks/compare_trainers.py -d 101 -c 3d_4mm -i imagesTs -l labelsTs -o OUT \\
        --trainers nnUNetTrainer nnUNetTrainer_RMRDegradations nnUNetTrainerRMR --epochs 10 --iterations 40

Trains every trainer on all training cases with nnU-Net's own command, once per seed, and predicts the test cases, which
no training has seen, clean and degraded, with nnUNetv2_rmr_benchmark. Writes OUT/comparison.csv and prints a table:
mean over seeds of the mean Dice, and the paired difference to the first trainer with the 95 % interval of a t-test over
seeds (a seed's value is the mean over cases and labels). Goes on where it was stopped. Trainers: those of
short_trainers/. -b EXTRA passes the rest to the benchmark, e.g. -b --severities 3 --disable_tta.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from scipy import stats

HERE = Path(__file__).parent


def command(name: str, *arguments: object, env: dict[str, str], log: Path) -> None:
    executable = Path(sys.executable).parent / name
    with open(log, "a") as output:
        done = subprocess.run([str(executable), *map(str, arguments)], env=env, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{name} {' '.join(map(str, arguments))} failed ({done.returncode}), see {log}")


def mean_dice(results: Path) -> dict[tuple[str, str], float]:
    """(condition, model) -> mean over labels of the mean over cases, from a benchmark's results.csv; a degradation's
    severities averaged."""
    values = defaultdict(list)
    with open(results) as file:
        for row in csv.DictReader(file):
            if row["Dice"] not in ("", "nan"):
                values[row["corruption"] or "clean", row["model"], row["label"]].append(float(row["Dice"]))
    means = defaultdict(list)
    for (condition, model, _), numbers in values.items():
        means[condition, model].append(statistics.fmean(numbers))
    return {key: statistics.fmean(numbers) for key, numbers in means.items()}


def interval(differences: list[float], digits: int = 3) -> str:
    if len(differences) < 2:
        return f"{differences[0]:+.{digits}f}"
    half = stats.t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
    return f"{statistics.fmean(differences):+.{digits}f} ± {half:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", dest="dataset", required=True)
    parser.add_argument("-c", dest="configuration", required=True)
    parser.add_argument("-i", dest="images", required=True)
    parser.add_argument("-l", dest="labels", required=True)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--trainers", nargs="+", required=True, help="the first is what the others are compared with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parts", type=int, default=1, help="of this work, for several processes at a time")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("-b", dest="benchmark", nargs=argparse.REMAINDER, default=[])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = [(seed, trainer) for seed in args.seeds for trainer in args.trainers]
    folders = {}
    for number, (seed, trainer) in enumerate(jobs):
        results = args.out / f"results_{seed}"
        env = dict(os.environ, COMPARE_EPOCHS=str(args.epochs), COMPARE_ITERATIONS=str(args.iterations),
                   nnUNet_rmr_seed=str(seed), nnUNet_results=str(results), nnUNet_compile="f",
                   nnUNet_n_proc_DA="1")  # more would not be seeded
        env["nnUNet_extTrainer"] = os.pathsep.join(
            filter(None, (os.environ.get("nnUNet_extTrainer"), str(HERE / "short_trainers"))))
        found = list(results.glob(f"Dataset*/{trainer}_short__*__{args.configuration}"))
        finished = bool(found) and (found[0] / "fold_all" / "checkpoint_final.pth").exists()
        if number % args.parts == args.part and not finished:
            print(f"seed {seed}: {trainer}", flush=True)
            command("nnUNetv2_train", args.dataset, args.configuration, "all", "-tr", f"{trainer}_short", "-device",
                    args.device, env=env, log=args.out / f"{trainer}_{seed}.log")
        found = list(results.glob(f"Dataset*/{trainer}_short__*__{args.configuration}"))
        if found and (found[0] / "fold_all" / "checkpoint_final.pth").exists():
            folders[seed, trainer] = found[0]
    if len(folders) < len(jobs):
        sys.exit(f"{len(jobs) - len(folders)} trainings belong to other parts and are not finished yet")
    if args.part != 0:
        return
    dice = {}
    for seed in args.seeds:
        out = args.out / f"benchmark_{seed}"
        models = [x for trainer in args.trainers for x in ("-m", f"{trainer}={folders[seed, trainer]}")]
        command("nnUNetv2_rmr_benchmark", "-i", args.images, "-l", args.labels, "-o", out, *models, "-f", "all",
                "-device", args.device, *args.benchmark, env=env | {"nnUNet_results": str(args.out)},
                log=args.out / f"benchmark_{seed}.log")
        for (condition, trainer), value in mean_dice(out / "results.csv").items():
            dice[condition, trainer, seed] = value
    conditions = list(dict.fromkeys(condition for condition, _, _ in dice))
    first = args.trainers[0]
    with open(args.out / "comparison.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["condition", "trainer", "seed", "Dice"])
        writer.writerows([*key, value] for key, value in dice.items())
    print(json.dumps({k: str(v) for k, v in vars(args).items()}))
    print("| condition | trainer | Dice, mean of seeds | seeds | difference |\n|---|---|---|---|---|")
    for condition in conditions:
        for trainer in args.trainers:
            values = [dice[condition, trainer, seed] for seed in args.seeds]
            differences = [v - dice[condition, first, seed] for v, seed in zip(values, args.seeds)]
            print(f"| {condition} | {trainer} | {statistics.fmean(values):.3f} | {min(values):.3f}-{max(values):.3f} | "
                  f"{'' if trainer == first else interval(differences)} |")


if __name__ == "__main__":
    main()
