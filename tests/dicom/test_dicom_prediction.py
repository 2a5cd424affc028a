"""nnUNetv2_rmr_predict --series: DICOM studies are predicted as the images in them are."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
from conftest import REGIONS
from dicom_files import assert_same_in_the_patient, random_volume, read_series, write_series
from outputs import write_outputs

from nnunetv2_rmr.cli import predict
from nnunetv2_rmr.cli.dicom_cases import Studies, check_grid
from nnunetv2_rmr.cli.predict_demo import MODEL as DEMO_MODEL
from nnunetv2_rmr.files.refused import BadCaseError

pytest.importorskip("pydicom")
pytest.importorskip("dcm2niix")

SERIES = ("--series", "flair=*flair*", "T2=2", "T1=t1*")  # not in the model's order
SARCOMA = tiny.ROOT.parent / "shared" / "data" / "sarcoma_dicom"
MODEL = ("-d", REGIONS, "-c", tiny.CONFIGURATION, "-tr", "nnUNetTrainerRMR_tiny", "-f", 0, "-device", tiny.DEVICE,
         "--disable_tta")


def test_the_option_is_taken_out_of_the_command_line():
    nnunets = ["-i", "in", "-f", "0", "1", "-step_size", "0.5"]
    given, rest = predict.parser().parse_known_args([*nnunets[:2], *SERIES, *nnunets[2:]])
    assert given.series == {"flair": "*flair*", "T2": "2", "T1": "t1*"} and rest == nnunets
    assert predict.parser().parse_known_args(nnunets)[0].series == {}


def write_model(folder: Path, *modalities: str) -> None:
    content = {"channel_names": dict(enumerate(modalities)), "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    (folder / "plans.json").touch()


@pytest.mark.parametrize("series", [{"T1": "1"}, {"T1": "1", "CT": "2"}, {"T1": "1", "T2": "2", "PD": "3"},
                                    {"T1": "1", "t1": "2", "T2": "3"}])
def test_names_have_to_be_the_models_before_anything_is_read(tmp_path, series):
    write_model(tmp_path, "T1", "T2")
    with pytest.raises(BadCaseError, match="the modalities of the model are T1, T2"):
        Studies.find(Path("no such folder"), tmp_path, series, False)


@pytest.fixture
def two_studies(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A folder of studies A and B, and that of a model; nothing of PyTorch can be imported."""
    write_model(tmp_path, "T1", "T2")
    for case in "AB":
        for number, name in enumerate(("T1", "T2"), 1):
            write_series(tmp_path / "in" / case / name, random_volume(number), f"{name} ax", number=number,
                         PatientID=case)
    monkeypatch.setitem(sys.modules, "torch", None)
    return tmp_path / "in", tmp_path


@pytest.mark.parametrize(("series", "told"), [
    (("T1=1", "PD=2"), "--series names T1, PD, but the modalities of the model are T1, T2"),
    (("T1=1",), "--series names T1, but the modalities"),
    (("T1=1", "T2=*pd*"), r'(?s)no case in .*A: .*T2=\*pd\*: no series matches \(there are 1 "T1 ax".*B: ')])
def test_wrong_names_and_patterns_are_told_before_anything_is_loaded(two_studies, monkeypatch, series, told):
    studies, model = two_studies
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_rmr_predict_from_modelfolder", "-i", str(studies), "-o", "out", "-m",
                                      str(model), "--series", *series])
    with pytest.raises(SystemExit, match=told):
        predict.main_modelfolder()


@pytest.mark.parametrize(("content", "told"), [(None, "no trained model in {}"), ("{", "{}/dataset.json: is none of"),
                                               ("{}", "{}/dataset.json: is none of nnU-Net's")])
def test_a_missing_or_damaged_model_is_told_before_the_studies_are_read(two_studies, monkeypatch, content, told):
    studies, model = two_studies[0], two_studies[1] / "model"
    model.mkdir()
    if content:
        write_model(model)
        (model / "dataset.json").write_text(content)
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_rmr_predict_from_modelfolder", "-i", str(studies), "-o", "out", "-m",
                                      str(model), "--series", "T1=1", "T2=2"])
    with pytest.raises(SystemExit, match=told.format(model)):
        predict.main_modelfolder()


def find(two_studies: tuple[Path, Path]) -> Studies:
    return Studies.find(*two_studies, {"T2": "2", "T1": "1"}, False)


