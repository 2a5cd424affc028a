"""Segmentations of somebody else are read as the importer reads them, or refused before anything is predicted."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_rmr.files.input_check import read_label_map
from nnunetv2_rmr.files.refused import BadCaseError

LABEL = np.zeros((4, 5, 6), np.float32)
LABEL[1:3, 1:4, 2:4], LABEL[1, 1, 2:4] = 1, 2


def write(label: np.ndarray, path: Path) -> str:
    nibabel.save(nibabel.Nifti1Image(label.T, np.eye(4)), path)
    return str(path)


def test_labels_that_a_scaled_file_has_rounded_are_the_labels_that_were_meant(tmp_path):
    file = write(LABEL * np.float32(0.9999), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_label_map(file, SimpleITKIO(), {0, 1, 2}), LABEL)


@pytest.mark.parametrize(("change", "told"), [
    (lambda a: a * 0.5, "10 voxels have no integer value"),  # soft labels
    (lambda a: np.where(a == 2, np.nan, a), "NaN"),  # which SimpleITK reads as background
    (lambda a: np.where(a == 2, 4, a), r"are not declared: 4 \(2 voxels\)"),
    (lambda a: -a, r"are not declared: -2 \(2 voxels\), -1 \(10 voxels\)")])
def test_what_is_no_label_map_of_the_data_set_is_refused_by_name(tmp_path, change, told):
    file = write(change(LABEL).astype(np.float32), tmp_path / "a.nii.gz")
    with pytest.raises(BadCaseError, match=rf"a\.nii\.gz.*{told}"):
        read_label_map(file, SimpleITKIO(), {0, 1, 2})
