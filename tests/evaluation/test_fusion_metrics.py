"""Every fusion metric against a toy example computed by hand, and against a library where one has it."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from skimage.measure import block_reduce
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import mutual_info_score
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure, visual_information_fidelity

from nnunetv2_rmr.evaluation.benchmark.fusion import CaseFusion
from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse
from nnunetv2_rmr.evaluation.fusion_metrics.contrast import LesionContrast, contrast_scores, relative_contrast
from nnunetv2_rmr.evaluation.fusion_metrics.edges import COMPLETE, EdgePreservation, copied_source
from nnunetv2_rmr.evaluation.fusion_metrics.information import (
    correlation_entropy,
    correlation_scores,
    information_scores,
    mutual_information,
    quantise,
)
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import bounding_box, to_unit_range
from nnunetv2_rmr.evaluation.fusion_metrics.scores import (
    METRICS,
    OF_SOURCE,
    fusion_scores,
    slices_that_count,
    slicewise_scores,
)
from nnunetv2_rmr.evaluation.fusion_metrics.similarity import (
    SCALE_WEIGHTS,
    StructuralSimilarity,
    VisualInformationFidelity,
    psnr,
)
from nnunetv2_rmr.evaluation.fusion_metrics.verdict import facts, verdict
from nnunetv2_rmr.evaluation.fusion_metrics.windows import LocalMean, box, gaussian
from nnunetv2_rmr.fusion.body import body_mask, body_of_preprocessed


def textured(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Smooth structure and some noise, in 0..1."""
    rng = np.random.default_rng(seed)
    image = gaussian(2.0, 4)(rng.standard_normal(shape))
    image = 0.5 + 0.15 * image / image.std() + 0.02 * rng.standard_normal(shape)
    return image.clip(0, 1).astype(np.float32)


