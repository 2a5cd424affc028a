import sys

import numpy as np
import pytest

from nnunetv2_rmr.evaluation.fusion_baselines import BASELINES
from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse
from nnunetv2_rmr.evaluation.fusion_baselines.selection import strongest
from nnunetv2_rmr.evaluation.fusion_baselines.wavelet import PyWaveletsMissing


@pytest.fixture
def image() -> np.ndarray:
    coordinates = np.indices((17, 20, 23), dtype=np.float32)
    return (0.5 + 0.3 * np.sin(coordinates[0] / 2) * np.cos(coordinates[1] / 3 + coordinates[2] / 4)).astype(np.float32)


@pytest.mark.parametrize("name", BASELINES)
def test_equal_sources_are_fused_to_themselves(name, image):
    fused = fuse(name, [image] * 3, np.ones(image.shape, bool))
    np.testing.assert_allclose(fused, image, atol=1e-5)
    assert fused.dtype == np.float32


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("shape", [(1, 9, 8), (3, 30, 31), (15, 18)])
def test_thin_and_2d_images_can_be_fused(name, shape):
    sources = list(np.random.default_rng(0).random((2, *shape), dtype=np.float32))
    fused = fuse(name, sources, np.ones(shape, bool))
    assert fused.shape == shape and np.isfinite(fused).all()


@pytest.mark.parametrize("name", BASELINES)
def test_what_lies_outside_the_mask_is_zero(name, image):
    mask = np.indices(image.shape)[0] > 5
    fused = fuse(name, [image * mask, (1 - image) * mask], mask)
    assert not fused[~mask].any() and fused[mask].any()


@pytest.mark.parametrize("name", BASELINES)
def test_sources_are_left_as_they_are(name, image):
    sources = [image, 1 - image]
    before = [s.copy() for s in sources]
    fuse(name, sources, np.ones(image.shape, bool))
    np.testing.assert_array_equal(sources, before)


def test_average_and_maximum_by_hand():
    sources = [np.array([[0.0, 0.6]], np.float32), np.array([[0.4, 0.2]], np.float32)]
    mask = np.ones((1, 2), bool)
    np.testing.assert_allclose(fuse("average", sources, mask), [[0.2, 0.4]])
    np.testing.assert_allclose(fuse("maximum", sources, mask), [[0.4, 0.6]])


def test_the_strongest_coefficient_keeps_its_sign():
    np.testing.assert_array_equal(strongest([np.array([1.0, -3, 0]), np.array([-2.0, 2, 0])]), [-2, -3, 0])


@pytest.mark.parametrize("name", ["laplacian", "wavelet", "guided"])
def test_detail_of_either_source_is_kept_better_than_by_the_average(name):
    # one source has detail in one half, the other in the other half
    noise = np.random.default_rng(0).normal(0, 0.1, (24, 24, 24)).astype(np.float32)
    left = np.indices(noise.shape)[0] < 12
    sources = [0.5 + noise * left, 0.5 + noise * ~left]
    mask = np.ones(noise.shape, bool)

    def error(method: str) -> float:
        return float(np.abs(fuse(method, sources, mask) - (0.5 + noise)).mean())

    assert error(name) < 0.5 * error("average")


def test_without_pywavelets_the_wavelet_baseline_says_what_to_install(monkeypatch, image):
    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(PyWaveletsMissing, match=r"pip install \"nnunetv2-rmr\[benchmark\]\""):
        fuse("wavelet", [image] * 2, np.ones(image.shape, bool))
