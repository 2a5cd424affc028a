"""--register_to and --resample_to of the commands, from files to files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
from conftest import REGIONS
from small_heads import elsewhere, head
from two_places import move_qform

from nnunetv2_rmr.cli.import_dataset import main
from nnunetv2_rmr.registration.folder import place_cases

MODEL = {"channel_names": {"0": "T1", "1": "FLAIR"}, "file_ending": ".nii.gz"}


def pixels(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def geometry(file: Path) -> list[list[float]]:
    image = sitk.ReadImage(str(file))
    return [np.round(getattr(image, f"Get{what}")(), 4).tolist() for what in ("Size", "Spacing", "Origin", "Direction")]


def write_patients(folder: Path, shift=(0.0, 0.0, 0.0), flair=None) -> Path:
    """Patients A and B, T1, FLAIR and label in a folder each; in A's FLAIR the patient has moved."""
    for case, seed, moved in (("A", 0, shift), ("B", 1, (0.0, 0.0, 0.0))):
        t1, other = head(seed)
        image = elsewhere(other, moved)[0]
        (folder / case).mkdir(parents=True)
        sitk.WriteImage(t1, str(folder / case / "t1.nii.gz"))
        sitk.WriteImage(flair(image) if flair else image, str(folder / case / "flair.nii.gz"))
        sitk.WriteImage(sitk.Cast(t1 > 120, sitk.sitkUInt8), str(folder / case / "seg.nii.gz"))
    return folder


def imported(source: Path, *options: str) -> Path:
    out = source.parent / "raw"
    main(["-i", str(source), "-d", "7", "-n", "X", "-o", str(out), "--modality", "T1=t1.nii.gz", "FLAIR=flair.nii.gz",
          "--label", "seg.nii.gz", "--overwrite", *options])
    return out / "Dataset007_X"


# ---- import ---------------------------------------------------------------------------------------------------------

def test_import_warns_of_a_patient_who_moved_and_of_no_other(tmp_path, capsys):
    imported(write_patients(tmp_path / "scans", (9.0, 6.0, 0.0)))
    warning, = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert "A: FLAIR seems to lie 11 mm away from T1" in warning


def test_import_registers_to_the_named_modality_and_leaves_it_and_the_label_alone(tmp_path, capsys):
    source = write_patients(tmp_path / "scans", (9.0, 6.0, 0.0))
    data = imported(source, "--register_to", "T1")
    out = capsys.readouterr().out
    assert "WARNING" not in out and "A, FLAIR: shift 10." in out and "B, FLAIR: shift 0." in out
    for case in "AB":
        for theirs, ours in (("t1", f"imagesTr/{case}_0000"), ("seg", f"labelsTr/{case}")):
            assert (data / f"{ours}.nii.gz").read_bytes() == (source / case / f"{theirs}.nii.gz").read_bytes()
    truth = sitk.GetArrayFromImage(head(0)[1])
    registered, moved = pixels(data / "imagesTr" / "A_0001.nii.gz"), pixels(source / "A" / "flair.nii.gz")
    assert np.abs(registered - truth).mean() < 0.3 * np.abs(moved - truth).mean()
    assert np.array_equal(pixels(data / "imagesTr" / "B_0001.nii.gz"), pixels(source / "B" / "flair.nii.gz"))


def test_where_registration_fails_import_says_so_and_only_resamples(tmp_path, capsys):
    source = write_patients(tmp_path / "scans", flair=lambda image: image[:, :, 17:20])
    data = imported(source, "--register_to", "T1")
    assert capsys.readouterr().out.count("registration failed") >= 2
    resampled, original = pixels(data / "imagesTr" / "A_0001.nii.gz"), pixels(source / "A" / "flair.nii.gz")
    np.testing.assert_allclose(resampled[18], original[1], rtol=1e-5)


@pytest.mark.parametrize(("options", "message"), [
    (("--register_to", "CT"), "--register_to CT: is none of the modalities (T1, FLAIR)"),
    (("--register_to", "T1", "--resample_to", "T1"), "--resample_to: not allowed with argument --register_to")])
