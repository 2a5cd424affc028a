"""What RMR's fused images show, measured on the test cases: the page says no more than that."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np

from nnunetv2_rmr.datasets.phantom import CHANNELS
from nnunetv2_rmr.demo.job import TRAINERS
from nnunetv2_rmr.demo.results import DemoResults
from nnunetv2_rmr.evaluation.body import body_mask
from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import to_unit_range
from nnunetv2_rmr.evaluation.fusion_metrics.verdict import Facts, facts_of

REFERENCE = "FLAIR"  # the modality that RMR aims at by default in these data


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
    """dB within the brain against what the fused image of the clean case aims at, the clean FLAIR: "fused", RMR's image
    of the case under the condition, and "FLAIR", that of the condition itself (infinite if clean).
    """
    # here: torch takes seconds to import, and the demo's first steps need none
    import torch

    from nnunetv2_rmr.evaluation.restoration import fusion_target, restoration_scores
    from nnunetv2_rmr.settings import RMRSettings

    target = fusion_target(RMRSettings(reference_modality=REFERENCE), list(CHANNELS))
    raw = {c: torch.from_numpy(np.stack(list(load_images(results, c, case).values()))) for c in ("clean", condition)}
    brain, clean = raw["clean"].amax(0) > 0, target(raw["clean"])
    return {"fused": restoration_scores(torch.from_numpy(load_fused(results, condition, case)), clean, brain)["PSNR"],
            "FLAIR": restoration_scores(target(raw[condition]), clean, brain)["PSNR"]}
