"""`nnUNetv2_rmr_demo`: a small job from simulated data to a page with pictures, to see whether everything works."""

import argparse
import os
import sys
import traceback
from pathlib import Path

from nnunetv2_rmr.cli.argument_types import output_folder, whole_number

CAVEATS = ("The training is far too short, the brains are simulated, the test cases are few, and this was one run with "
           "one seed. The numbers show that everything works; they say nothing about which method is better.")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_demo",
        description="Simulates brains with white-matter lesions (T1ce, T2w, FLAIR; nothing is downloaded), plans, "
                    "trains nnU-Net and RMR for the same few epochs, and lets nnUNetv2_rmr_benchmark compare them on "
                    "clean and degraded test cases, with a page of pictures. 5 to 8 minutes on two free CPU cores.",
    )
    p.add_argument("-o", "--out", type=output_folder, default=Path("demo_output"), metavar="FOLDER",
                   help="folder of the results, new or empty (default %(default)s)")
    p.add_argument("--cases", type=whole_number(5), default=12, help="training cases, at least 5 (default %(default)s)")
    p.add_argument("--epochs", type=whole_number(1), default=16,
                   help="epochs of 25 iterations (default %(default)s)")
    p.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="default %(default)s")
    p.add_argument("--keep", action="store_true", help="keep data set and models, not only the benchmark")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier demo in the folder")
    return p


def main(argv: list[str] | None = None) -> None:
    p = parser()
    values = vars(p.parse_args(argv))

    # Read when torch is imported. By default its threads spin for long while they wait, which takes the cores from all
    # else that runs and from each other: beside another training this one would be ten times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

    # Here and not above: --help and usage errors should not wait for the imports
    import torch

    from nnunetv2_rmr.datasets.phantom import TemplateMissingError, load_template
    from nnunetv2_rmr.demo.run import BENCHMARK, LOG, DemoOptions, DemoRefused, prepare_folder, run_demo
    from nnunetv2_rmr.evaluation.benchmark.summary import lines_of_groups

    options = DemoOptions(**values)
    try:
        torch.empty(1, device=options.device)
    except (AssertionError, RuntimeError) as error:
        p.error(f"--device {options.device}: {str(error).splitlines()[0]}")
    try:
        load_template()
        prepare_folder(options)
    except (DemoRefused, TemplateMissingError, OSError) as error:
        p.error(str(error))
    try:
        summary = run_demo(options)
    except KeyboardInterrupt:
        sys.exit(f"{p.prog}: stopped; {options.out} is incomplete")
    except Exception as error:
        with open(options.out / LOG, "a") as log:
            traceback.print_exc(file=log)
        sys.exit(f"{p.prog}: error: {type(error).__name__}: {error}\nMore is in {options.out / LOG}")

    print("\n" + "\n".join(lines_of_groups(summary)))
    print(f"\n{len(summary['cases'])} test cases. {CAVEATS}\n\nPage with pictures: "
          f"{options.out / BENCHMARK / 'report.html'}")
