"""What RMR's fused images show, measured on the test cases: the page says no more than that.

Torch is imported where it is needed: it takes seconds, and the demo's first steps need none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np

from nnunetv2_rmr.datasets.phantom import CHANNELS
from nnunetv2_rmr.demo.job import TRAINERS
from nnunetv2_rmr.demo.results import DemoResults
from nnunetv2_rmr.evaluation.fusion_metrics.verdict import Facts, facts_of
from nnunetv2_rmr.fusion.body import body_mask

REFERENCE = "FLAIR"  # the modality whose intensities the fused image has in these data


def load(filename: Path) -> np.ndarray:
    """float32 (X, Y, Z)."""
    return np.asarray(nibabel.load(filename).dataobj).astype(np.float32)


def load_images(results: DemoResults, condition: str, case: str) -> dict[str, np.ndarray]:
    """Channel -> image."""
    return {channel: load(results.images(condition) / f"{case}_{i:04d}.nii.gz") for i, channel in enumerate(CHANNELS)}


def load_fused(results: DemoResults, condition: str, case: str) -> np.ndarray:
    """RMR's."""
    return load(results.predictions(TRAINERS[1], condition) / "fused" / f"{case}.nii.gz")


def gradient_fusion(images: Mapping[str, np.ndarray], spacing: Sequence[float]) -> np.ndarray:
    """Classical fusion without training, (X, Y, Z), in units of the reference modality. spacing: mm."""
    import torch

    from nnunetv2_rmr.fusion.fused_image import fused_image

    modalities = torch.from_numpy(np.stack(list(images.values())))
    return fused_image(modalities, modalities, spacing, list(images).index(REFERENCE)).numpy()


def facts_of_case(results: DemoResults, case: str) -> dict[str, Facts]:
    """Of the clean case: "RMR", its fused image, and "gradient", the classical one."""
    images, spacing = load_images(results, "clean", case), (results.options.spacing_mm,) * 3
    lesions = {"lesions": load(results.labels / f"{case}.nii.gz") > 0}
    fused = {"RMR": load_fused(results, "clean", case), "gradient": gradient_fusion(images, spacing)}
    brain = body_mask(list(images.values()))
    return {name: facts_of(image, images, brain, lesions, spacing) for name, image in fused.items()}


def psnr_of_case(results: DemoResults, condition: str, case: str) -> dict[str, float]:
    """dB within the brain against gradient fusion of the clean case, which RMR's fused image aims at: "fused", RMR's
    image of the case under the condition, and "gradient", gradient fusion of that (infinite if clean).
    """
    import torch

    from nnunetv2_rmr.evaluation.restoration import restoration_scores

    spacing, clean = (results.options.spacing_mm,) * 3, load_images(results, "clean", case)
    brain, target = torch.from_numpy(body_mask(list(clean.values()))), torch.from_numpy(gradient_fusion(clean, spacing))
    found = {"fused": load_fused(results, condition, case),
             "gradient": gradient_fusion(load_images(results, condition, case), spacing)}
    return {name: restoration_scores(torch.from_numpy(image), target, brain)["PSNR"] for name, image in found.items()}
