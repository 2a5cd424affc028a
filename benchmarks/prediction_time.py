"""Seconds to predict a case, from its files to its files, with and without the fused image, against vanilla nnU-Net.

    python benchmarks/prediction_time.py [--spacing 4 --patch 32 32 32] [--modalities 2] [--mirror] [--device cpu]
    python benchmarks/prediction_time.py --spacing 1 --patch 128 128 128 --device cuda

The case: noise in a body of a brain's size in scans of 240 x 240 x 155 mm, as BraTS has them, at the network's spacing.
The networks: with the weights they start with, which take as long as trained ones; as in training_step.py. So neither
data nor models are needed. All in one process, in turns: nnU-Net's predictor with the vanilla network, nnU-Net's
predictor with RMR's (segmentation only), and RMRPredictor (segmentation and fused image). commands.py times whole
commands with trained models.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from alternate import alternate, summary, table
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from report import add_json_argument, print_machine, write_json
from training_step import make_dataset_json, make_plans

from nnunetv2_rmr.inference.predictor import RMRPredictor
from nnunetv2_rmr.networks.planned import planned_network
from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.settings import RMRSettings

SCAN, BODY = (155, 240, 240), (137, 171, 140)  # mm; the body is an ellipsoid with these axes


def write_case(folder: Path, spacing: float, modalities: int) -> list[str]:
    rng, shape = np.random.default_rng(0), [round(mm / spacing) for mm in SCAN]
    grid = np.meshgrid(*[(np.arange(n) + 0.5) * spacing - mm / 2 for n, mm in zip(shape, SCAN)], indexing="ij")
    body = sum((2 * axis / mm) ** 2 for axis, mm in zip(grid, BODY)) < 1
    files = [str(folder / f"case_{i:04d}.nii.gz") for i in range(modalities)]
    for file in files:
        image = sitk.GetImageFromArray(np.where(body, rng.normal(100, 20, shape), 0).astype(np.float32))
        image.SetSpacing([spacing] * 3)
        sitk.WriteImage(image, file)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spacing", type=float, default=4, help="mm")
    parser.add_argument("--patch", type=int, nargs=3, default=[32, 32, 32], help="edges in voxels")
    parser.add_argument("--modalities", type=int, default=2)
    parser.add_argument("--network", choices=("PlainConvUNet", "ResidualEncoderUNet"), default="PlainConvUNet")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--mirror", action="store_true", help="with test time augmentation")
    parser.add_argument("--repeats", type=int, default=5)
    add_json_argument(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print_machine(args)
    plans = RMRSettings().into_plans(make_plans(args.network, args.patch, 2, args.modalities, args.spacing))
    manager, dataset_json = PlansManager(plans), make_dataset_json(args.modalities)
    configuration = manager.get_configuration("3d_fullres")
    vanilla = planned_network(configuration, args.modalities, len(dataset_json["labels"]), deep_supervision=False)
    rmr = RMRNet(planned_network(configuration, args.modalities, len(dataset_json["labels"]), deep_supervision=False),
                 args.modalities, args.modalities, args.patch)
    with tempfile.TemporaryDirectory() as folder:
        files, sides = write_case(Path(folder), args.spacing, args.modalities), {}
        for name, cls, network in (("nnU-Net", nnUNetPredictor, vanilla),
                                   ("RMR, segmentation only", nnUNetPredictor, rmr),
                                   ("RMR, with fused image", RMRPredictor, rmr)):
            predictor = cls(use_mirroring=args.mirror, device=torch.device(args.device), allow_tqdm=False,
                            perform_everything_on_device=args.device == "cuda")
            predictor.manual_initialization(network, manager, configuration, [network.state_dict()], dataset_json,
                                            "nnUNetTrainer", (0, 1, 2))
            sides[name] = lambda p=predictor: p.predict_from_files_sequential([files], [f"{folder}/case"])
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net's talk about every case
            taken = alternate(sides, args.repeats)
        assert Path(folder, "fused", "case.nii.gz").exists()
    rows = summary(taken, "nnU-Net")
    print(table(rows))
    write_json(args, rows)


if __name__ == "__main__":
    main()