def flat(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def ssim_of(x: np.ndarray, y: np.ndarray, mask: np.ndarray, min_coverage: float = 0.0) -> dict[str, float]:
    metric = StructuralSimilarity(mask, min_coverage)
    return metric.compare(metric.describe(x), metric.describe(y))


def vif_of(fused: np.ndarray, source: np.ndarray, mask: np.ndarray, min_coverage: float = 0.0) -> float:
    metric = VisualInformationFidelity(mask, min_coverage)
    return metric.compare(metric.describe(fused), metric.describe(source))


def qabf_of(fused: np.ndarray, *sources: np.ndarray) -> float:
    metric = EdgePreservation(np.ones(fused.shape, bool))
    return metric.compare(metric.describe(fused), [metric.describe(s) for s in sources])


# ------------------------------------------------------------------------------------------------- intensities, masks

def test_percentiles_inside_the_mask_become_0_and_1_and_the_rest_is_clipped():
    image = np.arange(2001, dtype=np.float32)
    mask = image <= 1000  # percentiles 1 and 999 of 0..1000
    mapped = to_unit_range(image, mask)
    np.testing.assert_allclose(mapped[[0, 1, 500, 999, 1000, 1500]], [0, 0, 0.5, 1, 1, 0], atol=1e-6)


def test_an_image_without_contrast_is_refused():
    with pytest.raises(ValueError, match=r"both 3.*without contrast"):
        to_unit_range(np.full((4, 4), 3.0), np.ones((4, 4), bool))


def test_the_body_is_where_any_source_is_not_zero_and_its_box_fits():
    a, b = np.zeros((5, 6)), np.zeros((5, 6))
    a[1, 2], b[3, 4] = 1, -1
    assert body_mask([a, b]).sum() == 2  # zero all around
    assert bounding_box(body_mask([a, b])) == (slice(1, 4), slice(2, 5))
    with pytest.raises(ValueError, match="mask is empty"):
        bounding_box(np.zeros((3, 3), bool))


def test_the_body_of_a_scan_with_noise_or_with_hounsfield_units_around_it_is_found_with_its_cavities():
    shape = (20, 24, 22)
    distance = sum(((i - n / 2) / (n / 2)) ** 2 for i, n in zip(np.indices(shape), shape))
    inside, cavity = distance < 0.6, distance < 0.03
    rng = np.random.default_rng(0)
    mr = np.where(inside & ~cavity, 500 + rng.normal(0, 20, shape), np.abs(rng.normal(0, 15, shape)))
    ct = np.where(inside & ~cavity, 40 + rng.normal(0, 10, shape), -1000 + rng.normal(0, 10, shape))
    ct[1:3, 1:3, 1:3] = 200  # the table
    for images in ([mr, mr], [ct, ct], [mr, ct]):
        np.testing.assert_array_equal(body_mask(images), inside)
    np.testing.assert_array_equal(body_mask([mr[10], ct[10]]), inside[10])
    assert body_mask([np.full((4, 4, 4), 7.0)]).all()  # nothing to tell it by


def test_a_cavity_that_is_closed_in_slices_of_one_direction_belongs_to_the_body():
    rng = np.random.default_rng(0)
    tissue = np.zeros((20, 30, 30), bool)
    tissue[:, 3:-3, 3:-3] = True
    airway = np.zeros_like(tissue)
    airway[:, 10:20, 10:20] = True  # open at both ends of the scan
    image = np.where(tissue & ~airway, 500, 10) + rng.normal(0, 5, tissue.shape)
    np.testing.assert_array_equal(body_mask([image]), tissue)


def test_what_cubic_resampling_leaves_around_a_stripped_brain_is_no_body():
    image = np.full((12, 12, 12), 2e-4, np.float32)
    image[3:9, 3:9, 3:9] = 1
    np.testing.assert_array_equal(body_of_preprocessed([image, -image]), image == 1)


@pytest.mark.parametrize("smooth", [box(1), gaussian(1.5, 5)])
def test_a_local_mean_does_not_see_what_lies_outside_the_mask(smooth):
    mask = np.zeros((9, 9, 9), bool)
    mask[2:6, 3:7, 1:8] = True
    np.testing.assert_allclose(LocalMean(mask, smooth)(np.where(mask, np.float32(0.7), 0)), 0.7, rtol=1e-5)


def test_a_local_mean_by_hand():
    mask = np.array([True, True, False, True])
    np.testing.assert_allclose(LocalMean(mask, box(1))(flat(1, 3, 0, 5)), [2, 2, 5])
    assert LocalMean(np.ones(5, bool), box(1), min_coverage=1).centres.tolist() == [False, True, True, True, False]


# -------------------------------------------------------------------------------------------------------- information

def test_entropy_of_four_equally_frequent_values_is_2_bits():
    assert information_scores(flat(0, 0.25, 0.5, 1), [flat(0, 0, 0, 1)] * 2)["EN"] == pytest.approx(2)


def test_mutual_information_by_hand():
    fused = flat(0, 0, 1, 1)
    scores = information_scores(fused, [fused, flat(0, 1, 0, 1)])  # 1 bit shared with itself, none with the other
    assert scores["MI"] == pytest.approx(1)
    assert scores["Q_MI"] == pytest.approx(2 * 1 / (1 + 1) + 0)


def test_q_ncie_by_hand():
    independent = np.zeros((3, 3))  # all eigenvalues 1: 1 + 3 * 1/3 log_256(1/3)
    assert correlation_entropy(independent) == pytest.approx(1 - np.log(3) / np.log(256))
    identical = np.full((3, 3), 8.0)  # log2(256) bits: eigenvalues 3, 0, 0
    assert correlation_entropy(identical) == pytest.approx(1)
    # 1 bit shared by two of three: correlation 1/8, eigenvalues 9/8, 7/8, 1
    parts = np.array([9 / 8, 7 / 8, 1]) / 3
    one_bit = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0.0]])
    assert correlation_entropy(one_bit) == pytest.approx(1 + (parts * np.log(parts)).sum() / np.log(256))


def test_mutual_information_of_one_source_by_hand():
    assert mutual_information(flat(0, 0, 1, 1), flat(0, 0, 1, 1)) == pytest.approx(1)
    assert mutual_information(flat(0, 0, 1, 1), flat(0, 1, 0, 1)) == pytest.approx(0)


def test_information_agrees_with_scipy_and_scikit_learn():
    fused, a, b = (textured((20, 20, 20), seed).ravel() for seed in range(3))
    b = 0.5 * fused + 0.5 * b
    scores = information_scores(fused, [a, b])
    bits = [mutual_info_score(quantise(s), quantise(fused)) / np.log(2) for s in (a, b)]  # nats there
    assert scores["EN"] == pytest.approx(scipy_entropy(np.bincount(quantise(fused)), base=2), abs=1e-9)
    assert scores["MI"] == pytest.approx(sum(bits), abs=1e-9)


