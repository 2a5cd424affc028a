"""The data set for comparisons: simulated brains with lesions, planned and preprocessed, with a small configuration.

    python benchmarks/phantom_dataset.py -o ROOT --cases 16 --test_cases 16 --spacing 3 --patch 32 32 32

Writes ROOT/nnUNet_raw, _preprocessed and _results with data set 999 and its configuration 3d_small (a PlainConvUNet of
four stages, 12 to 96 features, batch 2), as the demo does it; compare_trainers.py then trains on it. Another --seed
makes other subjects.
"""

import argparse
from pathlib import Path

from nnunetv2_rmr.datasets.phantom import write_phantom_dataset
from nnunetv2_rmr.demo.job import DATASET_ID, DATASET_NAME, DemoOptions, plan_and_preprocess, set_environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", dest="root", required=True, type=Path)
    parser.add_argument("--cases", type=int, default=16, help="for training")
    parser.add_argument("--test_cases", type=int, default=16)
    parser.add_argument("--spacing", type=float, default=3, help="in mm")
    parser.add_argument("--patch", type=int, nargs=3, default=[32, 32, 32])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    set_environment(args.root)
    write_phantom_dataset(args.root / "nnUNet_raw", DATASET_ID, DATASET_NAME, args.cases, args.test_cases, args.seed,
                          args.spacing)
    plan_and_preprocess(DemoOptions(args.root, patch_size=tuple(args.patch)))


if __name__ == "__main__":
    main()
