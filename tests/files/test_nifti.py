"""What SimpleITK makes of a NIfTI file without a word is refused by every command that reads or writes one."""

import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from campaign.fuzz import FIELDS, fuzz
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_rmr.datasets.cases import safe_case_id
from nnunetv2_rmr.files.input_check import check_files
from nnunetv2_rmr.files.nifti import check_forms, check_nifti
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import read_volume, refuse_unusable_values
from nnunetv2_rmr.inference.fused_writer import write_image

TOLERANCE = 0.05


def scan(path: Path, offset: float = 0.0, codes=(1, 1), value: float = 1.0, extension: int = 0) -> Path:
    """offset: mm from sform to qform along x. extension: bytes in the header."""
    image = nibabel.Nifti1Image(np.full((6, 7, 8), value, np.float32), np.diag([1, 2, 3, 1.0]))
    sform, qform = image.affine.copy(), image.affine.copy()
    qform[0, 3] += offset
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1])
    if extension:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * extension))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def test_a_file_beside_its_uncompressed_twin_is_refused_as_that_would_be_read(tmp_path):
    compressed, twin = scan(tmp_path / "X.nii.gz", value=1), scan(tmp_path / "X.nii", value=2)
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(compressed))).max() == 2, "SimpleITK has mended it: so can we"
    for read in (read_volume, lambda path: check_files([str(path)])):
        with pytest.raises(BadCaseError, match=r"X\.nii\.gz: X\.nii lies beside it"):
            read(compressed)
        read(twin)
    twin.unlink()
    assert sitk.GetArrayFromImage(read_volume(compressed)).max() == 1


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_file_is_complete_only_with_its_last_voxel_after_a_long_header_too(tmp_path, ending):
    file = scan(tmp_path / f"X{ending}", extension=20_000)
    check_nifti(file)
    raw = nibabel.openers.Opener(file).read()
    with nibabel.openers.Opener(file, "wb") as cut:
        cut.write(raw[:-4])
    with pytest.raises(BadCaseError, match="truncated"):
        check_nifti(file)


@pytest.mark.parametrize(("changes", "told"), [
    ({"vox_offset": 0.0}, "begin at byte 0"), ({"vox_offset": float("inf")}, "damaged"),
    ({"scl_slope": 1e-40}, "scaled by"), ({"scl_slope": 0.0, "scl_inter": 5.0}, "scaled by 0 and 5"),
    ({"dim3": 0}, "8?.* 0 voxels|x 0"), ({"dim3": -1}, "damaged"), ({"datatype": 128, "bitpix": 24}, "several values"),
    ({"datatype": 4096}, "damaged")])
def test_headers_of_which_programs_make_different_things_are_refused(tmp_path, changes, told):
    file = scan(tmp_path / "X.nii")
    content = bytearray(file.read_bytes())
    for name, value in changes.items():
        offset, code = FIELDS[name]
        struct.pack_into("<" + code, content, offset, value)
    file.write_bytes(content)
    with pytest.raises(BadCaseError, match=rf"X\.nii: .*({told})"):
        check_nifti(file)


def test_damaged_files_are_refused_or_read_as_what_they_hold(tmp_path):
    found = fuzz(tmp_path, 300)
    assert found.findings == [] and found.number_fine > 50 and found.number_refused > 50


@pytest.mark.parametrize("value", [1e16, -1e16, np.inf])
def test_values_that_no_scan_has_are_refused(tmp_path, value):
    array = np.ones((3, 4, 5), np.float32)
    refuse_unusable_values(tmp_path / "a.mha", array)
    array[1, 2, 3] = value
    with pytest.raises(BadCaseError, match=r"a\.mha: 1 voxels are (beyond 1e\+15|NaN or infinite)"):
        refuse_unusable_values(tmp_path / "a.mha", array)


def test_headers_that_place_an_image_twice_are_told_if_all_agree_and_refused_if_not(tmp_path, capsys):
    apart, also, fine, elsewhere = (scan(tmp_path / f"{name}.nii.gz", offset)
                                    for name, offset in (("a", 11), ("b", 11), ("c", 0), ("d", 11.5)))
    check_files([str(apart), str(also)])
    warning = capsys.readouterr().out
    assert "WARNING" in warning and "a.nii.gz" in warning and "11 mm" in warning
    for other in (fine, elsewhere):
        with pytest.raises(BadCaseError, match=r"(a|d)\.nii\.gz: by its sform it lies up to 11(\.5)? mm from"):
            check_files([str(apart), str(other)])
    assert check_forms([fine, scan(tmp_path / "e.nii.gz", offset=0.04)], TOLERANCE) is None


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (0, 0)])
def test_a_form_whose_code_is_0_has_no_say(tmp_path, codes):
    assert check_forms([scan(tmp_path / "X.nii.gz", 11, codes)], TOLERANCE) is None


def test_what_was_made_of_images_lies_where_its_maker_took_them_to_lie(tmp_path, capsys):
    apart = scan(tmp_path / "a.nii.gz", 11)
    made = tmp_path / "made.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(apart)), str(made))
    check_files([str(apart)], [str(made)])
    with pytest.raises(BadCaseError, match="not so the case's other files"):
        check_files([str(apart), str(made)])


@pytest.mark.parametrize("case", ["c.nii", "d.img", "e.hdr", "f.nia", "g.nii.gz", "h.NII"])
def test_case_ids_that_end_like_a_nifti_file_are_renamed_or_refused_since_simpleitk_would_cut_them(tmp_path, case):
    image, properties = SimpleITKIO().read_images([str(scan(tmp_path / "X_0000.nii.gz"))])
    with pytest.raises(ValueError, match=f"case {case}: .* rename"):
        write_image(image[0], str(tmp_path / "out" / f"{case}.nii.gz"), SimpleITKIO, ".nii.gz", properties)
    safe = safe_case_id(case)
    assert safe == case.replace(".", "-")
    write_image(image[0], str(tmp_path / "out" / f"{safe}.nii.gz"), SimpleITKIO, ".nii.gz", properties)
    assert [file.name for file in (tmp_path / "out").iterdir()] == [f"{safe}.nii.gz"]
