"""Reading, comparing and changing single volumes; files that are not usable raise BadCaseError."""

import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from nnunetv2_rmr.files.endings import READABLE, file_ending
from nnunetv2_rmr.files.nifti import check_nifti, is_nifti
from nnunetv2_rmr.files.refused import BadCaseError, some_of

# Two grids count as one when no voxel lies farther apart than this part of the smallest voxel edge. Tools round
# spacings and directions differently (NIfTI stores 32 bit), which stays far below it; real misalignment is above.
GRID_TOLERANCE = 0.05
# Values of label files that were scaled on saving may miss the integer by rounding.
INTEGER_TOLERANCE = 1e-3
# Squares of larger values, summed over an image, leave the range of float32, in which nnU-Net normalises.
LARGEST_VALUE = 1e15
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # in NIfTI x and y point the other way; there and back
GIPL_HEADER_BYTES = 256
INTERPOLATORS = {"linear": sitk.sitkLinear, "bspline": sitk.sitkBSpline, "nearest": sitk.sitkNearestNeighbor}


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an image lie, in SimpleITK's axis order (x, y, z)."""

    size: tuple[int, ...]  # voxels
    spacing: tuple[float, ...]  # mm
    origin: tuple[float, ...]  # mm
    direction: tuple[float, ...]  # row-major matrix of unit vectors

    @classmethod
    def of(cls, image: sitk.Image) -> "Grid":
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @classmethod
    def of_affine(cls, size: Sequence[int], affine: np.ndarray) -> "Grid":
        """affine: as the property. Its axes need not be at right angles, which SimpleITK does not read."""
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        return cls(tuple(size), tuple(spacing), tuple(affine[:3, 3]), tuple((affine[:3, :3] / spacing).ravel()))

    @property
    def dimension(self) -> int:
        return len(self.size)

    @property
    def affine(self) -> np.ndarray:
        """Of a 3D grid: (4, 4), from an index (x, y, z, 1) to mm in LPS+, as in SimpleITK and DICOM; RAS @ affine is
        nibabel's."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(self.direction, (3, 3)) * self.spacing
        affine[:3, 3] = self.origin
        return affine

    def corners(self) -> np.ndarray:
        """Positions of the centres of the corner voxels in mm, shape (2**dimension, dimension)."""
        indices = np.array(list(itertools.product(*((0, n - 1) for n in self.size))))
        matrix = np.reshape(self.direction, (self.dimension, self.dimension)) * self.spacing
        return indices @ matrix.T + self.origin

    def is_close(self, other: "Grid") -> bool:
        """Same size, and no voxel displaced by more than GRID_TOLERANCE."""
        if self.size != other.size:
            return False
        displaced = np.linalg.norm(self.corners() - other.corners(), axis=1).max()
        return bool(displaced <= GRID_TOLERANCE * min(*self.spacing, *other.spacing))

    def looks_equal_to_nnunet(self, other: "Grid") -> bool:
        """nnU-Net compares spacing, origin and direction by np.allclose with its default tolerances."""
        return self.size == other.size and all(
            np.allclose(getattr(self, a), getattr(other, a)) for a in ("spacing", "origin", "direction"))

    def difference(self, other: "Grid") -> str:
        """What differs, as 'size 4 x 4 x 4 instead of 5 x 5 x 5, ...', seen from `other` as the expected grid."""
        names = {"size": "size", "spacing": "spacing (mm)", "origin": "origin (mm)", "direction": "direction"}
        return ", ".join(f"{text} {numbers(getattr(self, a))} instead of {numbers(getattr(other, a))}"
                         for a, text in names.items()
                         if len(getattr(self, a)) != len(getattr(other, a))
                         or not np.allclose(getattr(self, a), getattr(other, a)))


def numbers(values: tuple[float, ...]) -> str:
    """'1 x 1 x 2.5'; enough digits to see the differences that matter."""
    return " x ".join(f"{v + 0.0:.6g}" for v in values)


def read_volume(path: Path) -> sitk.Image:
    """A 2D or 3D image with one value per voxel.

    Raises BadCaseError if the format is not supported, the file can not be read or is truncated, it is neither 2D nor
    3D, or has several values per voxel.
    """
    if file_ending(path) is None:
        raise BadCaseError(f"{path}: this format is not supported; convert it to one of {' '.join(READABLE)}")
    check_nifti(path)
    try:
        with _libraries_silenced():
            image = sitk.ReadImage(os.fspath(path))
    except RuntimeError as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
        if "orthonormal" in reason:
            raise BadCaseError(f"{path}: its axes are not at right angles (sheared), which nnU-Net's usual reader "
                                "does not take; resample it to a straight grid first, for example with "
                                "nibabel.processing.resample_to_output") from error
        raise BadCaseError(f"{path}: can not be read ({reason})") from error
    if image.GetDimension() not in (2, 3):
        raise BadCaseError(f"{path}: has {image.GetDimension()} dimensions ({numbers(image.GetSize())}), not 2 or 3; "
                            "split it into one file per image")
    needed = GIPL_HEADER_BYTES + image.GetNumberOfPixels() * image.GetSizeOfPixelComponent()
    if file_ending(path) == ".gipl" and path.stat().st_size < needed:
        raise BadCaseError(f"{path}: truncated, holds {path.stat().st_size} of {needed} bytes")
    if image.GetNumberOfComponentsPerPixel() > 1 or "complex" in image.GetPixelIDTypeAsString():
        raise BadCaseError(f"{path}: has several values per voxel (colour, vector or complex image); one is needed")
    return image


def content_hash(array: np.ndarray) -> str:
    """Equal for equal voxel values, whatever the number type they are stored in."""
    return blake2b(np.ascontiguousarray(array, np.float32), digest_size=16).hexdigest() + str(array.shape)


def refuse_unusable_values(path: Path, array: np.ndarray) -> None:
    """Raise BadCaseError if the file, read as `array`, holds complex numbers, NaN, infinite values, or such as no scan
    has."""
    if array.dtype.kind == "c":
        raise BadCaseError(f"{path}: holds complex numbers, one real value per voxel is needed (the magnitude, say)")
    arrays = [array]
    if is_nifti(path):
        # SimpleITK's NIfTI library turns NaN into zeros while reading; nibabel shows what the file holds.
        data = nibabel.load(path).dataobj
        arrays += [data.get_unscaled()] if data.dtype.kind == "f" else []
    for values in arrays:
        if values.dtype.kind != "f":
            continue
        if bad := values.size - np.count_nonzero(np.isfinite(values)):
            raise BadCaseError(f"{path}: {bad} voxels are NaN or infinite")
        if max(-float(values.min()), float(values.max())) > LARGEST_VALUE:
            bad = np.count_nonzero(np.abs(values) > LARGEST_VALUE)
            raise BadCaseError(f"{path}: {bad} voxels are beyond {LARGEST_VALUE:g}, so large that nothing is left of "
                                "the others once the image is normalised")


def label_counts(path: Path, array: np.ndarray) -> dict[int, int]:
    """Number of voxels by label value. Raises BadCaseError if the file, read as `array`, can not be a label map."""
    refuse_unusable_values(path, array)
    values, counts = np.unique(array, return_counts=True)
    if (odd := np.abs(values - np.round(values)) > INTEGER_TOLERANCE).any():
        examples = " ".join(f"{v:g}" for v in values[odd][:3])
        raise BadCaseError(f"{path}: can not be a label map: {counts[odd].sum()} voxels have no integer value (for "
                           f"example {examples})")
    return _summed(zip(np.rint(values).astype(int).tolist(), counts.tolist()))


def mapped_counts(counts: Mapping[int, int], label_map: Mapping[int, int]) -> dict[int, int]:
    """`label_counts` after all replacements of `label_map` at once."""
    return _summed((label_map.get(value, value), count) for value, count in counts.items())


def _summed(counts: Iterable[tuple[int, int]]) -> dict[int, int]:
    result = Counter()
    for value, count in counts:
        result[value] += count
    return dict(sorted(result.items()))


def refuse_undeclared(path: Path, counts: Mapping[int, int], declared: Collection[int] | None) -> None:
    """Raise BadCaseError for label values that are not declared; None: all are."""
    others = [] if declared is None else [f"{v} ({n} voxels)" for v, n in counts.items() if v not in declared]
    if others:
        raise BadCaseError(f"{path}: label values that are not declared: {some_of(others, 10)}; declared are "
                           + " ".join(map(str, sorted(declared))))


def map_labels(image: sitk.Image, label_map: Mapping[int, int]) -> sitk.Image:
    """Rounded to integers, all replacements of `label_map` made at once (1=2 2=1 swaps), as uint8 or uint16.

    Values must fit; the caller has checked them against the declared ones.
    """
    array = sitk.GetArrayViewFromImage(image)
    values, where = np.unique(np.rint(array).astype(np.int64), return_inverse=True)
    mapped = np.array([label_map.get(value, value) for value in values.tolist()])
    mapped = mapped.astype(np.uint8 if mapped.max() < 256 else np.uint16)
    result = sitk.GetImageFromArray(mapped[where].reshape(array.shape))
    result.CopyInformation(image)
    return result


def on_grid(image: sitk.Image, grid: Grid, resample: str | None) -> sitk.Image:
    """`image` on `grid`: untouched if it lies there, with the header of `grid` if it differs by rounding only.

    resample: None (a different grid raises BadCaseError naming the difference, without the file's name), 'linear' or
    'bspline' for images, 'nearest' for labels. Resampled images are float32 within the value range of the original;
    what lies outside the original gets its minimum.
    """
    own = Grid.of(image)
    if own.looks_equal_to_nnunet(grid):
        return image
    if own.is_close(grid):
        snapped = sitk.Image(image)
        snapped.SetSpacing(grid.spacing)
        snapped.SetOrigin(grid.origin)
        snapped.SetDirection(grid.direction)
        return snapped
    if resample is None or own.dimension != grid.dimension:
        raise BadCaseError(own.difference(grid))
    nearest = resample == "nearest"
    extrema = sitk.MinimumMaximumImageFilter()
    extrema.Execute(image)
    low, high = extrema.GetMinimum(), extrema.GetMaximum()
    outside = 0.0 if nearest else low
    resampled = sitk.Resample(image, grid.size, sitk.Transform(grid.dimension, sitk.sitkIdentity),
                              INTERPOLATORS[resample], grid.origin, grid.spacing, grid.direction, outside,
                              image.GetPixelID() if nearest else sitk.sitkFloat32)
    # Splines overshoot at edges: negative MRI intensities would be the visible result.
    return resampled if nearest else sitk.Clamp(resampled, sitk.sitkFloat32, low, high)


def write_volume(image: sitk.Image, path: Path) -> None:
    """Write compressed (where the format can). Raises BadCaseError if that fails or the file is incomplete."""
    try:
        with _libraries_silenced():
            sitk.WriteImage(image, os.fspath(path), True)
    except RuntimeError as error:
        raise BadCaseError(f"{path}: can not be written ({str(error).strip().splitlines()[-1].strip()})") from error
    check_nifti(path)


@contextmanager
def _libraries_silenced() -> Iterator[None]:
    """The C libraries behind SimpleITK write complaints straight to file descriptor 2, amid the progress bar."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
