"""What segmentation networks cost, alone and with RMR's head: parameters, and multiply-adds and memory per voxel.

    python benchmarks/backbone_cost.py [--network PlainConvUNet ...] [--patch 128 128 128] [--modalities 2]

Multiply-adds: forward pass, products of matrices and convolutions only (torch.utils.flop_counter). Bytes: what autograd
keeps of a sample for the backward pass, in float16 as on a GPU, as the planners count it. On the meta device: nothing
is computed. With deep supervision switched off. Needs MONAI (`pip install "nnunetv2-rmr[monai]"`) but no data.
"""

import argparse
import math

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from report import add_json_argument, print_machine, write_json
from torch import nn
from training_step import architecture, multiply_adds

from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.planning.planners import PEAK, kept_bytes, training_bytes


def networks(patch: list[int]) -> dict[str, dict]:
    """Name -> "architecture" of plans: sizes as nnU-Net, MONAI and the authors of Primus give them."""
    def of_class(name: str, **arguments) -> dict:
        return {"network_class_name": name, "arch_kwargs": arguments, "_kw_requires_import": []}

    monai = "nnunetv2_rmr.networks.monai_networks"
    return {
        "PlainConvUNet": architecture("PlainConvUNet", patch),
        "ResidualEncoderUNet": architecture("ResidualEncoderUNet", patch),
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


def bytes_alone(network: nn.Module, x: torch.Tensor) -> int:
    network = network.half()
    return kept_bytes(lambda: network(x.half()).float().softmax(1), list(network.parameters()))


def costs(planned: dict, patch: list[int], modalities: int, classes: int) -> list[tuple[float, float, float]]:
    """Alone and with the head: million parameters, thousand multiply-adds per voxel, bytes per voxel."""
    alone = build(planned, modalities, classes)  # on the CPU: some initialisations do not work on the meta device
    with_head = RMRNet(alone, modalities, modalities, patch).to("meta")  # and `alone`, which is in it
    x, voxels = torch.empty(1, modalities, *patch, device="meta"), math.prod(patch)
    parameters = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (alone, with_head)]
    with_head.eval()
    adds = [multiply_adds(alone, x) / 1e3, multiply_adds(with_head, x, images=True) / 1e3]
    with_head.train()
    kept_with_head = training_bytes(with_head, patch) / PEAK
    kept_alone = bytes_alone(alone, x)  # the last, as it makes the weights float16
    return list(zip(parameters, adds, (kept_alone / voxels, kept_with_head / voxels)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", help="of those in the table; default: all")
    parser.add_argument("--patch", type=int, nargs=3, default=[128, 128, 128], help="edges in voxels")
    parser.add_argument("--modalities", type=int, default=2)
    parser.add_argument("--classes", type=int, default=4)
    add_json_argument(parser)
    args = parser.parse_args()
    known = networks(args.patch)
    if unknown := set(args.network or ()) - set(known):
        parser.error(f"--network {' '.join(unknown)}: known are {', '.join(known)}")
    print_machine(args)
    print("| network | million parameters | thousand multiply-adds per voxel, alone | with head | ratio | "
          "bytes per voxel, alone | with head | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for name in args.network or known:
        alone, with_head = costs(known[name], args.patch, args.modalities, args.classes)
        (_, adds, kept), (parameters, adds_rmr, kept_rmr) = alone, with_head
        print(f"| {name} | {parameters:.2f} | {adds:.0f} | {adds_rmr:.0f} | {adds_rmr / adds:.2f} | {kept:.0f} | "
              f"{kept_rmr:.0f} | {kept_rmr / kept:.2f} |", flush=True)
        rows.append({"network": name, "million_parameters": [alone[0], parameters],
                     "thousand_multiply_adds_per_voxel": [adds, adds_rmr], "bytes_per_voxel": [kept, kept_rmr]})
    write_json(args, rows)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
