"""Dice, HD95 and NSD: nnU-Net's conventions, hand-computed values, and MONAI's."""

import math

import numpy as np
import pytest
import torch
from monai import metrics
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from tiny import write_image

from nnunetv2_rmr.evaluation.segmentation_metrics import labels_and_regions, segmentation_scores, surface_distances


def box(shape: tuple[int, ...], *ranges: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*r) for r in ranges)] = 1
    return mask


def scores(reference, prediction, spacing=(1.0, 1.0, 1.0), label=1, tolerance_mm=1.0, **kwargs):
    return segmentation_scores(reference, prediction, label, spacing, tolerance_mm, **kwargs)


@pytest.fixture
def random_labels() -> tuple[np.ndarray, np.ndarray]:
    """Two blobby label maps with labels 0, 1, 2."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    fields = [gaussian_filter(rng.standard_normal((20, 24, 22)), 3) for _ in range(2)]
    fields[1] = 0.8 * fields[0] + 0.2 * fields[1]
    return tuple((f > np.quantile(f, 0.7)).astype(np.uint8) + (f > np.quantile(f, 0.9)) for f in fields)


def test_a_segmentation_equals_itself():
    mask = box((8, 8, 8), (2, 6), (2, 6), (2, 6))
    assert scores(mask, mask) == {"Dice": 1.0, "HD95": 0.0, "NSD": 1.0}


def test_distances_are_in_millimetres():
    a, b = box((12, 4, 4), (2, 5), (0, 4), (0, 4)), box((12, 4, 4), (4, 7), (0, 4), (0, 4))  # shifted by 2 slices
    result = scores(a, b, spacing=(3.0, 1.0, 1.0), tolerance_mm=5.0)
    assert result["Dice"] == pytest.approx(2 * 16 / (48 + 48))
    # faces 2 slices apart on both ends: 6 mm; the boxes' sides overlap in one slice
    assert result["HD95"] == pytest.approx(6.0)
    assert 0 < result["NSD"] < 1
    assert scores(a, b, spacing=(3.0, 1.0, 1.0), tolerance_mm=6.0)["NSD"] == 1.0


def test_the_95th_percentile_leaves_out_a_single_far_voxel():
    a = box((9, 9, 40), (2, 7), (2, 7), (2, 7))
    b = a.copy()
    b[4, 4, 39] = 1
    assert scores(a, b)["HD95"] == 0.0
    assert surface_distances(a > 0, b > 0, (1.0, 1.0, 1.0))[1].max() == pytest.approx(33.0)


def test_nothing_in_both_is_not_counted():
    empty = np.zeros((4, 4, 4), np.uint8)
    assert all(math.isnan(v) for v in scores(empty, empty).values())


@pytest.mark.parametrize("swap", [False, True])
def test_nothing_in_one_of_them_is_the_worst_score(swap):
    empty, mask = np.zeros((3, 4, 12), np.uint8), box((3, 4, 12), (1, 2), (1, 2), (1, 2))
    pair = (empty, mask) if swap else (mask, empty)
    assert scores(*pair) == {"Dice": 0.0, "HD95": pytest.approx(13.0), "NSD": 0.0}
    of_slices = scores(*(mask[1:2] for mask in pair), spacing=(999.0, 1.0, 1.0))  # as nnU-Net reads 2D images
    assert of_slices["HD95"] == pytest.approx(math.hypot(*pair[0].shape[1:]))


def test_ignored_voxels_do_not_count():
    reference, prediction = box((6, 6, 6), (1, 3), (1, 5), (1, 5)), box((6, 6, 6), (1, 5), (1, 5), (1, 5))
    assert scores(reference, prediction)["Dice"] < 0.7
    reference[3:5] = 2
    assert scores(reference, prediction, ignore_label=2) == {"Dice": 1.0, "HD95": 0.0, "NSD": 1.0}


def test_images_of_one_slice_have_an_outline_only():
    a, b = box((1, 12, 12), (0, 1), (2, 8), (2, 8)), box((1, 12, 12), (0, 1), (2, 8), (3, 9))
    distances = surface_distances(a > 0, b > 0, (5.0, 1.0, 1.0))
    assert [len(d) for d in distances] == [20, 20]
    assert max(d.max() for d in distances) == 1.0


@pytest.mark.parametrize("label", [1, 2, (1, 2)])
def test_dice_is_nnunets(random_labels, label, tmp_path):
    files = [tmp_path / name for name in ("reference.nii.gz", "prediction.nii.gz")]
    for labels, file in zip(random_labels, files):
        write_image(labels, file)
    expected = compute_metrics(str(files[0]), str(files[1]), SimpleITKIO(), [label])["metrics"][label]["Dice"]
    assert scores(*random_labels, label=label)["Dice"] == expected


def in_one_slice(*ranges: tuple[int, int]) -> np.ndarray:
    return box((5, 30, 30), (2, 3), *ranges)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.5, 0.8)])
@pytest.mark.parametrize("pair", ["random labels", "in one slice", "with a hole", "one voxel"])
def test_surface_scores_are_monais(random_labels, pair, spacing):
    square = in_one_slice((5, 25), (5, 25))
    pairs = {"random labels": random_labels, "in one slice": (square, in_one_slice((8, 20), (6, 18))),
             "with a hole": (square, square - in_one_slice((12, 16), (12, 16))),
             "one voxel": (in_one_slice((7, 8), (7, 8)),) * 2}
    reference, prediction = pairs[pair]
    one_hot = [torch.from_numpy(np.stack([x != 1, x == 1])[None].astype(np.float32)) for x in (reference, prediction)]
    hd95 = metrics.compute_hausdorff_distance(one_hot[1], one_hot[0], percentile=95, spacing=list(spacing))
    nsd = metrics.compute_surface_dice(one_hot[1], one_hot[0], [1.0], spacing=list(spacing))
    result = scores(reference, prediction, spacing=spacing)
    assert result["HD95"] == pytest.approx(float(hd95), abs=1e-4)
    assert result["NSD"] == pytest.approx(float(nsd), abs=1e-4)


def test_labels_and_regions_are_those_of_dataset_json():
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    assert labels_and_regions(labels) == {"whole": (1, 2), "core": 2}
