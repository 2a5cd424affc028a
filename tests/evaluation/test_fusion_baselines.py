import sys

import numpy as np
import pytest

from nnunetv2_rmr.evaluation.fusion_baselines import METHODS
from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse, strongest
from nnunetv2_rmr.fusion.gradient import COARSE_WEIGHT, gradient


@pytest.fixture
def image() -> np.ndarray:
    coordinates = np.indices((17, 20, 23), dtype=np.float32)
    return (0.5 + 0.3 * np.sin(coordinates[0] / 2) * np.cos(coordinates[1] / 3 + coordinates[2] / 4)).astype(np.float32)


@pytest.mark.parametrize("name", METHODS)
def test_equal_sources_are_fused_to_themselves(name, image):
    fused = fuse(name, [image] * 3, np.ones(image.shape, bool))
    np.testing.assert_allclose(fused, image, atol=1e-5)
    assert fused.dtype == np.float32


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(1, 9, 8), (3, 30, 31), (15, 18)])
def test_thin_and_2d_images_can_be_fused(name, shape):
    sources = list(np.random.default_rng(0).random((2, *shape), dtype=np.float32))
    fused = fuse(name, sources, np.ones(shape, bool))
    assert fused.shape == shape and np.isfinite(fused).all()


@pytest.mark.parametrize("name", METHODS)
def test_what_lies_outside_the_mask_is_zero(name, image):
    mask = np.indices(image.shape)[0] > 5
    fused = fuse(name, [image * mask, (1 - image) * mask], mask)
    assert not fused[~mask].any() and fused[mask].any()


@pytest.mark.parametrize("name", METHODS)
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
    with pytest.raises(ImportError, match=r"pip install \"nnunetv2-rmr\[benchmark\]\""):
        fuse("wavelet", [image] * 2, np.ones(image.shape, bool))


# ----------------------------------------------------------------------------------------------------------- gradient

def test_a_copy_is_the_reference_modality(image):
    mask = np.ones(image.shape, bool)
    np.testing.assert_array_equal(fuse("copy", [image, 1 - image], mask, reference=1), 1 - image)
    np.testing.assert_array_equal(fuse("copy", [image, 1 - image], mask), 1 - image)  # the last


def steps_and_blocks() -> list[np.ndarray]:
    """A reference with a bright block; a modality with a dark one elsewhere, on smooth ground."""
    reference = 0.4 + 0.05 * np.sin(np.indices((20, 24, 28))[0] / 5)
    other = 0.6 + 0.05 * np.cos(np.indices((20, 24, 28))[1] / 5)
    reference[4:9, 4:9, 4:9] += 0.4
    other[11:16, 13:18, 15:20] -= 0.4
    return [reference.astype(np.float32), other.astype(np.float32)]


def test_edges_of_every_modality_are_in_the_gradient_fusion_each_with_its_own_sign():
    sources = steps_and_blocks()
    fused = fuse("gradient", sources, np.ones(sources[0].shape, bool), (1, 1, 1), 0)
    bright, dark = fused[4, 6, 6] - fused[3, 6, 6], fused[11, 15, 17] - fused[10, 15, 17]
    assert bright == pytest.approx(0.4, abs=0.1)  # the reference's step, in its units
    assert dark < -0.25  # the other's step goes down, and so does the fused image's


@pytest.mark.parametrize(("mm", "coarse_mm"), [(2.0, 3.0), (5.0, 7.5)])
def test_the_gradient_fusion_solves_its_least_squares_problem(mm, coarse_mm):
    """In 1D, on fine and coarse voxels, against the dense normal equations."""
    n = 24
    rng = np.random.default_rng(0)
    sources = a, b, c = rng.standard_normal((3, n)).astype(np.float32)
    b[5] = b[6] = c[6] = 4  # brighter than 1.5 standard deviations: at 5 of one modality alone, at 6 of two
    fused = gradient(sources, np.ones(n, bool), (mm,), 0)
    difference = (np.eye(n, k=1) - np.eye(n))[:-1] / mm
    steps = np.stack([difference @ source for source in sources])
    spread = np.sqrt((steps ** 2).sum(1) / n)
    scale = spread[0] / spread
    steps *= scale[:, None]
    field = (steps ** 3).sum(0) / (steps ** 2).sum(0)
    cosines = np.cos(np.pi * np.arange(n)[:, None] * (np.arange(n) + 0.5) / n) * np.sqrt(2 / n)
    cosines[0] /= np.sqrt(2)
    smooth = cosines.T @ np.diag(np.exp(-(np.pi * np.arange(n) / n * coarse_mm / mm) ** 2 / 2)) @ cosines
    of_b, of_c = ((source - np.median(source)) / source.std() for source in (b, c))
    bright = ((of_b - np.maximum(of_c, 1.5)).clip(0) * b.std() * scale[1]
              + (of_c - np.maximum(of_b, 1.5)).clip(0) * c.std() * scale[2])
    coarse = a - np.median(a) + bright
    weight = COARSE_WEIGHT * 3.0 / coarse_mm
    expected = np.linalg.solve(difference.T @ difference + weight * smooth @ smooth,
                               difference.T @ field + weight * smooth @ smooth @ coarse) + np.median(a)
    np.testing.assert_allclose(fused, expected, atol=2e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_varies_along_one_axis_is_fused_as_in_1d_with_the_spacing_of_that_axis(axis):
    spacing, shape = (0.5, 1.0, 2.0), [4, 4, 4]
    shape[axis] = 12
    lines = np.random.default_rng(0).standard_normal((3, 12)).astype(np.float32)
    along = [-1 if a == axis else 1 for a in range(3)]
    sources = [np.broadcast_to(line.reshape(along), shape).copy() for line in lines]
    expected = gradient(list(lines), np.ones(12, bool), spacing[axis:axis + 1], 0)
    fused = gradient(sources, np.ones(shape, bool), spacing, 0)
    np.testing.assert_allclose(fused, np.broadcast_to(expected.reshape(along), shape), atol=1e-4)


def test_the_gradient_fusion_does_not_depend_on_the_other_modalities_units():
    sources = steps_and_blocks()
    mask = np.ones(sources[0].shape, bool)
    plain, scaled = (gradient([sources[0], other], mask, (1, 1, 1), 0) for other in (sources[1], 90 * sources[1] - 5))
    np.testing.assert_allclose(plain, scaled, atol=1e-4)


def test_the_border_of_the_body_is_no_edge_to_the_gradient_fusion(image):
    mask = image > 0.4
    sources = [np.where(mask, source, 0).astype(np.float32) for source in (image, image[::-1] ** 2)]
    raised = [np.where(mask, source + 7, 0).astype(np.float32) for source in sources]
    plain, other = (gradient(images, mask, (1, 2, 3), 0)[mask] for images in (sources, raised))
    np.testing.assert_allclose(other, plain + 7, atol=1e-3)


def test_a_modality_without_contrast_adds_nothing_to_the_gradient_fusion():
    reference = steps_and_blocks()[0]
    fused = gradient([reference, np.full_like(reference, 3)], np.ones(reference.shape, bool), (1, 1, 1), 0)
    np.testing.assert_allclose(fused, reference, atol=1e-4)


def test_any_modality_can_be_the_reference_of_the_gradient_fusion(image):
    mask = image > 0.4
    sources = [np.where(mask, source, 0).astype(np.float32) for source in (image, 3 * image[::-1] ** 2)]
    np.testing.assert_allclose(gradient(sources, mask, (1, 2, 3), 1), gradient(sources[::-1], mask, (1, 2, 3), 0),
                               atol=1e-4)
