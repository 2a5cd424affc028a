"""Degraded copies of test images: what the demo asks both models to cope with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from nnunetv2_rmr.datasets.phantom import add_rician_noise, smooth_field
from nnunetv2_rmr.files.atomic import replacing


@dataclass(frozen=True)
class Degradation:
    """trained: whether corruptions of this kind are in the training of nnUNetTrainerRMR (noise and blur are, weaker, in
    nnU-Net's own augmentation, too). apply: (generator, image, boolean brain mask, voxel edge in mm) -> image.
    """

    text: str
    trained: bool
    apply: Callable[[np.random.Generator, np.ndarray, np.ndarray, float], np.ndarray]


def _noise(rng: np.random.Generator, image: np.ndarray, brain: np.ndarray, voxel_mm: float) -> np.ndarray:
    return add_rician_noise(rng, image, 0.1 * np.percentile(image[brain], 99))


def _blur(rng: np.random.Generator, image: np.ndarray, brain: np.ndarray, voxel_mm: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, 3.0 / voxel_mm)


def _bias_field(rng: np.random.Generator, image: np.ndarray, brain: np.ndarray, voxel_mm: float) -> np.ndarray:
    return image * np.exp(0.35 * smooth_field(rng, image.shape, voxel_mm, 70))


DEGRADATIONS = {
    "noise": Degradation("Rician noise, sigma 10 % of the brain's 99th percentile", True, _noise),
    "blur": Degradation("Gaussian blur, sigma 3 mm", True, _blur),
    "bias field": Degradation("smooth gain, standard deviation 35 %", False, _bias_field),
}


def write_degraded(kind: str, source: Path, target: Path, seed: int) -> None:
    """Degraded copies of all images (int16 .nii.gz, 0 outside of the brain) of one folder in another; 0 stays 0.

    Every modality of a case is degraded on its own.
    """
    for number, filename in enumerate(sorted(source.glob("*.nii.gz"))):
        image = nibabel.load(filename)
        values = np.asarray(image.dataobj).astype(np.float32)
        brain = values > 0
        rng = np.random.default_rng([seed, list(DEGRADATIONS).index(kind), number])
        values = DEGRADATIONS[kind].apply(rng, values, brain, float(image.header.get_zooms()[0]))
        values = np.where(brain, np.clip(np.rint(values), 1, np.iinfo(np.int16).max), 0).astype(np.int16)
        with replacing(target / filename.name) as temporary:
            nibabel.save(nibabel.Nifti1Image(values, image.affine), temporary)
