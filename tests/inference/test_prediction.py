"""Prediction through nnU-Net's commands, ours, and Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
import torch
from conftest import REGIONS

from nnunetv2_rmr.cli.predict import _without_workers
from nnunetv2_rmr.cli.predict_demo import IMAGES as DEMO_IMAGES
from nnunetv2_rmr.cli.predict_demo import MODEL as DEMO_MODEL

pytestmark = pytest.mark.slow

MODEL = ("-d", REGIONS, "-c", tiny.CONFIGURATION, "-tr", "nnUNetTrainerRMR_tiny", "-f", 0, 1, "-device", tiny.DEVICE)
WORKERS = ("-npp", 1, "-nps", 1)  # of nnU-Net's command, and of ours, which starts none by default on small machines


@pytest.fixture(scope="module")
def images(nnunet) -> Path:
    return Path(nnunet["nnUNet_raw"]) / f"Dataset{REGIONS}_Tiny" / "imagesTs"


@pytest.fixture(scope="module")
def predicted(trained, nnunet, images, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("rmr")
    tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", out, *MODEL, *WORKERS, "--save_probabilities", env=nnunet)
    return out


@pytest.fixture(scope="module")
def stock(trained, nnunet, images, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stock")
    tiny.run("nnUNetv2_predict", "-i", images, "-o", out, *MODEL, *WORKERS, "--save_probabilities", env=nnunet)
    return out


def files(folder: Path, pattern: str = "*.nii.gz") -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.glob(pattern)}


@tiny.bit_by_bit
def test_segmentations_are_the_stock_commands_byte_for_byte(predicted, stock):
    assert len(files(stock)) == 2
    assert files(predicted) == files(stock)
    for name in ("caseTs00.npz", "caseTs01.npz"):
        np.testing.assert_array_equal(*(np.load(f / name)["probabilities"] for f in (predicted, stock)))


def test_segmentations_are_the_stock_commands_on_any_device(predicted, stock):
    for name in ("caseTs00.npz", "caseTs01.npz"):
        ours, theirs = (np.load(f / name)["probabilities"] for f in (predicted, stock))
        np.testing.assert_allclose(ours, theirs, atol=0.05)  # half precision on a GPU
        assert ((ours > 0.5) != (theirs > 0.5)).mean() < 0.01


def test_stock_command_writes_nothing_else_unless_asked(stock):
    assert not (stock / "fused").exists()


def test_fused_volumes_lie_beside_in_units_and_grid_of_the_reference_modality(predicted, images):
    assert set(files(predicted / "fused")) == set(files(predicted))
    for name in files(predicted / "fused"):
        fused = sitk.ReadImage(str(predicted / "fused" / name))
        flair = sitk.ReadImage(str(images / name.replace(".nii.gz", "_0002.nii.gz")))
        assert fused.GetPixelID() == sitk.sitkFloat32
        for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(fused, what)() == getattr(flair, what)()
        fused, flair = sitk.GetArrayFromImage(fused), sitk.GetArrayFromImage(flair)
        body = flair > 0
        assert (fused[flair == 0] == 0).all()
        assert np.corrcoef(fused[body], flair[body])[0, 1] > 0.5
        assert 0.5 < fused[body].mean() / flair[body].mean() < 1.5


@tiny.bit_by_bit
def test_stock_command_saves_fused_volumes_if_the_environment_asks(predicted, nnunet, images, tmp_path):
    tiny.run("nnUNetv2_predict", "-i", images, "-o", tmp_path, *MODEL, *WORKERS,
             env=nnunet | {"nnUNet_rmr_save_fused": "1"})
    assert files(tmp_path) == files(predicted)
    assert files(tmp_path / "fused") == files(predicted / "fused")


def test_what_the_environment_asks_of_the_stock_command_leaves_our_own_command_as_it_is(tmp_path):
    ended = tiny.run("nnUNetv2_rmr_predict_from_modelfolder", "-i", DEMO_IMAGES, "-o", tmp_path, "-m", DEMO_MODEL,
                     "-f", 0, "-device", "cpu", "--resample_to", "PD",
                     env=os.environ | {"nnUNet_rmr_save_fused": "1"}, check=False)
    assert ended.returncode == 1 and "--resample_to PD: is none of the model's modalities" in ended.stdout


@tiny.bit_by_bit
def test_what_is_predicted_on_without_workers_is_the_same_and_both_outputs_count(predicted, nnunet, images, tmp_path):
    shutil.copytree(predicted, tmp_path, dirs_exist_ok=True)
    (tmp_path / "fused" / "caseTs00.nii.gz").unlink()
    kept = (tmp_path / "fused" / "caseTs01.nii.gz").stat().st_mtime_ns
    output = tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", tmp_path, *MODEL, "--continue_prediction", "-npp", 0,
                      "-nps", 0, env=nnunet).stdout
    assert "1 case(s) are complete, 1 to go" in output
    assert files(tmp_path) == files(predicted) and files(tmp_path / "fused") == files(predicted / "fused")
    assert (tmp_path / "fused" / "caseTs01.nii.gz").stat().st_mtime_ns == kept


@pytest.mark.parametrize(("cores", "asked", "counts"), [
    (2, [], {"num_processes_preprocessing": 0, "num_processes_segmentation_export": 0}),
    (2, ["-npp", "2"], {"num_processes_segmentation_export": 0}),
    (2, ["-npp=2", "-nps=2"], {}),
    (8, [], {}),
])
def test_small_machines_start_no_worker_processes_unless_told(monkeypatch, cores, asked, counts):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert _without_workers(["-i", "in", *asked]) == counts


def test_parts_share_the_work(trained, nnunet, images, tmp_path):
    tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", tmp_path, *MODEL, "-num_parts", 2, "-part_id", 1, "-npp", 0,
             "-nps", 0, "-p", "nnUNetPlans", env=nnunet)
    assert set(files(tmp_path)) == set(files(tmp_path / "fused")) == {"caseTs01.nii.gz"}


@tiny.bit_by_bit
def test_bad_cases_are_named_and_the_others_done(trained, predicted, nnunet, images, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(images, folder)

    def bad_case(case: str) -> list[Path]:
        targets = [folder / f"{case}_{i:04d}.nii.gz" for i in range(3)]
        for i, target in enumerate(targets):
            shutil.copy(images / f"caseTs00_{i:04d}.nii.gz", target)
        return targets

    def change(file: Path, function) -> None:
        image = sitk.ReadImage(str(file))
        array = function(sitk.GetArrayFromImage(image))
        changed = sitk.GetImageFromArray(array)
        if array.shape == image.GetSize()[::-1]:
            changed.CopyInformation(image)
        sitk.WriteImage(changed, str(file))

    bad_case("missing")[1].unlink()
    change(bad_case("nan")[0], lambda a: np.where(a > 100, np.nan, a).astype(np.float32))
    change(bad_case("constant")[2], lambda a: np.zeros_like(a))
    change(bad_case("grid")[1], lambda a: a[:-2])
    truncated = bad_case("truncated")[0]
    truncated.write_bytes(truncated.read_bytes()[:2000])
    shutil.copy(images / "caseTs00_0000.nii.gz", folder / "surplus_0003.nii.gz")
    bad_case("surplus")
    bad_case("numbers")[1].rename(folder / "numbers_0003.nii.gz")  # as many files as modalities
    change(bad_case("huge")[1], lambda a: np.where(a == a.max(), 1e30, a).astype(np.float32))
    change(bad_case("complex")[1], lambda a: (a + 1j).astype(np.complex64))
    sitk.WriteImage(sitk.ReadImage(str(bad_case("twin")[0])), str(folder / "twin_0000.nii"))
    bad_case("ending.nii")
    for stray in ("caseTs00_seg.nii.gz", "._caseTs00_0000.nii.gz"):  # the second is macOS's
        shutil.copy(images / "caseTs00_0000.nii.gz", folder / stray)

    result = tiny.run("nnUNetv2_rmr_predict", "-i", folder, "-o", out, *MODEL, *WORKERS, env=nnunet, check=False)
    assert result.returncode == 1
    assert "passed over, since not named like CASE_0000.nii.gz: caseTs00_seg.nii.gz\n" in result.stdout
    report = result.stdout[result.stdout.index("nnUNetv2_rmr_predict: error:"):]
    assert "Traceback" not in report
    assert "11 case(s) could not be predicted" in report
    for words in (["missing_0001.nii.gz (T2) missing"], ["nan_0000.nii.gz", "NaN"], ["grid_0001.nii.gz", "size"],
                  ["constant_0002.nii.gz", "constant"], ["truncated_0000.nii.gz", "damaged"],
                  ["surplus_0003.nii.gz", "remove"], ["numbers_0001.nii.gz (T2) missing", "numbers_0003.nii.gz"],
                  ["huge_0001.nii.gz", "beyond"],
                  ["complex_0001.nii.gz", "complex"], ["twin_0000.nii.gz", "twin_0000.nii"],
                  ["ending.nii", "rename"]):
        assert any(all(word in line for word in words) for line in report.splitlines()), (words, report)
    assert files(out) == files(predicted)
    assert files(out / "fused") == files(predicted / "fused")


def test_a_folder_that_is_not_there_is_named_at_once_and_leaves_nothing(nnunet, tmp_path):
    result = tiny.run("nnUNetv2_rmr_predict", "-i", tmp_path / "nowhere", "-o", tmp_path / "out", *MODEL, env=nnunet,
                      check=False)
    assert result.returncode == 1 and f"error: -i {tmp_path / 'nowhere'}: there is no such folder" in result.stdout
    assert not (tmp_path / "out").exists()


def test_a_case_that_can_not_be_written_stops_no_other_and_half_a_file_is_not_done(trained, predicted, nnunet, images,
                                                                                   tmp_path):
    command = ("nnUNetv2_rmr_predict", "-i", images, "-o", tmp_path, *MODEL)
    in_the_way = tmp_path / "caseTs00.nii.gz", tmp_path / "fused" / "caseTs00.nii.gz"  # of one case
    for folder in in_the_way:
        folder.mkdir(parents=True)
    result = tiny.run(*command, env=nnunet, check=False)
    assert result.returncode == 1 and "caseTs00: no segmentation" in result.stdout
    assert "1 case(s) could not be predicted" in result.stdout
    assert {f.name for f in tmp_path.iterdir() if f.name.startswith("case")} == {"caseTs00.nii.gz", "caseTs01.nii.gz"}
    for folder in in_the_way:
        folder.rmdir()
    done = tmp_path / "caseTs01.nii.gz"
    done.write_bytes(done.read_bytes()[:-10])  # as a killed nnU-Net leaves it
    assert "0 case(s) are complete, 2 to go" in tiny.run(*command, "--continue_prediction", env=nnunet).stdout
    assert files(tmp_path) == files(predicted)


def test_what_can_not_be_predicted_with_is_named(trained, nnunet, images, tmp_path):
    command = ("nnUNetv2_rmr_predict_from_modelfolder", "-i", images, "-o", tmp_path, "-m", trained)
    message = tiny.run(*command, "-f", 0, 4, "-device", tiny.DEVICE, env=nnunet, check=False).stdout
    assert f"no fold_4/checkpoint_final.pth in {trained}; there are (options -f and -chk): fold_0/" in message
    message = tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", tmp_path, "-d", 998, "-c", "3d_fullres", env=nnunet,
                       check=False).stdout
    assert "nnUNetv2_rmr_predict: error: Could not find a dataset with the ID 998" in message
    assert "Traceback" not in message
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "flair.nii.gz").touch()
    message = tiny.run(*command, "-i", tmp_path / "scans", "-f", 0, "-device", tiny.DEVICE, env=nnunet,
                       check=False).stdout  # the last -i counts
    assert f"error: no case in {tmp_path / 'scans'}: the files of one have to be named CASE_0000.nii.gz (T1)" in message
    if not torch.cuda.is_available():
        message = tiny.run(*command, "-f", 0, env=nnunet, check=False).stdout
        assert "-device cuda: torch finds no CUDA device; try -device cpu" in message and "Traceback" not in message


@tiny.bit_by_bit
def test_find_best_configuration_ensemble_and_model_sharing_work_as_for_vanilla(trained, nnunet, predicted, images,
                                                                                tmp_path):
    tiny.run("nnUNetv2_find_best_configuration", REGIONS, "-c", tiny.CONFIGURATION, "-tr", "nnUNetTrainerRMR_tiny",
             "-f", 0, 1, "-np", 1, env=nnunet)
    ensembled = tmp_path / "ensemble"
    tiny.run("nnUNetv2_ensemble", "-i", predicted, predicted, "-o", ensembled, "-np", 1, env=nnunet)
    assert set(files(ensembled)) == set(files(predicted))

    archive, installed = tmp_path / "model.zip", tmp_path / "results"
    tiny.run("nnUNetv2_export_model_to_zip", "-d", REGIONS, "-o", archive, "-c", tiny.CONFIGURATION,
             "-tr", "nnUNetTrainerRMR_tiny", "-f", 0, 1, env=nnunet)
    installed.mkdir()
    env = nnunet | {"nnUNet_results": str(installed)}
    tiny.run("nnUNetv2_install_pretrained_model_from_zip", archive, env=env)
    model = installed / f"Dataset{REGIONS}_Tiny" / f"nnUNetTrainerRMR_tiny__nnUNetPlans__{tiny.CONFIGURATION}"
    out = tmp_path / "installed"
    tiny.run("nnUNetv2_rmr_predict_from_modelfolder", "-i", images, "-o", out, "-m", model, "-f", 0, 1,
             "-device", tiny.DEVICE, "-npp", 1, "-nps", 1, env=env)
    assert files(out) == files(predicted)
    assert files(out / "fused") == files(predicted / "fused")


@tiny.bit_by_bit
def test_predictor_is_a_drop_in_from_files_arrays_and_single_arrays(trained, predicted, nnunet, images, tmp_path):
    script = tiny.ROOT / "tests" / "predict_from_python.py"
    subprocess.run([sys.executable, str(script), str(trained), str(images), str(tmp_path)], env=nnunet, check=True)
    expected = {n: sitk.GetArrayFromImage(sitk.ReadImage(str(predicted / n))) for n in files(predicted)}
    expected_fused = {n: sitk.GetArrayFromImage(sitk.ReadImage(str(predicted / "fused" / n))) for n in expected}
    for way in ("sequential", "sequential_in_memory", "arrays", "single"):
        got, names = np.load(tmp_path / f"{way}.npz"), sorted(expected)[:1 if way == "single" else 2]
        assert len(got) == 2 * len(names), way
        for i, name in enumerate(names):
            np.testing.assert_array_equal(got[f"segmentation{i}"], expected[name], err_msg=way)
            np.testing.assert_array_equal(got[f"fused{i}"], expected_fused[name], err_msg=way)
