"""nnUNetv2_rmr_import --series: a data set of DICOM studies."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
from dicom_files import assert_same_in_the_patient, by_gdcm, random_volume, write_series

from nnunetv2_rmr.cli.import_dataset import main
from nnunetv2_rmr.dicom.series import matched_series

pytest.importorskip("pydicom")
pytest.importorskip("dcm2niix")

SARCOMA = tiny.ROOT.parent / "shared" / "data" / "sarcoma_dicom"
SERIES = ("T1=*t1*", "FLAIR=2")


@pytest.fixture(autouse=True)
def no_nnunet_folders(monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)


def write_study(folder: Path, seed: int) -> list[Path]:
    """T1, FLAIR and a label beside them; returns the files of FLAIR."""
    write_series(folder / "scans", random_volume(seed), "T1 ax", number=1)
    files = write_series(folder / "scans", random_volume(seed + 100), "FLAIR", number=2)
    label = sitk.Cast(by_gdcm(files) > 500, sitk.sitkUInt8)
    (folder / "seg").mkdir()
    sitk.WriteImage(label, str(folder / "seg" / "lesion.nii.gz"))
    return files


@pytest.fixture
def studies(tmp_path) -> Path:
    for seed, case in enumerate("AB"):
        write_study(tmp_path / "studies" / case, seed)
    return tmp_path / "studies"


def command(studies: Path, *options) -> list[str]:
    return ["-i", str(studies), "-o", str(studies.parent / "raw"), "-d", "7", "-n", "Test", "-np", "1", "--series",
            *SERIES, "--label", "seg/*.nii.gz", "--resample_to", "T1", *map(str, options)]


def run(studies: Path, *options) -> Path:
    raw = studies.parent / "raw"
    main(command(studies, *options))
    assert os.listdir(raw) == ["Dataset007_Test"], "nothing converted is left"
    return raw / "Dataset007_Test"


def refusal(studies: Path, *options, capsys=None) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(studies, *options)
    assert not [*(studies.parent / "raw").glob("*")] and not [*(studies.parent / "raw").glob(".*")]
    return capsys.readouterr().err if stopped.value.code == 2 else str(stopped.value)


def files(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir())


def test_channels_are_the_series_in_order_and_labels_lie_beside(studies):
    out = run(studies)
    assert files(out / "imagesTr") == [f"{case}_000{i}.nii.gz" for case in "AB" for i in (0, 1)]
    assert files(out / "labelsTr") == ["A.nii.gz", "B.nii.gz"]
    assert json.loads((out / "dataset.json").read_text())["channel_names"] == {"0": "T1", "1": "FLAIR"}
    for i, series in enumerate(matched_series(studies / "B", {"T1": "1", "FLAIR": "2"}).values()):
        assert_same_in_the_patient(sitk.ReadImage(str(out / "imagesTr" / f"B_000{i}.nii.gz")), by_gdcm(series.files))
        label = out / "labelsTr" / f"{'AB'[i]}.nii.gz"
        assert_same_in_the_patient(sitk.ReadImage(str(label)),
                                   sitk.ReadImage(str(studies / "AB"[i] / "seg" / "lesion.nii.gz")))
        assert not label.is_symlink()


def test_a_bad_study_is_told_with_all_others_problems_and_skipped_if_asked(studies, capsys):
    write_study(studies / "C", 5)[2].unlink()
    (studies / "B" / "seg" / "lesion.nii.gz").unlink()
    said = refusal(studies)
    assert "2 of 3 cases can not be imported" in said
    assert 'C\n    - series 2 "FLAIR" (5 images): slices are missing' in said
    assert "label missing" in said
    out = run(studies, "--skip_bad_cases")
    assert files(out / "labelsTr") == ["A.nii.gz"] and "skipped C:" in capsys.readouterr().out


def test_a_bad_study_can_be_named_as_a_test_case(studies):
    write_study(studies / "C", 5)[2].unlink()
    assert files(run(studies, "--test_cases", "B", "C", "--skip_bad_cases") / "imagesTs")[0] == "B_0000.nii.gz"


def test_unlabelled_studies_lie_in_a_folder_of_their_own_or_among_the_others(studies, tmp_path, capsys):
    write_study(tmp_path / "more" / "U", 9)
    (studies / "B" / "seg" / "lesion.nii.gz").unlink()
    assert files(run(studies, "--unlabelled", studies) / "imagesUn") == ["B_0000.nii.gz", "B_0001.nii.gz"]
    (studies / "B").rename(tmp_path / "B")
    write_study(tmp_path / "more" / "bad", 8)[2].unlink()
    out = run(studies, "--unlabelled", tmp_path / "more", "--overwrite", "--skip_bad_cases")
    assert files(out / "imagesUn") == ["U_0000.nii.gz", "U_0001.nii.gz"]
    assert "skipped more/bad" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "told"), [
    (("--modality", "T1=*t1.nii.gz"), "not allowed with argument"),
    (("--link", "sym"), "--link sym"),
    (("--layout", "flat"), "--layout flat"),
    (("--series", "a/b=1"), "the name a/b"),
])
def test_options_that_can_not_be_meant_are_refused(studies, capsys, options, told):
    assert told in refusal(studies, *options, capsys=capsys)


def test_without_the_extra_it_says_what_to_install(studies, monkeypatch):
    monkeypatch.setattr("nnunetv2_rmr.dicom.installed.find_spec", lambda name: None)
    assert 'needs pydicom and dcm2niix and highdicom: pip install "nnunetv2-rmr[dicom]"' in refusal(studies)


def test_messages_name_study_modality_and_series_in_the_place_of_hidden_files(studies):
    for file in (studies / "A" / "scans").glob("2_*.dcm"):
        file.unlink()
    write_series(studies / "A" / "scans", random_volume(0), "FLAIR", number=2, spacing=(1, 1, 2.5))
    with pytest.raises(SystemExit) as stopped:
        main([text for text in command(studies) if text not in ("--resample_to", "T1")])
    said = str(stopped.value)
    assert f'{studies}/A: FLAIR (series 2 "FLAIR" (6 images)): not on the grid of the case' in said
    assert f"{studies}/A/seg/lesion.nii.gz: not on the grid" in said and ".tmp." not in said


def test_a_label_that_no_study_has_is_told_before_anything_is_converted(studies, monkeypatch):
    monkeypatch.setattr("nnunetv2_rmr.dicom.convert.match_studies", None)
    assert f"no file in the folders of {studies} is matched by --label *.nrrd" in refusal(studies, "--label", "*.nrrd")


def test_a_data_set_that_exists_is_told_before_anything_is_converted(studies, monkeypatch):
    run(studies)
    monkeypatch.setattr("nnunetv2_rmr.dicom.convert.match_studies", None)
    with pytest.raises(SystemExit, match="exists already"):
        run(studies)


@pytest.mark.real_data
@pytest.mark.skipif(not SARCOMA.is_dir(), reason=f"no DICOM studies in {SARCOMA}")
def test_real_patients_become_a_data_set(tmp_path):
    studies = tmp_path / "studies"
    for patient in ("STS_002", "STS_025"):
        (studies / patient).mkdir(parents=True)
        for modality in ("CT", "PET", "MR_T1"):
            (studies / patient / modality).symlink_to(SARCOMA / patient / modality)
        pet = by_gdcm(matched_series(studies / patient, {"PET": "*PET*"})["PET"].files)
        sitk.WriteImage(sitk.Cast(pet > 4, sitk.sitkUInt8), str(studies / patient / "hot.nii.gz"))
    main(["-i", str(studies), "-o", str(tmp_path / "raw"), "-d", "7", "-n", "Test", "-np", "1", "--series",
          "CT=*CT*", "PET=*PET*", "MR_T1=*MR*", "--label", "hot.nii.gz", "--resample_to", "CT"])
    for patient in ("STS_002", "STS_025"):
        ct = by_gdcm(matched_series(studies / patient, {"CT": "*ct*"})["CT"].files)
        image, *others = (sitk.ReadImage(str(tmp_path / "raw" / "Dataset007_Test" / f)) for f in (
            f"imagesTr/{patient}_0000.nii.gz", f"imagesTr/{patient}_0001.nii.gz", f"imagesTr/{patient}_0002.nii.gz",
            f"labelsTr/{patient}.nii.gz"))
        assert_same_in_the_patient(image, ct)
        for other in others:
            assert (other.GetSize(), other.GetOrigin()) == (image.GetSize(), image.GetOrigin())
        pet, label = (sitk.GetArrayFromImage(other) for other in (others[0], others[2]))
        assert pet[label == 1].mean() > 4 > pet[label == 0].mean()
        assert np.corrcoef(pet.ravel(), label.ravel())[0, 1] > 0.3


@pytest.mark.real_data
@pytest.mark.skipif(not SARCOMA.is_dir(), reason=f"no DICOM studies in {SARCOMA}")
@pytest.mark.parametrize("patient", ["STS_002", "STS_025"])
def test_every_real_scan_is_what_gdcm_reads(tmp_path, patient):
    from nnunetv2_rmr.dicom.convert import convert_series

    for name, series in matched_series(SARCOMA / patient, {"CT": "*CT*", "PET": "*PET*", "MR": "*MR*"}).items():
        convert_series(series, tmp_path / f"{name}.nii.gz")
        assert_same_in_the_patient(sitk.ReadImage(str(tmp_path / f"{name}.nii.gz")), by_gdcm(series.files), rtol=2e-6)
