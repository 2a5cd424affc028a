"""What nnU-Net offers beyond the usual training works with RMR: by its own command line, on tiny data."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny

from nnunetv2_rmr.losses.restoration import TERMS

pytestmark = pytest.mark.slow

NUMBER = 903
SPACING = (1.0, 1.0, 4.0)  # x, y, z


def write_difficult_dataset(raw: Path) -> str:
    """Thick slices, a CT beside an MRI, and slices that nobody annotated (ignore label)."""
    rng = np.random.default_rng(NUMBER)
    name = f"Dataset{NUMBER}_Difficult"
    for split, count in (("Tr", 5), ("Ts", 1)):
        for i in range(count):
            (ct, _, flair), label = tiny.tiny_case(rng, shape=(12, 40, 38))
            label[::3] = 3
            case = f"case{split}{i}"
            for channel, image in enumerate((ct * 10 - 1000, flair)):
                tiny.write_image(image, raw / name / f"images{split}" / f"{case}_{channel:04d}.nii.gz", SPACING)
            tiny.write_image(label, raw / name / f"labels{split}" / f"{case}.nii.gz", SPACING)
    description = {"channel_names": {"0": "CT", "1": "FLAIR"}, "numTraining": 5, "file_ending": ".nii.gz",
                   "labels": {"background": 0, "oedema": 1, "core": 2, "ignore": 3}}
    (raw / name / "dataset.json").write_text(json.dumps(description))
    return name


def small_configurations(plans_file: Path) -> None:
    """2d, 3d_fullres, a 3d_lowres and its cascade, all with small U-Nets."""
    plans = json.loads(plans_file.read_text())
    configurations = plans["configurations"]
    for name, kernels, strides, patch in (
            ("2d", [[3, 3]] * 3, [[1, 1], [2, 2], [2, 2]], [32, 32]),
            ("3d_fullres", [[1, 3, 3], [1, 3, 3], [3, 3, 3]], [[1, 1, 1], [1, 2, 2], [1, 2, 2]], [8, 32, 32])):
        configuration = configurations[name]
        configuration |= {"patch_size": patch, "batch_size": 2}
        configuration["architecture"]["arch_kwargs"] |= {
            "n_stages": 3, "features_per_stage": [6, 8, 8], "kernel_sizes": kernels, "strides": strides,
            "n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]}
    configurations["3d_lowres"] = {"inherits_from": "3d_fullres", "data_identifier": "nnUNetPlans_3d_lowres",
                                   "spacing": [4.0, 2.0, 2.0], "patch_size": [8, 16, 16],
                                   "next_stage": "3d_cascade_fullres"}
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    plans_file.write_text(json.dumps(plans))


@pytest.fixture(scope="module")
def difficult(nnunet) -> Path:
    """The raw data set, preprocessed."""
    raw = Path(nnunet["nnUNet_raw"])
    name = write_difficult_dataset(raw)
    planning = nnunet | {"nnUNet_n_proc_DA": "1"}  # nnU-Net's planner does not run without workers
    tiny.run("nnUNetv2_plan_and_preprocess", "-d", NUMBER, "--no_pp", "-npfp", 1, env=planning)
    plans = Path(nnunet["nnUNet_preprocessed"]) / name / "nnUNetPlans.json"
    schemes = json.loads(plans.read_text())["configurations"]["3d_fullres"]["normalization_schemes"]
    assert schemes == ["CTNormalization", "ZScoreNormalization"]
    small_configurations(plans)
    tiny.run("nnUNetv2_preprocess", "-d", NUMBER, "-c", "2d", "3d_fullres", "3d_lowres", "-np", 1, 1, 1, env=planning)
    return raw / name


def train(configuration: str, env: dict[str, str], *options: str) -> str:
    """Trains on all cases; returns the training log."""
    tiny.run("nnUNetv2_train", NUMBER, configuration, "all", "-tr", "nnUNetTrainerRMR_tiny", "-device", tiny.DEVICE,
             *options, env=env)
    folder = model_folder(configuration, env) / "fold_all"
    return "".join(log.read_text() for log in folder.glob("training_log_*.txt"))


def model_folder(configuration: str, env: dict[str, str]) -> Path:
    return Path(env["nnUNet_results"]) / f"Dataset{NUMBER}_Difficult" / \
        f"nnUNetTrainerRMR_tiny__nnUNetPlans__{configuration}"


def predict(images: Path, out: Path, configuration: str, env: dict[str, str], *options: str | Path) -> None:
    """Predicts the test case, and asserts what holds for every configuration."""
    tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", out, "-d", NUMBER, "-c", configuration, "-f", "all", "-tr",
             "nnUNetTrainerRMR_tiny", "-device", tiny.DEVICE, "--disable_tta", *options, env=env)
    scan = sitk.ReadImage(str(images / "caseTs0_0001.nii.gz"))
    for file in (out / "caseTs0.nii.gz", out / "fused" / "caseTs0.nii.gz"):
        result = sitk.ReadImage(str(file))
        assert result.GetSize() == scan.GetSize() and result.GetSpacing() == pytest.approx(SPACING)
    segmentation = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "caseTs0.nii.gz")))
    assert set(np.unique(segmentation)) <= {0, 1, 2}, "nobody wants the ignore label predicted"
    fused = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "fused" / "caseTs0.nii.gz")))
    assert np.isfinite(fused).all() and fused.std() > 0


def test_cascade_of_a_low_and_a_full_resolution_model_that_fuse_in_the_units_of_the_ct(difficult, nnunet, tmp_path):
    preprocessed = Path(nnunet["nnUNet_preprocessed"]) / f"Dataset{NUMBER}_Difficult"
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans | {"rmr": {"reference_modality": "CT"}}))
    log = train("3d_lowres", nnunet)
    assert "do_dummy_2d_data_aug: True" not in log  # isotropic enough at 4 x 2 x 2 mm
    of_lowres = model_folder("3d_lowres", nnunet) / "predicted_next_stage" / "3d_cascade_fullres"
    assert len(list(of_lowres.iterdir())) == 5, "the cascade trains on the first stage's segmentations of all cases"

    log = train("3d_cascade_fullres", nnunet)
    assert "do_dummy_2d_data_aug: True" in log, "thick slices are augmented within their planes"
    predict(difficult / "imagesTs", tmp_path / "low", "3d_lowres", nnunet)
    predict(difficult / "imagesTs", tmp_path / "full", "3d_cascade_fullres", nnunet, "-prev_stage_predictions",
            tmp_path / "low")
    ct = sitk.GetArrayFromImage(sitk.ReadImage(str(difficult / "imagesTs" / "caseTs0_0000.nii.gz")))
    body = ct > -1000
    for out in ("low", "full"):
        fused = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / out / "fused" / "caseTs0.nii.gz")))
        assert fused[body].mean() == pytest.approx(ct[body].mean(), abs=200), "Hounsfield units"
        assert np.corrcoef(fused[body], ct[body])[0, 1] > 0.5

    result = tiny.run("nnUNetv2_rmr_predict", "-i", difficult / "imagesTs", "-o", tmp_path / "none", "-d", NUMBER,
                      "-c", "3d_cascade_fullres", "-f", "all", "-tr", "nnUNetTrainerRMR_tiny", "-device", tiny.DEVICE,
                      env=nnunet, check=False)
    assert result.returncode == 1 and "(-prev_stage_predictions) has to say where" in result.stdout
    assert "Traceback" not in result.stdout
    result = tiny.run("nnUNetv2_rmr_benchmark", "-i", difficult / "imagesTs", "-l", difficult / "labelsTr", "-m",
                      f"cascade={model_folder('3d_cascade_fullres', nnunet)}", "-o", tmp_path / "benchmark",
                      "-f", "all", "-device", tiny.DEVICE, env=nnunet, check=False)
    assert result.returncode == 2 and "the second stage of a cascade needs the first one's predictions" in result.stdout


@pytest.fixture(scope="module")
def two_dimensional(difficult, nnunet) -> Path:
    """Folder of a 2D training with nnU-Net's experiment tracker."""
    train("2d", nnunet | {"nnUNet_wandb_enabled": "1", "nnUNet_wandb_mode": "offline", "WANDB_SILENT": "true"})
    return model_folder("2d", nnunet) / "fold_all"


def test_two_dimensional_configuration(two_dimensional, difficult, nnunet, tmp_path):
    predict(difficult / "imagesTs", tmp_path, "2d", nnunet)


def test_tracking_has_every_loss_term_and_the_panels(two_dimensional):
    run, = (two_dimensional / "wandb").glob("offline-run-*")
    tracked = next(run.glob("run-*.wandb")).read_bytes()
    for name in ("train_losses", *(f"loss_{term}" for term in TERMS)):
        assert name.encode() in tracked
    assert len(list((run / "files" / "media" / "images").glob("panel_*.png"))) == 4
