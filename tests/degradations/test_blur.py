import numpy as np
import pytest
import torch

from nnunetv2_rmr.degradations.resolution import draw_blur, gaussian_blur


def measured_sigma_mm(image, spacing):
    sigmas = []
    for axis, s in enumerate(spacing):
        profile = image.sum([a for a in range(image.ndim) if a != axis])
        x = torch.arange(len(profile)) * s
        mean = (profile * x).sum() / profile.sum()
        sigmas.append(((profile * (x - mean) ** 2).sum() / profile.sum()).sqrt().item())
    return sigmas


def delta(*shape):
    image = torch.zeros(shape)
    image[tuple(n // 2 for n in shape)] = 1
    return image


def test_zero_sigma_is_identity():
    image = torch.randn(5, 6, 7)
    assert torch.equal(gaussian_blur(image, 0, (3, 1, 1)), image)


def test_input_is_not_modified():
    image = torch.randn(5, 6, 7)
    before = image.clone()
    gaussian_blur(image, 2, (3, 1, 1))
    assert torch.equal(image, before)


def test_delta_gets_the_same_sigma_in_mm_on_anisotropic_spacing():
    spacing = (2.0, 1.0, 0.5)
    blurred = gaussian_blur(delta(21, 41, 81), 2.0, spacing)
    assert measured_sigma_mm(blurred, spacing) == pytest.approx([2.0] * 3, rel=0.01)


def test_delta_gets_each_axis_its_own_sigma():
    blurred = gaussian_blur(delta(41, 41, 41), (0.0, 1.5, 3.0), (1, 1, 1))
    assert measured_sigma_mm(blurred, (1, 1, 1)) == pytest.approx([0.0, 1.5, 3.0], rel=0.01, abs=1e-6)


def test_micrometre_voxels_are_blurred_like_millimetre_voxels():
    image = torch.randn(10, 11, 12)
    torch.testing.assert_close(gaussian_blur(image, 0.15, (0.1,) * 3), gaussian_blur(image, 1.5, (1,) * 3))


def test_constant_stays_constant_up_to_the_border():
    image = torch.full((6, 9, 12), -2.5)
    torch.testing.assert_close(gaussian_blur(image, 3.0, (3, 1, 1)), image)


def test_blur_is_the_same_in_every_slice():
    image = torch.randn(32, 32).expand(6, 32, 32)
    blurred = gaussian_blur(image, 1.5, (1, 1, 1))
    torch.testing.assert_close(blurred, gaussian_blur(image[0], 1.5, (1, 1)).expand_as(image))


def test_axes_before_the_spatial_ones_are_not_blurred():
    image = torch.randn(2, 8, 9)
    torch.testing.assert_close(gaussian_blur(image, 1.0, (1, 1))[1], gaussian_blur(image[1], 1.0, (1, 1)))


def test_drawn_sigmas_scale_with_the_finest_spacing():
    np.random.seed(0)
    sigmas = [draw_blur((8, 8, 8), (0.1, 0.1, 0.1), sigma=(0.5, 2.0), p_thick_slices=0)["sigma_mm"]
              for _ in range(50)]
    assert all(len(set(s)) == 1 and 0.05 <= s[0] <= 0.2 for s in sigmas)


def test_thick_slices_blur_one_random_axis_that_is_not_thick_already():
    np.random.seed(0)
    drawn = np.array([draw_blur((8, 8, 8), (4.0, 1.0, 1.0), thick_slice_sigma=(1.0, 3.0), p_thick_slices=1)["sigma_mm"]
                      for _ in range(50)])
    assert ((drawn > 0).sum(1) == 1).all()
    assert (drawn > 0).any(0).tolist() == [False, True, True]
    assert drawn.max() <= 3.0
