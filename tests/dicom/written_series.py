"""Small DICOM series that a test writes, and what nnU-Net's files of them look like."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, PositronEmissionTomographyImageStorage

from nnunetv2_rmr.dicom.write import write_dicom

CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
SHAPE = (5, 6, 8)  # slices, rows, columns
SPACING = (3.3, 0.7, 0.9)  # mm, between slices, rows, columns
# oblique: unit vectors along the rows and down the columns
ACROSS, DOWN = np.array([0.8, 0.6, 0.0]), np.array([-0.36, 0.48, 0.8])
MODEL, MODALITIES = "nnUNetTrainerRMR__nnUNetPlans__3d_fullres", ["T1", "FLAIR"]
LABELS = {"background": 0, "oedema": 1, "core": 2}


def slice_header(position: np.ndarray, number: int, modality: str = "MR", **changes) -> Dataset:
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = CLASSES[modality], f"1.2.3.{number}"
    header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    header.Modality, header.SeriesDescription, header.SeriesNumber = modality, "T2 FLAIR", 7
    header.PatientID, header.PatientName, header.PatientBirthDate, header.PatientSex = "42", "Doe^Jane", "19700101", "F"
    header.AccessionNumber, header.StudyID, header.StudyDate, header.StudyTime = "A1", "S1", "20200102", "101112"
    header.ReferringPhysicianName, header.Manufacturer = "", "scanner"
    header.ImageType, header.InstanceNumber = ["ORIGINAL", "PRIMARY", "M_SE"], number
    header.ImagePositionPatient = [f"{x:.8g}" for x in position]
    header.ImageOrientationPatient = [*ACROSS, *DOWN]
    header.PixelSpacing, header.SliceThickness = [SPACING[1], SPACING[2]], SPACING[0]
    header.Rows, header.Columns, header.SamplesPerPixel = SHAPE[1], SHAPE[2], 1
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.PhotometricInterpretation = "MONOCHROME2"
    for name, value in changes.items():
        setattr(header, name, value)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header


def write_series(folder: Path, voxels: np.ndarray, modality: str = "MR", **changes) -> list[Path]:
    """Files of (slices, rows, columns), the last slice in the first file. changes: of attributes of all slices."""
    folder.mkdir(parents=True)
    files = []
    for number, plane in enumerate(voxels[::-1].astype("<u2"), 1):
        position = np.array([-11.0, 23.0, 5.0]) + (len(voxels) - number) * SPACING[0] * np.cross(ACROSS, DOWN)
        header = slice_header(position, number, modality, **changes)
        header.add_new("PixelData", "OW", plane.tobytes())
        files.append(folder / f"{number:03d}.dcm")
        header.save_as(files[-1], enforce_file_format=True)
    return files


def read_series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def write_outputs(output: Path, series: Path, fused: np.ndarray | None, segmentation: np.ndarray,
                  orientation: str | None = None) -> None:
    """As of a prediction of case_1: arrays (slices, rows, columns), in files whose axes run as `orientation` says."""
    (output / "fused").mkdir(parents=True)
    for name, array in (("case_1.nii.gz", segmentation.astype(np.uint8)), ("fused/case_1.nii.gz", fused)):
        if array is not None:
            image = sitk.GetImageFromArray(array)
            image.CopyInformation(read_series(series))
            sitk.WriteImage(sitk.DICOMOrient(image, orientation) if orientation else image, str(output / name))


def write_case(output: Path, files: list[Path], labels: dict | None = None, **changes) -> Path:
    arguments = {"case": "case_1", "output": output, "series_files": files, "model": MODEL, "modalities": MODALITIES,
                 "dataset_json": {"file_ending": ".nii.gz", "labels": labels or LABELS}}
    return write_dicom(**(arguments | changes))
