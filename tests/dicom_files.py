"""Series of DICOM files, written with pydicom: tiny, but with all that the standard asks of where they lie."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SHAPE = (6, 7, 8)  # slices, rows, columns
# a rotation by 30 degrees about the patient's long axis, tipped over by 20
OBLIQUE = (0.8660254, 0.5, 0.0, -0.46984631, 0.81379768, 0.34202014)
PATIENT = ("Doe^Jane", "ID-0815", "19491007")
KINDS = {"CT": "CTImageStorage", "MR": "MRImageStorage", "PT": "PositronEmissionTomographyImageStorage"}


def random_volume(seed: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def write_series(folder: Path, volume: np.ndarray, description: str, number: int = 1, kind: str = "MR",
                 spacing=(0.9, 1.1, 2.5), origin=(-31.5, 17.25, 60.0), orientation=(1, 0, 0, 0, 1, 0), slopes=None,
                 **attributes) -> list[Path]:
    """volume: (slices, rows, columns) int16, as stored. slopes: RescaleSlope by slice. Returns the files, which are in
    the order of the slices, but for their names and numbers."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    uid, files = generate_uid(), []
    normal = np.cross(orientation[:3], orientation[3:])
    numbers = np.random.default_rng(0).permutation(len(volume))
    for i, image in enumerate(volume):
        d = pydicom.Dataset()
        d.PatientName, d.PatientID, d.PatientBirthDate = PATIENT
        d.PatientSex, d.AccessionNumber, d.StudyID = "F", "A1", "S1"
        d.ImageComments = f"seen by {PATIENT[0]}"
        d.SOPClassUID, d.SOPInstanceUID = getattr(pydicom.uid, KINDS[kind]), generate_uid()
        d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = "1.2.3", uid, "1.2.4"
        d.Modality, d.SeriesNumber, d.SeriesDescription = kind, number, description
        d.InstanceNumber = int(numbers[i]) + 1
        d.StudyDate, d.StudyTime, d.AcquisitionTime = "20200102", "101112", "101113"
        d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = *image.shape, 1, "MONOCHROME2"
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
        d.PixelSpacing, d.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        d.ImageOrientationPatient = list(map(float, orientation))
        d.ImagePositionPatient = [round(float(x), 6) for x in origin + normal * spacing[2] * i]
        d.PixelData = np.ascontiguousarray(image, np.int16).tobytes()
        if slopes is not None:
            d.RescaleSlope, d.RescaleIntercept = slopes[i], -10
        for name, value in attributes.items():
            setattr(d, name, value)
        d.file_meta = pydicom.dataset.FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        files.append(folder / f"{number}_{numbers[i]:03d}.dcm")
        d.save_as(files[-1], enforce_file_format=True)
    return files


def change(file: Path, to: Path | None = None, **attributes) -> None:
    """Of a file, or of a copy; another image then, if it says so."""
    import pydicom

    d = pydicom.dcmread(file)
    for name, value in attributes.items():
        setattr(d, name, value)
    d.save_as(to or file)


def moved(file: Path, **by: float) -> None:
    """x, y, z in mm."""
    import pydicom

    position = pydicom.dcmread(file).ImagePositionPatient
    change(file, ImagePositionPatient=[float(p) + by.get(axis, 0) for axis, p in zip("xyz", position)])


def by_gdcm(files: Sequence[str | Path]) -> sitk.Image:
    """The volume as SimpleITK's own reader of DICOM has it."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(f) for f in files])
    reader.SetOutputPixelType(sitk.sitkFloat64)
    return reader.Execute()


def read_series(folder: Path) -> sitk.Image:
    return by_gdcm(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))


def upright(image: sitk.Image) -> sitk.Image:
    """Axes in one order and direction, whoever made it."""
    return sitk.DICOMOrient(image, "LPS")


def assert_same_in_the_patient(image: sitk.Image, other: sitk.Image, rtol: float = 1e-6, mm: float = 2e-3) -> None:
    image, other = upright(image), upright(other)
    assert image.GetSize() == other.GetSize()
    corners = [(0, 0, 0), tuple(n - 1 for n in image.GetSize())]
    for corner in corners:
        np.testing.assert_allclose(*(i.TransformIndexToPhysicalPoint(corner) for i in (image, other)), atol=mm)
    np.testing.assert_allclose(*(sitk.GetArrayFromImage(i).astype(float) for i in (image, other)), rtol=rtol)
