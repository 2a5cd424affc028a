"""Prediction for scripts and notebooks: files of a case in; arrays, and where their voxels lie, out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk
import torch

from nnunetv2_rmr.files.endings import file_ending
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import RAS, Grid, read_volume
from nnunetv2_rmr.inference.export import fused_filename
from nnunetv2_rmr.inference.predictor import RMRPredictor

WITHOUT_PLACE = (".png", ".bmp")


@dataclass(frozen=True)
class Prediction:
    """Both outputs for a case, on the grid of its files and indexed [x, y, z] as nibabel indexes these.

    (nnU-Net and SimpleITK's arrays are indexed [z, y, x]: `segmentation.T`.)

    segmentation: label values, uint8 (uint16 if there are labels above 255), (X, Y, Z).
    fused: float32, the same shape, in the units of the reference modality; None if the model has none to give.
    affine: (4, 4). affine @ (i, j, k, 1) is where the centre of voxel [i, j, k] lies, in mm, in RAS+: x grows to the
        patient's right, y to the front, z to the head, as in nibabel, 3D Slicer and NIfTI files. (In SimpleITK and
        DICOM, LPS+, the signs of x and y are the other ones.)
    """

    segmentation: np.ndarray
    fused: np.ndarray | None
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, ...]:
        """Edges of a voxel in mm, along x, y, z."""
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())


def predict(model: str | os.PathLike | RMRPredictor, files: Sequence[str | os.PathLike]) -> Prediction:
    """Segment and fuse one case: what `nnUNetv2_rmr_predict` writes, as arrays.

    model: folder TRAINER__PLANS__CONFIGURATION in nnUNet_results, of which all folds are used, on a GPU if there is
        one; or a predictor that has loaded one, for many cases or other options.
    files: one per modality, in the order of dataset.json, in the model's format (.nii.gz, usually).
    Raises FailedCasesError, which names file and reason, for a case that can not be predicted; BadCaseError for a
    format that does not say where the voxels lie in space; ModelRefused, FileNotFoundError for a model.
    """
    predictor = model if isinstance(model, RMRPredictor) else _load(model)
    ending = predictor.dataset_json["file_ending"]
    if file_ending(ending) in (None, *WITHOUT_PLACE):
        raise BadCaseError(f"{files[0]}: {ending} files do not say where their voxels lie; use RMRPredictor")
    with TemporaryDirectory() as folder:
        case = str(Path(folder, "case"))
        predictor.predict_from_files_sequential([[os.fspath(file) for file in files]], [case])
        segmentation = read_volume(Path(case + ending))
        fused = read_volume(Path(fused_filename(case, ending))) if predictor.fuses else None
    return Prediction(_indexed_xyz(segmentation), None if fused is None else _indexed_xyz(fused),
                      RAS @ Grid.of(segmentation).affine)


def _load(folder: str | os.PathLike) -> RMRPredictor:
    predictor = RMRPredictor(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    predictor.initialize_from_trained_model_folder(os.fspath(folder), use_folds=None)
    return predictor


def _indexed_xyz(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).T
