"""The rival: nnU-Net on the patches that RMR trains on, without the image task."""

import numpy as np
import pytest
import torch
from plans import DATASET_JSON, make_plans

from nnunetv2_rmr.degradations.degrade import DegradeTransform
from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training.degradations_only import nnUNetTrainer_RMRDegradations
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


def transforms_of(cls: type, settings: RMRSettings | None = None):
    """Its training transforms, of two modalities in patches of 16^3, without making a whole trainer.

    settings: in the plans.
    """
    trainer = object.__new__(cls)
    trainer.plans_manager = make_plans(spacing=(1.0, 2.0, 3.0), settings=settings)
    trainer.configuration_manager = trainer.plans_manager.get_configuration("test")
    trainer.dataset_json, trainer.settings, trainer.current_epoch = DATASET_JSON, RMRSettings(), 0
    trainer.num_iterations_per_epoch, trainer.batch_size, trainer.local_rank = 1, 2, 0
    arguments = ((16, 16, 16), (-0.5, 0.5), None, (0, 1, 2), False)
    return trainer.get_training_transforms(*arguments, is_cascaded=False, foreground_labels=[1], regions=None,
                                           ignore_label=None)


def sample() -> dict:
    torch.manual_seed(0)
    segmentation = torch.zeros(1, 16, 16, 16, dtype=torch.int16)
    segmentation[:, :8] = -1  # outside the body
    return {"image": torch.randn(2, 16, 16, 16), "segmentation": segmentation}


def drawn(cls: type, seed: int) -> torch.Tensor:
    np.random.seed(seed)
    torch.manual_seed(seed)
    return transforms_of(cls)(**sample())["image"]


@pytest.mark.parametrize("seed", range(8))
def test_rmr_and_its_rival_see_the_same_patches_bit_by_bit(seed):
    ours, rivals = drawn(nnUNetTrainerRMR, seed), drawn(nnUNetTrainer_RMRDegradations, seed)
    assert ours.shape[0] == 4 and torch.equal(ours[2:], rivals)


@pytest.mark.parametrize("cls", [nnUNetTrainerRMR, nnUNetTrainer_RMRDegradations])
def test_the_degradations_know_the_spacing_in_the_axis_order_of_the_data(cls):
    degrade, = (t for t in transforms_of(cls).transforms if isinstance(t, DegradeTransform))
    assert degrade.spacing == (1.0, 2.0, 3.0)


def test_settings_in_the_plans_hold_for_the_rival_too():
    degrade = transforms_of(nnUNetTrainer_RMRDegradations, RMRSettings(p_clean=0.9)).transforms[-2]
    assert degrade.p_clean == 0.9


def test_plain_nnunet_with_degradations_sees_the_degraded_modalities_only(least_transforms):
    np.random.seed(0)
    transforms, whole = transforms_of(nnUNetTrainer_RMRDegradations), sample()
    samples = [transforms(image=whole["image"].clone(), segmentation=whole["segmentation"].clone())["image"]
               for _ in range(40)]
    assert {tuple(s.shape) for s in samples} == {(2, 16, 16, 16)}
    assert all(torch.equal(s[:, :8], whole["image"][:, :8]) for s in samples)
    changed = sum(not torch.equal(s, whole["image"]) for s in samples)
    expected = 40 * (1 - RMRSettings().p_clean) * (1 - RMRSettings().degradation_probabilities["none"] ** 2)
    assert abs(changed - expected) < 10
