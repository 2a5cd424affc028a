import pickle
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from plans import make_plans

from nnunetv2_rmr.degradations.degrade import (
    DEGRADATIONS,
    DegradeTransform,
    add_degradations,
    degradation_arguments,
    degrade_case,
    remember_foreground,
)
from nnunetv2_rmr.settings import RMRSettings

KINDS = list(DEGRADATIONS)
SPACING = (1.0, 1.0, 1.0)


def seed_everything(seed):
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture
def image():
    return torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def foreground():
    foreground = torch.zeros(16, 16, 16, dtype=torch.bool)
    foreground[3:13, 2:14, 4:15] = True
    return foreground


def always(kind, num_modalities=2, **settings):
    return DegradeTransform(num_modalities, SPACING, p_clean=0, probabilities={kind: 1.0}, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_first_channels_are_the_clean_patch_and_the_next_the_degraded_one(kind, image):
    before = image.clone()
    out = always(kind)(image=image)["image"]
    assert out.shape == (4, 16, 16, 16)
    assert torch.equal(out[:2], before) and torch.equal(image, before)
    assert (out[2] != before[0]).any() and (out[3] != before[1]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_background_and_segmentation_stay_untouched(kind, image, foreground):
    segmentation = torch.randint(0, 4, (1, 16, 16, 16))
    before = segmentation.clone()
    out = always(kind)(image=image, segmentation=segmentation, foreground=foreground)
    assert torch.equal(out["segmentation"], before)
    assert torch.equal(out["image"][2:][:, ~foreground], image[:, ~foreground])
    assert (out["image"][2:][:, foreground] != image[:, foreground]).any()
    assert "foreground" not in out


@pytest.mark.parametrize("kind", KINDS)
def test_extra_channels_come_last_and_untouched(kind):
    image = torch.randn(5, 16, 16, 16)
    out = always(kind)(image=image)["image"]
    assert out.shape[0] == 7
    assert torch.equal(out[:2], image[:2]) and torch.equal(out[4:], image[2:])


def test_clean_sample_is_bitwise_clean(image):
    out = DegradeTransform(2, SPACING, p_clean=1)(image=image)["image"]
    assert torch.equal(out, torch.cat([image, image]))


@pytest.mark.parametrize("kind", KINDS)
def test_reproducible_from_the_seed(kind, image):
    def draw(seed):
        seed_everything(seed)
        return always(kind)(image=image)["image"]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_torch_state_plays_no_part():
    """nnU-Net's forked workers share one torch state; drawing from it would repeat a degradation in every worker."""
    transform, image = DegradeTransform(2, SPACING), torch.randn(2, 8, 8, 8)
    before = torch.get_rng_state()
    for seed in range(10):
        np.random.seed(seed)
        transform(image=image)
    assert torch.equal(torch.get_rng_state(), before)


def test_modalities_draw_independently_with_the_stated_probabilities():
    seed_everything(0)
    probabilities = {"none": 0.1, "noise": 0.2, "blur": 0.3, "fourier": 0.4}
    transform = DegradeTransform(2, SPACING, p_clean=0, probabilities=probabilities)
    image = torch.zeros(2, 4, 4, 4)
    pairs = Counter(tuple(transform.get_parameters(image=image)["kinds"]) for _ in range(4000))
    for (a, b), count in pairs.items():
        assert count / 4000 == pytest.approx(probabilities[a] * probabilities[b], abs=0.025)
    assert len(pairs) == 16


def test_samples_stay_clean_with_the_stated_probability():
    seed_everything(0)
    transform = DegradeTransform(2, SPACING, p_clean=0.7, probabilities={"blur": 1.0})
    image = torch.zeros(2, 4, 4, 4)
    clean = [transform.get_parameters(image=image)["kinds"] == ["none", "none"] for _ in range(3000)]
    assert np.mean(clean) == pytest.approx(0.7, abs=0.03)


def test_kinds_beyond_the_published_ones_are_off_by_default():
    assert set(RMRSettings().degradation_probabilities) == {"none", "noise", "blur", "fourier"}


def test_kinds_kept_for_the_benchmark_can_not_be_trained_on():
    for kind in ("motion", "gamma"):
        with pytest.raises(ValueError, match="unknown degradations"):
            DegradeTransform(2, SPACING, probabilities={kind: 1.0})


def test_only_magnitude_images_get_rician_noise():
    seed_everything(0)
    transform = always("noise", magnitude=[True, False], options={"noise": {"p_rician": 1.0}})
    parameters = [transform.get_parameters(image=torch.zeros(2, 4, 4, 4))["parameters"] for _ in range(10)]
    assert all(mri["rician"] and not ct["rician"] for mri, ct in parameters)
    plans = make_plans(scheme="CTNormalization").plans
    plans["configurations"]["test"]["normalization_schemes"][1] = "ZScoreNormalization"
    arguments = degradation_arguments(RMRSettings(), PlansManager(plans).get_configuration("test"))
    assert arguments["magnitude"] == [False, True]


def test_options_reach_the_degradation(image):
    out = always("noise", options={"noise": {"sigma": 0.0}})(image=image)["image"]
    torch.testing.assert_close(out[2:], image, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"probabilities": {"noize": 1.0}},
        {"probabilities": {"noise": 0.7}},
        {"probabilities": {"noise": 1.5, "none": -0.5}},
        {"probabilities": {}},
        {"options": {"noize": {}}},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"unknown|probabilities|p_clean"):
        DegradeTransform(2, SPACING, **settings)


def test_an_option_that_a_degradation_does_not_have_is_named():
    with pytest.raises(ValueError, match=r"degradation_options of noise: .*sigmaa"):
        DegradeTransform(2, SPACING, options={"noise": {"sigmaa": (0, 1)}})


def test_spacing_of_another_dimension_is_refused(image):
    with pytest.raises(ValueError, match="spacing"):
        DegradeTransform(2, (1.0, 1.0))(image=image)


def test_can_be_sent_to_a_worker():
    pickle.loads(pickle.dumps(add_degradations(nnUNetTrainer.get_validation_transforms(None), 2, SPACING)))


def test_foreground_is_what_is_not_negative():
    segmentation = torch.tensor([[[-1, 0], [1, 2]], [[5, 5], [5, -1]]])
    foreground = remember_foreground(segmentation=segmentation)["foreground"]
    assert foreground.tolist() == [[False, True], [True, True]]


def test_case_depends_on_its_seed_only_and_leaves_the_global_generators(image, foreground):
    seed_everything(7)
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = degrade_case(image, foreground, SPACING, seed=1)
    assert np.array_equal(np.random.get_state()[1], numpy_before)
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.random.uniform(size=3)
    assert torch.equal(degrade_case(image, foreground, SPACING, seed=1), first)
    assert not torch.equal(degrade_case(image, foreground, SPACING, seed=2), first)


def test_case_has_every_modality_degraded_and_its_background_kept(image, foreground):
    before = image.clone()
    for seed in range(10):
        degraded = degrade_case(image, foreground, SPACING, seed, p_clean=1.0, modality_dropout=1.0)
        assert torch.equal(image, before)
        assert torch.equal(degraded[:, ~foreground], image[:, ~foreground])
        assert all((a != b).any() for a, b in zip(degraded, image))


def test_case_of_a_2d_configuration_is_degraded_slice_by_slice(image, foreground):
    degraded = degrade_case(image, foreground, (1.0, 1.0), seed=1)
    assert torch.equal(degraded, degrade_case(image, foreground, (1.0, 1.0), seed=1))
    assert torch.equal(degraded[:, ~foreground], image[:, ~foreground])
    changed = (degraded != image).flatten(2).any(2)
    assert torch.equal(changed, foreground.flatten(1).any(1).expand(2, -1))


def test_case_stays_clean_where_training_never_degrades(image, foreground):
    assert torch.equal(degrade_case(image, foreground, SPACING, 0, probabilities={"none": 1.0}), image)


# inside nnU-Net's own pipeline ----------------------------------------------------------------------------------------


def run_pipeline(
    patch_size=(16, 16, 16), channels=2, dummy_2d=False, seg_channels=1, seed=0, settings=None, **arguments
):
    dim = len(patch_size)
    rotation = (-0.3, 0.3)
    transforms = nnUNetTrainer.get_training_transforms(
        np.array(patch_size), rotation, arguments.pop("scales", None), tuple(range(dim)), dummy_2d, **arguments
    )
    pipeline = add_degradations(transforms, channels, (1.0,) * dim, **(settings or {}))
    generator = torch.Generator().manual_seed(3)
    shape = patch_size if not dummy_2d else (patch_size[0], *(n + 4 for n in patch_size[1:]))
    image = torch.randn(channels, *shape, generator=generator)
    segmentation = torch.randint(0, 3, (seg_channels, *shape), generator=generator).to(torch.int16)
    segmentation[0, ..., :4] = -1
    image[..., :4] = 0
    seed_everything(seed)
    return pipeline(image=image, segmentation=segmentation)


DEGRADED = {"p_clean": 0.0, "probabilities": {"noise": 1.0}}


def test_pipeline_with_regions_deep_supervision_and_masked_normalisation():
    out = run_pipeline(
        regions=[(1, 2), (2,)], scales=[[1] * 3, [0.5] * 3], use_mask_for_norm=[True, True], settings=DEGRADED
    )
    image = out["image"]
    assert image.shape == (4, 16, 16, 16)
    assert [tuple(s.shape) for s in out["segmentation"]] == [(2, 16, 16, 16), (2, 8, 8, 8)]
    assert set(out) == {"image", "segmentation"}
    masked = image[0] == 0
    assert 0.1 < masked.float().mean() < 0.9
    assert torch.equal(image[2][masked], image[0][masked])
    assert (image[2][~masked] != image[0][~masked]).all()


def test_pipeline_with_dummy_2d():
    assert run_pipeline((8, 24, 24), dummy_2d=True)["image"].shape == (4, 8, 24, 24)


def test_pipeline_in_2d():
    out = run_pipeline((32, 32), scales=[[1, 1], [0.5, 0.5]])
    assert out["image"].shape == (4, 32, 32)


def test_pipeline_of_a_cascade():
    out = run_pipeline(seg_channels=2, is_cascaded=True, foreground_labels=[1, 2], settings=DEGRADED)
    image = out["image"]
    assert image.shape == (6, 16, 16, 16)
    assert set(image[4:].unique().tolist()) <= {0.0, 1.0}
    assert (image[2:4] != image[:2]).any()


def test_pipeline_gives_the_segmentation_that_nnunet_gives():
    transforms = nnUNetTrainer.get_validation_transforms(None, regions=[(1, 2), (2,)])
    image, segmentation = torch.randn(2, 8, 8, 8), torch.randint(-1, 3, (1, 8, 8, 8)).to(torch.int16)
    plain = transforms(image=image.clone(), segmentation=segmentation.clone())
    degraded = add_degradations(transforms, 2, SPACING)(image=image.clone(), segmentation=segmentation.clone())
    assert torch.equal(plain["segmentation"], degraded["segmentation"])
    assert torch.equal(plain["image"], degraded["image"][:2])


def test_pipeline_is_reproducible_from_the_seeds():
    assert torch.equal(run_pipeline(seed=5)["image"], run_pipeline(seed=5)["image"])
    assert not torch.equal(run_pipeline(seed=5)["image"], run_pipeline(seed=6)["image"])


def test_pipeline_without_the_body_is_refused():
    with pytest.raises(ValueError, match="RemoveLabelTransform"):
        add_degradations(ComposeTransforms([]), 2, SPACING)


def test_with_clean_targets_nnunets_own_noise_blur_and_low_resolution_reach_the_degraded_half_only(foreground):
    class Add(BasicTransform):
        """Stands for all that changes both halves: it comes after noise in nnU-Net's order."""

        def apply(self, data_dict, **params):
            return data_dict | {"image": data_dict["image"] + 5}

    def pipeline(clean_targets: bool):
        own = [RandomTransform(transform, apply_probability=1.0) for transform in (
            GaussianNoiseTransform(noise_variance=(1, 1), p_per_channel=1, synchronize_channels=True),
            GaussianBlurTransform(blur_sigma=(1, 1), p_per_channel=1),
            SimulateLowResolutionTransform(scale=(0.5, 0.5), synchronize_channels=True, synchronize_axes=True,
                                           ignore_axes=None, p_per_channel=1))]
        return add_degradations(ComposeTransforms([*own, Add(), RemoveLabelTransform(-1, 0)]), 2, SPACING,
                                p_clean=1.0, clean_targets=clean_targets)

    image = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    segmentation = torch.where(foreground, 1, -1)[None]
    seed_everything(0)
    out = pipeline(True)(image=image.clone(), segmentation=segmentation.clone())["image"]
    assert torch.equal(out[:2], image + 5)
    assert (out[2:][:, foreground] != out[:2][:, foreground]).float().mean() > 0.99
    assert torch.equal(out[2:][:, ~foreground], out[:2][:, ~foreground])
    before = pipeline(False)(image=image.clone(), segmentation=segmentation.clone())["image"]
    assert torch.equal(before[:2], before[2:]) and not torch.equal(before[:2], image + 5)


def test_of_nnunets_own_pipeline_these_three_are_moved():
    pipeline = nnUNetTrainer.get_training_transforms((16, 16, 16), (0, 1), None, (0, 1, 2), False)
    moved = add_degradations(pipeline, 2, SPACING, clean_targets=True)
    names = [type(step.transform).__name__ for step in moved.transforms[-1].also]
    assert names == ["GaussianNoiseTransform", "GaussianBlurTransform", "SimulateLowResolutionTransform"]
    assert len(moved.transforms) == len(pipeline.transforms) - 3 + 2


def test_a_training_draws_by_its_settings_and_ct_is_no_magnitude():
    settings = RMRSettings(p_clean=0.5, degradation_probabilities={"none": 0.5, "blur": 0.5},
                           degradation_options={"blur": {"p_thick_slices": 0.0}}, modality_dropout=0.2)
    configuration = SimpleNamespace(normalization_schemes=["ZScoreNormalization", "CTNormalization"])
    assert degradation_arguments(settings, configuration) == {
        "p_clean": 0.5, "probabilities": {"none": 0.5, "blur": 0.5}, "options": {"blur": {"p_thick_slices": 0.0}},
        "modality_dropout": 0.2, "magnitude": [True, False]}
