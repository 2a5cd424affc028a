"""Five folds trained, chosen and ensembled by nnU-Net's commands: segmentations and fused volumes."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
from conftest import PLAIN

pytestmark = pytest.mark.slow

FOLDS = range(5)
CASE = "caseTs00"  # the one that is looked at
MODEL = ("-d", PLAIN, "-c", tiny.CONFIGURATION, "-tr", "nnUNetTrainerRMR_1epoch_tiny")


@pytest.fixture(scope="module")
def env(nnunet, tmp_path_factory) -> dict[str, str]:
    """Environment whose results folder holds all five folds."""
    env = nnunet | {"nnUNet_results": str(tmp_path_factory.mktemp("folds"))}
    for fold in FOLDS:
        tiny.run("nnUNetv2_train", PLAIN, tiny.CONFIGURATION, fold, "-tr", MODEL[-1], "-device", tiny.DEVICE, "--npz",
                 env=env)
    return env


@pytest.fixture(scope="module")
def predicted(env, tmp_path_factory):
    """Predicts with some folds, None: with nnU-Net's default, and returns the folder."""
    def predict(folds=None) -> Path:
        out = tmp_path_factory.mktemp("predicted")
        images = Path(env["nnUNet_raw"]) / f"Dataset{PLAIN}_Tiny" / "imagesTs"
        tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", out, *MODEL, *(() if folds is None else ("-f", *folds)),
                 "-device", tiny.DEVICE, "--disable_tta", "--save_probabilities", env=env)
        return out
    return predict


@pytest.fixture(scope="module")
def single(predicted) -> list[Path]:
    return [predicted([fold]) for fold in FOLDS]


def read(folder: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{CASE}.nii.gz")))


def probabilities(folder: Path) -> np.ndarray:
    return np.load(folder / f"{CASE}.npz")["probabilities"]


def test_the_fused_volume_of_all_folds_is_made_of_all_of_them(predicted, single):
    ensemble = predicted()  # no -f: all five
    alone = np.stack([read(folder / "fused") for folder in single])
    assert alone.std(axis=0).max() > 1e-3, "folds that agree would say nothing"
    # the restored scans are averaged, then fused, which is no linear operation: about the mean of the single ones
    distance = np.abs(read(ensemble / "fused") - alone.mean(axis=0)).mean()
    assert distance < 0.2 * np.abs(alone - alone.mean(axis=0)).mean()


def test_best_configuration_is_found_from_all_five_validations(env):
    tiny.run("nnUNetv2_find_best_configuration", PLAIN, "-c", tiny.CONFIGURATION, "-tr", MODEL[-1], "-np", 1, env=env)
    model = Path(env["nnUNet_results"]) / f"Dataset{PLAIN}_Tiny" / \
        f"{MODEL[-1]}__nnUNetPlans__{tiny.CONFIGURATION}"
    held_out = model / "crossval_results_folds_0_1_2_3_4"
    assert len(list(held_out.glob("*.nii.gz"))) == 5, "every training case was held out once"
    assert (held_out / "postprocessing.pkl").is_file()


def test_ensemble_of_different_models_is_the_mean_of_their_probabilities(single, env, tmp_path):
    first, second = single[:2]
    assert not np.allclose(probabilities(first), probabilities(second), atol=1e-4)
    tiny.run("nnUNetv2_ensemble", "-i", first, second, "-o", tmp_path, "-np", 1, "--save_npz", env=env)
    mean = (probabilities(first).astype(np.float64) + probabilities(second)) / 2
    np.testing.assert_allclose(probabilities(tmp_path), mean, atol=2e-3)  # nnU-Net keeps half precision
    best = np.sort(mean, axis=0)
    clear = best[-1] - best[-2] > 5e-3
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(read(tmp_path)[clear], mean.argmax(0)[clear])
