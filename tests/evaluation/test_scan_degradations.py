"""Degradations of raw scans: what holds for all of them, then one section for each."""

import sys

import numpy as np
import pytest
import tiny
import torch
from scipy import ndimage

from nnunetv2_rmr.degradations import fourier
from nnunetv2_rmr.degradations.resolution import thick_slice_matrix
from nnunetv2_rmr.evaluation.scan_degradations import (
    SCAN_DEGRADATIONS,
    SEVERITIES,
    degrade_scans,
    generator,
    image_difference,
    kinds,
    nonzero_body,
)
from nnunetv2_rmr.evaluation.scan_degradations.kinds import FOURIER_SHARE, apply_torchio

SPACING = (1.5, 1.0, 1.0)
DRAWN = [name for name in SCAN_DEGRADATIONS if name not in ("blur", "gamma")]  # blur draws nothing, gamma one bit
each = pytest.mark.parametrize("name", SCAN_DEGRADATIONS)


def head(shape=(22, 36, 32), channels=2) -> np.ndarray:
    """(C, Z, Y, X): structured, positive in an ellipsoid, exactly zero around it; mean about four deviations."""
    rng = np.random.default_rng(0)
    grid = np.meshgrid(*[np.linspace(-1.25, 1.25, n) if n > 1 else np.zeros(1) for n in shape], indexing="ij")
    inside = sum(g ** 2 for g in grid) < 1
    texture = [ndimage.gaussian_filter(rng.normal(size=shape), [1.5 * (n > 1) for n in shape]) for _ in range(channels)]
    return np.stack([np.where(inside, 400 + 100 * t / t.std(), 0) for t in texture]).clip(0).round().astype(np.float32)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return head()


def apply(name: str, volume: np.ndarray, parameter, seed: int = 0, spacing=SPACING, body=None) -> np.ndarray:
    body = volume != 0 if body is None else body
    return SCAN_DEGRADATIONS[name].apply(volume, spacing, parameter, np.random.default_rng(seed), body)


# ------------------------------------------------------------------------------------------------------ all of them

def test_severities_are_those_of_the_documentation():
    documented = {}
    for line in (tiny.ROOT / "docs" / "corruptions.md").read_text().splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if name in SCAN_DEGRADATIONS and len(cells) == 8:
            documented[name] = tuple(map(float, cells[2:7]))
    assert documented == {name: tuple(kind.parameters) for name, kind in SCAN_DEGRADATIONS.items()}


def test_there_are_trained_and_never_trained_kinds_with_five_parameters_each():
    assert {name for name, kind in SCAN_DEGRADATIONS.items() if kind.trained} == {"noise", "blur", "fourier"}
    assert {name for name, kind in SCAN_DEGRADATIONS.items() if not kind.trained} == {
        "motion", "ghosting", "spikes", "bias_field", "anisotropy", "gamma"}
    for name, kind in SCAN_DEGRADATIONS.items():
        assert kind.name == name
        assert len(kind.parameters) == 5
        assert kind.description and kind.unit


@each
def test_grid_type_background_and_input_stay_as_they_are(name, images):
    before = images.copy()
    degraded = degrade_scans(images, SPACING, name, 5, case="a")
    assert degraded.shape == images.shape
    assert degraded.dtype == np.float32
    assert np.isfinite(degraded).all()
    body = nonzero_body(images)
    np.testing.assert_array_equal(degraded[:, ~body], images[:, ~body])
    assert (degraded[:, body] != images[:, body]).mean() > 0.5
    np.testing.assert_array_equal(images, before)


@each
def test_the_image_difference_grows_with_severity(name, images):
    body = nonzero_body(images)
    for case in "abc":
        degraded = [degrade_scans(images, SPACING, name, severity, case=case) for severity in SEVERITIES]
        for channel in range(len(images)):
            differences = [image_difference(images[channel], c[channel], body) for c in degraded]
            assert np.all(np.diff(differences) > 0), differences
            assert differences[0] > 0.01


