"""Parameters and multiply-adds per voxel of segmentation networks, alone and behind RMR's default front.

    python benchmarks/backbone_cost.py [--patch 128 128 128] [--modalities 2] [--classes 4]

Forward pass, products of matrices and convolutions only (torch.utils.flop_counter), counted on the meta device: nothing
is computed. With deep supervision switched off. Needs MONAI (`pip install "nnunetv2-rmr[monai]"`) but no data.
"""

import argparse

import torch
from front_cost import multiply_adds
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from report import add_json_argument, print_machine, write_json
from torch import nn
from training_step import architecture

from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.settings import RMRSettings


def networks(patch: list[int]) -> dict[str, dict]:
    """Name -> "architecture" of plans: sizes as nnU-Net, MONAI and the authors of Primus give them."""
    def of_class(name: str, **arguments) -> dict:
        return {"network_class_name": name, "arch_kwargs": arguments, "_kw_requires_import": []}

    monai = "nnunetv2_rmr.networks.monai_networks"
    return {
        "PlainConvUNet": architecture("PlainConvUNet", patch),
        "ResidualEncoderUNet (ResEnc M, L, XL)": architecture("ResidualEncoderUNet", patch),
        "Primus M": of_class(
            "dynamic_network_architectures.architectures.primus.Primus", embed_dim=864, patch_embed_size=(8, 8, 8),
            eva_depth=16, eva_numheads=12, input_shape=tuple(patch), drop_path_rate=0.2, scale_attn_inner=True,
            init_values=0.1),
        "SwinUNETR": architecture("SwinUNETR", patch),
        "UNETR": of_class(f"{monai}.UNETR", img_size=patch),
        "SegResNet": of_class(f"{monai}.SegResNet", init_filters=32, blocks_down=[1, 2, 2, 4], blocks_up=[1, 1, 1]),
    }


def build(planned: dict, channels: int, classes: int) -> nn.Module:
    return get_network_from_plans(
        planned["network_class_name"], planned["arch_kwargs"], planned["_kw_requires_import"], channels, classes,
        allow_init=False, deep_supervision=False if ".unet." in planned["network_class_name"] else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs=3, default=[128, 128, 128], help="edges in voxels")
    parser.add_argument("--modalities", type=int, default=2)
    parser.add_argument("--classes", type=int, default=4)
    add_json_argument(parser)
    args = parser.parse_args()
    print_machine(args)
    front = RMRSettings().network_arguments()
    print("| network | million parameters, alone | in RMR | thousand multiply-adds per voxel, alone | in RMR | ratio |")
    print("|---|---|---|---|---|---|")
    rows = []
    for name, planned in networks(args.patch).items():
        counted = []
        for in_rmr in (False, True):
            # drawn on the CPU: some initialisations do not work on the meta device
            network = build(planned, front["features"] if in_rmr else args.modalities, args.classes)
            if in_rmr:
                network = RMRNet(network, args.modalities, 3, **front)
            network.eval()
            counted.append((sum(p.numel() for p in network.parameters()) / 1e6,
                            multiply_adds(network, args.modalities, args.patch) / 1e3))
            del network
        (parameters, cost), (parameters_rmr, cost_rmr) = counted
        print(f"| {name} | {parameters:.2f} | {parameters_rmr:.2f} | {cost:.0f} | {cost_rmr:.0f} | "
              f"{cost_rmr / cost:.2f} |", flush=True)
        rows.append({"network": name, "million_parameters": [parameters, parameters_rmr],
                     "thousand_multiply_adds_per_voxel": [cost, cost_rmr]})
    write_json(args, rows)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
