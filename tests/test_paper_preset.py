"""The published form as a trainer: its stages, what they train, and their schedules."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from nnunetv2_rmr.degradations import DegradeTransform
from nnunetv2_rmr.degradations.degrade import DEGRADATIONS
from nnunetv2_rmr.losses.coupled import term_weights
from nnunetv2_rmr.losses.filters import sobel_magnitude
from nnunetv2_rmr.networks.swin_encoder import SwinEncoder
from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR
from nnunetv2_rmr.training.paper import nnUNetTrainerRMR_paper
from nnunetv2_rmr.training.schedule import WarmupCosineLR

PAPER = nnUNetTrainerRMR_paper.settings


# ---- schedule -------------------------------------------------------------------------------------------------------

def schedule(epochs: int, warmup: int = 0, first: int = 0) -> list[float]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    scheduler = WarmupCosineLR(optimizer, 1.0, first, epochs, warmup)
    rates = []
    for epoch in range(first, first + epochs):
        scheduler.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
        assert scheduler.get_last_lr() == rates[-1:]
    return rates


def test_cosine_falls_from_the_full_rate_towards_zero():
    rates = schedule(100)
    assert rates[0] == 1 and rates[50] == pytest.approx(0.5) and 0 < rates[-1] < 0.001
    assert all(a > b for a, b in pairwise(rates))


def test_warm_up_rises_evenly_to_the_full_rate_from_which_the_cosine_falls():
    rates = schedule(150, warmup=50)
    steps = [b - a for a, b in pairwise(rates[:51])]
    assert rates[0] == pytest.approx(1 / 51) and steps == pytest.approx([1 / 51] * 50)
    assert max(rates) == rates[50] == 1
    assert rates[100] == pytest.approx(0.5) and all(a > b for a, b in pairwise(rates[50:]))


def test_schedule_counts_from_the_beginning_of_its_stage():
    assert schedule(30, 10, first=200) == schedule(30, 10)


def test_a_warm_up_that_leaves_no_epoch_is_refused():
    with pytest.raises(ValueError, match=r"warmup_epochs must be in \[0, 5\), .* got 5"):
        schedule(5, warmup=5)


# ---- trainer --------------------------------------------------------------------------------------------------------


def batch() -> dict:
    generator = torch.Generator().manual_seed(1)
    return {"data": torch.randn(2, 4, 8, 8, 8, generator=generator),
            "target": torch.randint(0, 2, (2, 1, 8, 8, 8), generator=generator).float()}


def train(trainer: nnUNetTrainerRMR, epoch: int) -> None:
    trainer.current_epoch = epoch
    trainer.on_train_epoch_start()
    trainer.train_step(batch())


def changed(trainer: nnUNetTrainerRMR, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the parts whose weights differ from `before`."""
    return {name.split(".")[0] for name, value in trainer.rmrnet.state_dict().items()
            if not torch.equal(value, before[name])}


def weights(trainer: nnUNetTrainerRMR) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.rmrnet.state_dict().items()}


def test_stage_1_trains_encoders_and_decoder_and_stage_2_all_but_them(trainer_of):
    trainer = trainer_of(nnUNetTrainerRMR_paper)
    assert all(isinstance(encoder, SwinEncoder) for encoder in trainer.rmrnet.encoders)
    start = weights(trainer)
    train(trainer, 0)
    assert trainer.stage == 1 and changed(trainer, start) == {"encoders", "fusion_decoder"}
    train(trainer, 1)
    middle = weights(trainer)
    train(trainer, 2)
    assert trainer.stage == 2 and changed(trainer, middle) == {"fusion", "segmentation"}


def test_optimisers_and_rates_are_the_published_ones(trainer_of):
    trainer = trainer_of(nnUNetTrainerRMR_paper, epochs=350)
    assert [trainer.stage_of(epoch) for epoch in (0, 199, 200, 349)] == [1, 1, 2, 2]
    group = trainer.optimizer.param_groups[0]
    assert type(trainer.optimizer) is torch.optim.Adam and group["lr"] == 1e-4 and group["weight_decay"] == 5e-5
    assert trainer.lr_scheduler.at(100) == pytest.approx(0.5e-4)
    trainer._enter_stage(2)
    assert type(trainer.optimizer) is torch.optim.AdamW
    assert trainer.optimizer.param_groups[0]["weight_decay"] == 1e-5
    assert trainer.lr_scheduler.at(250) == 1e-4 and trainer.lr_scheduler.warmup_epochs == 50
    assert trainer.lr_scheduler.at(300) == pytest.approx(0.5e-4)


def test_a_resumed_training_equals_an_uninterrupted_one(trainer_of, tmp_path):
    whole = trainer_of(nnUNetTrainerRMR_paper)
    for epoch in range(3):
        train(whole, epoch)
    whole.save_checkpoint(str(tmp_path / "latest.pth"))
    train(whole, 3)
    resumed = trainer_of(nnUNetTrainerRMR_paper)
    resumed.load_checkpoint(str(tmp_path / "latest.pth"))
    assert (resumed.stage, resumed.current_epoch) == (2, 3)
    train(resumed, 3)
    assert changed(resumed, weights(whole)) == set()
    assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


def test_stage_2_sees_clean_input_only(trainer_of):
    trainer = trainer_of(nnUNetTrainerRMR_paper)
    trainer._enter_stage(2)
    other = batch()
    other["data"][:, 2:] = 0  # what the network would see of degraded input
    a, b = (trainer._loss_terms(x["data"][:, :2], x["data"][:, 2:], x["target"]) for x in (batch(), other))
    assert set(a) == {"segmentation", "intensity", "gradient"}
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_settings_survive_the_plans_file(trainer_of):
    stored = json.loads(json.dumps(PAPER.into_plans({})))
    assert RMRSettings.from_plans(stored) == PAPER
    assert trainer_of(nnUNetTrainerRMR_paper).plans_manager.plans["rmr"]["reference_modality"] == "FLAIR"


