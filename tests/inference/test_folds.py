"""A model of several folds: what is averaged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
import torch
from conftest import PLAIN

pytestmark = pytest.mark.slow

FOLDS = (0, 1)
CASE = "caseTs00"  # the one that is looked at
TRAINER = "nnUNetTrainerRMR_1epoch_tiny"


@pytest.fixture(scope="module")
def env(nnunet, tmp_path_factory) -> dict[str, str]:
    """Environment whose results folder holds folds that differ: one that was trained, and its copy with all weights
    moved at random (a restoration that was hardly trained hardly depends on the fold)."""
    env = nnunet | {"nnUNet_results": str(tmp_path_factory.mktemp("folds"))}
    tiny.run("nnUNetv2_train", PLAIN, tiny.CONFIGURATION, FOLDS[0], "-tr", TRAINER, "-device", tiny.DEVICE, env=env)
    trained, = Path(env["nnUNet_results"]).glob("*/*/fold_0")
    file = Path(shutil.copytree(trained, trained.with_name(f"fold_{FOLDS[1]}"))) / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    generator = torch.Generator().manual_seed(0)
    for weight in checkpoint["network_weights"].values():
        weight += 0.05 * torch.randn(weight.shape, generator=generator)
    torch.save(checkpoint, file)
    return env


@pytest.fixture(scope="module")
def predicted(env, tmp_path_factory):
    """Predicts with folds and returns the folder."""
    def predict(*folds: int) -> Path:
        out = tmp_path_factory.mktemp("predicted")
        images = Path(env["nnUNet_raw"]) / f"Dataset{PLAIN}_Tiny" / "imagesTs"
        tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", out, "-d", PLAIN, "-c", tiny.CONFIGURATION, "-tr", TRAINER,
                 "-f", *folds, "-device", tiny.DEVICE, "--disable_tta", env=env)
        return out
    return predict


def read(folder: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{CASE}.nii.gz")))


def test_the_fused_volume_of_all_folds_is_made_of_all_of_them(predicted):
    ensemble = predicted(*FOLDS)
    alone = np.stack([read(predicted(fold) / "fused") for fold in FOLDS])
    spread = np.abs(alone - alone.mean(axis=0)).mean(axis=(1, 2, 3))
    assert min(spread) > 1e-3 * alone.max(), "folds that agree would say nothing"
    # the restored scans are averaged, then fused, which is no linear operation: about the mean of the single ones
    distance = np.abs(read(ensemble / "fused") - alone.mean(axis=0)).mean()
    assert distance < 0.2 * min(spread)
