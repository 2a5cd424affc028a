"""The model and the case that `nnUNetv2_rmr_predict --demo` predicts with.

    python benchmarks/make_demo_model.py -o demo_model

Runs nnUNetv2_rmr_demo with its default settings (8 minutes on two free cores; an earlier run with --keep in that folder
is taken as it is) and packs its RMR model and one of its test cases into nnunetv2_rmr/demo: of the checkpoint only what
prediction reads, in half precision.
"""

import argparse
import shutil
from pathlib import Path

import torch

import nnunetv2_rmr.demo
from nnunetv2_rmr.datasets.phantom import CHANNELS
from nnunetv2_rmr.demo.job import CONFIGURATION, DATASET, FOLD
from nnunetv2_rmr.demo.run import DemoOptions, prepare_folder, run_demo
from nnunetv2_rmr.inference.export_vanilla import without_weights

CASE = "phantom_012"  # the first test case
CHECKPOINT = Path(f"fold_{FOLD}", "checkpoint_final.pth")


def strip(model: Path, out: Path) -> None:
    """Copy what prediction needs of a model folder to `out`; weights as float16."""
    full = torch.load(model / CHECKPOINT, map_location="cpu", weights_only=False)
    small = without_weights(full)
    # nnU-Net's decoder holds the encoder again: the same tensors under several names, kept as such
    halves = {weight.data_ptr(): weight.half() for weight in full["network_weights"].values()}
    small["network_weights"] = {name: halves[weight.data_ptr()] for name, weight in full["network_weights"].items()}
    (out / CHECKPOINT).parent.mkdir(parents=True, exist_ok=True)
    torch.save(small, out / CHECKPOINT)
    for file in ("plans.json", "dataset.json"):
        shutil.copyfile(model / file, out / file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", dest="root", required=True, type=Path, help="folder of the demo, new or with --keep")
    parser.add_argument("--into", type=Path, default=Path(nnunetv2_rmr.demo.__file__).parent,
                        help="default: %(default)s")
    args = parser.parse_args()
    raw = args.root / "nnUNet_raw" / DATASET
    model = args.root / "nnUNet_results" / DATASET / f"nnUNetTrainerRMR__nnUNetPlans__{CONFIGURATION}"
    if not (model / CHECKPOINT).is_file():
        options = DemoOptions(args.root, keep=True)
        prepare_folder(options)
        run_demo(options)
    strip(model, args.into / "model")
    for folder in ("images", "labels"):
        (args.into / folder).mkdir(exist_ok=True)
    for channel in range(len(CHANNELS)):
        shutil.copy(raw / "imagesTs" / f"{CASE}_{channel:04d}.nii.gz", args.into / "images")
    shutil.copy(raw / "labelsTs" / f"{CASE}.nii.gz", args.into / "labels")


if __name__ == "__main__":
    main()
