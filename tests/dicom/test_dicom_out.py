"""Outputs as DICOM: the same voxels at the same places, of the same patient, and nothing that is no longer true."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("highdicom")
import highdicom
import pydicom
from dicom_files import OBLIQUE, SHAPE, change, read_series, write_series
from outputs import LABELS, MODEL, write_case, write_outputs

from nnunetv2_rmr.dicom.fused_series import stored_values
from nnunetv2_rmr.dicom.installed import refuse_without_extra
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import Grid

TURNED = [None, "RIA", "RIP", "PIR", "SPL"]  # axes of the NIfTI files: those of the series (LPS), flipped, permuted
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def write_scan(folder: Path, kind: str = "MR", **attributes) -> list[Path]:
    volume = np.random.default_rng(1).integers(0, 4000, SHAPE)
    return write_series(folder, volume, "T2 FLAIR", 7, kind, orientation=OBLIQUE, **attributes)


@pytest.fixture
def series(tmp_path) -> list[Path]:
    return write_scan(tmp_path / "flair")


@pytest.fixture
def fused() -> np.ndarray:
    return np.random.default_rng(2).normal(100, 80, SHAPE).astype(np.float32)


@pytest.fixture
def segmentation() -> np.ndarray:
    """Of no symmetry, so that a flip shows."""
    array = np.zeros(SHAPE, np.uint8)
    array[1:4, 2:4, 1:6] = 1
    array[3, 2:4, 4:6] = 2
    return array


def places(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Of the true voxels, indexed as the affine has it, (N, 3) mm, sorted."""
    positions = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    return positions[np.lexsort(np.round(positions, 2).T)]


def places_in_nifti(file: Path, values: list[int]) -> np.ndarray:
    image = sitk.ReadImage(str(file))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return places(np.isin(sitk.GetArrayFromImage(image).T, values), affine)


@pytest.mark.parametrize("turned", TURNED)
def test_fused_voxels_have_the_values_and_places_of_the_nifti(tmp_path, series, fused, segmentation, turned):
    write_outputs(tmp_path / "out", series[0].parent, fused, segmentation, orientation=turned)
    folder = write_case(tmp_path / "out", series)
    back, source = read_series(folder / "fused"), read_series(series[0].parent)
    assert Grid.of(back).size == Grid.of(source).size
    assert np.abs(Grid.of(back).corners() - Grid.of(source).corners()).max() < 1e-5
    slope = float(pydicom.dcmread(folder / "fused/0001.dcm").RescaleSlope)
    assert slope < 2 * np.abs(fused).max() / 65000
    assert np.abs(sitk.GetArrayFromImage(back) - fused).max() <= slope / 2 * 1.001


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("turned", TURNED)
def test_segments_lie_where_the_labels_lie(tmp_path, series, segmentation, turned, labels):
    write_outputs(tmp_path / "out", series[0].parent, None, segmentation, orientation=turned)
    folder = write_case(tmp_path / "out", series, labels)
    read = highdicom.seg.segread(folder / "segmentation.dcm")
    assert [read.get_segment_description(i).SegmentLabel for i in (1, 2)] == [*labels][1:]
    for number, values in ((1, labels[[*labels][1]]), (2, [2])):
        volume = read.get_volume(segment_numbers=[number], combine_segments=True)
        expected = places_in_nifti(tmp_path / "out/case_1.nii.gz", np.atleast_1d(values))
        assert np.abs(places(volume.array > 0, volume.affine) - expected).max() < 1e-4
    assert not (folder / "fused").exists(), "a model without fused images has none as DICOM"


def test_a_segment_says_what_it_is_and_what_made_it(tmp_path, series, segmentation):
    write_outputs(tmp_path / "out", series[0].parent, None, segmentation)
    labels = {"background": 0, "core\\Ödem" + 70 * "x": 2, "oedema": 1, "ignore": 3}
    folder = write_case(tmp_path / "out", series, labels)
    core = highdicom.seg.segread(folder / "segmentation.dcm").get_volume(segment_numbers=[1], combine_segments=True)
    assert np.count_nonzero(core.array) == np.count_nonzero(segmentation == 2), "numbered as named, not by value"
    first, second = pydicom.dcmread(folder / "segmentation.dcm").SegmentSequence
    assert first.SegmentLabel == ("core/Odem" + 70 * "x")[:64]
    assert second.SegmentLabel == "oedema"
    assert first.RecommendedDisplayCIELabValue != second.RecommendedDisplayCIELabValue
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    assert first.SegmentAlgorithmName == MODEL
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"


