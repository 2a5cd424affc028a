"""Where the slices of a series lie, and whether they make one volume. All in the patient's coordinates (LPS) and mm."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_rmr.files.refused import BadCaseError, some_of
from nnunetv2_rmr.files.volumes import GRID_TOLERANCE, Grid

SAME_PLANE = 1e-3  # direction cosines of parallel planes differ less
STORED = ("SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation")


@dataclass(frozen=True)
class Slice:
    """One image of a series, as its header says; () where the header is silent. Attributes as in DICOM PS3.3 C.7.6.2,
    for the frames of an enhanced object those of its functional groups (C.7.6.16)."""

    file: Path
    size: tuple[int, int]  # columns, rows
    spacing: tuple[float, ...]  # mm, between columns, between rows
    orientation: tuple[float, ...]  # unit vectors along a row and along a column
    position: tuple[float, ...]  # mm, centre of the first voxel
    stored: tuple[int, ...]  # STORED: how its values are; dcm2niix reads those of all slices as the first one's


def slices_of(header, file: Path) -> list[Slice]:
    """Of a header read by pydicom: one, or one for every frame."""
    stored = tuple(int(header[name].value) for name in STORED if header.get(name) is not None)
    shared = [*header.get("SharedFunctionalGroupsSequence", [])]
    frames = [*header.get("PerFrameFunctionalGroupsSequence", [])] or [{}] * int(header.get("NumberOfFrames") or 1)

    def attribute(frame, group: str, name: str) -> tuple[float, ...]:
        places = [header, *(item for groups in (frame, *shared) for item in groups.get(group, []))]
        return next((tuple(map(float, place.get(name))) for place in places if place.get(name)), ())

    return [Slice(file, (header.Columns, header.Rows), attribute(frame, "PixelMeasuresSequence", "PixelSpacing")[::-1],
                  attribute(frame, "PlaneOrientationSequence", "ImageOrientationPatient"),
                  attribute(frame, "PlanePositionSequence", "ImagePositionPatient"), stored) for frame in frames]


def in_order(slices: Sequence[Slice]) -> list[Slice]:
    """Along the normal of the first one's plane, towards its positive side; as they are if one does not say where it
    lies."""
    if not all(len(s.position) == 3 and len(s.orientation) == 6 for s in slices):
        return list(slices)
    normal = _normal(slices[0])
    return sorted(slices, key=lambda s: float(np.dot(s.position, normal)))


def volume_grid(slices: Sequence[Slice]) -> Grid:
    """The grid (x, y, z) that the slices make up: columns, rows, slices.

    slices: `in_order`. Raises BadCaseError if they do not lie evenly spaced, in parallel, one above the other: if a
    voxel would lie farther off than GRID_TOLERANCE of the smallest voxel edge.
    """
    _refuse_mixture(slices)
    first, corners, normal = slices[0], np.array([_corners(s) for s in slices]), _normal(slices[0])
    gaps = np.diff(corners[:, 0] @ normal)
    tolerance = GRID_TOLERANCE * min(*first.spacing, float(np.median(gaps)) or np.inf)
    _refuse_several_volumes(slices, gaps <= tolerance)
    _refuse_missing(slices, gaps)
    step = (corners[-1, 0] - corners[0, 0]) / len(gaps)
    displaced = np.linalg.norm(corners - corners[0] - np.arange(len(slices))[:, None, None] * step, axis=2).max()
    if displaced > tolerance:
        raise BadCaseError(f"its slices are not evenly spaced, or turned: one lies {displaced:.3g} mm from where it "
                           "should")
    if (shift := np.linalg.norm(step - step @ normal * normal) * len(gaps)) > tolerance:
        raise BadCaseError(f"its slices do not lie straight above one another (tilted gantry): over the volume they "
                           f"shift by {shift:.3g} mm. Resample it to a straight grid first")
    (across, down), affine = np.reshape(first.orientation, (2, 3)), np.eye(4)
    affine[:3] = np.column_stack([across * first.spacing[0], down * first.spacing[1], step, first.position])
    return Grid.of_affine((*first.size, len(slices)), affine)


def same_place(grid: Grid, other: Grid) -> bool:
    """Same voxels in the same place, whatever the order and the direction of the axes."""
    if sorted(grid.size) != sorted(other.size):
        return False
    apart = np.linalg.norm(grid.corners()[:, None] - other.corners(), axis=2)  # every corner from every other
    limit = GRID_TOLERANCE * min(*grid.spacing, *other.spacing)
    return bool(apart.min(0).max() <= limit and apart.min(1).max() <= limit)


def _normal(one: Slice) -> np.ndarray:
    return np.cross(one.orientation[:3], one.orientation[3:])


def _corners(one: Slice) -> np.ndarray:
    """Centres of the first voxel, of the first row's last and of the first column's last: (3, 3) mm."""
    edges = np.multiply(one.spacing, np.subtract(one.size, 1))
    return np.add(one.position, np.vstack([np.zeros(3), np.diag(edges) @ np.reshape(one.orientation, (2, 3))]))


def _refuse_mixture(slices: Sequence[Slice]) -> None:
    """Of images that can not be slices of one volume."""
    first = slices[0]
    if silent := [s.file.name for s in slices if [*map(len, (s.spacing, s.orientation, s.position))] != [2, 6, 3]]:
        raise BadCaseError(f"{len(silent)} of its {len(slices)} images do not say where they lie ({some_of(silent)})")
    if len(first.stored) < len(STORED) or first.stored[2] > first.stored[1] or first.stored[3] not in (0, 1):
        raise BadCaseError(f"{first.file.name} does not say how its values are stored ({', '.join(STORED)}); copy or "
                           "export it again")
    for what, tolerance in (("orientation", SAME_PLANE), ("size", 0), ("spacing", SAME_PLANE), ("stored", 0)):
        if others := [s.file.name for s in slices
                      if len(getattr(s, what)) != len(getattr(first, what))
                      or not np.allclose(getattr(s, what), getattr(first, what), rtol=0, atol=tolerance)]:
            what = ", ".join(STORED) if what == "stored" else what
            raise BadCaseError(f"its images differ in {what}: {len(slices) - len(others)} as {first.file.name}, "
                               f"{len(others)} others ({some_of(others)}); they have to make one volume")
    if len(slices) == 1:
        raise BadCaseError("it is a single image; a volume of several slices is needed")


def _refuse_several_volumes(slices: Sequence[Slice], again: np.ndarray) -> None:
    """again: (slices - 1,) whether a slice lies where the one before it does."""
    if not again.any():
        return
    counts = Counter(np.bincount(np.r_[0, np.cumsum(~again)]).tolist())  # positions by number of slices there
    if len(counts) == 1:
        raise BadCaseError(f"it holds {next(iter(counts))} images at every position (several times, echoes or copies); "
                           "one volume is needed, in a series of its own")
    twice = [s.file.name for s, is_again in zip(slices[1:], again) if is_again]
    raise BadCaseError(f"it holds several images at one position, for {len(twice)} of its {len(slices)} images "
                       f"({some_of(twice)}); remove copies, or what belongs to another volume")


def _refuse_missing(slices: Sequence[Slice], gaps: np.ndarray) -> None:
    usual = float(np.median(gaps))
    holes = [f"{gaps[i]:.3g} mm between {slices[i].file.name} and {slices[i + 1].file.name}"
             for i in np.flatnonzero(gaps > 1.5 * usual)]
    if holes:
        raise BadCaseError(f"slices are missing: they are {usual:.3g} mm apart, but {some_of(holes)}")