def test_import_refuses_options_that_make_no_sense(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        imported(tmp_path, *options)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


# ---- a folder for prediction ----------------------------------------------------------------------------------------

def write_folder(folder: Path, shift=(9.0, 6.0, 0.0)) -> Path:
    folder.mkdir()
    for case in "AB":
        t1, other = head()
        sitk.WriteImage(t1, str(folder / f"{case}_0000.nii.gz"))
        sitk.WriteImage(elsewhere(other, shift)[0][2:, 3:, 1:-2], str(folder / f"{case}_0001.nii.gz"))
    return folder


@pytest.mark.parametrize("registering", [False, True])
def test_all_modalities_lie_on_the_grid_of_the_named_one(tmp_path, registering, capsys):
    source = write_folder(tmp_path / "in")
    folder, failures = place_cases(str(source), tmp_path / "out", MODEL, "FLAIR", registering)
    files = sorted(Path(folder).iterdir())
    assert [file.name for file in files] == [f"{case}_000{i}.nii.gz" for case in "AB" for i in (0, 1)]
    assert all(geometry(file) == geometry(source / "A_0001.nii.gz") for file in files)
    assert files[1].read_bytes() == (source / "A_0001.nii.gz").read_bytes() and not failures
    assert ("A, T1: shift 10." in capsys.readouterr().out) == registering


def test_bad_cases_are_named_and_the_others_are_there(tmp_path):
    source = write_folder(tmp_path / "in")
    (source / "A_0001.nii.gz").write_bytes((source / "A_0001.nii.gz").read_bytes()[:2000])
    folder, failures = place_cases(str(source), tmp_path / "out", MODEL, "T1", False)
    assert list(failures) == ["A"] and "A_0001.nii.gz" in failures["A"]
    assert sorted(file.name for file in Path(folder).iterdir()) == ["B_0000.nii.gz", "B_0001.nii.gz"]


def test_a_modality_may_be_missing_if_that_is_allowed_but_not_the_named_one(tmp_path):
    source = write_folder(tmp_path / "in")
    (source / "A_0001.nii.gz").unlink()
    folder, failures = place_cases(str(source), tmp_path / "out", MODEL, "T1", True, missing=True)
    assert len(list(Path(folder).iterdir())) == 3 and not failures
    for name, missing in (("T1", False), ("FLAIR", True)):
        _, failures = place_cases(str(source), tmp_path / name, MODEL, name, True, missing)
        assert "A_0001.nii.gz (FLAIR) missing" in failures["A"]


@pytest.mark.parametrize("registering", [False, True])
def test_a_header_that_places_its_image_twice_is_told_before_it_is_written_anew(tmp_path, registering, capsys):
    source = write_folder(tmp_path / "in")
    move_qform(source / "A_0000.nii.gz", 11)
    for i in (0, 1):
        move_qform(source / f"B_000{i}.nii.gz", 11)
    _, failures = place_cases(str(source), tmp_path / "out", MODEL, "FLAIR", registering)
    assert list(failures) == ["A"] and "A_0000.nii.gz: by its sform it lies up to 11 mm from" in failures["A"]
    assert "B, WARNING: " in (told := capsys.readouterr().out) and "all files of the case agree in that" in told


def test_with_no_good_case_there_are_reasons_and_nothing_to_predict(tmp_path):
    source = write_folder(tmp_path / "in")
    for case in "AB":
        (source / f"{case}_0001.nii.gz").unlink()
    left, failures = place_cases(str(source), tmp_path / "out", MODEL, "T1", True)
    assert left == [] and list(failures) == ["A", "B"]


# ---- prediction -----------------------------------------------------------------------------------------------------

def predict(images: Path, out: Path, env: dict[str, str], *options: str, check: bool = True):
    return tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", out, "-d", REGIONS, "-c", tiny.CONFIGURATION, "-tr",
                    "nnUNetTrainerRMR_tiny", "-f", 0, "-device", tiny.DEVICE, *options, env=env, check=check)


