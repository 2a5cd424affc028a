"""From DICOM series to image files: the same volume, or a reason."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import (
    OBLIQUE,
    PATIENT,
    SHAPE,
    assert_same_in_the_patient,
    by_gdcm,
    change,
    moved,
    random_volume,
    write_series,
)

from nnunetv2_rmr.dicom import convert
from nnunetv2_rmr.dicom.convert import convert_series, convert_studies, match_studies
from nnunetv2_rmr.dicom.series import find_series
from nnunetv2_rmr.files.refused import BadCaseError

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dcm2niix")


def converted(folder: Path, ending: str = ".nii.gz") -> sitk.Image:
    (series,) = find_series(folder)
    target = folder.parent / f"out{ending}"
    convert_series(series, target)
    return sitk.ReadImage(str(target))


def refusal(folder: Path) -> str:
    with pytest.raises(BadCaseError) as refused:
        converted(folder)
    assert [f.name for f in folder.parent.iterdir()] == [folder.name], "nothing is left"
    return str(refused.value)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return write_series(tmp_path / "series", random_volume(0), "T1", number=4)


# ---- the same volume ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["CT", "MR", "PT"])
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE, (0, 1, 0, 0, 0, -1)], ids=["axial", "oblique",
                                                                                              "sagittal"])
def test_every_voxel_has_its_value_and_place(tmp_path, kind, orientation):
    slopes = [0.5 + 0.25 * i for i in range(SHAPE[0])] if kind == "PT" else [2] * SHAPE[0]
    files = write_series(tmp_path / "series", random_volume(0), "x", kind=kind, orientation=orientation, slopes=slopes)
    image = converted(tmp_path / "series")
    assert_same_in_the_patient(image, by_gdcm(files))
    stored = np.sort((random_volume(0) * np.reshape(slopes, (-1, 1, 1)) - 10).ravel())
    np.testing.assert_allclose(np.sort(sitk.GetArrayFromImage(image).ravel()), stored, rtol=1e-6)


def test_a_3d_scan_that_dcm2niix_turns_upright_stays_in_its_place(tmp_path):
    files = write_series(tmp_path / "series", random_volume(0), "x", orientation=(0, 1, 0, 0, 0, -1),
                         MRAcquisitionType="3D")
    image = converted(tmp_path / "series")
    assert image.GetSize() == (SHAPE[0], SHAPE[2], SHAPE[1])  # sagittal slices, axial image
    assert_same_in_the_patient(image, by_gdcm(files))


def test_slices_exposed_one_by_one_are_one_volume(tmp_path, files):
    for i, file in enumerate(files):
        change(file, EchoTime=5 + i, ExposureTime=i + 1, AcquisitionNumber=i, AcquisitionTime=f"10{i:02d}00",
               ImageType=["ORIGINAL", "PRIMARY", "M" if i % 2 else "OTHER"])
    assert_same_in_the_patient(converted(tmp_path / "series"), by_gdcm(files))


def test_frames_of_an_enhanced_object_are_its_slices(tmp_path):
    legacy = pytest.importorskip("highdicom.legacy")
    files = write_series(tmp_path / "slices", random_volume(0), "x", kind="CT", orientation=OBLIQUE)
    images = [pydicom.dcmread(file) for file in files]
    for image in images:
        for name in ("StudyID", "PatientSex", "AccessionNumber", "ReferringPhysicianName", "Manufacturer",
                     "PositionReferenceIndicator"):
            setattr(image, name, None)
        image.ImageType, image.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], "HEAD"
    enhanced = legacy.LegacyConvertedEnhancedCTImage(images, "1.2.5", 9, "1.2.6", 1)
    (tmp_path / "series").mkdir()
    enhanced.save_as(tmp_path / "series" / "one.dcm")
    (series,) = find_series(tmp_path / "series")
    assert len(series.slices) == SHAPE[0] and len(series.files) == 1
    assert_same_in_the_patient(converted(tmp_path / "series"), by_gdcm(files))


def test_other_formats_than_nifti_hold_the_same(tmp_path, files):
    assert_same_in_the_patient(converted(tmp_path / "series", ".nrrd"), by_gdcm(files))


def test_positions_rounded_by_the_scanner_are_no_gap(tmp_path, files):
    moved(files[2], z=0.02)
    assert converted(tmp_path / "series").GetSize() == SHAPE[::-1]


def test_nothing_of_the_patient_is_in_the_file(tmp_path, files):
    converted(tmp_path / "series")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["out.nii.gz", "series"], "no sidecar"
    header = gzip.decompress((tmp_path / "out.nii.gz").read_bytes())[:352]
    for secret in (*PATIENT, "Doe", "seen by", "2020"):
        assert secret.encode() not in header


# ---- or a reason ----------------------------------------------------------------------------------------------------

def test_a_missing_slice_is_refused_with_its_place(files, tmp_path):
    files[3].unlink()
    said = refusal(tmp_path / "series")
    assert f"slices are missing: they are 2.5 mm apart, but 5 mm between {files[2].name} and {files[4].name}" in said
    assert '4 "T1" (5 images)' in said


def test_uneven_slices_are_refused(files, tmp_path):
    moved(files[2], z=0.3)
    assert "not evenly spaced, or turned: one lies 0.3 mm" in refusal(tmp_path / "series")


def test_a_slice_turned_so_little_that_only_its_far_corner_shows_it_is_refused(tmp_path):
    files = write_series(tmp_path / "series", random_volume(0), "x", spacing=(90, 1.1, 2.5), orientation=OBLIQUE)
    change(files[2], ImageOrientationPatient=[OBLIQUE[0], OBLIQUE[1] + 9e-4, *OBLIQUE[2:]])
    assert "or turned: one lies" in refusal(tmp_path / "series")


def test_copies_are_refused(files, tmp_path):
    shutil.copy(files[2], tmp_path / "series" / "copy.dcm")
    assert "several images at one position" in refusal(tmp_path / "series")


@pytest.mark.parametrize("times", [2, 3])
def test_several_volumes_are_refused(files, tmp_path, times):
    for file in files:
        for time in range(1, times):
            change(file, file.with_stem(f"{file.stem}_{time}"), InstanceNumber=time * 100, TemporalPositionIdentifier=2)
    assert f"it holds {times} images at every position" in refusal(tmp_path / "series")


def test_two_orientations_are_refused(files, tmp_path):
    for file in files[:2]:
        change(file, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    assert f"differ in orientation: 2 as {files[0].name}, 4 others" in refusal(tmp_path / "series") or \
        f"differ in orientation: 4 as {files[2].name}, 2 others" in refusal(tmp_path / "series")


def test_a_tilted_gantry_is_refused(files, tmp_path):
    for i, file in enumerate(files):
        moved(file, y=0.2 * i)
    assert "tilted gantry): over the volume they shift by 1 mm" in refusal(tmp_path / "series")


def test_slices_of_several_sizes_are_refused(files, tmp_path):
    change(files[3], Rows=6, PixelData=b"\0" * 6 * 8 * 2)
    assert "differ in size: 5 as" in refusal(tmp_path / "series")


def test_other_spacing_is_refused(files, tmp_path):
    change(files[3], PixelSpacing=[1.1, 0.95])
    assert "differ in spacing: 5 as" in refusal(tmp_path / "series")


@pytest.mark.parametrize("name", ["PixelRepresentation", "BitsAllocated", "BitsStored", "SamplesPerPixel"])
def test_values_stored_in_several_ways_are_refused_as_all_would_be_read_like_the_first(files, tmp_path, name):
    change(files[3], **{name: {"PixelRepresentation": 0, "SamplesPerPixel": 3}.get(name, 8)})
    assert "BitsStored, PixelRepresentation: 5 as" in refusal(tmp_path / "series")


@pytest.mark.parametrize("stored", [{"PixelRepresentation": None}, {"PixelRepresentation": 2}, {"BitsAllocated": 8}],
                         ids=str)
def test_values_of_which_it_is_not_said_how_they_are_stored_are_refused(files, tmp_path, stored):
    for file in files:
        change(file, **stored)
    assert "does not say how its values are stored" in refusal(tmp_path / "series")


@pytest.mark.parametrize("kind", [b"GW", b"\xcfW"])
def test_voxels_of_a_kind_that_there_is_not_are_refused_and_not_read_from_another_place(files, tmp_path, kind):
    content = files[3].read_bytes()
    files[3].write_bytes(content.replace(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00" + kind))
    assert f"{files[3].name}: damaged, can not be read (its voxels are of the kind" in refusal(tmp_path / "series")


def test_images_without_a_place_are_refused(files, tmp_path):
    change(files[3], ImagePositionPatient=None)
    assert f"1 of its 6 images do not say where they lie ({files[3].name})" in refusal(tmp_path / "series")


def test_a_single_image_is_refused(files, tmp_path):
    for file in files[1:]:
        file.unlink()
    assert "a single image" in refusal(tmp_path / "series")


def test_what_dcm2niix_refuses_is_refused_in_its_words(files, tmp_path):
    files[3].write_bytes(files[3].read_bytes()[:-30])
    assert "dcm2niix makes 0 files of it" in (said := refusal(tmp_path / "series"))
    assert "not large enough" in said


@pytest.mark.parametrize("wrong", ["SetOrigin", "SetSpacing"])
def test_another_grid_than_the_headers_is_refused(files, tmp_path, monkeypatch, wrong):
    def elsewhere(series, folder):
        image = by_gdcm(series.files)
        getattr(image, wrong)([x + 0.2 for x in getattr(image, wrong.replace("Set", "Get"))()])
        sitk.WriteImage(image, str(folder / "image.nii.gz"))
        return folder / "image.nii.gz"

    monkeypatch.setattr(convert, "_run_dcm2niix", elsewhere)
    assert "dcm2niix has put it elsewhere" in refusal(tmp_path / "series")


# ---- many cases -----------------------------------------------------------------------------------------------------

@pytest.fixture
def studies(tmp_path) -> Path:
    """A is good, B lacks slices of FLAIR, C has no FLAIR."""
    for case in "ABC":
        write_series(tmp_path / "in" / case / "1", random_volume(ord(case)), "T1")
        if case != "C":
            files = write_series(tmp_path / "in" / case / "2", random_volume(ord(case) + 9), "FLAIR", number=2)
    files[3].unlink()
    return tmp_path / "in"


def convert_all(studies: Path, **options) -> tuple[list[str], dict[str, str]]:
    out = studies.parent / "out"
    found, failures = match_studies(studies, {"T1": "T1", "FLAIR": "FLAIR"}, **options)
    failures |= convert_studies(found, lambda case, name: out / f"{case}_{name}.nii.gz")
    return sorted(f.name for f in out.iterdir()), failures


def test_a_bad_case_has_its_reason_and_leaves_nothing_and_the_others_are_done(studies):
    done, failures = convert_all(studies)
    assert done == ["A_FLAIR.nii.gz", "A_T1.nii.gz"]
    assert list(failures) == ["B", "C"]
    assert 'series 2 "FLAIR"' in failures["B"] and "missing" in failures["B"]
    assert "FLAIR=FLAIR: no series matches" in failures["C"]


def test_cases_may_lack_modalities_if_so_allowed(studies):
    done, failures = convert_all(studies, allow_missing=True)
    assert done == ["A_FLAIR.nii.gz", "A_T1.nii.gz", "C_T1.nii.gz"] and list(failures) == ["B"]


def test_if_there_is_no_good_case_all_are_told(studies, tmp_path):
    shutil.rmtree(studies / "A")
    with pytest.raises(BadCaseError, match=r"(?s)no case in .*\n  B: .*\n  C: "):
        convert_all(studies)
    with pytest.raises(BadCaseError, match="a folder of DICOM files for each case, but there is no folder"):
        convert_all(studies / "B" / "1")
