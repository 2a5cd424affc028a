import numpy as np
import pytest
import torch

from nnunetv2_rmr.degradations.artefacts import add_stripes, draw_stripes
from nnunetv2_rmr.evaluation.scan_degradations import SCAN_DEGRADATIONS


@pytest.mark.parametrize("shape", [(8, 9, 10), (12, 13)])
def test_zero_strength_is_identity_and_input_is_not_modified(shape):
    image = torch.randn(shape)
    before = image.clone()
    assert torch.equal(add_stripes(image, 0.0, 2, seed=1), image)
    add_stripes(image, 0.5, 2, seed=1)
    assert torch.equal(image, before)


@pytest.mark.parametrize("shape", [(40, 40, 40), (120, 130)])
@pytest.mark.parametrize("spikes", [1, 2, 4])
def test_stripes_have_the_stated_root_mean_square(shape, spikes):
    stripes = [add_stripes(torch.zeros(shape), 0.4, spikes, seed) for seed in range(8)]
    assert np.mean([s.square().mean().item() for s in stripes]) ** 0.5 == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize("shape", [(32, 32, 32), (64, 64)])
def test_a_spike_is_one_place_in_k_space(shape):
    spectrum = torch.fft.fftn(add_stripes(torch.zeros(shape), 0.4, 1, seed=3)).abs().square()
    # a frequency between the bins leaks into its neighbours; with its mirror image that is a few of thousands
    assert spectrum.flatten().sort(descending=True).values[:64].sum() > 0.7 * spectrum.sum()
    assert spectrum.flatten()[0] < 0.05 * spectrum.sum()  # the mean stays


def test_seed_decides_the_stripes():
    image = torch.randn(8, 9, 10)
    assert torch.equal(add_stripes(image, 0.4, 3, seed=1), add_stripes(image, 0.4, 3, seed=1))
    assert not torch.equal(add_stripes(image, 0.4, 3, seed=1), add_stripes(image, 0.4, 3, seed=2))


def test_drawn_parameters_stay_within_severity_1_to_3():
    np.random.seed(0)
    drawn = [draw_stripes((8, 8), (1, 1)) for _ in range(200)]
    low, _, high, *_ = SCAN_DEGRADATIONS["spikes"].parameters  # of the tests
    assert all(low <= d["rms"] <= high for d in drawn)
    assert {d["spikes"] for d in drawn} == {1, 2, 3, 4}
