"""Rigid registration of two scans of a patient by mutual information (Mattes et al., IEEE TMI 2003), with SimpleITK."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nnunetv2_rmr.files.volumes import Grid

RESOLUTIONS_MM = (8, 4, 2)  # edges of the voxels, one registration after the other
SCORED_AT_MM = 4
LEAST_EDGE = 16  # voxels; images are not made coarser than that
SAMPLES = 50_000  # voxels looked at in each step
BINS = 32
# Beyond these, from where the registration began, no patient has moved between two scans: it went astray.
LARGEST_SHIFT_MM, LARGEST_ROTATION = 50, 30


@dataclass(frozen=True)
class Registration:
    """Where a scan lies on another one. A point p (mm) of the fixed scan is at matrix @ p + offset in the moving one.

    shift: mm, of the fixed scan's centre. rotation: degrees. before, after: mutual information in nats, higher is
    better. problem: why the registration failed; then the scan stays where its header says.
    """

    matrix: np.ndarray
    offset: np.ndarray
    shift: float = 0.0
    rotation: float = 0.0
    before: float = 0.0
    after: float = 0.0
    problem: str = ""

    def place(self, moving: sitk.Image) -> sitk.Image:
        """`moving` with a header that says where it lies on the fixed scan; its voxels are not touched.

        Not moved at all where the registration failed, or where no voxel is half a voxel or more from its place:
        resampling it would only blur it.
        """
        direction = np.reshape(moving.GetDirection(), self.matrix.shape)
        placed = sitk.Image(moving)
        placed.SetOrigin(list(self.matrix.T @ (np.array(moving.GetOrigin()) - self.offset)))
        placed.SetDirection(list((self.matrix.T @ direction).ravel()))
        moved = np.linalg.norm(Grid.of(placed).corners() - Grid.of(moving).corners(), axis=1).max()
        return moving if self.problem or moved < min(moving.GetSpacing()) / 2 else placed

    def __str__(self) -> str:
        found = (f"shift {self.shift:.1f} mm, rotation {self.rotation:.1f} degrees, mutual information "
                 f"{self.before:.3f} before, {self.after:.3f} after")
        return (f"registration failed ({self.problem}), left where its header says; what was rejected: {found}"
                if self.problem else found)


def register(fixed: sitk.Image, moving: sitk.Image) -> Registration:
    """Where `moving` lies on `fixed`, 2D or 3D both. The same every time, and with any number of cores."""
    dimension = fixed.GetDimension()
    nowhere = np.eye(dimension), np.zeros(dimension)
    try:
        return _registered(fixed, moving)
    except RuntimeError as error:
        return Registration(*nowhere, problem=str(error).strip().splitlines()[-1].strip())


def _registered(fixed: sitk.Image, moving: sitk.Image) -> Registration:
    fixed, moving = (_clipped(_coarse(image, RESOLUTIONS_MM[-1])) for image in (fixed, moving))
    starts = _starts(fixed, moving)
    before = _score(fixed, moving, starts[0])
    tried = [(start, _optimised(fixed, moving, start, RESOLUTIONS_MM[0])) for start in starts]
    start, transform = max(tried, key=lambda pair: _score(fixed, moving, pair[1]))
    for mm in RESOLUTIONS_MM[1:]:
        transform = _optimised(fixed, moving, transform, mm)
    centre = starts[0].GetCenter()
    matrix = np.reshape(transform.GetMatrix(), [len(centre)] * 2)
    # where the headers bring the scans together, it is they that an implausible motion is far from
    began = starts[0] if before else start
    shift, began = (np.subtract(t.TransformPoint(centre), centre) for t in (transform, began))
    rotation = np.degrees(np.arccos(np.clip((np.trace(matrix) - len(centre) + 2) / 2, -1, 1)))
    after = _score(fixed, moving, transform)
    problem = ""
    if after <= before:
        problem = "no better place was found"
    elif np.linalg.norm(shift - began) > LARGEST_SHIFT_MM or rotation > LARGEST_ROTATION:
        problem = f"implausible, more than {LARGEST_SHIFT_MM} mm or {LARGEST_ROTATION} degrees"
    return Registration(matrix, np.array(transform.TransformPoint([0.0] * len(centre))), float(np.linalg.norm(shift)),
                        float(rotation), before, after, problem)


def _starts(fixed: sitk.Image, moving: sitk.Image) -> list[sitk.Transform]:
    """Where the headers say; where that is elsewhere, centre on centre; and one centre of mass on the other."""
    kind = sitk.Euler2DTransform if fixed.GetDimension() == 2 else sitk.Euler3DTransform
    header, coarse = kind(), [_coarse(image, RESOLUTIONS_MM[0]) for image in (fixed, moving)]
    header.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    centred = [kind(sitk.CenteredTransformInitializer(*coarse, kind(), how)) for how in (
        sitk.CenteredTransformInitializerFilter.GEOMETRY, sitk.CenteredTransformInitializerFilter.MOMENTS)]
    return [header, *(start for start in centred if np.linalg.norm(start.GetTranslation()) > RESOLUTIONS_MM[0])]


def _coarse(image: sitk.Image, mm: float) -> sitk.Image:
    """Means of blocks of about `mm` an edge, float32."""
    edges = zip(image.GetSize(), image.GetSpacing())
    factors = [max(1, min(n // LEAST_EDGE, round(mm / spacing))) for n, spacing in edges]
    return sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)


def _clipped(image: sitk.Image) -> sitk.Image:
    """Without the extremes: metal or a hot spot would take most of the bins, and all the rest share one."""
    low, high = np.percentile(sitk.GetArrayViewFromImage(image), (0.5, 99.5))
    return sitk.Clamp(image, sitk.sitkFloat32, float(low), float(high))


def _method() -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetNumberOfWorkUnits(1)  # sums of several, added in another order each time, differ in the last digits
    return method


def _optimised(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform, mm: float) -> sitk.Transform:
    """From `start`, at this resolution; `start` itself where the scans do not overlap there."""
    fixed, moving = _coarse(fixed, mm), _coarse(moving, mm)
    method, transform = _method(), type(start)(start)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, SAMPLES / fixed.GetNumberOfPixels()), seed=1)
    method.SetOptimizerAsRegularStepGradientDescent(learningRate=mm / 2, minStep=mm / 200, numberOfIterations=100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    if _score(fixed, moving, start) > 0:
        method.Execute(fixed, moving)
    return transform


def _score(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    """Mutual information (nats) where the scans overlap; 0 if they do not."""
    method = _method()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        return -method.MetricEvaluate(_coarse(fixed, SCORED_AT_MM), _coarse(moving, SCORED_AT_MM))
    except RuntimeError:
        return 0.0
