"""Multiply-adds per voxel and parameters of what lies in front of the segmentation network.

    python benchmarks/front_cost.py [--patch 32 64 64] [--modalities 2]

Compares the default settings ("conv") with nnUNetTrainerRMR_paper's ("swin") and with what was counted for the authors'
code. Forward pass, products of matrices and convolutions only (torch.utils.flop_counter), counted on the meta device:
nothing is computed. Needs no data.
"""

import argparse
import math

import torch
from report import add_json_argument, print_machine, write_json
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training.paper import nnUNetTrainerRMR_paper

# thousand multiply-adds per voxel of the authors' code, patch 32 x 64 x 64, two modalities; the SwinUNETR that comes
# behind these has 391 more, so that the whole of stage 2 has 828
PUBLISHED = {"encoder, each": 141, "fusion module": 145, "fusion decoder": 9}


def multiply_adds(module: nn.Module, channels: int, patch: list[int]) -> float:
    """Per voxel."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.to("meta")(torch.empty(1, channels, *patch, device="meta"))
    return counter.get_total_flops() / 2 / math.prod(patch)


def cost(settings: RMRSettings, modalities: int, patch: list[int]) -> dict[str, tuple[float, int]]:
    """Part -> (multiply-adds per voxel, parameters)."""
    net = RMRNet(nn.Identity(), modalities, len(patch), **settings.network_arguments())
    parts = {"encoder, each": (net.encoders[0], 1), "fusion module": (net.fusion, modalities * settings.features),
             "fusion decoder": (net.fusion_decoder, settings.features)}
    return {name: (multiply_adds(part, channels, patch), sum(p.numel() for p in part.parameters()))
            for name, (part, channels) in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs="+", default=[32, 64, 64], help="2 or 3 edges, in voxels")
    parser.add_argument("--modalities", type=int, default=2)
    add_json_argument(parser)
    args = parser.parse_args()
    if len(args.patch) not in (2, 3) or min(args.patch) < 1:
        parser.error(f"--patch needs two or three positive edges, got {args.patch}")
    if args.modalities < 2:
        parser.error(f"--modalities must be at least 2, got {args.modalities}")
    conv, swin = (cost(s, args.modalities, args.patch) for s in (RMRSettings(), nnUNetTrainerRMR_paper.settings))
    count = {name: args.modalities if name == "encoder, each" else 1 for name in conv}
    print_machine(args)
    print("| part | default, thousand multiply-adds per voxel | paper | published | default, parameters | paper |")
    print("|---|---|---|---|---|---|")
    comparable = args.patch == [32, 64, 64] and args.modalities == 2
    for name in conv:
        print(f"| {name} | {conv[name][0] / 1e3:.1f} | {swin[name][0] / 1e3:.1f} | "
              f"{PUBLISHED[name] if comparable else '-'} | {conv[name][1]:,} | {swin[name][1]:,} |")

    def total(parts: dict, column: int) -> float:
        return sum(count[name] * values[column] for name, values in parts.items())

    published = sum(count[name] * value for name, value in PUBLISHED.items())
    print(f"| all in front | {total(conv, 0) / 1e3:.1f} | {total(swin, 0) / 1e3:.1f} | "
          f"{published if comparable else '-'} | {total(conv, 1):,.0f} | {total(swin, 1):,.0f} |")
    write_json(args, [{"part": name, "default": conv[name], "paper": swin[name], "published": PUBLISHED[name] * 1e3}
                      for name in conv])


if __name__ == "__main__":
    main()
