"""What a prediction leaves of a case, and its outputs as DICOM."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from dicom_files import read_series

from nnunetv2_rmr.dicom.write import write_dicom

MODEL, MODALITIES = "nnUNetTrainerRMR__nnUNetPlans__3d_fullres", ["T1", "FLAIR"]
LABELS = {"background": 0, "oedema": 1, "core": 2}


def write_outputs(output: Path, series: Path, fused: np.ndarray | None, segmentation: np.ndarray,
                  case: str = "case_1", orientation: str | None = None) -> None:
    """As of a prediction: arrays (slices, rows, columns), in files whose axes run as `orientation` says."""
    (output / "fused").mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{case}.nii.gz", segmentation.astype(np.uint8)), (f"fused/{case}.nii.gz", fused)):
        if array is not None:
            image = sitk.GetImageFromArray(array)
            image.CopyInformation(read_series(series))
            sitk.WriteImage(sitk.DICOMOrient(image, orientation) if orientation else image, str(output / name))


def write_case(output: Path, files: list[Path], labels: dict | None = None) -> Path:
    return write_dicom("case_1", output, sorted(files), {"file_ending": ".nii.gz", "labels": labels or LABELS}, MODEL,
                       MODALITIES)
