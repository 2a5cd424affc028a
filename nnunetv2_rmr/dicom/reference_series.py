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

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import Grid, read_volume, refuse_unusable_values

TOLERANCE = 0.01  # mm, between the voxels of a series and of an output
CLASSES = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR",
           "1.2.840.10008.5.1.4.1.1.128": "PET"}  # one file per slice
NEEDED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns",
          "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
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
    slices = [_read(Path(file)) for file in files]
    name = f"{slices[0].get('SeriesDescription', '')} ({Path(files[0]).parent})".strip()
    for attribute in ("SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns"):
        if len({str(s[attribute].value) for s in slices}) > 1:
            raise BadCaseError(f"series {name}: its files differ in {attribute}, so they are not one volume")
    across, down = np.reshape(slices[0].ImageOrientationPatient, (2, 3)).astype(float)
    slices.sort(key=lambda s: float(np.dot(np.cross(across, down), np.array(s.ImagePositionPatient, float))))
    corners = np.array([_corners(s) for s in slices])
    step = (corners[-1, 0] - corners[0, 0]) / (len(slices) - 1) if len(slices) > 1 else np.cross(across, down)
    displaced = np.linalg.norm(corners - corners[0] - np.arange(len(slices))[:, None, None] * step, axis=2).max()
    if displaced > TOLERANCE or not step.any():
        raise BadCaseError(f"series {name}: its slices lie up to {displaced:.3g} mm from where they would at even "
                           "distances; some are missing, double or turned")
    rows, columns = slices[0].PixelSpacing
    affine = np.eye(4)
    affine[:3] = np.column_stack([across * float(columns), down * float(rows), step, corners[0, 0]])
    return ReferenceSeries(slices, Grid.of_affine((slices[0].Columns, slices[0].Rows, len(slices)), affine), name)


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


def _corners(header: Dataset) -> np.ndarray:
    """Of a slice the centres of the first voxel, of the first row's last and of the first column's last: (3, 3) mm."""
    across, down = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    rows, columns = map(float, header.PixelSpacing)
    first = np.array(header.ImagePositionPatient, float)
    return np.array([first, first + across * columns * (header.Columns - 1), first + down * rows * (header.Rows - 1)])
