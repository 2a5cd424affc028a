"""Training through nnU-Net's command line."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import PLAIN, REGIONS

from nnunetv2_rmr import __version__
from nnunetv2_rmr.settings import RMRSettings

pytestmark = pytest.mark.slow

TRAINER = "nnUNetTrainerRMR_tiny"


def fold(env: dict[str, str], number: int = PLAIN, fold: int = 0, trainer: str = TRAINER) -> Path:
    return Path(env["nnUNet_results"]) / f"Dataset{number}_Tiny" / f"{trainer}__nnUNetPlans__{tiny.CONFIGURATION}" / \
        f"fold_{fold}"


def results_in(env: dict[str, str], folder: Path, **extra: str) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    return env | {"nnUNet_results": str(folder), "TINY_ONLY_TRAINS": "1"} | extra


def train_command(*options: str | Path, number: int = PLAIN, trainer: str = TRAINER) -> list[str | Path]:
    return ["nnUNetv2_train", str(number), tiny.CONFIGURATION, "0", "-tr", trainer, "-device", tiny.DEVICE, *options]


def load(checkpoint: Path) -> dict:
    return torch.load(checkpoint, map_location="cpu", weights_only=False)


def test_training_leaves_what_nnunet_leaves_and_what_rmr_adds(trained):
    model = trained / "fold_0"
    for name in ("checkpoint_final.pth", "checkpoint_best.pth", "progress.png", "validation/summary.json",
                 "progress_rmr.png", "panels/epoch_0003.png", "validation/fused/restoration.json"):
        assert (model / name).is_file(), name
    assert not list(model.glob("*.tmp"))
    segmentations = {f.name for f in (model / "validation").glob("*.nii.gz")}
    assert segmentations and segmentations == {f.name for f in (model / "validation" / "fused").glob("*.nii.gz")}
    for name in segmentations:  # --npz: probabilities for nnU-Net's ensembling
        with np.load(model / "validation" / name.replace(".nii.gz", ".npz")) as file:
            probabilities = file["probabilities"]
        assert len(probabilities) == 2 and 0 <= probabilities.min() < probabilities.max() <= 1
    scores = json.loads((model / "validation" / "fused" / "restoration.json").read_text())
    assert set(scores["cases"]) == {name.removesuffix(".nii.gz") for name in segmentations}


def test_every_loss_term_is_logged_in_every_epoch(trained):
    logged = load(trained / "fold_0" / "checkpoint_final.pth")["logging"]
    terms = np.array([logged["loss_segmentation"], logged["loss_restoration"]])
    assert terms.shape == (2, 4) and np.isfinite(terms).all()
    weight = RMRSettings().restoration_weight
    np.testing.assert_allclose(logged["train_losses"], terms[0] + weight * terms[1], rtol=1e-4, atol=1e-5)


def test_the_settings_used_stand_in_the_plans_of_the_trained_model(trained):
    settings = json.loads((trained / "plans.json").read_text())["rmr"]
    assert settings == {"reference_modality": "FLAIR", "version": __version__}


@tiny.bit_by_bit
@pytest.mark.parametrize("workers", ["0", "1"])
def test_resumed_training_equals_uninterrupted_training(nnunet, tmp_path, workers):
    seed = {"nnUNet_rmr_seed": "7", "nnUNet_n_proc_DA": workers}
    whole, halves = (results_in(nnunet, tmp_path / name, **seed) for name in ("whole", "halves"))
    tiny.run(*train_command(), env=whole)
    # killed in the middle of the third of four epochs; the checkpoint of the second one is there
    killed(halves, "iteration 15")
    assert load(fold(halves) / "checkpoint_latest.pth")["current_epoch"] == 2
    tiny.run(*train_command("--c"), env=halves)
    a, b = (load(fold(env) / "checkpoint_final.pth") for env in (whole, halves))
    assert a["network_weights"].keys() == b["network_weights"].keys()
    for name, weight in a["network_weights"].items():
        assert torch.equal(weight, b["network_weights"][name]), name
    assert a["logging"]["train_losses"] == b["logging"]["train_losses"]
    assert a["logging"]["val_losses"] == b["logging"]["val_losses"]


def killed(env: dict[str, str], moment: str) -> None:
    """Train until SIGKILL at `moment` (see trainers/tiny_trainers.py)."""
    result = tiny.run(*train_command(), env=env | {"TINY_KILLED_AT": moment}, check=False)
    assert result.returncode == -signal.SIGKILL, result.stdout[-2000:]


@pytest.mark.parametrize("moment", [
    "iteration 3",  # nothing saved yet: nnU-Net starts again
    "checkpoint_latest.pth of epoch 1",  # while writing it
])
def test_killed_at_any_moment_training_goes_on(nnunet, tmp_path, moment):
    env = results_in(nnunet, tmp_path)
    killed(env, moment)
    for checkpoint in fold(env).glob("*.pth"):
        load(checkpoint)  # whole
    tiny.run(*train_command("--c"), env=env)
    final = load(fold(env) / "checkpoint_final.pth")
    assert final["current_epoch"] == 4
    # one value per epoch and no gap: the curve joins
    assert np.isfinite(final["logging"]["loss_restoration"]).all() and len(final["logging"]["loss_restoration"]) == 4
    assert np.isfinite(final["logging"]["train_losses"]).all() and len(final["logging"]["train_losses"]) == 4
    assert not list(fold(env).glob("*.tmp"))


def test_validation_can_be_repeated_on_its_own(trained, nnunet):
    summary = trained / "fold_0" / "validation" / "summary.json"
    before = json.loads(summary.read_text())["mean"]
    summary.unlink()
    tiny.run(*train_command("--val", number=REGIONS), env=nnunet)
    assert json.loads(summary.read_text())["mean"] == before


def test_pretrained_weights_of_another_data_set_start_a_training_all_but_the_output_layers(trained, nnunet, tmp_path):
    env, weights = results_in(nnunet, tmp_path), trained / "fold_0" / "checkpoint_final.pth"
    still = f"{TRAINER}_still"  # learns at rates of 0: what it started with is what it ends with
    tiny.run(*train_command("-pretrained_weights", weights, trainer=still), env=env)
    started, stored = load(fold(env, trainer=still) / "checkpoint_final.pth"), load(weights)["network_weights"]
    assert started["current_epoch"] == 4
    different = [name for name, weight in started["network_weights"].items() if not torch.equal(weight, stored[name])]
    assert different and all(".seg_layers." in name for name in different)
