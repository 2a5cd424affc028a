"""Arrays of a case, and where their voxels lie: against nibabel, with the model that comes with the package."""

import copy
import shutil

import nibabel
import numpy as np
import pytest
import torch

from nnunetv2_rmr.cli.predict_demo import CASE, IMAGES, MODEL
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.inference.failed_cases import FailedCasesError
from nnunetv2_rmr.inference.predict import predict
from nnunetv2_rmr.inference.predictor import RMRPredictor

OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(z=0.3, y=-0.2, x=0.1) @ np.diag([-2.5, 2.5, 3.0]), [31.0, -17.5, 42.25])


@pytest.fixture(scope="module")
def predictor() -> RMRPredictor:
    made = RMRPredictor(device=torch.device("cpu"), use_mirroring=False, tile_step_size=1, allow_tqdm=False)
    made.initialize_from_trained_model_folder(str(MODEL), (0,))
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """A part of the case, three different edges, with a corner of the background; oblique, left to right flipped."""
    folder = tmp_path_factory.mktemp("case")
    made = [str(folder / f"case_{i:04d}.nii.gz") for i in range(3)]
    for i, file in enumerate(made):
        part = np.asarray(nibabel.load(IMAGES / f"{CASE}_{i:04d}.nii.gz").dataobj)[:36, 20:62, 24:52]
        nibabel.save(nibabel.Nifti1Image(part, OBLIQUE), file)
    return made


def test_arrays_and_affine_are_nibabels_of_the_files(predictor, files, tmp_path):
    found, flair = predict(predictor, files), nibabel.load(files[2])
    np.testing.assert_allclose(found.affine, flair.affine, atol=1e-4)
    assert found.spacing == pytest.approx((2.5, 2.5, 3.0), abs=1e-4)
    assert found.segmentation.dtype == np.uint8 and found.fused.dtype == np.float32
    assert found.segmentation.shape == found.fused.shape == flair.shape == (36, 42, 28)
    outside = np.asarray(flair.dataobj) == 0
    assert outside.any() and (found.fused[outside] == 0).all()
    assert np.corrcoef(found.fused[~outside], np.asarray(flair.dataobj)[~outside])[0, 1] > 0.7

    predictor.predict_from_files_sequential([files], [str(tmp_path / "case")])
    for array, file in ((found.segmentation, "case.nii.gz"), (found.fused, "fused/case.nii.gz")):
        np.testing.assert_array_equal(array, np.asarray(nibabel.load(tmp_path / file).dataobj))


def test_a_model_can_be_given_by_its_folder_and_files_may_have_any_names(files, tmp_path):
    named = [shutil.copy(file, tmp_path / f"{name}.nii.gz") for name, file in zip(("T1ce", "T2", "FLAIR"), files)]
    found = predict(MODEL, named)
    assert found.segmentation.any() and found.fused.any()


def test_a_bad_case_is_named(predictor, files):
    with pytest.raises(FailedCasesError, match=r"case_0002\.nii\.gz \(FLAIR\) missing"):
        predict(predictor, files[:2])


@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_formats_without_a_place_in_space_are_refused(predictor, ending):
    other = copy.copy(predictor)
    other.dataset_json = predictor.dataset_json | {"file_ending": ending}
    with pytest.raises(BadCaseError, match=f"image_0000{ending}: .*do not say where their voxels lie"):
        predict(other, [f"image_0000{ending}"])
