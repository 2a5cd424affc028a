"""What RMR's fused images show, measured on the test cases: the page says no more than that."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np

from nnunetv2_rmr.datasets.phantom import CHANNELS
from nnunetv2_rmr.demo.job import TRAINERS
from nnunetv2_rmr.demo.results import DemoResults
from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import to_unit_range
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
    """Classical fusion without training, (X, Y, Z), about 0..1, 0 outside the brain. spacing: mm."""
    brain = body_mask(list(images.values()))
    sources = [to_unit_range(image, brain) for image in images.values()]
    return fuse("gradient", sources, brain, spacing, list(images).index(REFERENCE))


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
    # here: torch takes seconds to import, and the demo's first steps need none
    import torch

    from nnunetv2_rmr.evaluation.restoration import restoration_scores
    from nnunetv2_rmr.fusion.fused_image import fused_image

    def fusion(of_condition: str) -> torch.Tensor:
        images = torch.from_numpy(np.stack(list(load_images(results, of_condition, case).values())))
        return fused_image(images, images, (results.options.spacing_mm,) * 3, list(CHANNELS).index(REFERENCE))

    brain = torch.from_numpy(body_mask(list(load_images(results, "clean", case).values())))
    clean, images = fusion("clean"), {"fused": torch.from_numpy(load_fused(results, condition, case)),
                                      "gradient": fusion(condition)}
    return {name: restoration_scores(image, clean, brain)["PSNR"] for name, image in images.items()}
