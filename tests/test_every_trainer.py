"""Every trainer trains and predicts by nnU-Net's commands, and its losses are those it is named for."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
import torch
from conftest import PLAIN

pytestmark = pytest.mark.slow

TRAINERS = {  # loss terms of each of four epochs
    "nnUNetTrainerRMR": [{"segmentation", "restoration"}] * 4,
    "nnUNetTrainerRMR_paper": [{"image_refinement", "feature_refinement"}] * 2
    + [{"segmentation", "intensity", "gradient"}] * 2,
}


def train(trainer: str, nnunet: dict[str, str], results: Path, **extra: str) -> Path:
    """The fold's folder."""
    results.mkdir(exist_ok=True)
    tiny.run("nnUNetv2_train", PLAIN, tiny.CONFIGURATION, 0, "-tr", trainer, "-device", tiny.DEVICE,
             env=nnunet | {"nnUNet_results": str(results)} | extra)
    return results / f"Dataset{PLAIN}_Tiny" / f"{trainer}__nnUNetPlans__{tiny.CONFIGURATION}" / "fold_0"


def checkpoint(fold: Path) -> dict:
    return torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_has_its_loss_terms(trainer, nnunet, tmp_path):
    log = checkpoint(train(f"{trainer}_tiny", nnunet, tmp_path, TINY_ONLY_TRAINS="1"))["logging"]
    terms = {name.removeprefix("loss_"): np.isfinite(values) for name, values in log.items() if name[:5] == "loss_"}
    found = [{name for name, finite in terms.items() if finite[epoch]} for epoch in range(4)]
    assert found == TRAINERS[trainer]
    assert np.isfinite(log["train_losses"]).all()


def test_the_paper_preset_validates_and_predicts(nnunet, tmp_path):
    fold = train("nnUNetTrainerRMR_paper_tiny", nnunet, tmp_path / "results")
    assert (fold / "validation" / "fused" / "restoration.json").is_file()
    images, out = Path(nnunet["nnUNet_raw"]) / f"Dataset{PLAIN}_Tiny" / "imagesTs", tmp_path / "out"
    tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", out, "-d", PLAIN, "-c", tiny.CONFIGURATION, "-f", 0, "-tr",
             "nnUNetTrainerRMR_paper_tiny", "-device", tiny.DEVICE, "--disable_tta",
             env=nnunet | {"nnUNet_results": str(tmp_path / "results")})
    for case in ("caseTs00", "caseTs01"):
        assert (out / f"{case}.nii.gz").is_file()
        fused = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "fused" / f"{case}.nii.gz")))
        assert np.isfinite(fused).all() and fused.std() > 0


def test_the_rival_is_a_model_of_nnunets_own(nnunet, tmp_path):
    fold = train("nnUNetTrainer_RMRDegradations_tiny", nnunet, tmp_path)
    assert np.isfinite(checkpoint(fold)["logging"]["train_losses"]).all()
    assert (fold / "validation" / "summary.json").is_file() and not (fold / "validation" / "fused").exists()
