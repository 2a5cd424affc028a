"""The front's gradient is clipped by itself, whatever the images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


def gradient_norms(trainer_of, front_clip: float | None, contrast: float) -> tuple[float, float]:
    """Of the front and of the segmentation network, after a step of stage 2 on images of that contrast."""
    class Clipped(nnUNetTrainerRMR):
        settings = replace(nnUNetTrainerRMR.settings, stage1_fraction=0, front_clip=front_clip)

    trainer = trainer_of(Clipped)
    trainer.on_train_epoch_start()
    torch.manual_seed(1)
    trainer.train_step({"data": contrast * torch.randn(2, 4, 8, 8, 8),
                        "target": torch.randint(0, 2, (2, 1, 8, 8, 8)).float()})
    return tuple(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm().item()
                 for parameters in (trainer.rmrnet.front_parameters(), trainer.rmrnet.segmentation.parameters()))


@pytest.mark.parametrize("contrast", [3.0, 100.0])
def test_a_steps_gradient_of_the_front_is_no_larger_than_the_setting(trainer_of, contrast):
    assert gradient_norms(trainer_of, 1.0, contrast)[0] == pytest.approx(1.0, rel=1e-3)


def test_a_small_gradient_stays_what_it_is_and_the_segmentation_networks_always(trainer_of):
    small, segmentation = gradient_norms(trainer_of, 12.0, 0.1)
    assert small < 12
    assert gradient_norms(trainer_of, 2 * small, 0.1) == pytest.approx((small, segmentation))
    assert gradient_norms(trainer_of, small / 2, 0.1) == pytest.approx((small / 2, segmentation), rel=1e-3)


def test_without_the_setting_there_is_nnunets_clip_of_the_whole_gradient(trainer_of):
    front, segmentation = gradient_norms(trainer_of, None, 100.0)
    assert np.hypot(front, segmentation) == pytest.approx(12.0, rel=1e-3)
    assert front > 11.9, "clipped to 12 by itself before, it would leave the segmentation network a larger share"


def test_a_norm_that_lets_nothing_through_is_refused():
    with pytest.raises(ValueError, match="front_clip must be positive"):
        RMRSettings(front_clip=0.0)