def test_channels_are_numbered_by_the_model_and_what_is_done_is_not_converted_again(two_studies, tmp_path):
    listed, refused = find(two_studies).convert(tmp_path / "out", "A".__eq__)
    assert listed == [[str(tmp_path / "out" / f"{case}_000{i}.nii.gz") for i in (0, 1)] for case in "AB"]
    assert not refused and sorted(f.name for f in (tmp_path / "out").iterdir()) == ["B_0000.nii.gz", "B_0001.nii.gz"]
    for i, name in enumerate(("T1", "T2")):
        assert_same_in_the_patient(sitk.ReadImage(listed[1][i]), read_series(two_studies[0] / "B" / name))


def test_parts_share_out_all_cases_the_bad_ones_too(two_studies):
    shutil.rmtree(two_studies[0] / "A" / "T2")
    parts = [find(two_studies).part(part_id=i, num_parts=2) for i in (0, 1)]
    assert [([*part.series], [*part.refused]) for part in parts] == [([], ["A"]), (["B"], [])]


def test_outputs_become_dicom_of_their_own_patient_and_series_and_again_once_they_are_newer(two_studies, tmp_path):
    highdicom, pydicom, out = pytest.importorskip("highdicom"), pytest.importorskip("pydicom"), tmp_path / "out"
    model = {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz", "labels": {"background": 0, "a": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(model))
    studies = find(two_studies)
    listed, _ = studies.convert(tmp_path / "images", lambda case: False)
    for case, (file, _) in zip("AB", listed):
        write_outputs(out, two_studies[0] / case / "T2", None, sitk.GetArrayFromImage(sitk.ReadImage(file)) > 500, case)
    studies.write_dicom(out, "model", 1, fuses=False)
    made = {case: out / "dicom" / case / "segmentation.dcm" for case in "AB"}
    for case, file in made.items():
        assert pydicom.dcmread(file).PatientID == case
        used = {str(uid) for *_, uid in highdicom.seg.segread(file).get_source_image_uids()}
        assert used <= {pydicom.dcmread(f).SOPInstanceUID for f in (two_studies[0] / case / "T2").iterdir()}
    before = {case: pydicom.dcmread(file).SOPInstanceUID for case, file in made.items()}
    later = made["B"].parent.stat().st_mtime + 1
    os.utime(out / "B.nii.gz", (later, later))
    studies.write_dicom(out, "model", 1, fuses=False)
    assert [pydicom.dcmread(file).SOPInstanceUID == before[case] for case, file in made.items()] == [True, False]


def test_messages_name_study_modality_and_series_in_the_place_of_hidden_files(two_studies, tmp_path, capsys):
    file = tmp_path / ".hidden" / "B_0001.nii.gz"
    with (pytest.raises(BadCaseError, match=rf'no {two_studies[0]}/B: T2 \(series 2 "T2 ax" \(6 images\)\)$'),
          find(two_studies).in_messages(file.parent)):
        print(f"{file} is odd")
        raise BadCaseError(f"no {file}")
    assert capsys.readouterr().out == f'{two_studies[0]}/B: T2 (series 2 "T2 ax" (6 images)) is odd\n'


def test_outputs_are_a_series_of_the_modality_whose_units_they_have_so_they_lie_on_its_grid():
    dataset_json = {"channel_names": {"0": "CT", "1": "PET"}, "file_ending": ".nii.gz"}
    for name in (None, "PET"):
        check_grid(name, dataset_json, 1)
    with pytest.raises(BadCaseError, match=r"--dicom: outputs are made a series of PET, .* not on that of CT"):
        check_grid("CT", dataset_json, 1)


def test_without_dicom_as_input_there_is_none_as_output(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_rmr_predict", "-i", "in", "--dicom"])
    with pytest.raises(SystemExit, match=r"--dicom: needs DICOM as input, give --series"):
        predict.main()


@pytest.mark.slow
def test_where_no_case_can_be_predicted_the_reason_of_each_is_told(tmp_path):
    for case, lacking, origin in (("A", "T2", 0), ("B", "", 900)):
        for number, name in enumerate(("T1ce", "T2", "FLAIR"), 1):
            if name != lacking:
                write_series(tmp_path / "in" / case / name, random_volume(number), name, number=number,
                             origin=(origin if name == "T2" else 0, 0, 0))
    ended = tiny.run("nnUNetv2_rmr_predict_from_modelfolder", "-i", tmp_path / "in", "-o", tmp_path / "out", "-m",
                     DEMO_MODEL, "-f", 0, "-device", "cpu", "--resample_to", "FLAIR", "--series", "T1ce=1", "T2=2",
                     "FLAIR=3", env=dict(os.environ), check=False)
    told = ended.stdout[ended.stdout.index("error: 2 case(s) could not be predicted"):]
    assert ended.returncode == 1 and ".tmp." not in ended.stdout
    assert re.search(r"(?s)case A: .*T2=2: no series matches.*case B: .*B: T2 \(series .*shows nothing inside", told)


@pytest.fixture(scope="module")
def studies(nnunet, tmp_path_factory) -> Path:
    """The test cases of the tiny data set as DICOM, and one that lacks its T2."""
    folder = tmp_path_factory.mktemp("studies")
    images = Path(nnunet["nnUNet_raw"]) / f"Dataset{REGIONS}_Tiny" / "imagesTs"
    for case in ("caseTs00", "caseTs01", "lacking"):
        for i, name in enumerate(tiny.CHANNELS):
            if (case, name) != ("lacking", "T2"):
                file = images / f"{case.replace('lacking', 'caseTs01')}_{i:04d}.nii.gz"
                volume = sitk.GetArrayFromImage(sitk.ReadImage(str(file))).round().astype(np.int16)
                write_series(folder / case / name, volume, f"{name} ax", number=i + 1, spacing=(1, 1, 1),
                             origin=(0, 0, 0))
    return folder


def arrays(folder: Path) -> dict[str, np.ndarray]:
    return {f.name: sitk.GetArrayFromImage(sitk.ReadImage(str(f))) for f in sorted(folder.glob("*.nii.gz"))}


@pytest.mark.slow
@tiny.bit_by_bit
def test_studies_are_predicted_as_their_images_are_and_a_bad_one_is_named(trained, nnunet, studies, tmp_path):
    found = Studies.find(studies, trained, {"T1": "1", "T2": "2", "FLAIR": "3"}, False)
    assert [*found.convert(tmp_path / "nifti", lambda case: False)[1]] == ["lacking"]
    tiny.run("nnUNetv2_rmr_predict", "-i", tmp_path / "nifti", "-o", tmp_path / "there", *MODEL, env=nnunet)
    out = tmp_path / "out"
    ended = tiny.run("nnUNetv2_rmr_predict", "-i", studies, "-o", out, *MODEL, *SERIES, "--dicom", env=nnunet,
                     check=False)
    assert ended.returncode == 1
    assert "1 case(s) could not be predicted (the others are done):\n  case lacking:" in ended.stdout
    assert "T2=2: no series matches" in ended.stdout
    for folder in (out, out / "fused"):
        got, expected = arrays(folder), arrays(tmp_path / "there" / folder.relative_to(out))
        assert set(got) == set(expected) == {"caseTs00.nii.gz", "caseTs01.nii.gz"}
        for name in got:
            np.testing.assert_array_equal(got[name], expected[name])
    assert not list(out.glob(".*")), "what was converted is gone"
    for name, fused in arrays(out / "fused").items():
        made = out / "dicom" / name.removesuffix(".nii.gz")
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(made / "fused")))
        np.testing.assert_allclose(sitk.GetArrayFromImage(reader.Execute()), fused[:, ::-1],  # dcm2niix turns the rows
                                   atol=np.abs(fused).max() / 2 ** 15)
        assert (made / "segmentation.dcm").is_file()
    assert not (out / "dicom" / "lacking").exists()

    again = tiny.run("nnUNetv2_rmr_predict", "-i", studies, "-o", out, *MODEL, *SERIES, "--continue_prediction",
                     "-num_parts", 2, env=nnunet, check=False)
    assert again.returncode == 1 and "case lacking" in again.stdout.splitlines()[-1]
    assert "continuing: 1 case(s) are complete, 0 to go" in again.stdout


