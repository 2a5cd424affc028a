"""`nnUNetv2_rmr_predict --demo`: what comes with the package."""

import os
import sys

import nibabel
import numpy as np
import pytest
import tiny

from nnunetv2_rmr.cli.predict import main
from nnunetv2_rmr.cli.predict_demo import CASE, DATA, IMAGES, LABELS, MODEL
from nnunetv2_rmr.inference.trust import load_data


def megabytes(folder) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def test_it_is_small_and_its_licence_lies_beside():
    assert megabytes(MODEL) < 5
    assert megabytes(IMAGES) + megabytes(LABELS) < 1
    assert "Apache-2.0" in (DATA / "DATA.md").read_text(encoding="utf-8")


def test_the_checkpoint_is_read_as_data_and_holds_no_more_than_prediction_needs():
    checkpoint = load_data(MODEL / "fold_0" / "checkpoint_final.pth")
    assert set(checkpoint) == {"network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes"}
    assert checkpoint["trainer_name"] == "nnUNetTrainerRMR"


def test_the_case_is_the_phantoms_of_today():
    """If not, the model is of yesterday, too: python benchmarks/make_demo_model.py makes both."""
    pytest.importorskip("nilearn")
    from nnunetv2_rmr.datasets.phantom import CHANNELS, simulate_case

    case = simulate_case(seed=0, index=int(CASE[-3:]))
    for number, channel in enumerate(CHANNELS):
        file = nibabel.load(IMAGES / f"{CASE}_{number:04d}.nii.gz")
        np.testing.assert_array_equal(np.asarray(file.dataobj), case.images[channel])
        np.testing.assert_array_equal(file.affine, case.affine)
    np.testing.assert_array_equal(np.asarray(nibabel.load(LABELS / f"{CASE}.nii.gz").dataobj), case.label)


def test_options_that_would_change_what_is_predicted_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_rmr_predict", "--demo", "-i", "my_images"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "-i my_images" in capsys.readouterr().err


@pytest.mark.slow
def test_a_new_user_sees_both_outputs_without_any_setting(tmp_path):
    bare = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    printed = tiny.run("nnUNetv2_rmr_predict", "--demo", "-o", tmp_path, env=bare | {"OMP_NUM_THREADS": "2"}).stdout
    dice = float(printed.split("Dice of the lesions: ")[1].split()[0])
    assert 0.8 < dice < 1
    assert f"{tmp_path / 'view.html'}" in printed
    page = (tmp_path / "view.html").read_text(encoding="utf-8")
    assert "fused" in page and "prediction" in page and "T1ce" in page
    segmentation, fused, flair = (nibabel.load(file) for file in (
        tmp_path / f"{CASE}.nii.gz", tmp_path / "fused" / f"{CASE}.nii.gz", IMAGES / f"{CASE}_0002.nii.gz"))
    assert segmentation.shape == fused.shape == flair.shape
    truth = np.asarray(nibabel.load(LABELS / f"{CASE}.nii.gz").dataobj) > 0
    found = np.asarray(segmentation.dataobj) > 0
    assert dice == pytest.approx(2 * (truth & found).sum() / (truth.sum() + found.sum()), abs=0.006)
