import numpy as np
import pytest
import torch

from nnunetv2_rmr.degradations.artefacts import draw_bias_field, draw_log_gain, from_signal, shade, to_signal
from nnunetv2_rmr.evaluation.scan_degradations import SCAN_DEGRADATIONS

SHAPES = [(14, 16, 18), (20, 24)]


def scan(shape, mean=4.0):
    """z-scores of a body (raw mean / deviation = mean) in a background of zeros; and the body."""
    rng = np.random.default_rng(0)
    body = torch.zeros(shape, dtype=torch.bool)
    body[tuple(slice(2, -2) for _ in shape)] = True
    values = torch.from_numpy(rng.normal(0, 1, shape)).float().clamp(-0.9 * mean, None)
    return torch.where(body, values, 0), body


@pytest.mark.parametrize("shape", SHAPES)
def test_zero_strength_is_identity_and_input_is_not_modified(shape):
    image, _ = scan(shape)
    before = image.clone()
    assert torch.equal(shade(image, 0.0, 1.5, 4.0, seed=1), image)
    shade(image, 0.1, 1.5, 4.0, seed=1)
    assert torch.equal(image, before)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_raw_signal_is_multiplied_and_background_stays(shape):
    image, body = scan(shape)
    shaded = shade(image, 0.1, 1.5, 4.0, seed=1)
    gain = (shaded + 4)[body] / (image + 4)[body]
    expected = torch.from_numpy(np.exp(draw_log_gain(shape, 0.1, 1.5, np.random.default_rng(1)))).float()[body]
    torch.testing.assert_close(gain, expected, rtol=1e-4, atol=1e-4)
    assert not shaded[~body].any()
    # on the z-scores themselves it is no gain: what is average tissue (z = 0) is shaded, too
    nearly_zero = body & (image.abs() < 0.05)
    assert (shaded - image)[nearly_zero].abs().max() > 0.05


@pytest.mark.parametrize("shape", [(24, 20, 22), (40, 44)])
def test_log_gain_over_the_field_of_view_has_mean_zero_and_the_stated_deviation(shape):
    for seed in range(5):
        log_gain = draw_log_gain(shape, 0.1, 1.0, np.random.default_rng(seed))
        assert log_gain.shape == shape
        assert log_gain.mean() == pytest.approx(0, abs=1e-3)
        assert log_gain.std() == pytest.approx(0.1, rel=0.03)


def test_a_patch_of_a_larger_field_of_view_is_shaded_more_smoothly():
    def roughness(extent):
        fields = [draw_log_gain((20, 20, 20), 0.1, extent, np.random.default_rng(seed)) for seed in range(30)]
        return np.mean([np.abs(np.diff(f, axis=0)).mean() for f in fields])

    assert roughness(2.0) < 0.7 * roughness(1.0)


def test_the_field_is_smooth():
    log_gain = draw_log_gain((64, 64), 0.12, 1.0, np.random.default_rng(0))
    assert np.abs(np.diff(log_gain, axis=0)).max() < 0.1


def test_seed_decides_the_field():
    image, _ = scan((10, 12, 14))
    assert torch.equal(shade(image, 0.1, 1.5, 4.0, seed=1), shade(image, 0.1, 1.5, 4.0, seed=1))
    assert not torch.equal(shade(image, 0.1, 1.5, 4.0, seed=1), shade(image, 0.1, 1.5, 4.0, seed=2))


def test_drawn_strengths_stay_within_severity_1_to_3():
    np.random.seed(0)
    drawn = [draw_bias_field((8, 8, 8), (1, 1, 1)) for _ in range(100)]
    low, _, high, *_ = SCAN_DEGRADATIONS["bias_field"].parameters  # of the tests
    assert all(low <= d["strength"] <= high and 1 <= d["extent"] <= 2 for d in drawn)
    assert len({d["seed"] for d in drawn}) == 100


def test_signal_is_not_negative_and_comes_back_as_the_same_z_scores():
    image, body = scan((8, 9, 10))
    for offset in (0.5, 6.0):  # 0.5 is less than the lowest value allows
        signal, used = to_signal(image, offset)
        assert signal.min() >= 0 and not signal[~body].any()
        assert used == pytest.approx(max(offset, -image.min().item()))
        torch.testing.assert_close(from_signal(signal, image, used), image)
