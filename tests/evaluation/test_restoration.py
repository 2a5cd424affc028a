"""How well a fused image restores its clean target: scores against hand-computed values and scikit-image's."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from nnunetv2_rmr.evaluation.fusion_metrics.similarity import restoration_scores

SHAPE = (14, 16, 18)


@pytest.fixture
def clean() -> torch.Tensor:
    field = gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 2)
    return torch.from_numpy(field / field.std())


@pytest.fixture
def restored(clean) -> torch.Tensor:
    return clean + 0.3 * torch.from_numpy(np.random.default_rng(1).standard_normal(SHAPE))


def everywhere() -> torch.Tensor:
    return torch.ones(SHAPE, dtype=torch.bool)


def span(image: torch.Tensor) -> float:
    low, high = np.quantile(image.numpy(), (0.001, 0.999))
    return high - low


@pytest.mark.parametrize("unit", [1.0, 10.0])
def test_psnr_is_of_the_clean_images_range(unit):
    step = torch.zeros(SHAPE)
    step[..., 9:] = unit
    assert restoration_scores(step + 0.1 * unit, step, everywhere())["PSNR"] == pytest.approx(20, abs=1e-3)


def test_equal_images_are_perfect(clean):
    assert restoration_scores(clean, clean, everywhere()) == {"PSNR": float("inf"), "SSIM": pytest.approx(1)}


def test_ssim_is_scikit_images_but_for_the_border(clean, restored):
    """There windows see the image mirrored, here only their part inside."""
    full = structural_similarity(restored.numpy(), clean.numpy(), data_range=span(clean), gaussian_weights=True,
                                 sigma=1.5, use_sample_covariance=False, full=True)[1]
    assert 0.2 < full.mean() < 0.95
    assert restoration_scores(restored, clean, everywhere())["SSIM"] == pytest.approx(full.mean(), abs=0.03)


def test_what_lies_outside_does_not_count(clean, restored):
    inside = everywhere()
    inside[:, :, 13:] = False
    garbage = torch.where(inside, restored, 1e3), torch.where(inside, clean, -1e3)
    assert restoration_scores(*garbage, inside) == restoration_scores(restored, clean, inside)
