"""The whole way on real scans (BraTS, regions): import, plan, preprocess, train, choose, predict, ensemble, share."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

BRATS = tiny.ROOT.parent / "shared" / "data" / "brats2021"
TEST_CASES = ("BraTS2021_01478", "BraTS2021_01480")  # with and without enhancing tumour
TRAINER, CONFIGURATION = "nnUNetTrainerRMR_tiny", "3d_4mm"

pytestmark = [pytest.mark.slow, pytest.mark.real_data,
              pytest.mark.skipif(not BRATS.is_dir(), reason=f"no BraTS cases in {BRATS}")]


def coarse_configuration(plans_file: Path) -> None:
    """Adds 3d_4mm: the whole brain at 4 mm, in patches and with a network that train in seconds on a CPU."""
    plans = json.loads(plans_file.read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    kwargs = architecture["arch_kwargs"] | {
        "n_stages": 3, "features_per_stage": [8, 16, 32], "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1]}
    plans["configurations"][CONFIGURATION] = {
        "inherits_from": "3d_fullres", "data_identifier": "nnUNetPlans_3d_4mm", "spacing": [4.0, 4.0, 4.0],
        "patch_size": [32, 32, 32], "batch_size": 2, "architecture": architecture | {"arch_kwargs": kwargs}}
    plans_file.write_text(json.dumps(plans))


@pytest.fixture(scope="module")
def brats(tmp_path_factory) -> dict[str, str]:
    """Environment of an nnU-Net with the BraTS cases imported, planned and preprocessed as data set 101."""
    root = tmp_path_factory.mktemp("brats")
    env = tiny.nnunet_env(root)
    tiny.run("nnUNetv2_rmr_import", "-i", BRATS, "-d", 101, "-n", "BraTS",
             "--modality", "T1=*t1.nii.gz", "T1ce=*t1ce.nii.gz", "T2=*t2.nii.gz", "FLAIR=*flair.nii.gz",
             "--label", "*seg.nii.gz", "--map", "1=2", "2=1", "4=3",
             "--regions", "whole_tumor=1,2,3", "tumor_core=2,3", "enhancing_tumor=3",
             "--test_cases", *TEST_CASES, env=env)
    planning = env | {"nnUNet_n_proc_DA": "1"}  # nnU-Net's planner does not run without augmentation workers
    tiny.run("nnUNetv2_plan_and_preprocess", "-d", 101, "-npfp", 2, "--no_pp", "--verify_dataset_integrity",
             env=planning)
    coarse_configuration(root / "preprocessed" / "Dataset101_BraTS" / "nnUNetPlans.json")
    tiny.run("nnUNetv2_preprocess", "-d", 101, "-c", CONFIGURATION, "-np", 2, env=planning)
    return env


@pytest.fixture(scope="module")
def images(brats) -> Path:
    return Path(brats["nnUNet_raw"]) / "Dataset101_BraTS" / "imagesTs"


@pytest.fixture(scope="module")
def trained(brats) -> Path:
    """Model folder of two folds, trained by nnU-Net's own command."""
    for fold in (0, 1):
        tiny.run("nnUNetv2_train", 101, CONFIGURATION, fold, "-tr", TRAINER, "-device", tiny.DEVICE, "--npz", env=brats)
    return Path(brats["nnUNet_results"]) / "Dataset101_BraTS" / f"{TRAINER}__nnUNetPlans__{CONFIGURATION}"


@pytest.fixture(scope="module")
def predicted(trained, brats, images, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("predicted")
    tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", out, "-d", 101, "-c", CONFIGURATION, "-tr", TRAINER,
             "-f", 0, 1, "-device", tiny.DEVICE, "--save_probabilities", env=brats)
    return out


def volumes(folder: Path) -> dict[str, np.ndarray]:
    return {f.name: sitk.GetArrayFromImage(sitk.ReadImage(str(f))) for f in sorted(folder.glob("*.nii.gz"))}