def test_an_empty_segmentation_is_written_with_empty_frames_and_a_word(tmp_path, series, segmentation, capsys):
    write_outputs(tmp_path / "out", series[0].parent, None, 0 * segmentation)
    read = pydicom.dcmread(write_case(tmp_path / "out", series) / "segmentation.dcm")
    assert not read.pixel_array.any()
    assert len(read.SegmentSequence) == 2
    assert "nothing was segmented" in capsys.readouterr().out


@pytest.mark.parametrize("letters, name", [("ISO_IR 100", "Müller^Jörg"),
                                           (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")])
def test_patient_and_study_stay_and_every_image_is_a_new_one(tmp_path, fused, segmentation, letters, name):
    files = write_scan(tmp_path / "ct", "CT", SpecificCharacterSet=letters, PatientName=name,
                       LossyImageCompression="01")
    write_outputs(tmp_path / "out", files[0].parent, fused, segmentation)
    folder = write_case(tmp_path / "out", files)
    sources = {s.SOPInstanceUID: s for s in map(pydicom.dcmread, files)}
    images = [pydicom.dcmread(file) for file in sorted((folder / "fused").iterdir())]
    for image in (pydicom.dcmread(folder / "segmentation.dcm"), *images):
        assert str(image.PatientName) == name
        assert (image.StudyInstanceUID, image.FrameOfReferenceUID) == ("1.2.3", "1.2.4")
        assert image.SeriesInstanceUID not in {source.SeriesInstanceUID for source in sources.values()}
        assert image.SOPInstanceUID not in sources
        assert image.Manufacturer == "nnunetv2-rmr"
    for image in images:
        source = sources.pop(image.SourceImageSequence[0].ReferencedSOPInstanceUID)
        assert image.ImagePositionPatient == source.ImagePositionPatient
        assert image.LossyImageCompression == "01", "DICOM: an image made of such ones says so, too"
    assert not sources, "a slice of the series has no fused one"
    assert len({image.SeriesInstanceUID for image in images}) == 1
    assert images[0].SeriesDescription == "RMR fused T1+FLAIR"
    assert images[0].DerivationDescription == f"T1+FLAIR fused by {MODEL}"
    assert [image.InstanceNumber for image in images] == [1, 2, 3, 4, 5, 6]


def test_nothing_stays_that_was_true_of_other_voxels(tmp_path, fused, segmentation):
    files = write_scan(tmp_path / "mr", SmallestImagePixelValue=1, LargestImagePixelValue=1, PixelPaddingValue=1,
                       RescaleSlope=3, RescaleIntercept=-4, WindowCenter=[1, 2], WindowWidth=[3, 4],
                       WindowCenterWidthExplanation=["a", "b"])
    for file in files:
        scan = pydicom.dcmread(file)
        scan.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 3.0)
        scan.add_new(0x60003000, "OW", b"\0\0")
        scan.save_as(file)
    write_outputs(tmp_path / "out", files[0].parent, fused, segmentation)
    image = pydicom.dcmread(write_case(tmp_path / "out", files) / "fused/0001.dcm")
    for name in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue",
                 "WindowCenterWidthExplanation"):
        assert name not in image
    assert not [element for element in image if element.tag.is_private or element.tag.group == 0x6000]
    assert image.RescaleIntercept == 0
    low, high = np.percentile(fused, [1, 99])
    assert (image.WindowCenter, image.WindowWidth) == pytest.approx(((low + high) / 2, high - low))


@pytest.mark.parametrize("modality, kind", [("CT", ["DERIVED", "SECONDARY", "AXIAL"]), ("PT", ["DERIVED", "PRIMARY"]),
                                            ("MR", ["DERIVED", "SECONDARY", "OTHER"])])
def test_the_fused_image_is_of_the_kind_of_the_reference(tmp_path, fused, segmentation, modality, kind):
    files = write_scan(tmp_path / "scan", modality)
    write_outputs(tmp_path / "out", files[0].parent, fused, segmentation)
    image = pydicom.dcmread(write_case(tmp_path / "out", files) / "fused/0001.dcm")
    assert (image.Modality, image.SOPClassUID) == (modality, pydicom.dcmread(files[0]).SOPClassUID)
    assert image.ImageType == kind


def test_values_between_zero_and_one_get_a_window_of_less_than_one(tmp_path, series, fused, segmentation):
    write_outputs(tmp_path / "out", series[0].parent, fused / 1000, segmentation)
    image = pydicom.dcmread(write_case(tmp_path / "out", series) / "fused/0001.dcm")
    assert image.VOILUTFunction == "LINEAR_EXACT"


@pytest.mark.parametrize("array", [np.zeros(3), np.array([0, 1e-7, 3e-7]), np.array([-0.3, 0.0, 7e9])])
def test_zero_stays_zero_and_the_others_are_right_to_half_a_step(array):
    stored, slope = stored_values(array)
    assert stored.dtype == (np.int16 if array.min() < 0 else np.uint16)
    assert (stored[array == 0] == 0).all()
    assert np.abs(stored * slope - array).max() <= slope / 2 * (1 + 1e-9)


def test_series_without_the_patients_attributes_get_them_empty(tmp_path, series, fused, segmentation):
    for file in series:
        scan = pydicom.dcmread(file)
        for name in ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"):
            del scan[name]
        scan.save_as(file)
    write_outputs(tmp_path / "out", series[0].parent, fused, segmentation)
    folder = write_case(tmp_path / "out", series)
    for file in ("segmentation.dcm", "fused/0001.dcm"):
        assert not pydicom.dcmread(folder / file).PatientBirthDate


@pytest.mark.parametrize("shift, fits", [(0.005, True), (0.02, False)])
def test_another_grid_is_refused_naming_both(tmp_path, series, fused, segmentation, shift, fits):
    write_outputs(tmp_path / "out", series[0].parent, fused, segmentation)
    file = tmp_path / "out/case_1.nii.gz"
    image = sitk.ReadImage(str(file))
    image.SetOrigin(np.add(image.GetOrigin(), (shift, 0, 0)))
    sitk.WriteImage(image, str(file))
    if fits:
        assert write_case(tmp_path / "out", series).is_dir()
        return
    with pytest.raises(BadCaseError, match=r'case_1\.nii\.gz: does not lie on the grid of the DICOM series 7 "T2 FLA'):
        write_case(tmp_path / "out", series)
    assert not [*(tmp_path / "out/dicom").iterdir()]


def without_third_slice(files: list[Path]) -> str:
    del files[2]
    return 'series 7 "T2 FLAIR" .*: slices are missing: they are 2.5 mm apart, but 5 mm between'


def with_a_slice_twice(files: list[Path]) -> str:
    files.append(shutil.copy(files[3], files[3].with_stem("copy")))
    return "several images at one position"


def with_a_slice_of_another_series(files: list[Path]) -> str:
    change(files[1], SeriesInstanceUID="9.9")
    return "differ in SeriesInstanceUID"


def with_a_turned_slice(files: list[Path]) -> str:
    change(files[1], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    return "differ in orientation"


def with_a_multiframe_file(files: list[Path]) -> str:
    change(files[1], SOPClassUID=pydicom.uid.EnhancedMRImageStorage)
    return "Enhanced MR.*one file per slice"


def with_a_slice_that_lies_nowhere(files: list[Path]) -> str:
    change(files[1], ImagePositionPatient=None)
    return "do not say where they lie"


def with_another_file(files: list[Path]) -> str:
    files[1].write_text("a note")
    return f"{files[1].name}: can not be read as DICOM"


@pytest.mark.parametrize("spoil", [without_third_slice, with_a_slice_twice, with_a_slice_of_another_series,
                                   with_a_turned_slice, with_a_multiframe_file, with_a_slice_that_lies_nowhere,
                                   with_another_file])
def test_a_series_that_is_no_volume_is_refused_and_older_outputs_stay(tmp_path, series, fused, segmentation, spoil):
    write_outputs(tmp_path / "out", series[0].parent, fused, segmentation)
    folder = write_case(tmp_path / "out", series)
    before = {file: file.read_bytes() for file in folder.rglob("*.dcm")}
    message = spoil(series)
    with pytest.raises(BadCaseError, match=message):
        write_case(tmp_path / "out", series)
    assert {file: file.read_bytes() for file in (tmp_path / "out/dicom").rglob("*.dcm")} == before


def test_outputs_made_again_take_the_place_of_the_older_ones(tmp_path, series, fused, segmentation):
    write_outputs(tmp_path / "out", series[0].parent, fused, segmentation)
    folder = write_case(tmp_path / "out", series)
    (tmp_path / "out/fused/case_1.nii.gz").unlink()
    assert write_case(tmp_path / "out", series) == folder
    assert [file.name for file in folder.iterdir()] == ["segmentation.dcm"]
    assert [file.name for file in folder.parent.iterdir()] == ["case_1"]


def test_values_that_are_no_label_are_refused(tmp_path, series, segmentation):
    write_outputs(tmp_path / "out", series[0].parent, None, segmentation)
    with pytest.raises(BadCaseError, match="not declared: 2"):
        write_case(tmp_path / "out", series, {"background": 0, "oedema": 1})


def test_a_missing_library_is_one_line_that_says_what_to_install(monkeypatch):
    refuse_without_extra("--dicom")
    monkeypatch.setattr("nnunetv2_rmr.dicom.installed.find_spec", lambda name: None)
    with pytest.raises(BadCaseError, match=r"pip install \"nnunetv2-rmr\[dicom\]\""):
        refuse_without_extra("--dicom")
