"""Seconds of whole commands, as a user waits for them: --help of each of ours, and predicting one case with ours and
with nnU-Net's, both with default options, in turns.

    python benchmarks/commands.py [-m MODELFOLDER -i IMAGES [-f all]] [-device cpu]

IMAGES should hold one small case. The prediction's ratio is ours to nnU-Net's.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

from alternate import alternate, summary, table
from report import add_json_argument, print_machine, write_json


def call(*command: str) -> None:
    done = subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", dest="model")
    parser.add_argument("-i", dest="images")
    parser.add_argument("-f", dest="folds", nargs="+", default=["all"])
    parser.add_argument("-device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    add_json_argument(parser)
    args = parser.parse_args()
    print_machine(args)
    rows = []
    if args.model:
        with tempfile.TemporaryDirectory() as folder:
            options = ["-i", args.images, "-m", args.model, "-f", *args.folds, "-device", args.device]

            def predict(command: str) -> None:
                out = Path(folder, command)
                shutil.rmtree(out, ignore_errors=True)
                call(command, *options, "-o", str(out))

            commands = ("nnUNetv2_predict_from_modelfolder", "nnUNetv2_rmr_predict_from_modelfolder")
            taken = alternate({name: lambda name=name: predict(name) for name in commands}, args.repeats, warmup=1)
        rows += summary(taken, commands[0])
        print(table(rows), "\n")
    names = sorted(e.name for e in entry_points(group="console_scripts") if e.name.startswith("nnUNetv2_rmr_"))
    sides = {"nnUNetv2_rmr_trainers": lambda: call("nnUNetv2_rmr_trainers")}
    sides |= {f"{name} --help": lambda name=name: call(name, "--help") for name in names}
    of_help = summary(alternate(sides, args.repeats), "nnUNetv2_rmr_trainers")
    print(table(of_help))
    write_json(args, rows + of_help)


if __name__ == "__main__":
    main()