def test_bins_have_equal_width_and_1_belongs_to_the_last():
    assert quantise(flat(0, 0.999 / 256, 1 / 256, 255 / 256, 1)).tolist() == [0, 0, 1, 255, 255]


# ----------------------------------------------------------------------------------------------------------- contrast

def test_contrast_by_hand():
    image = np.array([[0, 1], [0, 3]], dtype=np.float32)
    scores = contrast_scores(image, np.ones((2, 2), bool))
    assert scores["SD"] == pytest.approx(np.sqrt(1.5))  # mean 1: (1 + 0 + 1 + 4) / 4
    # differences along the first axis 0, 2; along the second 1, 3
    assert scores["SF"] == pytest.approx(np.sqrt((0 + 4) / 2 + (1 + 9) / 2))
    assert scores["AG"] == pytest.approx(np.sqrt((0 + 1) / 2))  # only the first voxel has both neighbours


def test_contrast_does_not_see_the_border_of_the_mask():
    mask = np.zeros((8, 8, 8), bool)
    mask[2:6, 2:6, 2:6] = True
    scores = contrast_scores(np.where(mask, np.float32(0.5), 0), mask)
    assert scores == {"SD": 0, "SF": 0, "AG": 0}


# -------------------------------------------------------------------------------------------------------- correlation

def test_correlation_by_hand():
    a, b = flat(0, 1, 0, 1), flat(0, 0, 1, 1)  # uncorrelated
    scores = correlation_scores(a + b, [a, b])
    assert scores["CC"] == pytest.approx(1 / np.sqrt(2))
    assert scores["SCD"] == pytest.approx(2)  # F - B is A, and F - A is B


def test_scd_of_more_than_two_sources_is_the_mean_over_their_pairs():
    fused, *sources = (textured((12, 12), seed).ravel() for seed in range(4))
    pairs = [(0, 1), (0, 2), (1, 2)]
    by_numpy = [np.corrcoef(fused - sources[b], sources[a])[0, 1] + np.corrcoef(fused - sources[a], sources[b])[0, 1]
                for a, b in pairs]
    of_pairs = [correlation_scores(fused, [sources[a], sources[b]])["SCD"] for a, b in pairs]
    assert of_pairs == pytest.approx(by_numpy, abs=1e-5)
    assert correlation_scores(fused, sources)["SCD"] == pytest.approx(np.mean(by_numpy), abs=1e-5)


def test_correlation_with_a_constant_image_is_undefined():
    assert np.isnan(correlation_scores(flat(0, 1, 2), [flat(1, 1, 1), flat(0, 1, 2)])["CC"])


# -------------------------------------------------------------------------------------------------------------- edges

BEST = 0.9994 / (1 + np.exp(-15 * 0.5)) * 0.9879 / (1 + np.exp(-22 * 0.2))  # strength ratio 1, no angle between: .9748


@pytest.mark.parametrize("ndim", [2, 3])
def test_qabf_by_hand(ndim):
    ramp = np.indices((6,) * ndim, dtype=np.float32)
    x, y = ramp[0], ramp[1]
    assert qabf_of(x, x, x) == pytest.approx(BEST, abs=1e-4)
    half = 0.9994 / (1 + np.exp(0)) * BEST / (0.9994 / (1 + np.exp(-7.5)))  # half the strength, same direction
    assert qabf_of(0.5 * x, x, x) == pytest.approx(half, abs=1e-4)
    across = 0.9994 / (1 + np.exp(-7.5)) * 0.9879 / (1 + np.exp(-22 * (0 - 0.8)))  # 90 degrees
    assert qabf_of(y, x, x) == pytest.approx(across, abs=1e-6)
    diagonal = 0.9994 / (1 + np.exp(-15 * (1 / np.sqrt(2) - 0.5))) * 0.9879 / (1 + np.exp(-22 * (0.5 - 0.8)))
    assert qabf_of(x + y, x, y) == pytest.approx(diagonal, abs=1e-5)  # 45 degrees, ratio 1/sqrt(2), to both


def test_qabf_weighs_each_source_by_its_edges():
    x, y = np.indices((6, 6), dtype=np.float32)
    assert qabf_of(x, x, 0 * y) == pytest.approx(BEST, abs=1e-4)  # a source without edges has no say
    across = qabf_of(x, y, y)
    assert qabf_of(x, 3 * x, y) == pytest.approx((3 * qabf_of(x, 3 * x) + across) / 4, abs=1e-5)


