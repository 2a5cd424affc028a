import numpy as np
import pytest
import torch

from nnunetv2_rmr.degradations import fourier
from nnunetv2_rmr.degradations.fourier import damage_fourier_locally, damage_spectrum, draw_boxes, draw_fourier

SETTINGS = {"share": 0.3, "strength": 1.0, "edge": (12, 12, 12), "amplitude_sigma": 0.5, "seed": 1}


@pytest.fixture
def image():
    coarse = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (40, 40, 40), mode="trilinear")[0, 0]


@pytest.mark.parametrize("zero", ["share", "strength"])
def test_zero_is_identity(zero, image):
    assert torch.equal(damage_fourier_locally(image, **{**SETTINGS, zero: 0.0}), image)


def test_input_is_not_modified(image):
    before = image.clone()
    damage_fourier_locally(image, **SETTINGS)
    assert torch.equal(image, before)


def test_seed_decides_everything(image):
    first = damage_fourier_locally(image, **SETTINGS)
    assert torch.equal(first, damage_fourier_locally(image, **SETTINGS))
    assert not torch.equal(first, damage_fourier_locally(image, **{**SETTINGS, "seed": 2}))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_changes_the_stated_share_of_the_volume_and_at_most_one_box_more(share, image):
    changed = (damage_fourier_locally(image, **{**SETTINGS, "share": share}) != image).float().mean().item()
    # a voxel may by chance keep its value
    assert share - 0.002 <= changed <= share + 12**3 / 40**3


def test_mean_is_kept(image):
    damaged = damage_fourier_locally(image + 5, **SETTINGS)
    assert damaged.mean().item() == pytest.approx((image + 5).mean().item(), abs=1e-4)


def test_signs_survive(image):
    image = image - image.mean()
    damaged = damage_fourier_locally(image, **{**SETTINGS, "share": 0.8})
    assert damaged.min() < 0 < damaged.max()
    assert (damaged < 0).float().mean().item() == pytest.approx((image < 0).float().mean().item(), abs=0.1)
    assert damaged.abs().max() < 3 * image.abs().max()


def test_spectrum_of_a_whole_image_keeps_mean_and_deviation_and_loses_structure(image):
    damaged = damage_spectrum(image[None], 0.5, np.random.default_rng(0))[0]
    assert damaged.mean().item() == pytest.approx(image.mean().item(), abs=1e-4)
    assert damaged.std().item() == pytest.approx(image.std().item(), rel=1e-3)
    assert torch.corrcoef(torch.stack([image.flatten(), damaged.flatten()]))[0, 1].abs() < 0.5


def test_no_seams(image):
    """The change fades out towards the border of every box: no step there is larger than those of the change inside."""
    change = damage_fourier_locally(image, **SETTINGS) - image
    inside = change != 0
    border = inside[1:] != inside[:-1]
    steps = (change[1:] - change[:-1]).abs()
    assert steps[border].mean() < 0.2 * steps[inside[1:] & inside[:-1]].mean()


def test_overlapping_boxes_are_blended_whatever_their_order(monkeypatch):
    """Two overlapping boxes, and a damage that triples the image: nothing may be overwritten or counted twice."""
    boxes = [(slice(4, 24),) * 3, (slice(10, 30),) * 3]
    monkeypatch.setattr(fourier, "damage_spectrum", lambda images, *_: 3 * images)
    image = torch.linspace(-1, 1, 40)[:, None, None].expand(40, 40, 40)
    changes = []
    for order in (boxes, boxes[::-1]):
        monkeypatch.setattr(fourier, "draw_boxes", lambda *_, order=order: order)
        changes.append(damage_fourier_locally(image, **SETTINGS) - image)
    torch.testing.assert_close(*changes)

    # where both windows are 1 the change is that of one box: 2 x image less the constant that keeps the mean
    middle = changes[0][15:19, 17, 17] - 2 * image[15:19, 17, 17]
    torch.testing.assert_close(middle, middle[:1].expand(4))


def test_constant_image_stays_constant():
    image = torch.full((16, 16, 16), -1.5)
    torch.testing.assert_close(damage_fourier_locally(image, **SETTINGS), image)


@pytest.mark.parametrize("shape", [(32, 32, 32), (8, 64, 64), (64, 64), (3, 20, 20), (5, 7)])
def test_works_on_any_patch(shape):
    np.random.seed(0)
    spacing = (4.0, 1.0, 1.0) if shape[0] == 8 else (1.0,) * len(shape)
    image = torch.randn(shape)
    damaged = damage_fourier_locally(image, **draw_fourier(shape, spacing))
    assert damaged.shape == image.shape and damaged.isfinite().all()
    assert (damaged != image).any()


def test_boxes_are_cubes_in_mm():
    np.random.seed(0)
    assert draw_fourier((64, 64, 64), (4.0, 1.0, 2.0), edge=(24, 24))["edge"] == (6, 24, 12)


def test_boxes_hit_the_border_too():
    hit = np.zeros((20, 20), dtype=bool)
    rng = np.random.default_rng(0)
    for _ in range(100):
        for box in draw_boxes((20, 20), 0.2, (6, 6), rng):
            hit[box] = True
    assert hit.all()


def test_impossible_share_is_refused():
    with pytest.raises(ValueError, match="share"):
        draw_boxes((20, 20), 0.95, (6, 6), np.random.default_rng(0))
