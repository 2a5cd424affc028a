"""Outputs as DICOM of two patients: the values and places of dcm2niix's NIfTI, and a validator finds nothing new."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny

pytest.importorskip("highdicom")
import highdicom
import pydicom
from dicom_files import read_series
from outputs import write_case, write_outputs

PATIENTS = tiny.ROOT.parent / "shared" / "data" / "sarcoma_dicom"
pytestmark = [pytest.mark.real_data, pytest.mark.skipif(not PATIENTS.is_dir(), reason=f"no patients in {PATIENTS}")]


def errors(file: Path) -> set[str]:
    told = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True)
    lines = (told.stdout + told.stderr).splitlines()
    assert {"CTImage", "MRImage", "PETImage", "Segmentation"}.intersection(lines), "it did not get to the validation"
    return {line for line in lines if line.startswith("Error")}


def converted(scans: Path, folder: Path) -> sitk.Image:
    folder.mkdir()
    subprocess.run(["dcm2niix", "-z", "y", "-f", "scan", "-o", str(folder), str(scans)], check=True,
                   capture_output=True)
    return sitk.ReadImage(str(folder / "scan.nii.gz"))


@pytest.fixture(params=[(patient, name) for patient in ("STS_002", "STS_025") for name in ("CT", "PET", "MR_T1")],
                ids="-".join)
def scans(request) -> Path:
    return PATIENTS.joinpath(*request.param)


@pytest.fixture
def predicted(scans, tmp_path) -> Path:
    """Output folder as of a prediction from what dcm2niix makes of the scans."""
    image = converted(scans, tmp_path / "converted")
    values = sitk.GetArrayFromImage(image).astype(np.float32)
    body = values > np.percentile(values, 60)
    body[: len(body) // 2] = False
    segmentation = body.astype(np.uint8) + (values > np.percentile(values, 90)) * body
    for name, array in (("case_1", segmentation.astype(np.uint8)), ("fused/case_1", values * 1.1 + 0.3)):
        made = sitk.GetImageFromArray(array)
        made.CopyInformation(image)
        (tmp_path / "out/fused").mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(made, str(tmp_path / f"out/{name}.nii.gz"))
    return tmp_path / "out"


def lps(image: sitk.Image) -> sitk.Image:
    return sitk.DICOMOrient(image, "LPS")


def test_read_back_it_is_the_prediction(scans, predicted):
    folder = write_case(predicted, sorted(scans.iterdir()))
    fused, nifti = lps(read_series(folder / "fused")), lps(sitk.ReadImage(str(predicted / "fused/case_1.nii.gz")))
    slope = float(pydicom.dcmread(folder / "fused/0001.dcm").RescaleSlope)
    assert np.abs(sitk.GetArrayFromImage(fused) - sitk.GetArrayFromImage(nifti)).max() <= slope / 2 * 1.001
    assert np.abs(np.subtract(fused.GetOrigin(), nifti.GetOrigin())).max() < 1e-3
    labels = lps(sitk.ReadImage(str(predicted / "case_1.nii.gz")))
    volume = highdicom.seg.segread(folder / "segmentation.dcm").get_volume(combine_segments=True)
    for index in np.argwhere(volume.array > 0)[::97]:
        there = labels.TransformPhysicalPointToIndex((volume.affine @ [*index, 1])[:3])
        assert labels[there] == volume.array[tuple(index)]
    assert np.count_nonzero(volume.array) == np.count_nonzero(sitk.GetArrayFromImage(labels)) > 1000


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (dicom3tools)")
def test_a_validator_finds_no_error_that_the_scans_have_not(scans, predicted):
    files = sorted(scans.iterdir())
    folder = write_case(predicted, files)
    inherited = set().union(*map(errors, files))
    for file in (folder / "segmentation.dcm", *(folder / "fused").iterdir()):
        assert errors(file) <= inherited


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (dicom3tools)")
def test_a_validator_finds_no_error_in_an_empty_segmentation(tmp_path):
    scans = PATIENTS / "STS_025" / "MR_T1"
    files = sorted(scans.iterdir())
    shape = sitk.GetArrayFromImage(read_series(scans)).shape
    write_outputs(tmp_path / "out", scans, None, np.zeros(shape))
    assert errors(write_case(tmp_path / "out", files) / "segmentation.dcm") <= errors(files[0])
