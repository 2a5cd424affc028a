"""`nnUNetv2_rmr_benchmark`: trained models against each other, on clean and on degraded images."""

import argparse
import sys
from pathlib import Path

from nnunetv2_rmr.cli.argument_types import output_folder, whole_number
from nnunetv2_rmr.ext_trainer import add_to_ext_trainer
from nnunetv2_rmr.files.refused import BadCaseError


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_benchmark",
        description="Compares trained nnU-Net models (of any trainer) on clean test images and on degraded ones: "
                    "Dice, HD95, NSD, errors relative to the reference, restoration of fused images, time and memory, "
                    "with paired bootstrap intervals, in tables and in a report (report.html). Started again with the "
                    "same -o it goes on where it was stopped.")
    p.add_argument("-i", type=Path, required=True, metavar="FOLDER", help="test images, CASE_0000.nii.gz ...")
    p.add_argument("-l", type=Path, required=True, metavar="FOLDER", help="their reference segmentations, CASE.nii.gz")
    p.add_argument("-m", action="append", required=True, metavar="NAME=MODELFOLDER",
                   help="a trained model, TRAINER__PLANS__CONFIGURATION; give -m several times. The first one is the "
                        "reference unless --reference names another")
    p.add_argument("-o", type=output_folder, required=True, metavar="FOLDER", help="results")
    p.add_argument("-f", nargs="+", metavar="FOLD", help="folds of every model (default: all that are trained)")
    p.add_argument("-chk", default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")
    p.add_argument("--reference", metavar="NAME", help="model that the others are compared with")
    p.add_argument("--corruptions", nargs="+", metavar="NAME", help="default: all of docs/corruptions.md, and missing")
    p.add_argument("--severities", nargs="+", type=int, choices=range(1, 6), default=[1, 2, 3, 4, 5], metavar="1..5")
    p.add_argument("--modalities", nargs="+", default=["all"], metavar="NAME",
                   help="which modalities are degraded: all (together, the default) and names of single ones")
    p.add_argument("--nsd_tolerance", type=float, default=2.0, metavar="MM", help="default: %(default)s mm")
    p.add_argument("--bootstrap", type=whole_number(1), default=10000, metavar="N",
                   help="resamples (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of degradations and resamples (default: %(default)s)")
    p.add_argument("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="default: %(default)s")
    p.add_argument("-step_size", type=float, default=0.5, help="of the sliding window (default: %(default)s)")
    p.add_argument("--disable_tta", action="store_true", help="no mirrored predictions: up to eight times faster")
    p.add_argument("--trust_model", action="store_true",
                   help="also load models whose files could run code, see docs/security.md")
    p.add_argument("-num_parts", type=int, default=1, help="share the cases among so many processes, e.g. one per GPU; "
                                                           "the last one to finish writes the results")
    p.add_argument("-part_id", type=int, default=0, help="which part this process does, from 0")
    return p


def main(argv: list[str] | None = None) -> None:
    p = parser()
    args = p.parse_args(argv)
    named = dict(m.split("=", 1) for m in args.m if "=" in m and not m.startswith("="))
    if len(named) != len(args.m):
        p.error(f"-m {' -m '.join(args.m)}: give every model as NAME=MODELFOLDER, with a name of its own")
    reference = args.reference or next(iter(named))
    if reference not in named:
        p.error(f"--reference {reference}: no model of that name; there are {', '.join(named)}")
    if not 0 <= args.part_id < args.num_parts:
        p.error(f"-part_id {args.part_id}: must be from 0 to -num_parts - 1, {args.num_parts - 1}")

    # Here and not above: --help and usage errors should not wait for the imports
    add_to_ext_trainer()
    import torch
    from tqdm import tqdm

    from nnunetv2_rmr.evaluation.benchmark.job import Benchmark, BenchmarkOptions
    from nnunetv2_rmr.evaluation.benchmark.model import BenchmarkModel
    from nnunetv2_rmr.evaluation.benchmark.summary import lines_of_groups
    from nnunetv2_rmr.evaluation.scan_degradations import try_out
    from nnunetv2_rmr.evaluation.scan_degradations.conditions import KNOWN, MISSING
    from nnunetv2_rmr.inference.trust import trust
    from nnunetv2_rmr.report.viewer import LABEL
    from nnunetv2_rmr.report.write import write_report

    if args.trust_model:
        trust()
    if LABEL in named:
        p.error(f"-m '{LABEL}'=...: the report calls the reference segmentations so; give the model another name")

    kinds = args.corruptions or KNOWN
    unknown = sorted(set(kinds) - set(KNOWN))
    if unknown:
        p.error(f"--corruptions {' '.join(unknown)}: choose from {', '.join(KNOWN)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        p.error("-device cuda: torch finds no CUDA device; try -device cpu")
    options = BenchmarkOptions(args.i, args.l, args.o, reference, tuple(kinds), tuple(args.severities),
                               tuple(args.modalities), args.nsd_tolerance, args.seed, args.bootstrap,
                               num_parts=args.num_parts, part_id=args.part_id)
    try:
        try_out([name for name in kinds if name != MISSING])
        models = [BenchmarkModel(name, Path(folder), args.f, args.chk, torch.device(args.device),
                                 not args.disable_tta, args.step_size) for name, folder in named.items()]
        benchmark = Benchmark(options, models)
    except (BadCaseError, ImportError, OSError) as error:
        p.error(str(error))

    try:
        with tqdm(total=len(benchmark.part) * len(benchmark.keys), unit="prediction", smoothing=0.05) as bar:
            benchmark.run(bar.update)
        print("Intervals, pictures and report, if all predictions are there ...", flush=True)
        summary, failed, left = benchmark.finish()
        report = None if summary is None else write_report(args.o)
    except OSError as error:  # the disk is full, say
        sys.exit(f"{p.prog}: error: {error}\nWhat is measured is kept; the same command goes on from there")
    if summary is None and left:
        print(f"{left} prediction(s) of other parts are not there yet; the last part to finish writes the results")
    if summary is not None:
        print(*lines_of_groups(summary), sep="\n")
        for problem in benchmark.problems:
            print(problem, file=sys.stderr)
        print(f"n = {len(summary['cases'])} cases. Report: {report}")
    if failed:
        # a case that can not be read fails under every condition: said once
        for case, error in sorted({(record["case"], record["error"]) for record in failed}):
            under = [f"{r['model']} {r['corruption']} {r['severity']} ({r['modality']})" for r in failed
                     if (r["case"], r["error"]) == (case, error)]
            which = "all models and conditions" if len(under) == len(benchmark.keys) else ", ".join(under)
            print(f"ERROR: {case}, {which}: {error}", file=sys.stderr)
        sys.exit(f"{p.prog}: error: {len(failed)} prediction(s) failed (the others are done); the same command tries "
                 "them again")
