import numpy as np
import pytest
import torch

from nnunetv2_rmr.degradations.resolution import draw_thick_slices, thick_slice_matrix, thicken_slices
from nnunetv2_rmr.evaluation.scan_degradations import SCAN_DEGRADATIONS


@pytest.mark.parametrize("shape", [(8, 9, 10), (12, 13)])
def test_slices_not_thicker_than_the_voxels_are_identity_and_input_is_not_modified(shape):
    image = torch.randn(shape)
    before = image.clone()
    assert torch.equal(thicken_slices(image, 0, 2.0, 2.0, 0.3), image)
    thicken_slices(image, 0, 1.0, 4.0, 0.3)
    assert torch.equal(image, before)


@pytest.mark.parametrize("thickness", [2.0, 3.7, 6.0, 50.0])
@pytest.mark.parametrize("start", [0.0, 0.4, 0.99])
def test_every_voxel_is_a_mean_of_voxels(thickness, start):
    matrix = thick_slice_matrix(20, 1.2, thickness, start)
    assert matrix.shape == (20, 20) and (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(1), 1)


def test_the_matrix_by_hand():
    expected = [[4, 4, 0, 0], [3, 3, 1, 1], [1, 1, 3, 3], [0, 0, 4, 4]]
    np.testing.assert_allclose(thick_slice_matrix(4, 1.0, 2.0, 0.0), np.divide(expected, 8))


def test_slice_centres_hold_the_means_of_the_slices():
    image = torch.randn(15, 4, 5)
    thick = thicken_slices(image, 0, 1.0, 3.0, 0.0)
    means = image.reshape(5, 3, 4, 5).mean(1)
    torch.testing.assert_close(thick[1::3], means)  # the middle voxel of every slice
    torch.testing.assert_close(thick[2], (2 * means[0] + means[1]) / 3)  # linear in between
    torch.testing.assert_close(thick[0], means[0])  # constant beyond


def test_a_ramp_stays_a_ramp_away_from_the_ends():
    ramp = torch.arange(30.0)[:, None].expand(30, 4) + 1
    thick = thicken_slices(ramp, 0, 0.5, 2.0, 0.0)
    torch.testing.assert_close(thick[4:-4], ramp[4:-4])


def test_only_one_axis_loses_resolution():
    image = torch.randn(16, 16, 16)
    change = (thicken_slices(image, 1, 1.0, 4.0, 0.5) - image).abs()
    assert change.mean() > 0.3
    along_others = torch.randn(16, 1, 16).expand(16, 16, 16)
    torch.testing.assert_close(thicken_slices(along_others, 1, 1.0, 4.0, 0.5), along_others)


def test_background_counts_in_no_average():
    image = torch.zeros(20, 6)
    image[5:15] = 2.5
    torch.testing.assert_close(thicken_slices(image, 0, 1.0, 4.0, 0.3), image)


def test_drawn_slices_are_thick_along_axes_that_are_not_thick_already_within_severity_1_to_3():
    np.random.seed(0)
    drawn = [draw_thick_slices((8, 8, 8), (4.0, 1.0, 1.5)) for _ in range(100)]
    low, _, high, *_ = SCAN_DEGRADATIONS["anisotropy"].parameters  # of the tests
    assert all(low <= d["thickness_mm"] <= high for d in drawn)
    assert {(d["axis"], d["spacing_mm"]) for d in drawn} == {(1, 1.0), (2, 1.5)}


def test_a_mouse_keeps_more_than_one_slice():
    np.random.seed(0)
    drawn = draw_thick_slices((64, 64, 64), (0.1, 0.1, 0.1))
    assert drawn["thickness_mm"] == pytest.approx(0.8)