@pytest.fixture(scope="module")
def images(nnunet) -> Path:
    return Path(nnunet["nnUNet_raw"]) / f"Dataset{REGIONS}_Tiny" / "imagesTs"


@pytest.mark.slow
def test_prediction_of_other_grids_is_that_of_the_resampled_scans(trained, nnunet, images, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(images, other)
    for file in other.glob("*_0002.nii.gz"):  # the same voxels, and a margin
        sitk.WriteImage(sitk.ConstantPad(sitk.ReadImage(str(file)), (2, 3, 1), (4, 0, 2)), str(file))
    refused = predict(other, tmp_path / "refused", nnunet, check=False)
    assert refused.returncode and "does not lie on the grid" in refused.stdout
    predict(images, tmp_path / "plain", nnunet)
    predict(other, tmp_path / "resampled", nnunet, "--resample_to", "T1")
    for file in ("caseTs00.nii.gz", "caseTs01.nii.gz"):
        np.testing.assert_array_equal(pixels(tmp_path / "plain" / file), pixels(tmp_path / "resampled" / file))
        assert geometry(tmp_path / "resampled" / "fused" / file) == geometry(images / "caseTs00_0000.nii.gz")
    assert not list((tmp_path / "resampled").glob(".*"))


@pytest.mark.slow
def test_prediction_registers_names_bad_cases_and_does_the_others(trained, nnunet, images, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(images, moved)
    (moved / "caseTs01_0001.nii.gz").unlink()
    image = sitk.ReadImage(str(moved / "caseTs00_0001.nii.gz"))
    image.SetOrigin((4, 0, 0))
    sitk.WriteImage(image, str(moved / "caseTs00_0001.nii.gz"))
    result = predict(moved, tmp_path / "out", nnunet, "--register_to=T1", check=False)
    told = result.stdout[result.stdout.index("could not be predicted (the others are done)"):]
    assert result.returncode == 1 and "caseTs01_0001.nii.gz (T2) missing" in told
    shift = float(result.stdout.split("caseTs00, T2: shift ")[1].split(" mm")[0])
    assert shift == pytest.approx(4, abs=1)
    for file in (tmp_path / "out" / "caseTs00.nii.gz", tmp_path / "out" / "fused" / "caseTs00.nii.gz"):
        assert geometry(file) == geometry(images / "caseTs00_0000.nii.gz")
    assert not list((tmp_path / "out").glob(".*")) and not (tmp_path / "out" / "caseTs01.nii.gz").exists()


@pytest.mark.slow
def test_prediction_refuses_what_is_no_modality(trained, nnunet, images, tmp_path):
    for options, message in ((("--register_to", "PET"), "--register_to PET: is none of the model's modalities (T1, T2"),
                             (("--register_to",), "argument --register_to: expected one argument"),
                             (("--register_to", "T1", "--resample_to", "T1"), "not allowed with argument")):
        result = predict(images, tmp_path / "out", nnunet, *options, check=False)
        assert result.returncode and message in result.stdout and "Traceback" not in result.stdout


@pytest.mark.slow
def test_prediction_warns_of_a_patient_who_moved(trained, nnunet, tmp_path):
    (tmp_path / "in").mkdir()
    for case, shift in (("A", (9.0, 6.0, 0.0)), ("B", (0.0, 0.0, 0.0))):
        t1, other = head()
        for i, image in enumerate((t1, other, elsewhere(other, shift)[0])):
            sitk.WriteImage(image + 0.01 * i, str(tmp_path / "in" / f"{case}_000{i}.nii.gz"))
    result = predict(tmp_path / "in", tmp_path / "out", nnunet, "--disable_tta", "-step_size", "1")  # 450 patches
    warning, = [line for line in result.stdout.splitlines() if "seems to lie" in line]
    assert "WARNING: case A: FLAIR seems to lie 11 mm away from T1" in warning