@each
def test_results_are_reproducible_and_do_not_depend_on_the_order_of_calls(name, images):
    first = degrade_scans(images, SPACING, name, 3, case="a")
    degrade_scans(images, SPACING, "noise", 1, case="b")
    np.testing.assert_array_equal(degrade_scans(images, SPACING, name, 3, case="a"), first)
    one = degrade_scans(images, SPACING, name, 3, case="a", channels=[1])
    np.testing.assert_array_equal(one[1], first[1])  # the same whether or not channel 0 was degraded before


def test_realisations_are_the_same_on_every_machine_and_in_every_session():
    """Python's hash() changes from session to session; these numbers were written down once."""
    assert generator(0, "BraTS2021_01478", "motion", 1).integers(1000, size=4).tolist() == [160, 371, 110, 234]


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("other", [{"case": "b"}, {"seed": 1}])
def test_another_case_or_seed_is_another_realisation(name, other, images):
    same = {"case": "a", "seed": 0}
    assert not np.array_equal(degrade_scans(images, SPACING, name, 3, **same),
                              degrade_scans(images, SPACING, name, 3, **same | other))


@pytest.mark.parametrize("name", DRAWN)
def test_every_channel_has_a_realisation_of_its_own(name, images):
    twice = np.stack([images[0], images[0]])
    degraded = degrade_scans(twice, SPACING, name, 3, case="a")
    assert not np.array_equal(degraded[0], degraded[1])


@each
def test_one_realisation_gets_stronger(name, images):
    """The change at one severity looks like that at the next, much more than like that of another realisation."""
    body = nonzero_body(images)

    def change(severity: int, seed: int) -> np.ndarray:
        return (degrade_scans(images, SPACING, name, severity, case="a", channels=[0], seed=seed) - images)[0][body]

    assert np.corrcoef(change(3, 0), change(4, 0))[0, 1] > 0.85
    if name in DRAWN:
        others = [np.corrcoef(change(3, 0), change(3, seed))[0, 1] for seed in range(1, 6)]
        assert min(others) < 0.6


@each
def test_channels_not_asked_for_are_unchanged(name, images):
    degraded = degrade_scans(images, SPACING, name, 4, case="a", channels=[1])
    np.testing.assert_array_equal(degraded[0], images[0])
    assert not np.array_equal(degraded[1], images[1])
    np.testing.assert_array_equal(degrade_scans(images, SPACING, name, 4, case="a", channels=[]), images)


@each
def test_zeros_around_the_body_make_no_difference(name, images):
    padding = ((0, 0), (3, 1), (0, 7), (5, 2))
    inner = (slice(None), slice(3, -1), slice(0, -7), slice(5, -2))
    padded = degrade_scans(np.pad(images, padding), SPACING, name, 3, case="a")
    np.testing.assert_array_equal(padded[inner], degrade_scans(images, SPACING, name, 3, case="a"))


@each
@pytest.mark.parametrize("shape", [(1, 40, 36), (40, 1, 36), (40, 36, 1)])
def test_an_axis_of_length_one_is_left_alone(name, shape):
    flat = head(shape)
    body = nonzero_body(flat)
    degraded = [degrade_scans(flat, (999.0 if shape[0] == 1 else 1.0, 1.0, 1.0), name, s, case="a") for s in (1, 5)]
    differences = [image_difference(flat[0], c[0], body) for c in degraded]
    assert 0.01 < differences[0] < differences[1] < 3
    np.testing.assert_array_equal(degraded[1][:, ~body], flat[:, ~body])


@each
def test_signed_images_are_taken_by_their_height_above_the_lowest_value(name, images):
    """CT and images that somebody has normalised already: there is no such thing as their magnitude."""
    body = images[0] != 0
    volume = images[0].copy()
    volume[tuple(np.argwhere(body)[0])] = 0  # the lowest signal in the body
    parameter = SCAN_DEGRADATIONS[name].parameters[2]
    expected = apply(name, volume, parameter, body=body)
    shifted = apply(name, np.where(body, volume - 1000, 0).astype(np.float32), parameter, body=body)
    np.testing.assert_allclose(shifted[body] + 1000, expected[body], atol=0.05)
    assert (shifted[~body] == 0).all()


