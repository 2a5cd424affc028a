"""Volumes for the page: turned to LPS, cropped to the body, 8 bit per voxel, compressed."""

import gzip
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import RAS, Grid, read_volume, refuse_unusable_values

MARGIN = 3  # voxels around the body


@dataclass(frozen=True)
class Volume:
    """An image whose axes run (to within 45 degrees) to the patient's left, back (posterior) and head (superior)."""

    array: np.ndarray  # (X, Y, Z)
    spacing: tuple[float, float, float]  # mm
    to_mm: np.ndarray  # 4 x 4, index -> position in mm, RAS as in NIfTI
    to_file: np.ndarray  # 4 x 4, index -> index in the file
    grid: Grid  # of the file
    path: Path


def load(path: Path, on: Volume | None = None) -> Volume:
    """Read and turn an image. Raises BadCaseError: unreadable, not 3D, NaN, or not on the grid of `on`."""
    if not path.is_file():
        raise BadCaseError(f"{path} does not exist")
    image = read_volume(path)
    if image.GetDimension() != 3:
        raise BadCaseError(f"{path}: is 2D; the viewer shows 3D volumes")
    grid = Grid.of(image)
    if on is not None and not grid.is_close(on.grid):
        raise BadCaseError(f"{path}: does not lie on the grid of {on.path} ({grid.difference(on.grid)})")
    refuse_unusable_values(path, sitk.GetArrayViewFromImage(image))
    turned = sitk.DICOMOrient(image, "LPS")
    to_mm = RAS @ Grid.of(turned).affine
    to_voxel = np.linalg.inv(RAS @ grid.affine) @ to_mm
    return Volume(sitk.GetArrayFromImage(turned).T, turned.GetSpacing(), to_mm, to_voxel, grid, path)


def body_box(volumes: list[Volume]) -> tuple[slice, slice, slice]:
    """The smallest box that holds every voxel which is not 0, with a margin; everything if all are 0."""
    body = np.any([v.array != 0 for v in volumes], axis=0)
    if not body.any():
        return tuple(slice(0, n) for n in body.shape)
    return tuple(slice(max(0, int(i.min()) - MARGIN), min(n, int(i.max()) + 1 + MARGIN))
                 for i, n in zip(np.nonzero(body), body.shape))


def grey_range(values: np.ndarray) -> tuple[float, float]:
    """What 0 and 255 stand for: the 0.1 and 99.9 percentile of the voxels that are not 0, and 0 itself."""
    inside = values[values != 0]
    low, high = np.percentile(inside, [0.1, 99.9]) if inside.size else (0.0, 1.0)
    low, high = min(float(low), 0.0), float(high)
    return low, high if high > low else low + 1.0


def as_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8; values outside [low, high] are clipped."""
    return np.rint(np.clip((values.astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def label_bytes(volume: Volume) -> np.ndarray:
    """uint8. Raises BadCaseError for values that are not whole numbers from 0 to 255."""
    rounded = np.rint(volume.array)
    if rounded.min() < 0 or rounded.max() > 255 or np.abs(volume.array - rounded).max() > 1e-3:
        raise BadCaseError(f"{volume.path}: is no segmentation, its values are not whole numbers from 0 to 255")
    return rounded.astype(np.uint8)


def packed(voxels: np.ndarray) -> str:
    """base64 of gzip of the bytes, X running fastest. voxels: uint8 (X, Y, Z)."""
    return b64encode(gzip.compress(voxels.tobytes(order="F"), 6, mtime=0)).decode()
