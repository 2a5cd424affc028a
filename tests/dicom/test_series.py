"""Which series a folder of DICOM files holds, and which is which modality."""

import shutil
from pathlib import Path

import pytest
from dicom_files import OBLIQUE, random_volume, write_series

from nnunetv2_rmr.dicom.series import find_series, matched_series
from nnunetv2_rmr.files.refused import BadCaseError

pydicom = pytest.importorskip("pydicom")


def own_file(name: str) -> Path:
    """Of pydicom's tests."""
    return Path(pydicom.data.get_testdata_file(name))


@pytest.fixture
def study(tmp_path) -> Path:
    """T1, FLAIR and a second T1 after contrast, in folders of their own and deeper."""
    write_series(tmp_path / "a" / "b", random_volume(0), "T1 ax", number=3)
    write_series(tmp_path / "c", random_volume(1), "FLAIR 3D", number=5)
    write_series(tmp_path / "c", random_volume(2), "t1 AX +C", number=12)
    return tmp_path


def message(study: Path, **patterns: str) -> str:
    with pytest.raises(BadCaseError) as refused:
        matched_series(study, patterns)
    return str(refused.value)


def test_series_are_told_apart_wherever_their_files_lie(tmp_path):
    for folder, number in (("x/1", 3), ("x/2", 5)):
        files = write_series(tmp_path / folder, random_volume(0), "T1", number=number)
        shutil.move(files[0], tmp_path / f"{number}_elsewhere")
    assert [(s.number, s.description, len(s.files)) for s in find_series(tmp_path)] == [(3, "T1", 6), (5, "T1", 6)]


def test_files_follow_their_place_in_the_patient_not_names_or_numbers(tmp_path):
    files = write_series(tmp_path, random_volume(0), "T1", orientation=OBLIQUE)
    assert sorted(files) != files
    assert find_series(tmp_path)[0].files == files


def test_patterns_are_of_the_description_in_any_case_and_whole_numbers_of_the_series_number(study):
    chosen = matched_series(study, {"FLAIR": "*flair*", "T1": "3"})
    assert [(name, s.number) for name, s in chosen.items()] == [("FLAIR", 5), ("T1", 3)]
    assert len(chosen["T1"].files) == 6
    assert matched_series(study, {"T1": "T1 AX"})["T1"].number == 3  # the whole description


def test_several_and_none_are_named_with_what_there_is(study):
    said = message(study, T1="*T1*", T2="*t2*", FLAIR="5")
    assert 'T1=*T1*: 2 series match, 3 "T1 ax" (6 images), 12 "t1 AX +C" (6 images)' in said
    assert "T2=*t2*: no series matches" in said
    assert 'there are 3 "T1 ax" (6 images), 5 "FLAIR 3D" (6 images), 12' in said
    assert "FLAIR=5" not in said


def test_a_series_can_not_be_two_modalities(study):
    assert "one series is two modalities" in message(study, T1="3", T2="T1 ax")


def test_a_modality_may_be_missing_if_so_allowed_but_not_all(study):
    assert [*matched_series(study, {"T2": "*T2*", "FLAIR": "5"}, allow_missing=True)] == ["FLAIR"]
    with pytest.raises(BadCaseError, match="no pattern matches"):
        matched_series(study, {"T2": "*T2*", "PD": "*PD*"}, allow_missing=True)
    with pytest.raises(BadCaseError, match="2 series match"):
        matched_series(study, {"T1": "*T1*", "FLAIR": "5"}, allow_missing=True)


def test_what_is_no_image_or_hidden_is_passed_over(study):
    before = find_series(study)
    for name in ("rtstruct.dcm", "reportsi.dcm", "rtdose.dcm", "dicomdirtests/DICOMDIR"):
        shutil.copy(own_file(name), study / f"{Path(name).stem}.dcm")
    raw = pydicom.dcmread(own_file("reportsi.dcm"))
    raw.SOPClassUID = raw.file_meta.MediaStorageSOPClassUID = "1.3.12.2.1107.5.9.1"  # of Siemens, which is no image
    raw.save_as(study / "csa.ima")
    (study / "notes.txt").write_text("no DICOM at all")
    (study / ".hidden.dcm").write_text("of another system")
    assert find_series(study) == before


def test_pydicoms_own_images_are_found_with_their_headers(tmp_path):
    for name in ("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm"):  # the last two are one series
        shutil.copy(own_file(name), tmp_path)
    assert [(s.number, s.description, len(s.slices)) for s in find_series(tmp_path)] == [(1, "", 1), (1, "", 2)]


def test_a_folder_without_images_is_said_to_have_none(tmp_path):
    shutil.copy(own_file("rtstruct.dcm"), tmp_path)
    assert "there is no DICOM image in it" in message(tmp_path, T1="*")


MR = b"1.2.840.10008.5.1.4.1.1.4"


@pytest.mark.parametrize("damage", ["empty", "no header", "half a header", "text for a number", "unknown kind of image",
                                    "cut within it", "cut to a private one", "unknown kind of value"])
def test_a_damaged_file_is_named_and_not_passed_over(study, damage):
    file = next((study / "c").iterdir())
    content = file.read_bytes()
    file.write_bytes({"empty": b"", "no header": content[200:], "half a header": content[:600],
                      "text for a number": content.replace(b"-31.5", b"-3k.5"),
                      "unknown kind of image": content.replace(MR, MR[:-3] + b"9.4"),
                      "cut within it": content[:content.index(MR) + 20],
                      "cut to a private one": content[:content.index(MR, content.index(MR) + 1) + 10],
                      "unknown kind of value": content.replace(b"\x08\x00\x3e\x10LO", b"\x08\x00\x3e\x10XO")}[damage])
    assert file.read_bytes() != content
    assert file.name in message(study, T1="3", FLAIR="5")