@each
def test_what_nnunet_takes_for_the_body_does_not_change(name, images):
    degraded = degrade_scans(images, SPACING, name, 5, case="a")
    np.testing.assert_array_equal(nonzero_body(degraded), nonzero_body(images))


@each
def test_an_empty_image_stays_empty(name):
    assert not degrade_scans(np.zeros((1, 5, 6, 7), np.float32), SPACING, name, 5, case="a").any()


@each
def test_a_constant_image_yields_no_nan(name):
    assert np.isfinite(degrade_scans(np.full((1, 8, 8, 8), 7, np.float32), SPACING, name, 5, case="a")).all()


@each
def test_global_generators_are_left_alone(name, images):
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    degrade_scans(images, SPACING, name, 2, case="a")
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize(("change", "message"), [
    ({"name": "fog"}, "'fog'.*noise, blur"), ({"severity": 0}, "1 to 5, got 0"), ({"severity": 6}, "1 to 5, got 6"),
    ({"severity": 2.5}, "got 2.5"), ({"images": np.ones((4, 5, 6))}, r"\(C, Z, Y, X\), got \(4, 5, 6\)"),
    ({"spacing": (1, 1)}, "three positive"), ({"spacing": (1, 0, 1)}, "three positive"),
    ({"channels": [0, 2]}, r"\[2\].*have 2"), ({"images": np.full((2, 4, 4, 4), np.nan)}, "case a.*NaN")])
def test_wrong_arguments_are_named(change, message, images):
    arguments = {"images": images, "spacing": SPACING, "name": "gamma", "severity": 1} | change
    with pytest.raises(ValueError, match=message):
        degrade_scans(**arguments, case="a")


@pytest.mark.parametrize("name", ["motion", "ghosting", "spikes", "bias_field"])
def test_missing_torchio_is_told_with_what_to_type(name, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchio", None)
    with pytest.raises(ImportError, match=r"pip install .nnunetv2-rmr\[benchmark\]"):
        degrade_scans(images, SPACING, name, 1, case="a")
    degrade_scans(images, SPACING, "noise", 1, case="a")  # does not need it


# --------------------------------------------------------------------------------------------------- image difference

def test_image_difference_by_hand():
    clean = np.array([[[1.0, 3.0, 99.0]]])
    body = np.array([[[True, True, False]]])
    degraded = np.array([[[2.0, 5.0, -50.0]]])
    assert image_difference(clean, clean, body) == 0
    assert image_difference(clean, degraded, body) == pytest.approx(np.sqrt((1 + 4) / 2) / 1.0)
    assert image_difference(10 * clean, 10 * degraded, body) == pytest.approx(np.sqrt(2.5))


def test_image_difference_of_nothing_is_nan_and_of_other_shapes_an_error():
    image, body = np.ones((2, 2, 2)), np.ones((2, 2, 2), bool)
    assert np.isnan(image_difference(image, image, ~body))
    assert np.isnan(image_difference(image, 2 * image, body))
    with pytest.raises(ValueError, match="one shape"):
        image_difference(image, image[:1], body)


# -------------------------------------------------------------------------------------------------------------- noise

def test_noise_has_the_stated_standard_deviation_where_the_signal_is_strong():
    volume = np.full((40, 40, 40), 1000, np.float32)
    volume[:20] = 1200  # standard deviation 100
    noise = apply("noise", volume, 0.3) - volume
    assert noise.std() == pytest.approx(30, rel=0.02)
    assert abs(noise.mean()) < 1


def test_noise_is_in_standard_deviations_of_the_body_whatever_lies_around_it():
    volume = np.zeros((40, 40, 40), np.float32)
    volume[:10], volume[10:20] = 1200, 1000  # standard deviation 100 in the body, over 500 in all of it
    volume[-1, -1, -1] = 1100  # the box around the body is all of it
    noise = (apply("noise", volume, 0.3) - volume)[:20]
    assert noise.std() == pytest.approx(30, rel=0.03)


def test_noise_brightens_what_is_dark():
    volume = np.full((40, 40, 40), 200, np.float32)
    volume[:20] = 0  # standard deviation 100
    noisy = apply("noise", volume, 0.5, body=np.ones(volume.shape, bool))
    assert noisy[:20].mean() == pytest.approx(50 * np.sqrt(np.pi / 2), rel=0.02)  # Rayleigh
    assert noisy.min() >= 0


# --------------------------------------------------------------------------------------------------------------- blur

@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.5)])
def test_blur_is_in_mm(spacing):
    """A Gaussian blob of deviation s gets the deviation sqrt(s^2 + sigma^2), whatever the voxels."""
    s, sigma = 5.0, 3.0
    axes = [np.arange(-36, 36.1, step) for step in spacing]
    square = sum(g ** 2 for g in np.meshgrid(*axes, indexing="ij"))
    blob = np.exp(-square / (2 * s ** 2)).astype(np.float32)
    blurred = apply("blur", blob, sigma, spacing=spacing, body=np.ones(blob.shape, bool))
    wider = s ** 2 + sigma ** 2
    np.testing.assert_allclose(blurred, (s ** 2 / wider) ** 1.5 * np.exp(-square / (2 * wider)), atol=2e-3)


