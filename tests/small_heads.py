"""Heads of 36 x 40 x 38 voxels of 3 mm in two modalities, and the same after the patient has moved."""

import numpy as np
import SimpleITK as sitk

SPACING_MM = 3.0


def head(seed: int = 0) -> tuple[sitk.Image, sitk.Image]:
    """Two modalities of one head: their intensities are no function of one another."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in (36, 40, 38)], indexing="ij")
    brain = sum((g / scale) ** 2 for g, scale in zip(grid, (0.75, 0.85, 0.65))) < 1
    lobe = sum((g - c) ** 2 for g, c in zip(grid, (0.2, -0.3, 0.1))) < 0.1
    core = sum((g - c) ** 2 for g, c in zip(grid, (-0.3, 0.2, -0.2))) < 0.05
    levels = (100 * brain + 50 * lobe - 40 * core, 60 * brain - 50 * lobe + 70 * core)
    return tuple(image_of(level + rng.normal(0, 3, level.shape)) for level in levels)


def image_of(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array.astype(np.float32))
    image.SetSpacing([SPACING_MM] * 3)
    return image


def elsewhere(image: sitk.Image, shift=(0.0, 0.0, 0.0), degrees: float = 0.0) -> tuple[sitk.Image, sitk.Transform]:
    """The patient moved in the scanner, the grid did not; and the motion."""
    centre = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    motion = sitk.Euler3DTransform(centre, 0.0, 0.0, np.radians(degrees), shift)
    return sitk.Resample(image, image, motion.GetInverse(), sitk.sitkLinear), motion