def head(images: Path, case: str) -> np.ndarray:
    """Where nnU-Net sees anything: voxels with a value in any modality, holes filled."""
    return create_nonzero_mask(np.stack([sitk.GetArrayFromImage(sitk.ReadImage(str(images / f"{case}_{i:04d}.nii.gz")))
                                         for i in range(4)]))


def test_validation_scores_every_region_and_the_restoration(trained):
    for fold in (0, 1):
        folder = trained / f"fold_{fold}"
        summary = json.loads((folder / "validation" / "summary.json").read_text())
        assert set(summary["mean"]) == {"(1, 2, 3)", "(2, 3)", "3"}
        assert list((folder / "validation" / "fused").glob("*.nii.gz"))
        assert (folder / "progress_rmr.png").is_file() and list((folder / "panels").glob("*.png"))


def test_predictions_lie_on_the_grid_of_the_scans_with_the_data_sets_labels(predicted, images):
    assert set(volumes(predicted)) == set(volumes(predicted / "fused")) == {f"{case}.nii.gz" for case in TEST_CASES}
    for case in TEST_CASES:
        flair = sitk.ReadImage(str(images / f"{case}_0003.nii.gz"))
        for folder in (predicted, predicted / "fused"):
            image = sitk.ReadImage(str(folder / f"{case}.nii.gz"))
            for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                assert getattr(image, what)() == getattr(flair, what)()
        assert set(np.unique(volumes(predicted)[f"{case}.nii.gz"])) <= {0, 1, 2, 3}


def test_fused_volumes_show_flair_in_its_own_units(predicted, images):
    for case in TEST_CASES:
        fused = volumes(predicted / "fused")[f"{case}.nii.gz"]
        flair = sitk.GetArrayFromImage(sitk.ReadImage(str(images / f"{case}_0003.nii.gz"))).astype(float)
        assert (fused[~head(images, case)] == 0).all()
        body = flair > 0
        assert np.corrcoef(fused[body], flair[body])[0, 1] > 0.5  # after 24 iterations
        assert 0.7 < fused[body].mean() / flair[body].mean() < 1.3


@tiny.bit_by_bit
def test_find_best_configuration_ensemble_and_model_sharing(trained, predicted, brats, images, tmp_path):
    tiny.run("nnUNetv2_find_best_configuration", 101, "-c", CONFIGURATION, "-tr", TRAINER, "-f", 0, 1, "-np", 2,
             env=brats)
    inference = json.loads((trained.parent / "inference_information.json").read_text())
    assert inference["best_model_or_ensemble"]["selected_model_or_models"][0]["trainer"] == TRAINER
    tiny.run("nnUNetv2_ensemble", "-i", predicted, predicted, "-o", tmp_path / "ensemble", "-np", 2, env=brats)
    for name, segmentation in volumes(tmp_path / "ensemble").items():
        np.testing.assert_array_equal(segmentation, volumes(predicted)[name])

    archive, results = tmp_path / "model.zip", tmp_path / "results"
    tiny.run("nnUNetv2_export_model_to_zip", "-d", 101, "-o", archive, "-c", CONFIGURATION, "-tr", TRAINER,
             "-f", 0, 1, env=brats)
    results.mkdir()
    installed = brats | {"nnUNet_results": str(results)}
    tiny.run("nnUNetv2_install_pretrained_model_from_zip", archive, env=installed)
    one_case = tmp_path / "one_case"
    one_case.mkdir()
    for file in images.glob(f"{TEST_CASES[0]}_*"):
        os.symlink(file.resolve(), one_case / file.name)
    tiny.run("nnUNetv2_rmr_predict_from_modelfolder", "-i", one_case, "-o", tmp_path / "again",
             "-m", results / trained.parent.name / trained.name, "-f", 0, 1, "-device", tiny.DEVICE,
             env=installed)
    name = f"{TEST_CASES[0]}.nii.gz"
    for old, new in ((predicted, tmp_path / "again"), (predicted / "fused", tmp_path / "again" / "fused")):
        np.testing.assert_array_equal(volumes(new)[name], volumes(old)[name])
