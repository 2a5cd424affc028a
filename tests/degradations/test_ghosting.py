import numpy as np
import pytest
import torch

from nnunetv2_rmr.degradations.artefacts import add_ghosts, draw_ghosts
from nnunetv2_rmr.evaluation.scan_degradations import SCAN_DEGRADATIONS


def box(*shape):
    """z-scores of a bright box in a darker body that fills the image."""
    image = torch.full(shape, -0.5)
    image[tuple(slice(n // 2 - 2, n // 2 + 2) for n in shape)] = 2.0
    return image


@pytest.mark.parametrize("shape", [(8, 9, 10), (12, 13)])
def test_zero_amplitude_is_identity_and_input_is_not_modified(shape):
    image = torch.randn(shape)
    before = image.clone()
    assert torch.equal(add_ghosts(image, 0, 3, 0.0, 4.0), image)
    add_ghosts(image, 0, 3, 0.1, 4.0)
    assert torch.equal(image, before)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ghosts", [2, 3, 4])
def test_copies_lie_an_nth_of_the_field_of_view_apart_with_the_stated_amplitude(axis, ghosts):
    image = box(24, 24, 24)
    change = add_ghosts(image, axis, ghosts, 0.1, 4.0) - image
    # minus the amplitude times every copy, the image itself among them; the mean along the axis is kept
    copies = sum(torch.roll(image, i * 24 // ghosts, axis) for i in range(ghosts))
    expected = -0.1 * (copies - copies.mean(axis, keepdim=True))
    torch.testing.assert_close(change, expected, atol=1e-4, rtol=1e-4)


def test_a_field_of_view_that_the_number_of_ghosts_does_not_divide():
    image = box(25, 26, 27)
    for ghosts in (2, 3, 4, 5):
        change = add_ghosts(image, 0, ghosts, 0.1, 4.0) - image
        assert torch.isfinite(change).all() and 0.02 < change.abs().max() < 1


def test_what_does_not_vary_along_the_axis_has_no_ghosts():
    image = torch.randn(1, 12, 14).expand(10, 12, 14) + 0.01
    torch.testing.assert_close(add_ghosts(image, 0, 2, 0.15, 6.0), image, atol=1e-5, rtol=1e-5)


def test_background_stays_zero_and_its_border_makes_ghosts():
    image = torch.zeros(24, 16)
    image[6:18] = 0.01  # homogeneous tissue of average intensity
    ghosted = add_ghosts(image, 0, 3, 0.1, 4.0)
    assert not ghosted[:6].any() and not ghosted[18:].any()
    assert (ghosted - image)[6:18].abs().max() > 0.1


def test_drawn_parameters_stay_within_severity_1_to_3():
    np.random.seed(0)
    drawn = [draw_ghosts((8, 8), (1, 1)) for _ in range(200)]
    low, _, high, *_ = SCAN_DEGRADATIONS["ghosting"].parameters  # of the tests
    assert all(low <= d["amplitude"] <= high for d in drawn)
    assert {d["ghosts"] for d in drawn} == {2, 3, 4, 5} and {d["axis"] for d in drawn} == {0, 1}
