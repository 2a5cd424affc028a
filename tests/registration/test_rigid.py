"""Registration of small heads, 36 x 40 x 38 voxels of 3 mm, whose true place is known."""

import numpy as np
import pytest
import SimpleITK as sitk
from small_heads import SPACING_MM, elsewhere, head

from nnunetv2_rmr.registration import rigid
from nnunetv2_rmr.registration.rigid import register


def error_mm(found: rigid.Registration, motion: sitk.Transform, image: sitk.Image) -> float:
    """How far, at most, a point near the brain's surface is from where it belongs."""
    points = [image.TransformIndexToPhysicalPoint(index) for index in ((19, 20, 5), (19, 4, 18), (8, 20, 18))]
    return max(np.linalg.norm(found.matrix @ point + found.offset - motion.TransformPoint(point)) for point in points)


@pytest.mark.parametrize(("shift", "degrees"), [((5, 0, 0), 0), ((-6, 9, 4), 0), ((0, 0, 0), 8), ((12, -4, 6), 5)])
def test_a_known_motion_is_recovered_within_a_voxel(shift, degrees):
    fixed, other = head()
    moving, motion = elsewhere(other, shift, degrees)
    found = register(fixed, moving)
    assert not found.problem
    assert error_mm(found, motion, fixed) < SPACING_MM
    assert found.rotation == pytest.approx(degrees, abs=1)
    assert found.shift == pytest.approx(np.linalg.norm(shift), abs=1.5)
    assert found.after > found.before


def test_a_few_voxels_of_metal_do_not_hide_the_rest():
    fixed, other = head()
    moving, motion = elsewhere(other, (-6, 9, 4))
    for image, start in ((fixed, 12), (moving, 24)):
        image[start:start + 2, 18:20, 18:20] = 1e5
    assert error_mm(register(fixed, moving), motion, fixed) < SPACING_MM


def test_the_placed_image_lies_where_the_patient_lay_and_keeps_its_voxels():
    fixed, other = head()
    moving, _ = elsewhere(other, (9, -6, 0), 6)
    placed = register(fixed, moving).place(moving)
    assert np.array_equal(sitk.GetArrayFromImage(placed), sitk.GetArrayFromImage(moving))
    back = sitk.GetArrayFromImage(sitk.Resample(placed, fixed))
    truth = sitk.GetArrayFromImage(other)
    assert np.abs(back - truth).mean() < 0.5 * np.abs(sitk.GetArrayFromImage(moving) - truth).mean()


def test_headers_of_another_frame_of_reference_are_no_obstacle():
    fixed, moving = head()
    moving.SetOrigin((400, -300, 250))  # no overlap
    found = register(fixed, moving)
    assert not found.problem
    assert np.linalg.norm(np.subtract(found.place(moving).GetOrigin(), fixed.GetOrigin())) < SPACING_MM


def test_what_lies_in_place_is_not_touched():
    fixed, moving = head()
    assert register(fixed, moving).place(moving) is moving


def test_two_runs_give_the_same():
    fixed, other = head()
    moving, _ = elsewhere(other, (5, -3, 2), 4)
    first, second = register(fixed, moving), register(fixed, moving)
    assert np.array_equal(first.matrix, second.matrix) and np.array_equal(first.offset, second.offset)
    assert str(first) == str(second)


def test_a_failure_leaves_the_image_where_it_was_and_says_why():
    fixed, other = head()
    thin = other[:, :, :1]  # the metric needs more slices
    found = register(fixed, thin)
    assert found.problem
    assert found.place(thin) is thin
    assert "registration failed" in str(found)


@pytest.mark.parametrize(("limit", "shift", "degrees"), [("LARGEST_SHIFT_MM", (12, 0, 0), 0),
                                                         ("LARGEST_ROTATION", (0, 0, 0), 8)])
def test_an_implausible_motion_is_not_believed(monkeypatch, limit, shift, degrees):
    monkeypatch.setattr(rigid, limit, 4)
    fixed, other = head()
    moving, _ = elsewhere(other, shift, degrees)
    found = register(fixed, moving)
    assert "implausible" in found.problem
    assert found.place(moving) is moving


def test_a_motion_that_does_not_raise_the_score_is_not_believed(monkeypatch):
    monkeypatch.setattr(rigid, "_score", lambda *_: 0.5)
    fixed, moving = head()
    found = register(fixed, moving)
    assert "no better place" in found.problem and found.place(moving) is moving
