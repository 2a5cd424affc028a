"""Misregistration of small heads, as arrays of voxels of 3 mm."""

import numpy as np
import pytest
import SimpleITK as sitk
from small_heads import SPACING_MM, elsewhere, head

from nnunetv2_rmr.registration.misregistration import Shift, best_shift, coarse, warnings

SPACING = [SPACING_MM] * 3


def arrays(shift=(0.0, 0.0, 0.0)) -> dict[str, np.ndarray]:
    fixed, other = head()
    moving, _ = elsewhere(other, shift)
    return {name: sitk.GetArrayFromImage(image) for name, image in (("T1", fixed), ("FLAIR", moving))}


def warned(images: dict[str, np.ndarray], spacing=SPACING) -> list[str]:
    return warnings({name: coarse(image, spacing) for name, image in images.items()}, spacing)


@pytest.mark.parametrize("shift", [(6, 0, 0), (0, -7, 0), (5, 5, 5), (-12, 10, 0)])
def test_a_moved_modality_is_named_with_its_distance(shift):
    line, = warned(arrays(shift))
    assert line.startswith("FLAIR seems to lie ") and "away from T1" in line
    assert int(line.split()[4]) == pytest.approx(np.linalg.norm(shift), abs=2)


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 0, 0)])
def test_nothing_is_said_of_modalities_in_place(shift):
    assert not warned(arrays(shift))


def test_the_direction_is_that_of_the_arrays_axes():
    images = arrays((9, 0, 0))  # x, the last axis
    shift = best_shift(images["T1"], images["FLAIR"], SPACING)
    assert shift.mm == pytest.approx([0, 0, 9], abs=1.5)


def test_a_missing_modality_and_too_few_voxels_are_passed_over():
    images = arrays((12, 0, 0))
    assert not warned({"T1": images["T1"], "T2": np.zeros_like(images["T1"])})
    assert not warned({name: image[:16, :16, :16] for name, image in images.items()})
    assert len(warned({"PD": np.zeros_like(images["T1"]), **images})) == 1  # T1 is the first that is there


def test_of_noise_nothing_is_said():
    rng = np.random.default_rng(0)
    assert not warned({name: rng.normal(size=(36, 40, 38)) for name in ("T1", "FLAIR")})


def test_coarse_takes_means_of_blocks():
    image = np.arange(5 * 4 * 3, dtype=float).reshape(5, 4, 3)
    assert coarse(image, (2, 2, 4)).tolist() == image[:4].reshape(2, 2, 2, 2, 3).mean((1, 3)).tolist()


def test_of_voxels_so_small_that_no_block_fits_nothing_is_left():
    assert coarse(np.ones((5, 6, 7)), (1e-40, 1, 1)).size == 0


@pytest.mark.parametrize(("mm", "before", "after", "suspicious"), [
    (5, 0.15, 0.18, True), (5, 0.9, 0.95, False), (5, 0.9, 1.0, True), (2, 0.15, 0.18, False)])
def test_what_is_weakly_related_needs_a_smaller_gain(mm, before, after, suspicious):
    assert Shift(np.array([0, mm, 0]), before, after).suspicious == suspicious
