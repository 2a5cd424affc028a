"""Parameters and multiply-adds per voxel of segmentation networks, alone and behind RMR's default front.

    python benchmarks/backbone_cost.py [--patch 128 128 128] [--modalities 2] [--classes 4]

Forward pass, products of matrices and convolutions only (torch.utils.flop_counter), counted on the meta device: nothing
is computed. With deep supervision switched off. Needs MONAI (`pip install "nnunetv2-rmr[monai]"`) but no data.
"""

import argparse
import pydoc

import torch
from front_cost import multiply_adds
from torch import nn

from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.settings import RMRSettings

STAGES = 6
UNET = {"n_stages": STAGES, "features_per_stage": [32, 64, 128, 256, 320, 320], "conv_op": nn.Conv3d,
        "kernel_sizes": [[3, 3, 3]] * STAGES, "strides": [[1, 1, 1]] + [[2, 2, 2]] * (STAGES - 1), "conv_bias": True,
        "norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True}, "deep_supervision": False}
DYNAMIC, MONAI = "dynamic_network_architectures.architectures", "nnunetv2_rmr.networks.monai_networks"


def networks(patch: list[int]) -> dict[str, tuple[str, dict]]:
    """Name -> (class, arguments): sizes as nnU-Net, MONAI and the authors of Primus give them."""
    return {
        "PlainConvUNet": (f"{DYNAMIC}.unet.PlainConvUNet", UNET | {
            "n_conv_per_stage": [2] * STAGES, "n_conv_per_stage_decoder": [2] * (STAGES - 1)}),
        "ResidualEncoderUNet (ResEnc M, L, XL)": (f"{DYNAMIC}.unet.ResidualEncoderUNet", UNET | {
            "n_blocks_per_stage": [1, 3, 4, 6, 6, 6], "n_conv_per_stage_decoder": [1] * (STAGES - 1)}),
        "Primus M": (f"{DYNAMIC}.primus.Primus", {
            "embed_dim": 864, "patch_embed_size": (8, 8, 8), "eva_depth": 16, "eva_numheads": 12,
            "input_shape": tuple(patch), "drop_path_rate": 0.2, "scale_attn_inner": True, "init_values": 0.1}),
        "SwinUNETR": (f"{MONAI}.SwinUNETR", {"feature_size": 48}),
        "UNETR": (f"{MONAI}.UNETR", {"img_size": patch}),
        "SegResNet": (f"{MONAI}.SegResNet", {"init_filters": 32, "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1]}),
    }


def build(name: str, arguments: dict, channels: int, classes: int) -> nn.Module:
    network_class = pydoc.locate(name)
    if network_class is None:
        raise SystemExit(f"{name} can not be imported: is MONAI installed?")
    return network_class(channels, num_classes=classes, **arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs=3, default=[128, 128, 128], help="edges in voxels")
    parser.add_argument("--modalities", type=int, default=2)
    parser.add_argument("--classes", type=int, default=4)
    args = parser.parse_args()
    front = RMRSettings().network_arguments()
    print(f"patch {' x '.join(map(str, args.patch))}, {args.modalities} modalities\n")
    print("| network | million parameters, alone | in RMR | thousand multiply-adds per voxel, alone | in RMR | ratio |")
    print("|---|---|---|---|---|---|")
    for name, (network_class, arguments) in networks(args.patch).items():
        counted = []
        for in_rmr in (False, True):
            # drawn on the CPU: some initialisations do not work on the meta device
            network = build(network_class, arguments, front["features"] if in_rmr else args.modalities, args.classes)
            if in_rmr:
                network = RMRNet(network, args.modalities, 3, **front)
            network.eval()
            counted.append((sum(p.numel() for p in network.parameters()) / 1e6,
                            multiply_adds(network, args.modalities, args.patch) / 1e3))
            del network
        (parameters, cost), (parameters_rmr, cost_rmr) = counted
        print(f"| {name} | {parameters:.2f} | {parameters_rmr:.2f} | {cost:.0f} | {cost_rmr:.0f} | "
              f"{cost_rmr / cost:.2f} |", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