def test_qabf_does_not_care_which_way_an_edge_goes():
    x = textured((16, 16), 0)
    assert qabf_of(1 - x, x, x) == pytest.approx(BEST, abs=1e-3)


def test_own_edges_by_hand():
    """A source with edges between x = 4 and 5 and between 14 and 15, another with the first of them only."""
    x = np.indices((40, 40))[0]
    first = (x >= 5).astype(np.float32)
    both = first + 1.5 * (x >= 15).astype(np.float32)
    metric = EdgePreservation(np.ones(x.shape, bool))
    of_both, of_first = metric.describe(both), metric.describe(first)
    (own,) = metric.own(of_both, [of_first])
    where = np.zeros((38, 38), bool)  # the counted voxels: x from 1 to 38
    where[[13, 14]] = True  # Sobel sees the edge from both its sides
    second = where.ravel()
    np.testing.assert_array_equal(own.reshape(where.shape), where)
    assert metric.compare_own([second], of_both, of_both) == pytest.approx(COMPLETE, abs=1e-3)
    assert metric.compare_own([second], of_first, of_both) < 1e-4  # flat there
    assert metric.compare(of_first, [of_both]) == pytest.approx(COMPLETE / 2.5, abs=1e-3)  # of 1 and 1.5 the 1
    assert metric.compare_own([second, ~second], of_first, of_both) < 1e-4  # of several sets the smallest
    few = second.copy()
    few[np.flatnonzero(second)[49:]] = False
    assert np.isnan(metric.compare_own([few], of_both, of_both))  # 49 voxels are too few


def test_edges_that_one_other_source_or_the_next_has_are_own_edges_against_each_alone():
    """Three sources, each edge in two of them: nothing is the first's alone, but each of the others lacks one."""
    x = np.indices((20, 40))[0]
    both, first, second = (sum((x >= edge).astype(np.float32) for edge in edges) for edges in ((5, 15), (5,), (15,)))
    metric = EdgePreservation(np.ones(x.shape, bool))
    edges = [metric.describe(image) for image in (both, first, second)]
    sets = metric.own(edges[0], edges[1:])
    assert len(sets) == 2 and not (sets[0] & sets[1]).any()
    assert len(metric.own(edges[0], edges[1:2])) == 1


# ------------------------------------------------------------------------------------------ contrast of lesions, copies

def test_lesion_contrast_by_hand():
    """A lesion of 2 x 2 mm; the ring of 3 to 6 mm around it is 1 lower, and lies partly outside of the body."""
    spacing, shape = (2.0, 1.0), (12, 24)
    lesion = np.zeros(shape, bool)
    lesion[5, 11:13] = True
    y, x = (np.abs(i - centre) for i, centre in zip(np.indices(shape), (5, 11.5)))
    distance = np.hypot(2 * y, np.maximum(x - 0.5, 0))
    body = np.indices(shape)[1] < 16
    image = np.where(distance < 3, 2.0, 1.0)  # what is nearer than the ring does not count
    image[(distance > 6)] = np.where(np.indices(shape)[0] % 2, 3.0, 7.0)[distance > 6]
    image[lesion] = 5.0
    image[~body] = 100.0
    healthy = image[body & ~lesion]
    contrast = LesionContrast({"a": lesion}, body, spacing)
    assert contrast(image) == {"a": pytest.approx((5 - 1) / healthy.std())}
    assert contrast(3 * image - 7)["a"] == pytest.approx(contrast(image)["a"])  # gain and offset do not count
    assert contrast(-image)["a"] == pytest.approx(-contrast(image)["a"])


def test_lesions_without_voxels_or_ring_in_the_body_and_images_without_contrast_have_none():
    shape = (8, 8, 8)
    body = np.zeros(shape, bool)
    body[2:6, 2:6, 2:6] = True
    outside, everything = np.zeros(shape, bool), np.ones(shape, bool)
    outside[0, 0, 0] = True
    assert LesionContrast({"outside": outside, "everything": everything}, body, (1, 1, 1))(np.ones(shape)) == {}
    small = np.zeros(shape, bool)
    small[2, 2, 2] = True
    assert np.isnan(LesionContrast({"small": small}, body, (1, 1, 1))(np.ones(shape))["small"])


