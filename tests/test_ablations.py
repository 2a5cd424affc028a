"""Every ablation leaves out what its name says, and nothing else."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from plans import DATASET_JSON, make_plans

from nnunetv2_rmr.losses.coupled import term_weights
from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training import ablations
from nnunetv2_rmr.training.ablations import nnUNetTrainer_RMRDegradations
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


@pytest.mark.parametrize(("name", "changed"), [
    ("noFusionLoss", {"intensity_weight", "gradient_weight"}),
    ("noSegmentationLoss", {"segmentation_weight"}),
    ("noRefinement", {"refinement_weight"}),
    ("noDegradations", {"p_clean"}),
    ("frozenAutoencoder", {"freeze_autoencoder"}),
    ("oneStage", {"stage1_fraction"}),
])
def test_an_ablation_changes_the_settings_it_is_named_for(name, changed):
    settings = asdict(getattr(ablations, f"nnUNetTrainerRMR_{name}").settings)
    assert {k for k, v in asdict(nnUNetTrainerRMR.settings).items() if settings[k] != v} == changed


@pytest.mark.parametrize(("name", "gone"), [
    ("noFusionLoss", {"intensity", "gradient"}),
    ("noSegmentationLoss", {"segmentation"}),
    ("noRefinement", {"image_refinement", "feature_refinement"}),
    ("frozenAutoencoder", {"image_refinement", "feature_refinement"}),
    ("noDegradations", set()),
])
def test_the_loss_of_stage_2_lacks_only_these_terms(name, gone):
    settings = getattr(ablations, f"nnUNetTrainerRMR_{name}").settings
    assert set(term_weights(2, RMRSettings())) - set(term_weights(2, settings)) == gone


@pytest.fixture
def rival(least_transforms) -> nnUNetTrainer_RMRDegradations:
    """The trainer of plain nnU-Net with degradations; nnU-Net's own transforms replaced by the least of them."""
    trainer = object.__new__(nnUNetTrainer_RMRDegradations)
    trainer.plans_manager = make_plans(settings=None)
    trainer.configuration_manager = trainer.plans_manager.get_configuration("test")
    trainer.dataset_json = DATASET_JSON
    return trainer


def test_plain_nnunet_with_degradations_sees_the_degraded_modalities_only(rival):
    np.random.seed(0)
    transforms = rival.get_training_transforms()
    image = torch.randn(2, 16, 16, 16)
    segmentation = torch.zeros(1, 16, 16, 16, dtype=torch.int16)
    segmentation[:, :8] = -1  # outside the body
    samples = [transforms(image=image.clone(), segmentation=segmentation.clone()) for _ in range(40)]
    assert {tuple(s["image"].shape) for s in samples} == {(2, 16, 16, 16)}
    assert all(torch.equal(s["image"][:, :8], image[:, :8]) for s in samples)
    changed = sum(not torch.equal(s["image"], image) for s in samples)
    expected = 40 * (1 - RMRSettings().p_clean) * (1 - RMRSettings().degradation_probabilities["none"] ** 2)
    assert abs(changed - expected) < 10