def test_the_default_trainer_has_nnunets_optimiser_in_stage_2(trainer_of):
    trainer = trainer_of(nnUNetTrainerRMR)
    trainer._enter_stage(2)
    group = trainer.optimizer.param_groups[0]
    assert type(trainer.optimizer) is torch.optim.SGD and (group["lr"], group["weight_decay"]) == (1e-2, 3e-5)
    assert len(group["params"]) == len(list(trainer.network.parameters()))


@pytest.mark.parametrize("cls", [nnUNetTrainerRMR, nnUNetTrainerRMR_paper])
def test_a_training_draws_the_degradations_of_its_settings(trainer_of, least_transforms, cls):
    *_, transform = trainer_of(cls).get_training_transforms().transforms
    assert isinstance(transform, DegradeTransform)
    settings = cls.settings
    assert (transform.p_clean, transform.probabilities) == (settings.p_clean, settings.degradation_probabilities)
    for kind, options in settings.degradation_options.items():
        expected = DEGRADATIONS[kind]((1.0, 1.0, 1.0), **options)
        assert vars(transform.degradations[kind]) == vars(expected) != vars(DEGRADATIONS[kind]((1.0, 1.0, 1.0)))


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_both_stages_have_an_epoch_whatever_the_fraction(trainer_of, fraction):
    trainer = trainer_of(nnUNetTrainerRMR_paper, epochs=2)
    trainer.settings = RMRSettings(stage1_fraction=fraction)
    assert [trainer.stage_of(epoch) for epoch in (0, 1)] == [1, 2]


def test_the_loss_terms_have_the_published_weights():
    assert (PAPER.mse_weight, PAPER.tv_weight, PAPER.tv_norm, PAPER.ssim_weight) == (40, 20, "l2", 1)
    assert term_weights(1, PAPER) == {"image_refinement": 1, "feature_refinement": 1}
    assert term_weights(2, PAPER) == {"segmentation": 10, "intensity": 12, "gradient": 32}
    # 1 with the published kernels, (-1, 0, 1) along one axis and (1, 2, 1) along the others: 32 on a slope of 1
    slope = torch.arange(5.0).expand(1, 1, 5, 5, 5)
    assert sobel_magnitude(slope).unique().tolist() == [1]


# ---- degradations ---------------------------------------------------------------------------------------------------

def test_degradations_are_drawn_from_the_published_ranges():
    transform = DegradeTransform(2, (1.0, 1.0, 1.0), options=PAPER.degradation_options)
    shape = (32, 128, 128)
    draws = {kind: [transform.degradations[kind].draw(shape) for _ in range(200)] for kind in ("noise", "blur")}
    sigmas = [d["sigma"] for d in draws["noise"]]
    assert 0 <= min(sigmas) < 0.01 and 0.09 < max(sigmas) <= 0.1
    assert not any(d["rician"] for d in draws["noise"])
    sigmas = [d["sigma_mm"] for d in draws["blur"]]
    assert all(len(set(s)) == 1 for s in sigmas)
    assert 0.1 <= min(sigmas)[0] < 0.3 and 2.8 < max(sigmas)[0] <= 3
    fourier = transform.degradations["fourier"].draw(shape)
    assert fourier["share"] == 1 / 64 and all(12 <= edge <= 16 for edge in fourier["edge"])


def test_noise_relative_to_the_range_grows_with_it():
    from nnunetv2_rmr.degradations import NoiseTransform

    image = torch.rand(40, 40, 40)
    for scale in (1, 5):
        noise = NoiseTransform.corrupt(scale * image, sigma=0.1, rician=False, seed=0, of_range=True) - scale * image
        assert noise.std().item() == pytest.approx(0.1 * scale, rel=0.05)


# ---- settings -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("bad", [{"stage1_schedule": "step"}, {"stage2_optimizer": "adam"}, {"tv_norm": "l3"},
                                 {"convolutions": "he"}, {"stage2_warmup_fraction": 1.0}, {"stage2_lr": -1},
                                 {"stage2_warmup_fraction": 0.3}, {"stage1_weight_decay": -1e-5}])
def test_a_wrong_setting_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RMRSettings(**bad)


def test_an_unknown_encoder_is_named(trainer_of):
    class Unknown(nnUNetTrainerRMR):
        settings = RMRSettings(encoder="resnet")

    with pytest.raises(ValueError, match=r"\['conv', 'swin'\], got encoder='resnet'"):
        trainer_of(Unknown)


def settings_table() -> dict[str, list[str]]:
    """Rows of docs/settings.md by the setting's name: default, published value, meaning, effect."""
    text = (Path(__file__).parents[1] / "docs" / "settings.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
            if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_every_setting_stands_in_the_documentation_with_its_default_and_published_value():
    table, default = settings_table(), RMRSettings()
    names = set(RMRSettings.__dataclass_fields__)
    assert set(table) == names, f"docs/settings.md lacks {names - set(table)}, has in excess {set(table) - names}"
    for name, (meaning, default_cell, published_cell, effect) in table.items():
        assert meaning and effect, name
        for cell, value in ((default_cell, getattr(default, name)), (published_cell, getattr(PAPER, name))):
            if isinstance(value, dict):
                continue  # too long for a cell
            if isinstance(value, float) and not math.isclose(value, round(value, 6)):
                value = round(value, 3)
            assert cell.split(" ")[0].strip("`") == str(value), f"{name}: {cell} is not {value}"