@pytest.mark.slow
def test_with_missing_a_study_may_lack_a_series_and_what_is_not_written_as_dicom_is_an_error(trained, nnunet, studies,
                                                                                             tmp_path):
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "caseTs00").write_text("a file, where a folder has to be")
    ended = tiny.run("nnUNetv2_rmr_predict_from_modelfolder", "-i", studies, "-o", tmp_path, "-m", trained, "-f", 0,
                      "-device", tiny.DEVICE, "--disable_tta", *SERIES, "--missing", "--dicom", env=nnunet, check=False)
    assert len(arrays(tmp_path)) == len(arrays(tmp_path / "fused")) == 3
    assert "case lacking is predicted without lacking_0001.nii.gz (T2)" in ended.stdout
    assert ended.returncode != 0 and "1 case(s) could not be written as DICOM: caseTs00" in ended.stdout
    assert sorted(f.parent.name for f in tmp_path.glob("dicom/*/segmentation.dcm")) == ["caseTs01", "lacking"]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not SARCOMA.is_dir(), reason=f"no DICOM studies in {SARCOMA}")
def test_real_studies_on_grids_of_their_own_are_named(trained, nnunet, tmp_path):
    ended = tiny.run("nnUNetv2_rmr_predict", "-i", SARCOMA, "-o", tmp_path, *MODEL, "--series", "T1=*MR*", "T2=*PET*",
                     "FLAIR=*CT*", env=nnunet, check=False)
    assert ended.returncode == 1 and "2 case(s) could not be predicted" in ended.stdout
    assert re.search(rf"{SARCOMA}/STS_002: T2 \(series 4 .*\) does not lie on the grid of {SARCOMA}/STS_002: T1 "
                     r"\(series", ended.stdout)
    assert ".tmp." not in ended.stdout


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not SARCOMA.is_dir(), reason=f"no DICOM studies in {SARCOMA}")
def test_real_studies_come_back_as_dicom_on_the_slices_of_the_reference_modality(trained, nnunet, tmp_path):
    import highdicom
    import pydicom

    command = ("nnUNetv2_rmr_predict", "-i", SARCOMA, "-o", tmp_path, *MODEL, "-step_size", 1, "--series", "T1=*CT*",
               "T2=*PET*", "FLAIR=*T1*", "--dicom")
    refused = tiny.run(*command, "--resample_to", "T1", env=nnunet, check=False)
    assert refused.returncode == 1 and "made a series of FLAIR" in refused.stdout.splitlines()[-1]
    tiny.run(*command, "--register_to", "FLAIR", env=nnunet)
    for patient in ("STS_002", "STS_025"):
        sources = {d.SOPInstanceUID: d for d in (pydicom.dcmread(file, stop_before_pixels=True)
                                                 for file in (SARCOMA / patient / "MR_T1").iterdir())}
        fused = [pydicom.dcmread(file) for file in sorted((tmp_path / "dicom" / patient / "fused").iterdir())]
        assert len(fused) == len(sources)
        for image in fused:
            source = sources[image.SourceImageSequence[0].ReferencedSOPInstanceUID]
            assert image.ImagePositionPatient == source.ImagePositionPatient and image.PatientID == source.PatientID
        made = highdicom.seg.segread(tmp_path / "dicom" / patient / "segmentation.dcm")
        assert {str(uid) for *_, uid in made.get_source_image_uids()} <= set(sources)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not SARCOMA.is_dir(), reason=f"no DICOM studies in {SARCOMA}")
def test_real_slices_are_predicted(trained, nnunet, tmp_path):
    """Of one patient's CT three series on one grid, as the model wants three."""
    import pydicom

    for i, name in enumerate(tiny.CHANNELS):
        folder = tmp_path / "in" / "STS_025" / name
        folder.mkdir(parents=True)
        for file in (SARCOMA / "STS_025" / "CT").iterdir():
            d = pydicom.dcmread(file)
            d.SeriesInstanceUID, d.SeriesDescription, d.SeriesNumber = f"{d.SeriesInstanceUID[:50]}.{i}", name, i + 1
            d.SOPInstanceUID = pydicom.uid.generate_uid()
            d.save_as(folder / file.name)
    tiny.run("nnUNetv2_rmr_predict", "-i", tmp_path / "in", "-o", tmp_path / "out", *MODEL, *SERIES, "-step_size", 1,
             env=nnunet)
    (size,) = {sitk.ReadImage(str(tmp_path / "out" / f / "STS_025.nii.gz")).GetSize() for f in (".", "fused")}
    assert size == (149, 138, 47)
