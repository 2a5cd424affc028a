"""Volumes for the page: turned to LPS, cropped to the body, 8 bit per voxel, compressed."""

from __future__ import annotations

import gzip
from base64 import b64encode
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import Grid, read_volume, refuse_unusable_values

MARGIN = 3  # voxels around the body
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Volume:
    """An image whose axes run (to within 45 degrees) to the patient's left, back (posterior) and head (superior)."""

    array: np.ndarray  # (X, Y, Z)
    spacing: tuple[float, float, float]  # mm
    to_mm: np.ndarray  # 4 x 4, index -> position in mm, RAS as in NIfTI
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
    to_mm = np.eye(4)
    to_mm[:3, :3] = np.reshape(turned.GetDirection(), (3, 3)) * turned.GetSpacing()
    to_mm[:3, 3] = turned.GetOrigin()
    return Volume(sitk.GetArrayFromImage(turned).T, turned.GetSpacing(), LPS_TO_RAS @ to_mm, grid, path)


def body_box(volumes: list[Volume]) -> tuple[slice, slice, slice]:
    """The smallest box that holds every voxel which is not 0, with a margin; everything if all are 0."""
    body = np.any([v.array != 0 for v in volumes], axis=0)
    if not body.any():
        return tuple(slice(0, n) for n in body.shape)
    return tuple(slice(max(0, int(i.min()) - MARGIN), min(n, int(i.max()) + 1 + MARGIN))
                 for i, n in zip(np.nonzero(body), body.shape))


def file_indices(volume: Volume) -> np.ndarray:
    """4 x 4, index in `volume` -> index in the file."""
    g = volume.grid
    file_to_mm = np.eye(4)
    file_to_mm[:3, :3] = np.reshape(g.direction, (3, 3)) * g.spacing
    file_to_mm[:3, 3] = g.origin
    return np.linalg.inv(LPS_TO_RAS @ file_to_mm) @ volume.to_mm


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


class Store:
    """Volumes packed for the page, each once however often it is shown."""

    def __init__(self):
        self.packed: dict[str, str] = {}  # name -> base64 of gzip of bytes, X running fastest

    def add(self, voxels: np.ndarray) -> str:
        """voxels: uint8 (X, Y, Z). Returns the name under which the page finds them."""
        raw = voxels.tobytes(order="F")
        name = "v" + blake2b(raw + str(voxels.shape).encode(), digest_size=8).hexdigest()
        if name not in self.packed:
            self.packed[name] = b64encode(gzip.compress(raw, 6, mtime=0)).decode()
        return name