def test_relative_contrast_is_that_of_the_best_source_with_its_sign():
    sources = [{"a": -2.0, "b": 1.0}, {"a": 1.0, "b": 0.5}]
    assert relative_contrast({"a": -1.0, "b": 0.8}, sources) == {"a": 0.5, "b": pytest.approx(0.8)}
    assert relative_contrast({"a": 1.0, "b": 0.8}, sources)["a"] == -0.5  # the best source is dark there
    assert np.isnan(relative_contrast({"a": 1.0}, [{"a": 0.0}])["a"])


@pytest.fixture(params=[2, 3, 4])
def modalities(request) -> tuple[list[np.ndarray], np.ndarray]:
    """Each with edges of its own: blocks that the others do not have, on common smooth structure."""
    shape = (32, 34, 36)
    mask = np.ones(shape, bool)
    common = gaussian(3.0, 6)(np.random.default_rng(9).standard_normal(shape))
    sources = []
    for i in range(request.param):
        blocks = np.zeros(shape)
        for low in np.random.default_rng(i).integers(0, 26, (8, 3)):
            blocks[tuple(slice(n, n + 6) for n in low)] += 1
        sources.append(to_unit_range((gaussian(0.7, 2)(blocks) + 2 * common).astype(np.float32), mask))
    return sources, mask


def test_strong_edges_that_another_source_has_too_are_not_its_own():
    x = np.indices((42, 42))[0]
    shared = 2.0 * (x >= 5)
    image = (shared + 1.5 * (x >= 15) + (x >= 25) + (x >= 35)).astype(np.float32)  # the strongest tenth: the first two
    metric = EdgePreservation(np.ones(x.shape, bool))
    (own,) = metric.own(metric.describe(image), [metric.describe(shared.astype(np.float32))])
    assert np.flatnonzero(own.reshape(40, 40).all(1)).tolist() == [13, 14] and np.count_nonzero(own) == 80


