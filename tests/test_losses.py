import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity

from nnunetv2_rmr.losses.coupled import TERMS, term_weights
from nnunetv2_rmr.losses.filters import separable_filter, sobel_magnitude
from nnunetv2_rmr.losses.fusion import gradient_loss, intensity_loss
from nnunetv2_rmr.losses.refinement import feature_refinement, image_refinement
from nnunetv2_rmr.losses.residual import residual_loss
from nnunetv2_rmr.losses.ssim import ssim
from nnunetv2_rmr.settings import RMRSettings


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


def test_intensity_loss_is_the_mean_of_absolute_or_of_squared_differences():
    clean = torch.randn(2, 3, 6, 6, 6)
    for norm, expected in (("l1", 0.3), ("l2", 0.09)):
        assert intensity_loss(clean[:, 1:2] + 0.3, clean, "reference", 1, norm).item() == pytest.approx(expected)


def test_intensity_loss_is_zero_for_its_own_target_only():
    clean = torch.randn(2, 3, 4, 4, 4)
    assert intensity_loss(clean[:, 1:2], clean, "reference", 1) == 0
    assert intensity_loss(clean[:, 1:2], clean, "reference", 2) > 0
    assert intensity_loss(clean.amax(1, keepdim=True), clean, "maximum", 0) == 0
    with pytest.raises(ValueError, match="'mean'"):
        intensity_loss(clean[:, :1], clean, "mean", 0)


def test_gradient_loss_wants_the_strongest_edge_of_any_modality():
    edge, flat = torch.zeros(1, 1, 6, 6, 6), torch.zeros(1, 1, 6, 6, 6)
    edge[..., 3:] = 2
    clean = torch.cat((flat, edge), 1)
    assert gradient_loss(edge, clean) == 0
    assert gradient_loss(-edge, clean) == 0  # the direction does not count
    assert gradient_loss(flat, clean) > gradient_loss(0.5 * edge, clean) > 0


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


def test_total_variation_of_a_checkerboard_is_its_step():
    board = ((torch.arange(4)[:, None] + torch.arange(4)) % 2 * 3.0)[None, None]
    assert residual_loss(board, torch.zeros_like(board), 2, 0, 1) == 3
    assert residual_loss(board, torch.zeros_like(board), 2, 0, 1, "l2") == 18


def written_out(x, target, spatial_dims, mse_weight, tv_weight, tv_norm, scale):
    residual = (x - target) / scale
    differences = [residual.diff(dim=a) for a in range(x.ndim - spatial_dims, x.ndim) if x.shape[a] > 1]
    tv = sum(d.square().mean() for d in differences) if tv_norm == "l2" else \
        sum(d.abs().mean() for d in differences) / len(differences)
    return mse_weight * residual.square().mean() + tv_weight * tv


@pytest.mark.parametrize("tv_norm", ["l1", "l2"])
@pytest.mark.parametrize(("shape", "spatial_dims"), [((2, 3, 4, 5, 6), 3), ((2, 2, 3, 5, 1, 4), 3), ((3, 2, 4, 5), 2)])
def test_residual_loss_and_its_gradient_are_those_of_the_formula(shape, spatial_dims, tv_norm):
    x, target = torch.randn(2, *shape, dtype=torch.double).requires_grad_()
    values = {}
    for loss in (residual_loss, written_out):
        value = 3 * loss(x, target, spatial_dims, 2.0, 0.7, tv_norm, 1.7)
        values[loss] = value, *torch.autograd.grad(value, (x, target))
    torch.testing.assert_close(values[residual_loss], values[written_out])


def test_residual_loss_of_half_precision_keeps_its_digits():
    x, target = torch.randn(2, 2, 4, 32, 32, 32).half().float()
    exact, half = x.clone().requires_grad_(), x.half().requires_grad_()
    scaler = 2.0 ** 16  # as under automatic mixed precision
    loss = [scaler * residual_loss(t, target.to(t.dtype), 3, 1, 1) for t in (exact, half)]
    torch.testing.assert_close(loss[0], loss[1], rtol=1e-3, atol=0)
    (loss[0] + loss[1]).backward()
    assert half.grad.dtype == torch.float16
    torch.testing.assert_close(half.grad.float(), exact.grad, rtol=0.01, atol=0.01 * exact.grad.abs().max().item())


@pytest.mark.parametrize("deviation", [1, 1e-2, 2e-3])
def test_feature_refinement_of_nearly_empty_patches_has_finite_gradients_in_half_precision(deviation):
    clean, degraded = (deviation * torch.randn(2, 2, 2, 4, 16, 16, 16)).half().float()
    half = degraded.half().requires_grad_()
    (2.0 ** 16 * feature_refinement(half, clean.half(), 1, 1)).backward()  # scaled as under automatic mixed precision
    exact = degraded.clone().requires_grad_()
    (2.0 ** 16 * feature_refinement(exact, clean, 1, 1)).backward()
    torch.testing.assert_close(half.grad.float(), exact.grad, rtol=0.02, atol=0.02 * exact.grad.abs().max().item())


def test_refinement_is_zero_without_degradation_and_positive_with():
    clean = torch.randn(2, 2, 12, 12, 12)
    assert image_refinement(clean, clean, 1, 1, 1).item() == pytest.approx(0, abs=1e-5)
    assert image_refinement(clean + 0.1, clean, 1, 1, 1) > 0.005
    features = torch.randn(2, 2, 4, 6, 6, 6)
    assert feature_refinement(features, features, 1, 1) == 0
    assert feature_refinement(features + 0.1, features, 1, 1) > 0


def test_feature_refinement_can_not_be_fooled_by_small_features():
    degraded, clean = torch.randn(2, 1, 2, 4, 6, 6, 6).unbind(0)
    torch.testing.assert_close(feature_refinement(degraded * 0.1, clean * 0.1, 1, 1),
                               feature_refinement(degraded, clean, 1, 1))


def test_feature_refinement_moves_the_degraded_features_only():
    degraded, clean = (torch.randn(1, 2, 4, 6, 6, 6, requires_grad=True) for _ in range(2))
    feature_refinement(degraded, clean, 1, 1).backward()
    assert degraded.grad is not None and clean.grad is None


def test_published_feature_refinement_does_not_let_features_grow():
    gain = torch.ones((), requires_grad=True)  # of an encoder that only multiplies
    clean = torch.randn(1, 2, 4, 6, 6, 6)
    degraded = 0.5 * clean  # as blur makes it
    feature_refinement(gain * degraded, gain * clean, 40, 20, "l2", relative=False).backward()
    assert gain.grad > 0


def test_losses_of_an_empty_patch_are_finite():
    zero = torch.zeros(1, 2, 12, 12, 12, requires_grad=True)
    loss = image_refinement(zero, torch.zeros(1, 2, 12, 12, 12), 1, 1, 1)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(zero.grad).all()


def test_a_term_without_weight_is_not_part_of_its_stage():
    assert set(term_weights(1, RMRSettings())) == {"image_refinement", "feature_refinement"}
    assert set(term_weights(2, RMRSettings())) == set(TERMS) - {"reconstruction"}
    assert set(term_weights(2, RMRSettings(all_modalities_weight=0.5))) == set(TERMS)
    assert set(term_weights(2, RMRSettings(freeze_autoencoder=True))) == {"segmentation", "intensity", "gradient"}
    assert set(term_weights(2, RMRSettings(intensity_weight=0, gradient_weight=0, refinement_weight=0))) == \
        {"segmentation"}
