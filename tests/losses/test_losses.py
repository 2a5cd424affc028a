import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity

from nnunetv2_rmr.losses.filters import separable_filter, sobel_magnitude
from nnunetv2_rmr.losses.ssim import ssim
from nnunetv2_rmr.losses.terms import LoggedTerms


@pytest.mark.parametrize("shape", [(2, 3, 6, 7, 8), (2, 3, 9, 5)])
def test_separable_filter_equals_the_dense_convolution(shape):
    x = torch.randn(shape, dtype=torch.double)
    dim = len(shape) - 2
    kernels = [torch.randn(n, dtype=torch.double) for n in (3, 5, 3)[:dim]]
    dense = torch.einsum(",".join("ijk"[:dim]) + "->" + "ijk"[:dim], *kernels)[None, None].repeat(3, 1, *[1] * dim)
    conv = F.conv3d if dim == 3 else F.conv2d
    expected = conv(x, dense, padding=[k.numel() // 2 for k in kernels], groups=3)
    torch.testing.assert_close(separable_filter(x, [k.tolist() for k in kernels]), expected)


def test_separable_filter_has_the_right_gradient():
    x = torch.randn(1, 1, 4, 5, 6, dtype=torch.double, requires_grad=True)
    kernels = [(0.1, 0.2, 0.3), (-0.5, 0, 0.5), (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert torch.autograd.gradcheck(lambda t: separable_filter(t, kernels), (x,))


def test_separable_filter_takes_kernels_longer_than_the_image():
    x = torch.ones(1, 1, 2, 2)
    torch.testing.assert_close(separable_filter(x, [[1.0] * 7, [1.0]]), torch.full_like(x, 2))


@pytest.mark.parametrize("dim", [2, 3])
def test_sobel_of_a_ramp_is_its_slope_on_every_axis(dim):
    axes = torch.meshgrid(*[torch.arange(6.0)] * dim, indexing="ij")
    ramp = sum((i + 1) * a for i, a in enumerate(axes))[None, None]
    torch.testing.assert_close(sobel_magnitude(ramp), torch.full((1, 1, *[4] * dim), float(sum(range(1, dim + 1)))))


def test_sobel_refuses_an_image_too_thin():
    with pytest.raises(ValueError, match="at least 3 voxels"):
        sobel_magnitude(torch.zeros(1, 1, 2, 8, 8))


@pytest.mark.parametrize("shape", [(18, 20, 22), (24, 30)])
def test_ssim_agrees_with_scikit_image(shape):
    rng = np.random.default_rng(0)
    a = rng.random(shape)
    b = a + 0.2 * rng.standard_normal(shape)
    expected = structural_similarity(a, b, data_range=1.3, gaussian_weights=True, sigma=1.5,
                                     use_sample_covariance=False)
    result = ssim(torch.tensor(a)[None, None], torch.tensor(b)[None, None], 1.3)
    assert result.item() == pytest.approx(expected, abs=1e-6)


def test_ssim_is_one_for_equal_images_and_exists_for_thin_ones():
    x = torch.randn(2, 3, 4, 16, 16)
    torch.testing.assert_close(ssim(x, x, 1.0), torch.ones(2, 3))


def test_logged_terms_are_means_over_the_steps_since_they_were_taken_last():
    loss = LoggedTerms(("a", "b"))
    for value in (1.0, 3.0):
        loss.log({"a": torch.tensor(value)})
    taken = loss.take()
    assert taken["a"] == 2 and np.isnan(taken["b"])
    assert np.isnan(loss.take()["a"])
