import json
from math import acos, degrees, exp

import nibabel
import numpy as np
import pytest

from nnunetv2_rmr.datasets import phantom
from nnunetv2_rmr.datasets.phantom import (
    CHANNELS,
    CSF,
    GREY_MATTER,
    LESION_VOLUME_ML,
    SEQUENCES,
    WHITE_MATTER,
    TemplateMissingError,
    Tissue,
    add_rician_noise,
    draw_lesion_volumes,
    grow_lesions,
    inversion_recovery,
    simulate_case,
    smooth_field,
    spin_echo,
    spoiled_gradient_echo,
    with_contrast_agent,
    write_phantom_dataset,
)


@pytest.fixture(scope="module")
def cases():
    return [simulate_case(seed=0, index=i, spacing_mm=3) for i in range(4)]


def relative(case, channel):
    """An image relative to the mean of white matter."""
    image = case.images[channel].astype(float)
    return image / image[case.tissues["white"] > 0.9].mean()


def mean_in(case, channel, tissue):
    return relative(case, channel)[case.tissues[tissue] > 0.9].mean()


def overlap(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_same_numbers_give_the_same_case(cases):
    again = simulate_case(seed=0, index=2, spacing_mm=3)
    for channel in CHANNELS:
        np.testing.assert_array_equal(again.images[channel], cases[2].images[channel])
    np.testing.assert_array_equal(again.label, cases[2].label)


def test_subjects_and_seeds_differ_in_anatomy(cases):
    white = [case.tissues["white"] > 0.5 for case in (*cases, simulate_case(seed=1, index=0, spacing_mm=3))]
    for i in range(len(white)):
        for j in range(i):
            assert 0.4 < overlap(white[i], white[j]) < 0.9


def test_lesions_are_bright_in_t2_and_flair(cases):
    for case in cases:
        assert mean_in(case, "T2", "lesion") > 1.3
        assert mean_in(case, "FLAIR", "lesion") > 1.3


def test_only_t1ce_shows_which_lesions_take_up_contrast_agent(cases):
    found = {channel: np.concatenate([relative(case, channel)[case.tissues["lesion"] > 0.9] for case in cases])
             for channel in CHANNELS}
    enhancing = found["T1ce"] > 1.15
    assert 0.2 < enhancing.mean() < 0.8
    assert np.median(found["T1ce"][enhancing]) > 1.4 and np.median(found["T1ce"][~enhancing]) < 0.97
    for channel in ("T2", "FLAIR"):
        assert np.median(found[channel][enhancing]) == pytest.approx(np.median(found[channel][~enhancing]), rel=0.1)


def test_contrast_agent_shortens_t1_by_its_relaxivity():
    assert with_contrast_agent(WHITE_MATTER, 0) == WHITE_MATTER
    enhanced = with_contrast_agent(Tissue(proton_density=0.8, t1=1000, t2=100), concentration=0.2)
    assert enhanced == Tissue(proton_density=0.8, t1=pytest.approx(500), t2=100)


def test_fluid_is_bright_in_t2_and_dark_in_t1ce_and_flair(cases):
    for case in cases:
        assert mean_in(case, "T2", "csf") > 2
        assert mean_in(case, "T1ce", "csf") < 0.5
        assert mean_in(case, "FLAIR", "csf") < 0.2


def test_grey_matter_lies_between_white_matter_and_fluid_in_t1ce_and_t2(cases):
    for case in cases:
        assert mean_in(case, "T1ce", "csf") < mean_in(case, "T1ce", "grey") < 0.95
        assert 1.2 < mean_in(case, "T2", "grey") < mean_in(case, "T2", "csf")


def test_background_is_exactly_zero_and_the_same_in_all_channels(cases):
    for case in cases:
        brain = case.images["T1ce"] > 0
        assert 0.15 < brain.mean() < 0.5
        assert not brain[[0, -1]].any() and not brain[:, [0, -1]].any() and not brain[:, :, [0, -1]].any()
        for channel in CHANNELS:
            assert case.images[channel].dtype == np.int16
            np.testing.assert_array_equal(case.images[channel] > 0, brain)
            assert case.images[channel].min() == 0


def test_nnunet_will_normalise_within_the_brain(cases):
    # it does so if cropping to the brain leaves less than three quarters of the image
    for case in cases:
        where = np.argwhere(case.images["T1ce"] > 0)
        assert np.prod(where.max(0) - where.min(0) + 1) < 0.75 * case.label.size


def test_label_is_where_lesions_fill_half_a_voxel_of_brain(cases):
    for case in cases:
        assert case.label.any()
        assert (case.images["FLAIR"][case.label == 1] > 0).all()
        assert (case.tissues["lesion"][case.label == 1] >= 0.5).all()


def test_tissue_fractions_are_fractions(cases):
    for case in cases:
        total = sum(case.tissues.values())
        assert all((fraction >= 0).all() for fraction in case.tissues.values())
        assert total.max() < 1 + 1e-5
        assert total[case.images["T1ce"] > 0].min() > 0.4


def test_lesion_volumes_are_in_the_stated_range():
    drawn = np.concatenate([draw_lesion_volumes(np.random.default_rng(i)) for i in range(200)])
    assert drawn.min() >= LESION_VOLUME_ML[0] and drawn.max() <= LESION_VOLUME_ML[1]
    assert np.median(drawn) == pytest.approx(0.8, rel=0.1)
    assert drawn.mean() > 1.3 * np.median(drawn)  # skewed


def test_grown_lesions_have_their_volume_and_stay_where_they_may():
    allowed = np.ones((40, 40, 40), dtype=bool)
    allowed[:, :, 20:] = False
    weight = np.zeros(allowed.shape, dtype=np.float32)
    weight[10:30, 10:30, 17] = 1
    lesions = grow_lesions(np.random.default_rng(0), weight, allowed, np.array([1.0, 0.2]), voxel_mm=2)
    assert (lesions == 1).sum() == 125 and (lesions == 2).sum() == 25
    assert not lesions[~allowed].any()


def test_smooth_field_is_standardised_and_smooth():
    field = smooth_field(np.random.default_rng(0), (40, 50, 30), voxel_mm=2, scale_mm=30)
    assert field.shape == (40, 50, 30) and field.dtype == np.float32
    assert abs(field.mean()) < 1e-4 and field.std() == pytest.approx(1, abs=1e-4)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 0.4


def test_rician_noise_without_signal_is_rayleigh_distributed():
    noisy = add_rician_noise(np.random.default_rng(0), np.zeros((50, 50, 50), dtype=np.float32), sigma=2)
    assert noisy.mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.01)


