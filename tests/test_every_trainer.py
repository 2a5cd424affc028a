"""Every trainer trains and predicts by nnU-Net's commands, and its losses are those it is named for."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
import torch
from conftest import PLAIN

from nnunetv2_rmr.losses.coupled import term_weights
from nnunetv2_rmr.settings import RMRSettings

pytestmark = pytest.mark.slow

FUSION, REFINEMENT = {"intensity", "gradient"}, {"image_refinement", "feature_refinement"}
ALL = {"segmentation"} | FUSION | REFINEMENT
TRAINERS = {  # stages of four epochs, and loss terms of the last one
    "nnUNetTrainerRMR_paper": ("1122", ALL - REFINEMENT),
    "nnUNetTrainerRMR_noFusionLoss": ("1222", ALL - FUSION),
    "nnUNetTrainerRMR_noSegmentationLoss": ("1222", ALL - {"segmentation"}),
    "nnUNetTrainerRMR_noRefinement": ("1222", ALL - REFINEMENT),
    "nnUNetTrainerRMR_noDegradations": ("1222", ALL),
    "nnUNetTrainerRMR_frozenAutoencoder": ("1222", ALL - REFINEMENT),
    "nnUNetTrainerRMR_oneStage": ("2222", ALL),
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
def test_a_trainer_has_its_stages_and_loss_terms(trainer, nnunet, tmp_path):
    stages, expected = TRAINERS[trainer]
    saved = checkpoint(train(f"{trainer}_tiny", nnunet, tmp_path, TINY_ONLY_TRAINS="1"))
    log, settings = saved["logging"], RMRSettings.from_plans(saved["init_args"]["plans"])
    terms = {name: np.isfinite(log[f"loss_{name}"]) for name in ALL}
    assert {name for name, finite in terms.items() if finite[-1]} == expected
    of_stage_2 = np.any([terms[name] for name in FUSION | {"segmentation"}], axis=0)
    assert "".join("2" if found else "1" for found in of_stage_2) == stages
    assert np.isfinite(log["train_losses"]).all()
    for epoch, stage in enumerate(stages):
        total = sum(weight * log[f"loss_{name}"][epoch] for name, weight in term_weights(int(stage), settings).items())
        assert log["train_losses"][epoch] == pytest.approx(total, rel=1e-4, abs=1e-5), "the terms with their weights"
    if trainer == "nnUNetTrainerRMR_noDegradations":
        assert log["loss_feature_refinement"] == [0] * 4, "what is not degraded has the features of clean input"


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