@pytest.mark.parametrize("name", ["blur", "anisotropy"])
def test_the_rim_of_the_body_is_not_darkened(name, images):
    flat = np.where(images[0] != 0, np.float32(300), np.float32(0))
    np.testing.assert_allclose(apply(name, flat, SCAN_DEGRADATIONS[name].parameters[4]), flat, rtol=1e-4)


# ------------------------------------------------------------------------------------------------------------ fourier

def test_the_change_of_fourier_is_proportional_to_its_strength(images):
    half, full = (apply("fourier", images[0], strength) - images[0] for strength in (0.5, 1.0))
    assert (full != 0).sum() / (images[0] != 0).sum() > FOURIER_SHARE - 0.1
    np.testing.assert_allclose(2 * half, full, atol=0.1)


def test_boxes_of_fourier_are_in_mm(monkeypatch, images):
    """On voxels of half the length a box has twice as many."""
    edges = []

    def remember(image, share, strength, edge, amplitude_sigma, seed):
        edges.append(edge)
        return image

    monkeypatch.setattr(fourier, "damage_fourier_locally", remember)
    apply("fourier", images[0], 0.5, spacing=(1.0, 1.0, 1.0))
    apply("fourier", images[0], 0.5, spacing=(0.5, 1.0, 10.0))
    assert edges[0][0] == edges[0][1] == edges[0][2] >= 12
    assert edges[1][0] == pytest.approx(2 * edges[0][0], abs=1)
    assert edges[1][1:] == [edges[0][1], 4]  # never smaller than 4 voxels


# ------------------------------------------------------------------------------------------------------------- motion

