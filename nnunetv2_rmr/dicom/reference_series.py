"""The series whose voxels an output has: its slices in order, where they lie, and an output's voxels slice by slice."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import Dataset

from nnunetv2_rmr.dicom.series import series_of
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import Grid, read_volume, refuse_unusable_values

TOLERANCE = 0.01  # mm, between the voxels of a series and of an output
CLASSES = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR",
           "1.2.840.10008.5.1.4.1.1.128": "PET"}  # one file per slice
NEEDED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns")
# Attributes of every DICOM file, which may be empty; some programs that anonymise remove them.
MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
                "StudyTime", "ReferringPhysicianName")


@dataclass(frozen=True)
class ReferenceSeries:
    """slices: without voxels, in the order of grid's last axis. grid: columns, rows, slices; mm, LPS as in DICOM."""

    slices: list[Dataset]
    grid: Grid
    name: str  # for messages

    def voxels_of(self, file: Path) -> np.ndarray:
        """Of an image on the grid of the series its voxels (slices, rows, columns), in the order of `slices`.

        Readers may have turned the axes of the image: what counts is where its voxels lie. Raises BadCaseError if
        they lie elsewhere than those of the series, or the file is not usable.
        """
        image = read_volume(file)
        array = sitk.GetArrayFromImage(image).T
        if array.ndim != 3:
            raise BadCaseError(f"{file}: is 2D; a DICOM series needs a 3D image")
        refuse_unusable_values(file, array)
        own = Grid.of(image).affine
        turn = nibabel.io_orientation(np.linalg.inv(self.grid.affine) @ own)
        turned = nibabel.apply_orientation(array, turn)
        grid = Grid.of_affine(turned.shape, own @ nibabel.orientations.inv_ornt_aff(turn, array.shape))
        if (grid.size != self.grid.size
                or np.linalg.norm(grid.corners() - self.grid.corners(), axis=1).max() > TOLERANCE):
            raise BadCaseError(f"{file}: does not lie on the grid of the DICOM series {self.name} "
                               f"({grid.difference(self.grid)}): predict from that series")
        return turned.T


def read_reference_series(files: Sequence[str | os.PathLike]) -> ReferenceSeries:
    """Reads the headers. Raises BadCaseError if these are not the slices of one volume, one file each."""
    headers = {Path(file): _read(Path(file)) for file in files}
    series = series_of(headers)
    for attribute in ("SeriesInstanceUID", "FrameOfReferenceUID"):
        if len({header[attribute].value for header in headers.values()}) > 1:
            raise BadCaseError(f"series {series}: its files differ in {attribute}, so they are not one volume")
    return ReferenceSeries([headers[file] for file in series.files], series.grid(), str(series))


def _read(file: Path) -> Dataset:
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)
    except (pydicom.errors.InvalidDicomError, OSError) as error:
        raise BadCaseError(f"{file}: can not be read as DICOM ({error})") from None
    if header.get("SOPClassUID") not in CLASSES:
        kind = getattr(header.get("SOPClassUID"), "name", "of no class")
        raise BadCaseError(f"{file}: is {kind}; outputs as DICOM are made for {', '.join(CLASSES.values())} series "
                           "with one file per slice, not for enhanced (multi-frame) or other ones")
    if absent := [name for name in NEEDED if header.get(name) in (None, "")]:
        raise BadCaseError(f"{file}: {', '.join(absent)} missing in the DICOM header")
    for name in MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, None)
    return header