def test_rician_noise_without_sigma_changes_nothing():
    signal = np.linspace(0, 5, 27, dtype=np.float32).reshape(3, 3, 3)
    np.testing.assert_allclose(add_rician_noise(np.random.default_rng(0), signal, sigma=0), signal)


def test_spin_echo_without_relaxation_shows_proton_density():
    assert spin_echo(WHITE_MATTER, tr=1e9, te=0) == pytest.approx(WHITE_MATTER.proton_density)


def test_spin_echo_loses_a_factor_e_per_t2():
    signals = [spin_echo(GREY_MATTER, tr=5000, te=te) for te in (20, 20 + GREY_MATTER.t2)]
    assert signals[1] / signals[0] == pytest.approx(exp(-1))


def test_gradient_echo_is_brightest_at_the_ernst_angle():
    ernst = degrees(acos(exp(-20 / WHITE_MATTER.t1)))
    signals = [spoiled_gradient_echo(WHITE_MATTER, 20, 3, ernst + d) for d in (-2, 0, 2)]
    assert max(signals) == signals[1]


def test_inversion_recovery_without_a_wait_is_inverted():
    assert inversion_recovery(CSF, tr=1e9, te=0, ti=0) == pytest.approx(-CSF.proton_density)


def test_flair_nulls_fluid():
    assert abs(SEQUENCES["FLAIR"](CSF)) < 0.01 * SEQUENCES["FLAIR"](WHITE_MATTER)


def test_data_set_is_one_of_nnunet(tmp_path):
    done = []
    folder = write_phantom_dataset(tmp_path, 7, "Tiny", n_train=2, n_test=1, seed=3, spacing_mm=6,
                                   on_case=lambda: done.append(1))
    assert folder == tmp_path / "Dataset007_Tiny" and len(done) == 3
    description = json.loads((folder / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "T1ce", "1": "T2", "2": "FLAIR"}
    assert description["labels"] == {"background": 0, "lesion": 1} and description["numTraining"] == 2
    names = {sub: sorted(p.name for p in (folder / sub).iterdir()) for sub in ("imagesTr", "labelsTr", "imagesTs")}
    assert names["labelsTr"] == ["phantom_000.nii.gz", "phantom_001.nii.gz"]
    assert len(names["imagesTr"]) == 6
    assert names["imagesTs"] == [f"phantom_002_{c:04d}.nii.gz" for c in range(3)]
    label = nibabel.load(folder / "labelsTs" / "phantom_002.nii.gz")
    image = nibabel.load(folder / "imagesTs" / "phantom_002_0002.nii.gz")
    assert image.header.get_zooms() == (6, 6, 6) and nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(image.affine, label.affine)
    np.testing.assert_array_equal(image.get_fdata(), simulate_case(3, 2, 6).images["FLAIR"])


def test_without_nilearn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(phantom, "find_spec", lambda name: None)
    phantom.load_template.cache_clear()
    with pytest.raises(TemplateMissingError, match=r"nnunetv2-rmr\[demo\]"):
        phantom.load_template()