def ball(spacing: tuple[float, float, float]) -> np.ndarray:
    """A ball of deviation 3 mm in the middle of 64 mm."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in ((round(64 / s), s) for s in spacing)]
    square = sum(g ** 2 for g in np.meshgrid(*axes, indexing="ij"))
    return (100 * np.exp(-square / (2 * 3.0 ** 2))).astype(np.float32)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 2.0)])
def test_rotations_are_about_the_middle_of_the_volume(spacing):
    """A ball that turns about its own centre stays what it is; about a corner it would leave its place."""
    volume = ball(spacing)
    turned = apply_torchio("Motion", volume, spacing, degrees=np.array([[20.0, 30.0, 40.0]]),
                           translation=np.zeros((1, 3)), times=np.array([0.55]), image_interpolation="linear")
    np.testing.assert_allclose(turned, volume, atol=4)  # interpolated, hence a little lower
    shifted = apply_torchio("Motion", volume, spacing, degrees=np.zeros((1, 3)),
                            translation=np.full((1, 3), 8.0), times=np.array([0.55]), image_interpolation="linear")
    assert np.abs(shifted - volume).max() > 20


@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_moves_are_in_mm_and_act_from_their_time_on(spacing):
    """From 55 % of the scan on the body lies 4 mm off: 4 voxels of 1 mm, 2 of 2 mm. Of the real part of the image, the
    spectrum at a frequency is the mean of what was acquired there and at the opposite one (before the move)."""
    volume = ball((spacing,) * 3)
    result = apply_torchio("Motion", volume, (spacing,) * 3, degrees=np.zeros((1, 3)),
                           translation=np.array([[4.0, 0.0, 0.0]]), times=np.array([0.55]),
                           image_interpolation="linear")

    def late_lines(image: np.ndarray) -> np.ndarray:
        return np.fft.fftshift(np.fft.fftn(image))[..., round(0.6 * volume.shape[2]):]

    errors = [np.abs(late_lines(result) - (late_lines(volume) + late_lines(np.roll(volume, shift, 0))) / 2).max()
              for shift in (round(4 / spacing), -round(4 / spacing))]
    assert min(errors) < 0.01 * np.abs(late_lines(volume)).max() < max(errors)


def test_the_moving_body_stays_in_its_place_on_average():
    volume = ball((1.0, 1.0, 1.0))
    for seed in range(6):
        moved = apply("motion", volume, 4.0, seed, (1.0,) * 3)
        np.testing.assert_allclose(ndimage.center_of_mass(moved ** 2), ndimage.center_of_mass(volume ** 2), atol=1)


# ----------------------------------------------------------------------------------------------------------- ghosting

def test_every_ghost_has_the_stated_amplitude():
    volume = np.zeros((60, 60, 60), np.float32)
    volume[30, 30, 30] = 100
    numbers = set()
    for seed in range(12):
        ghosts = apply("ghosting", volume, 0.1, seed, body=np.ones(volume.shape, bool))
        ghosts[30, 30, 30] = 0
        visible = np.argwhere(ghosts > 5)
        np.testing.assert_allclose(ghosts[ghosts > 5], 10, rtol=0.15)  # besides them the central plane is restored
        along = np.ptp(visible, axis=0) > 0
        assert along.sum() <= 1
        distance = np.abs(visible - 30).max(1)
        number = len(visible) + 1
        assert distance.min() == 60 // number
        numbers.add(number)
    assert numbers <= {2, 3, 4, 5} and len(numbers) > 1


# ------------------------------------------------------------------------------------------------------------- spikes

def test_stripes_have_the_stated_strength_whatever_their_number():
    volume = np.random.default_rng(0).normal(1000, 10, (30, 32, 34)).astype(np.float32)
    body = np.ones(volume.shape, bool)
    for seed in range(6):
        assert image_difference(volume, apply("spikes", volume, 0.7, seed), body) == pytest.approx(0.7, rel=0.02)


def test_stripes_are_a_few_plane_waves():
    volume = np.random.default_rng(0).normal(1000, 10, (30, 32, 34)).astype(np.float32)
    for seed in range(6):
        power = np.abs(np.fft.fftn(apply("spikes", volume, 0.7, seed) - volume)) ** 2
        strongest = np.sort(power.ravel())[::-1]
        assert strongest[:8].sum() > 0.99 * power.sum()  # at most four, and their mirror images


# --------------------------------------------------------------------------------------------------------- bias field

def test_the_logarithm_of_the_gain_has_mean_zero_and_the_stated_deviation(images):
    body = images[0] > 0
    gain = np.log(apply("bias_field", images[0], 0.15)[body] / images[0][body])
    assert gain.mean() == pytest.approx(0, abs=1e-3)
    assert gain.std() == pytest.approx(0.15, rel=1e-3)


def test_the_gain_is_smooth():
    volume = np.ones((40, 40, 40), np.float32)
    gain = apply("bias_field", volume, 0.2)
    assert max(np.abs(np.diff(gain, axis=axis)).max() for axis in range(3)) < 0.2 * np.ptp(gain)
    assert np.ptp(gain) > 0.4


# --------------------------------------------------------------------------------------------------------- anisotropy

def test_thick_slices_are_in_mm():
    """A wave of 12 mm loses as much of its amplitude on a grid of 0.5 mm as on one of 1 mm."""
    kept = []
    for spacing in (0.5, 1.0):
        position = (np.arange(round(96 / spacing)) + 0.5) * spacing
        wave = np.cos(2 * np.pi * position / 12.0)
        kept.append((thick_slice_matrix(len(wave), spacing, 4.0, 0.25) @ wave).std())
    assert kept[0] == pytest.approx(kept[1], rel=0.05)
    assert kept[0] < 0.6


def test_one_axis_gets_thick_slices_and_never_the_one_that_has_them():
    changed_axes = set()
    for seed in range(8):
        dot = np.zeros((16, 32, 32), np.float32)
        dot[8, 16, 16] = 1
        spread = apply("anisotropy", dot, 6.0, seed, (4.0, 1.0, 1.0), np.ones(dot.shape, bool))
        (axis,) = np.flatnonzero(np.ptp(np.argwhere(spread > 0), axis=0) > 0)
        changed_axes.add(int(axis))
    assert changed_axes == {1, 2}


def test_slices_thinner_than_the_voxels_change_nothing(images):
    np.testing.assert_array_equal(apply("anisotropy", images[0], 3.0, spacing=(4.0, 4.0, 4.0)), images[0])


# -------------------------------------------------------------------------------------------------------------- gamma

def test_gamma_keeps_mean_deviation_and_order_and_bends_either_way(images):
    inside = images[0][images[0] > 0].astype(np.float64)
    skewness = []
    for seed in range(8):
        bent = apply("gamma", images[0], 2.5, seed)[images[0] > 0].astype(np.float64)
        assert bent.mean() == pytest.approx(inside.mean(), rel=1e-4)
        assert bent.std() == pytest.approx(inside.std(), rel=1e-4)
        order = np.argsort(inside)
        assert np.all(np.diff(bent[order]) >= 0)
        skewness.append(np.mean((bent - bent.mean()) ** 3) - np.mean((inside - inside.mean()) ** 3))
    assert min(skewness) < 0 < max(skewness)


def test_gamma_of_one_is_the_identity(images):
    np.testing.assert_allclose(apply("gamma", images[0], 1.0), images[0], rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------- real scans

BRATS = tiny.ROOT.parent / "shared" / "data" / "brats2021"


@pytest.mark.real_data
@pytest.mark.skipif(not BRATS.is_dir(), reason="the BraTS cases are not there")
@each
def test_severities_grow_and_are_of_a_size_on_a_real_case(name):
    """One case, every second voxel. The table for seven cases at full size: docs/corruptions.md."""
    import SimpleITK as sitk

    folder = sorted(BRATS.iterdir())[2]
    volumes = [sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{m}.nii.gz"))) for m in ("t1", "flair")]
    clean = np.stack(volumes)[:, ::2, ::2, ::2].astype(np.float32)
    body = nonzero_body(clean)
    degraded = [degrade_scans(clean, (2.0, 2.0, 2.0), name, s, case=folder.name) for s in SEVERITIES]
    for channel in range(len(clean)):
        differences = [image_difference(clean[channel], c[channel], body) for c in degraded]
        assert np.all(np.diff(differences) > 0), differences
        assert 0.02 < differences[0] < 0.3 and 0.15 < differences[-1] < 1.2, differences


def test_moves_turn_by_half_as_many_degrees_as_they_shift_by_mm(monkeypatch):
    given = {}

    def keep(name: str, signal: np.ndarray, spacing: tuple, **options) -> np.ndarray:
        given.update(options)
        return signal

    monkeypatch.setattr(kinds, "apply_torchio", keep)
    signal = np.ones((6, 7, 8), np.float32)
    kinds.move(signal, (1.0, 1.0, 1.0), 3.0, np.random.default_rng(0), signal > 0)
    np.testing.assert_allclose(np.linalg.norm(given["translation"], axis=1), 3)
    np.testing.assert_allclose(np.linalg.norm(given["degrees"], axis=1), 1.5)