def stripes(start: int) -> np.ndarray:
    """(60, 60), edges along the first axis where those of other starts are not."""
    return (np.indices((60, 60))[0] // 6 % 10 >= start).astype(np.float32)


def test_an_image_that_shows_one_of_two_others_is_no_copy():
    metric, sources = EdgePreservation(np.ones((60, 60), bool)), [stripes(start) for start in (2, 5, 8)]
    edges = [metric.describe(source) for source in sources]
    uncorrelated = [0.0, 0.0, 0.0]
    assert copied_source(metric, metric.describe(sources[0] + sources[1]), edges, uncorrelated) is None
    assert copied_source(metric, edges[0], edges, uncorrelated) == 0


def test_of_sources_without_edges_of_their_own_correlation_tells_the_copy():
    metric, source = EdgePreservation(np.ones((60, 60), bool)), stripes(5)
    edges = [metric.describe(source)] * 2
    assert copied_source(metric, edges[0], edges, [0.98, 0.995]) == 1
    assert copied_source(metric, edges[0], edges, [0.98, 0.985]) is None


def test_over_slices_a_copy_is_one_in_most_of_them_and_the_smallest_score_that_of_the_means(modalities):
    sources, mask = modalities
    first, second = sources[:2]
    mixed = np.mean(sources, axis=0).astype(np.float32)
    image = np.stack([first[8], second[9], mixed[10]])
    parts = [source[8:11] for source in sources]
    found = slicewise_scores({"x": image}, parts, mask[8:11], [0, 1, 2], 0)["x"]
    assert found.copy_of is None
    assert slicewise_scores({"x": first[8:11]}, parts, mask[8:11], [0, 1, 2], 0)["x"].copy_of == 0
    for name in ("Qabf", "SSIM", "MI"):
        assert found.metrics[f"smallest {name}"] == min(of_source[name] for of_source in found.sources)


def test_a_copy_of_any_modality_is_named_and_comes_last_by_the_smallest_scores(modalities):
    sources, mask = modalities
    images = {f"copy of {i}": source for i, source in enumerate(sources)}
    images |= {name: to_unit_range(fuse(name, sources, mask), mask) for name in ("gradient", "average", "maximum")}
    found = fusion_scores(images, sources, mask)
    for i in range(len(sources)):
        assert found[f"copy of {i}"].copy_of == i
    fused = [name for name in images if not name.startswith("copy")]
    assert all(found[name].copy_of is None for name in fused)
    copies = [found[name].metrics for name in images if name.startswith("copy")]
    for metric in ("smallest own edges", "smallest Qabf"):
        worst = min(found[name].metrics[metric] for name in fused)
        assert max(scores[metric] for scores in copies) < worst
    assert min(scores["MI"] for scores in copies) > found["gradient"].metrics["MI"]  # the sum rewards the copy


def test_changed_gain_inverted_contrast_or_a_little_noise_do_not_hide_a_copy(modalities):
    sources, mask = modalities
    noise = np.random.default_rng(1).standard_normal(mask.shape).astype(np.float32)
    images = {"inverted": 1 - sources[0], "noisy": to_unit_range(sources[0] + 0.01 * noise, mask),
              "softer": to_unit_range(np.sqrt(sources[0]), mask)}
    assert {name: s.copy_of for name, s in fusion_scores(images, sources, mask).items()} == dict.fromkeys(images, 0)


def test_an_image_that_shows_nothing_is_no_copy(modalities):
    sources, mask = modalities
    blurred = to_unit_range(gaussian(6.0, 12)(np.mean(sources, axis=0).astype(np.float32)), mask)
    assert fusion_scores({"x": blurred}, sources, mask)["x"].copy_of is None


def test_scores_of_single_sources_and_the_smallest_of_them(modalities):
    sources, mask = modalities
    fused = to_unit_range((0.8 * sources[0] + 0.2 * sources[1]).astype(np.float32), mask)
    scores = fusion_scores({"x": fused}, sources, mask)["x"]
    assert len(scores.sources) == len(sources)
    for i, source in enumerate(sources):
        assert scores.sources[i]["Qabf"] == pytest.approx(qabf_of(fused, source), abs=1e-6)
        assert scores.sources[i]["VIF"] == pytest.approx(vif_of(fused, source, mask), rel=1e-5)
        assert scores.sources[i]["SSIM"] == pytest.approx(ssim_of(fused, source, mask)["SSIM"], abs=1e-6)
        assert scores.sources[i]["MI"] == pytest.approx(mutual_information(fused[mask], source[mask]))
    for metric in OF_SOURCE:
        assert scores.metrics[f"smallest {metric}"] == min(s[metric] for s in scores.sources)
    assert scores.sources[0]["own edges"] > scores.sources[1]["own edges"]


def test_the_verdict_says_in_words_what_is_in_the_image():
    contrast = {"T1": {"core": 0.5}, "FLAIR": {"core": 2.0}}
    cases = [facts({"T1": 0.1, "FLAIR": 0.9}, "FLAIR", {"core": 0.8}, contrast),
             facts({"T1": 0.3, "FLAIR": float("nan")}, None, {"core": -0.4},
                   {"T1": {"core": -3.0}, "FLAIR": {"core": 2.0}})]
    words = verdict("RMR", cases)
    assert "T1 0.20, FLAIR 0.90" in words and "core 0.20 (best in FLAIR 1, T1 1, reversed in 1 of 2)" in words
    assert words.endswith("This is a copy of FLAIR in 1 of 2 cases.")
    assert verdict("RMR", cases[:1]).endswith("This is a copy of FLAIR.")
    little = verdict("x", [facts({"T1": 0.01, "T2": 0.02, "FLAIR": 0.9}, None, {}, {})])
    assert "Of what T1 and T2 alone show, next to nothing is in it." in little and "alone show" not in words
    assert verdict("RMR", cases[1:]).endswith("This is no copy of one modality.")


def test_facts_alone_are_those_of_all_scores(modalities):
    sources, mask = modalities
    raw, raw_fused = [2 * s for s in sources], 7 * np.mean(sources, axis=0) - 3
    sources, fused = [to_unit_range(s, mask) for s in raw], to_unit_range(raw_fused, mask)
    lesion = np.zeros(mask.shape, bool)
    lesion[10:16, 10:16, 10:16] = True
    everywhere = np.ones_like(mask)
    found = CaseFusion(raw, [*map(str, range(len(raw)))], mask, everywhere, {"lesion": lesion},
                       (1, 1, 1)).facts(raw_fused)
    scores = fusion_scores({"x": fused}, sources, mask)["x"]
    assert list(found["own_edges"].values()) == [s["own edges"] for s in scores.sources]
    assert found["copy_of"] is None
    contrast = LesionContrast({"lesion": lesion}, mask, (1, 1, 1))
    expected = relative_contrast(contrast(fused), [contrast(s) for s in sources])["lesion"]
    assert found["contrast"]["lesion"]["relative"] == pytest.approx(expected)
    assert CaseFusion(sources[:2], "ab", mask, everywhere, {}, (1, 1, 1)).facts(sources[1])["copy_of"] == "b"


# ---------------------------------------------------------------------------------------------------------------- VIF

def test_vif_is_1_for_equal_images_and_0_for_opposite_contrast():
    x = textured((40, 40, 40), 0)
    mask = np.ones(x.shape, bool)
    assert vif_of(x, x, mask) == pytest.approx(1, abs=1e-3)
    assert vif_of(1 - x, x, mask) == 0


def test_vif_of_half_the_contrast_by_hand():
    x = np.array([[0.25, 0.75]], dtype=np.float32)
    near, far = 1, np.exp(-1 / (2 * 3.4 ** 2))  # weights in the first scale's windows, sigma 17 / 5
    variance = near * far / (near + far) ** 2 * 0.5 ** 2  # around either voxel; from the second scale on one is left
    signal, noise = variance, 2 / 255 ** 2
    expected = np.log(1 + 0.5 ** 2 * signal / noise) / np.log(1 + signal / noise)
    assert vif_of(x / 2, x, np.ones((1, 2), bool)) == pytest.approx(expected, rel=1e-4)
    assert expected == pytest.approx(0.819, abs=2e-3)


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_vif_agrees_with_torchmetrics_in_2d(noise):
    source = textured((96, 120), 0)
    fused = (0.7 * source + noise * textured((96, 120), 1)).astype(np.float32)
    expected = visual_information_fidelity(*(255 * torch.tensor(i).double()[None, None] for i in (fused, source)))
    found = vif_of(fused, source, np.ones(source.shape, bool), min_coverage=1)  # whole windows only, as there
    assert found == pytest.approx(expected.item(), rel=1e-3)  # float32 here


def test_vif_of_a_constant_source_is_undefined():
    x = textured((20, 20), 0)
    assert np.isnan(vif_of(x, np.full_like(x, 0.5), np.ones(x.shape, bool)))


# ------------------------------------------------------------------------------------------------ SSIM, MS-SSIM, PSNR

def test_ssim_of_constant_images_by_hand():
    mask = np.ones((12, 12, 12), bool)
    x, y = (np.full(mask.shape, v, np.float32) for v in (0.2, 0.6))
    luminance = (2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4)  # nothing else differs, at no scale
    scores = ssim_of(x, y, mask)
    assert scores["SSIM"] == pytest.approx(luminance, abs=1e-4)
    assert scores["MS-SSIM"] == pytest.approx(luminance ** SCALE_WEIGHTS[-1], abs=1e-4)


@pytest.mark.parametrize("shape", [(60, 50), (20, 22, 24)])
def test_ssim_agrees_with_scikit_image(shape):
    x, y = textured(shape, 0), (textured(shape, 0) + textured(shape, 1)) / 2
    expected = structural_similarity(x, y, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert ssim_of(x, y, np.ones(shape, bool), min_coverage=1)["SSIM"] == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_agrees_with_torchmetrics_and_scikit_image_in_2d():
    x, y = textured((192, 208), 0), (textured((192, 208), 0) + textured((192, 208), 1)) / 2
    # the first four scales; at the fifth, torchmetrics counts windows that see the image mirrored beyond its border
    four = multiscale_structural_similarity_index_measure(
        torch.tensor(x).double()[None, None], torch.tensor(y).double()[None, None], data_range=1.0, normalize="relu",
        betas=(*SCALE_WEIGHTS[:4], 0.0))
    fifth = structural_similarity(*(block_reduce(i, 16, np.mean) for i in (x, y)), data_range=1, gaussian_weights=True,
                                  sigma=1.5, use_sample_covariance=False)
    expected = four.item() * fifth ** SCALE_WEIGHTS[4]
    assert ssim_of(x, y, np.ones(x.shape, bool), min_coverage=1)["MS-SSIM"] == pytest.approx(expected, abs=1e-4)


def test_similarity_of_equal_images_is_1_and_opposite_contrast_is_0_at_many_scales():
    x = textured((21, 40, 33), 0)
    mask = np.ones(x.shape, bool)
    assert ssim_of(x, x, mask) == pytest.approx({"SSIM": 1, "MS-SSIM": 1}, abs=1e-4)
    assert ssim_of(1 - x, x, mask)["SSIM"] < 0
    assert ssim_of(1 - x, x, mask)["MS-SSIM"] == 0


def test_psnr_by_hand_and_by_scikit_image():
    assert psnr(flat(0, 0.5), flat(0.1, 0.6)) == pytest.approx(20, abs=1e-5)  # errors of .1: 10 log10(1 / .01)
    assert psnr(flat(0, 1), flat(0, 1)) == np.inf
    x, y = textured((9, 9), 0), textured((9, 9), 1)
    assert psnr(x.ravel(), y.ravel()) == pytest.approx(peak_signal_noise_ratio(y, x, data_range=1), abs=1e-5)


# --------------------------------------------------------------------------------------------------------- all of them

@pytest.fixture
def case() -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Fused image, three sources and a round mask, ready to be scored."""
    shape = (24, 28, 26)
    distance = sum(((i - n / 2) / (n / 2)) ** 2 for i, n in zip(np.indices(shape), shape))
    mask = distance < 0.8
    sources = [to_unit_range(textured(shape, seed), mask) for seed in range(3)]
    return to_unit_range(np.mean(sources, axis=0), mask), sources, mask


def scores_of(fused, sources, mask) -> dict[str, float]:
    return fusion_scores({"x": fused}, sources, mask)["x"].metrics


def test_every_metric_has_a_finite_value_in_3d_and_slice_by_slice(case):
    fused, sources, mask = case
    slices = slices_that_count(mask, axis=1)
    in_slices = slicewise_scores({"x": fused}, sources, mask, slices, axis=1)["x"].metrics
    for scores in (scores_of(*case), in_slices):
        assert tuple(scores) == METRICS
        undefined = {name for name, value in scores.items() if not np.isfinite(value)}
        assert undefined <= {"smallest own edges"}  # too few of them, in an image as small as this


def test_gain_and_offset_of_an_image_and_the_order_of_the_sources_do_not_count(case):
    mask = case[2]
    images = [textured(mask.shape, seed) for seed in range(4)]
    plain = [to_unit_range(image, mask) for image in images]
    changed = [to_unit_range(700 * image - 50, mask) for image in images]
    assert scores_of(changed[0], changed[:0:-1], mask) == pytest.approx(scores_of(plain[0], plain[1:], mask), rel=1e-3)


def test_background_does_not_count(case):
    fused, sources, mask = case
    padded = [np.pad(image, ((3, 4), (1, 0), (7, 2))) for image in (fused, *sources, mask)]
    assert scores_of(padded[0], padded[1:-1], padded[-1]) == pytest.approx(scores_of(*case), rel=1e-6)


def test_a_mean_over_sources_is_the_mean_of_the_values_for_each(case):
    fused, sources, mask = case
    each = [scores_of(fused, [s, s], mask) for s in sources]
    for metric in ("CC", "VIF", "SSIM", "MS-SSIM", "PSNR"):
        assert scores_of(*case)[metric] == pytest.approx(np.mean([e[metric] for e in each]), abs=1e-6)


def test_noise_raises_what_rewards_noise_and_lowers_what_measures_fidelity(case):
    fused, sources, mask = case
    noisy = to_unit_range(fused + 0.2 * np.random.default_rng(0).standard_normal(fused.shape), mask)
    clean, noisy = scores_of(fused, sources, mask), scores_of(noisy, sources, mask)
    assert all(noisy[m] > clean[m] for m in ("SF", "AG"))
    assert all(noisy[m] < clean[m] for m in ("MI", "Q_MI", "Q_NCIE", "CC", "SCD", "Qabf", "VIF", "SSIM", "MS-SSIM"))


def test_slices_with_little_content_are_left_out():
    content = np.zeros((5, 10, 10), bool)
    content[1, :2, :5] = content[2, :5, :8] = content[3, :1, :9] = True  # 10, 40 and 9 voxels
    assert slices_that_count(content, axis=0) == [1, 2]


def test_wrong_input_is_refused(case):
    fused, sources, mask = case
    with pytest.raises(ValueError, match="at least two sources, got 1"):
        scores_of(fused, sources[:1], mask)
    with pytest.raises(ValueError, match="one shape"):
        scores_of(fused[1:], sources, mask)


def test_traces_that_resampling_leaves_outside_of_the_body_are_none_of_it():
    image = np.zeros((9, 9, 9), np.float32)
    image[3:6, 3:6, 3:6] = 1
    assert np.array_equal(body_of_preprocessed([image + 1e-4 * (image == 0)]), image == 1)
