"""The other trainers train, validate and predict by nnU-Net's commands."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
import torch
from conftest import PLAIN

pytestmark = pytest.mark.slow


def train(trainer: str, nnunet: dict[str, str], results: Path) -> Path:
    """The fold's folder."""
    results.mkdir(exist_ok=True)
    tiny.run("nnUNetv2_train", PLAIN, tiny.CONFIGURATION, 0, "-tr", trainer, "-device", tiny.DEVICE,
             env=nnunet | {"nnUNet_results": str(results)})
    return results / f"Dataset{PLAIN}_Tiny" / f"{trainer}__nnUNetPlans__{tiny.CONFIGURATION}" / "fold_0"


def checkpoint(fold: Path) -> dict:
    return torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)


def test_the_paper_preset_has_its_loss_terms_in_each_stage_validates_and_predicts(nnunet, tmp_path):
    fold = train("nnUNetTrainerRMR_paper_tiny", nnunet, tmp_path / "results")
    log = checkpoint(fold)["logging"]
    found = [{name for name, values in log.items() if name.startswith("loss_") and np.isfinite(values[epoch])}
             for epoch in range(2)]
    assert found == [{"loss_image_refinement", "loss_feature_refinement"},
                     {"loss_segmentation", "loss_intensity", "loss_gradient"}]
    assert len(log["train_losses"]) == 2 and np.isfinite(log["train_losses"]).all()
    assert (fold / "validation" / "fused" / "restoration.json").is_file()
    images, out = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    for file in (Path(nnunet["nnUNet_raw"]) / f"Dataset{PLAIN}_Tiny" / "imagesTs").glob("caseTs00_*"):
        shutil.copy(file, images)
    tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", out, "-d", PLAIN, "-c", tiny.CONFIGURATION, "-f", 0, "-tr",
             "nnUNetTrainerRMR_paper_tiny", "-device", tiny.DEVICE, "--disable_tta",
             env=nnunet | {"nnUNet_results": str(tmp_path / "results")})
    assert (out / "caseTs00.nii.gz").is_file()
    fused = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "fused" / "caseTs00.nii.gz")))
    assert np.isfinite(fused).all() and fused.std() > 0


def test_the_rival_is_a_model_of_nnunets_own(nnunet, tmp_path):
    fold = train("nnUNetTrainer_RMRDegradations_tiny", nnunet, tmp_path)
    assert np.isfinite(checkpoint(fold)["logging"]["train_losses"]).all()
    assert (fold / "validation" / "summary.json").is_file() and not (fold / "validation" / "fused").exists()
