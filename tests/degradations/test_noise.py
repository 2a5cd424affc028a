import math

import pytest
import torch

from nnunetv2_rmr.degradations.noise import add_gaussian_noise, add_noise, add_rician_noise

FUNCTIONS = [add_gaussian_noise, add_rician_noise]


@pytest.fixture
def image():
    return torch.randn(12, 14, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("add_noise", FUNCTIONS)
def test_zero_sigma_is_identity(add_noise, image):
    assert torch.equal(add_noise(image, 0.0, seed=1), image)


@pytest.mark.parametrize("add_noise", FUNCTIONS)
def test_input_is_not_modified(add_noise, image):
    before = image.clone()
    add_noise(image, 0.5, seed=1)
    assert torch.equal(image, before)


@pytest.mark.parametrize("add_noise", FUNCTIONS)
def test_seed_decides_the_noise(add_noise, image):
    assert torch.equal(add_noise(image, 0.5, seed=1), add_noise(image, 0.5, seed=1))
    assert not torch.equal(add_noise(image, 0.5, seed=1), add_noise(image, 0.5, seed=2))


@pytest.mark.parametrize("add_noise", FUNCTIONS)
def test_global_generator_is_left_alone(add_noise, image):
    before = torch.get_rng_state()
    add_noise(image, 0.5, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_gaussian_noise_has_the_requested_standard_deviation_and_no_bias():
    noise = add_gaussian_noise(torch.zeros(40, 40, 40), 0.4, seed=1)
    assert noise.std().item() == pytest.approx(0.4, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)


def test_rician_noise_without_signal_is_rayleigh_above_the_floor():
    floor, sigma = -3.0, 0.4
    noisy = add_rician_noise(torch.full((40, 40, 40), floor), sigma, seed=1)
    assert (noisy.mean() - floor).item() == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.02)
    assert noisy.std().item() == pytest.approx(sigma * math.sqrt(2 - math.pi / 2), rel=0.02)
    assert noisy.min().item() >= floor


def test_rician_noise_on_strong_signal_is_gaussian_with_a_small_bias():
    signal, sigma = 4.0, 0.4
    noisy = add_rician_noise(torch.ones(60, 60, 60), sigma, seed=1, floor=1.0 - signal)
    assert (noisy.mean() - 1).item() == pytest.approx(sigma**2 / (2 * signal), rel=0.2)
    assert noisy.std().item() == pytest.approx(sigma, rel=0.02)


def test_noise_of_the_range_is_a_fraction_of_it(image):
    spread = float(image.max() - image.min())
    assert torch.equal(add_noise(image, 0.1, False, 1, of_range=True), add_noise(image, 0.1 * spread, False, 1))
