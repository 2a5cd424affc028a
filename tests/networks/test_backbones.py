"""Any segmentation network can share its last features."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from conftest import PLAIN
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (
    nnUNetTrainerNoDeepSupervision,
)

from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

OURS = "nnunetv2_rmr.networks.monai_networks"
DYNAMIC = "dynamic_network_architectures.architectures"
PATCH = (64, 32, 32)
MONAI = {
    "SwinUNETR": {"feature_size": 12, "depths": [1, 1, 1, 1]},
    "UNETR": {"img_size": list(PATCH), "feature_size": 4, "hidden_size": 24, "mlp_dim": 24, "num_heads": 2},
    "SegResNet": {"init_filters": 8},
}
UNET = {"n_stages": 3, "features_per_stage": [4, 6, 8], "conv_op": "torch.nn.Conv3d", "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "n_blocks_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1], "conv_bias": True, "norm_op": "torch.nn.InstanceNorm3d",
        "norm_op_kwargs": {"affine": True}, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}}
PRIMUS = {"embed_dim": 48, "patch_embed_size": [8, 8, 8], "eva_depth": 1, "eva_numheads": 2, "input_shape": list(PATCH)}


def architecture(name: str, arch_kwargs: dict, requires_import: tuple = ()) -> dict:
    return {"network_class_name": name, "arch_kwargs": arch_kwargs, "_kw_requires_import": list(requires_import)}


def step(trainer, modalities_and_degraded: int) -> None:
    scales, patch = trainer._get_deep_supervision_scales(), trainer.configuration_manager.patch_size
    data = torch.randn(2, modalities_and_degraded, *patch)
    target = torch.randint(0, 2, (2, 1, *patch)).float()
    if scales is not None:
        target = [torch.nn.functional.interpolate(target, scale_factor=tuple(s)) for s in scales]
    trainer.network.train()
    segmentation = getattr(trainer.network, "segmentation", trainer.network)
    before = {name: p.detach().clone() for name, p in segmentation.named_parameters() if p.ndim > 1}
    loss = trainer.train_step({"data": data, "target": target})["loss"]
    assert torch.isfinite(torch.as_tensor(loss))
    unmoved = {name for name, p in segmentation.named_parameters() if name in before and torch.equal(p, before[name])}
    assert unmoved <= {"decoder.seg_layers.0.weight"}, "nnU-Net gives the coarsest output no weight"
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    with torch.no_grad():
        assert trainer.network(torch.randn(1, 2, *patch)).shape == (1, 2, *patch)


NETWORKS = [
    *(architecture(f"{OURS}.{name}", kwargs) for name, kwargs in MONAI.items()),
    architecture(f"{DYNAMIC}.unet.ResidualEncoderUNet", UNET, ("conv_op", "norm_op", "nonlin")),
    architecture(f"{DYNAMIC}.primus.Primus", PRIMUS),
]


def short_name(network: dict) -> str:
    return network["network_class_name"].split(".")[-1]


@pytest.mark.parametrize("network", NETWORKS, ids=short_name)
def test_rmr_trains_around_it_with_deep_supervision_where_there_is_any(trainer_of, network):
    trainer = trainer_of(nnUNetTrainerRMR, epochs=1, architecture=network, patch_size=PATCH)
    assert trainer.enable_deep_supervision == ("UNet" in network["network_class_name"])
    step(trainer, 4)


@pytest.mark.parametrize("name", MONAI)
def test_rmr_trains_in_2d_around_monais_networks(trainer_of, name):
    options = MONAI[name] | {"spatial_dims": 2} | ({"img_size": list(PATCH[:2])} if name == "UNETR" else {})
    step(trainer_of(nnUNetTrainerRMR, epochs=1, architecture=architecture(f"{OURS}.{name}", options),
                    patch_size=PATCH[:2]), 4)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS, ids=short_name)
def test_a_configuration_of_the_plans_with_it_trains_and_predicts_by_command(network, nnunet, tmp_path):
    name, trainer = f"3d_{short_name(network)}", "nnUNetTrainerRMR_1epoch_tiny"
    data_set = f"Dataset{PLAIN}_Tiny"
    folder = Path(nnunet["nnUNet_preprocessed"]) / data_set
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"plans_name": name}  # others share the data set
    plans["configurations"][name] = {"inherits_from": "3d_fullres", "patch_size": PATCH, "batch_size": 2,
                                     "architecture": network}
    (folder / f"{name}.json").write_text(json.dumps(plans))
    env = nnunet | {"nnUNet_results": str(tmp_path / "results"), "TINY_ONLY_TRAINS": "1"}
    Path(env["nnUNet_results"]).mkdir()
    tiny.run("nnUNetv2_train", PLAIN, name, "all", "-tr", trainer, "-p", name, "-device", tiny.DEVICE, env=env)
    images, out = Path(nnunet["nnUNet_raw"]) / data_set / "imagesTs", tmp_path / "out"
    tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", out, "-d", PLAIN, "-c", name, "-p", name, "-f", "all",
             "-tr", trainer, "-device", tiny.DEVICE, "--disable_tta", env=env)
    for folder in (out, out / "fused"):
        assert {f.name for f in folder.glob("*.nii.gz")} == {"caseTs00.nii.gz", "caseTs01.nii.gz"}


@pytest.mark.parametrize("name", MONAI)
def test_nnunet_trains_it_alone_from_the_same_plans(trainer_of, name):
    network = architecture(f"{OURS}.{name}", MONAI[name])
    trainer = trainer_of(nnUNetTrainerNoDeepSupervision, architecture=network, patch_size=PATCH)
    step(trainer, 2)


@pytest.mark.parametrize(("name", "edge"), [("SwinUNETR", 48), ("UNETR", 24), ("SegResNet", 20)])
def test_a_patch_it_can_not_halve_often_enough_is_named(name, edge):
    from nnunetv2_rmr.networks import monai_networks

    network = getattr(monai_networks, name)(1, 2, **MONAI[name])
    with pytest.raises(ValueError, match=rf"{name} needs patches .* got patch_size \[{edge}, 32, 32\]"):
        network(torch.zeros(1, 1, edge, 32, 32))


def test_deep_supervision_of_a_network_without_is_refused():
    from nnunetv2_rmr.networks.monai_networks import SegResNet

    with pytest.raises(NotImplementedError, match="SegResNet has no deep supervision"):
        SegResNet(1, 2, deep_supervision=True)
