"""How long the degradations take, beside nnU-Net's own augmentation of the same sample, in one thread.

    python benchmarks/degradation_cost.py [--patch 128 128 128] [--modalities 2] [--samples 30]

nnU-Net's default training transforms (rotation, scaling, noise, blur, contrast, low resolution, gamma, mirroring) and
RMR's transform with its default probabilities, each on the same random patches, in turns. Needs no data.
"""

import argparse
import statistics

import numpy as np
import torch
from alternate import seconds, summary, table
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from report import add_json_argument, print_machine, write_json

from nnunetv2_rmr.degradations.degrade import DegradeTransform

ROTATION = 30 / 360 * 2 * np.pi  # nnU-Net's range for isotropic 3D patches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs=3, default=[128, 128, 128])
    parser.add_argument("--modalities", type=int, default=2)
    parser.add_argument("--samples", type=int, default=30)
    add_json_argument(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print_machine(args)
    np.random.seed(0)
    torch.manual_seed(0)
    nnunet = nnUNetTrainer.get_training_transforms(
        args.patch, (-ROTATION, ROTATION), [[1.0] * 3, [0.5] * 3, [0.25] * 3], (0, 1, 2), None,
        use_mask_for_norm=[True] * args.modalities, foreground_labels=[1])
    degrade = DegradeTransform(args.modalities, (1.0, 1.0, 1.0))
    larger = [round(n * 1.3) for n in args.patch]  # nnU-Net cuts larger patches, so that rotated ones are full
    taken = {"nnU-Net's augmentation": [], "degradations": []}
    for _ in range(args.samples):
        image = torch.randn(args.modalities, *larger)
        label = (torch.rand(1, *larger) > 0.9).to(torch.int16)
        taken["nnU-Net's augmentation"].append(seconds(lambda image=image, label=label:
                                                       nnunet(image=image, segmentation=label)))
        patch = torch.randn(args.modalities, *args.patch)
        taken["degradations"].append(seconds(lambda patch=patch: degrade(image=patch)))
    rows = summary(taken, "nnU-Net's augmentation")
    print(table(rows))
    means = [statistics.fmean(row["all_seconds"]) for row in rows]  # each sample draws its own kinds: medians mislead
    print(f"\nmeans {means[0]:.3f} s and {means[1]:.3f} s, share {means[1] / means[0]:.1%}")
    write_json(args, rows)


if __name__ == "__main__":
    main()
