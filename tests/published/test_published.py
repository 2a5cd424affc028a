"""The published form as a trainer: its stages, what they train, and their schedules."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from plans import make_plans
from skimage.metrics import structural_similarity

from nnunetv2_rmr.degradations.degrade import DegradeTransform
from nnunetv2_rmr.degradations.noise import add_noise
from nnunetv2_rmr.networks.fusing import unwrapped
from nnunetv2_rmr.published import losses
from nnunetv2_rmr.published.network import PublishedRMRNet, Stage2Outputs
from nnunetv2_rmr.published.nnUNetTrainerRMR_paper import WarmupCosineLR, nnUNetTrainerRMR_paper
from nnunetv2_rmr.published.swin_encoder import SwinEncoder
from nnunetv2_rmr.training import nnUNetTrainerRMR as default_trainer
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

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
    return {name.split(".")[0] for name, value in unwrapped(trainer.network).state_dict().items()
            if not torch.equal(value, before[name])}


def weights(trainer: nnUNetTrainerRMR) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in unwrapped(trainer.network).state_dict().items()}


def test_stage_1_trains_encoders_and_decoder_and_stage_2_all_but_them(trainer_of):
    trainer = trainer_of(nnUNetTrainerRMR_paper)
    assert all(isinstance(encoder, SwinEncoder) for encoder in unwrapped(trainer.network).encoders)
    start = weights(trainer)
    train(trainer, 0)
    assert trainer.stage == 1 and changed(trainer, start) == {"encoders", "fusion_decoder"}
    train(trainer, 1)
    middle = weights(trainer)
    train(trainer, 2)
    assert trainer.stage == 2 and changed(trainer, middle) == {"fusion", "segmentation", "stage"}


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
    network = trainer_of(nnUNetTrainerRMR_paper).network
    network.stage.fill_(2)
    other = batch()["data"]
    other[:, 2:] = 0  # what the network would see of degraded input
    a, b = (network(x) for x in (batch()["data"], other))
    assert isinstance(a, Stage2Outputs) and torch.equal(a.logits, b.logits) and torch.equal(a.fused, b.fused)


def test_stage_1_sees_degraded_and_clean_input_and_reconstructs_the_degraded_one(trainer_of):
    network, data = trainer_of(nnUNetTrainerRMR_paper).network, batch()["data"]
    clean, degraded = data[:, :2], data[:, 2:]
    out = network(data)
    of_modality = [network.encoders[i](degraded[:, i:i + 1]) for i in range(2)]
    torch.testing.assert_close(out.degraded_features, torch.stack(of_modality, 1))
    torch.testing.assert_close(out.clean_features[:, 1], network.encoders[1](clean[:, 1:]))
    torch.testing.assert_close(out.reconstructed[:, :1], network.fusion_decoder(of_modality[0]))
    assert torch.equal(out.clean, clean)


@pytest.mark.parametrize("cls", [nnUNetTrainerRMR, nnUNetTrainerRMR_paper])
@pytest.mark.parametrize("asked", [True, False])
def test_a_stock_predictor_is_told_of_fused_images_by_every_model_of_ours_if_the_environment_asks(monkeypatch, cls,
                                                                                                  asked):
    told, plans = [], make_plans()
    monkeypatch.setattr(default_trainer, "let_stock_predictor_save_fused", lambda: told.append(cls))
    monkeypatch.setenv("nnUNet_rmr_save_fused", "1" if asked else "0")
    cls.build_network_architecture(plans, plans.get_configuration("test"), 2, 2, False)
    assert told == [cls] * asked


def test_weights_of_stage_1_are_announced_as_what_they_are(trainer_of, capsys):
    network = trainer_of(nnUNetTrainerRMR_paper).network
    for stage, warned in ((1, True), (2, False)):
        state = network.state_dict() | {"stage": torch.tensor(stage)}
        capsys.readouterr()
        network.load_state_dict(state)
        assert ("were saved in stage 1 of the training" in capsys.readouterr().out) == warned


def test_extra_channels_reach_the_segmentation_but_not_the_fusion():
    torch.manual_seed(0)
    network = PublishedRMRNet(torch.nn.Conv3d(16 + 2, 3, 1), 2, 4, 3).eval()
    x = torch.randn(1, 4, 8, 8, 8)
    other = torch.cat((x[:, :2], x[:, 2:] + 1), 1)
    a, b = (network(i, images=True) for i in (x, other))
    assert torch.equal(a[1], b[1]) and not torch.equal(a[0], b[0])


@pytest.mark.parametrize("cls", [nnUNetTrainerRMR, nnUNetTrainerRMR_paper])
def test_a_training_draws_the_degradations_of_its_settings(trainer_of, least_transforms, cls):
    *_, transform = trainer_of(cls).get_training_transforms().transforms
    assert isinstance(transform, DegradeTransform)
    settings = cls.settings
    assert (transform.p_clean, transform.probabilities) == (settings.p_clean, settings.degradation_probabilities)
    assert transform.options == settings.degradation_options


@pytest.mark.parametrize(("epochs", "stages"), [(1, "2"), (2, "12"), (4, "1122")])
def test_both_stages_have_an_epoch_if_there_are_two(trainer_of, epochs, stages):
    trainer = trainer_of(nnUNetTrainerRMR_paper, epochs=epochs)
    assert "".join(str(trainer.stage_of(epoch)) for epoch in range(epochs)) == stages


# ---- losses ---------------------------------------------------------------------------------------------------------

def test_the_losses_have_the_published_weights():
    assert (losses.MSE, losses.TOTAL_VARIATION, losses.SSIM) == (40, 20, 1)
    assert (losses.SEGMENTATION, losses.INTENSITY, losses.GRADIENT) == (10, 12, 32)
    # the gradient's is 1 with the published kernels, (-1, 0, 1) along one axis and (1, 2, 1) along the others: 32 on a
    # slope of 1
    slope = torch.arange(5.0).expand(1, 1, 5, 5, 5)
    assert losses.sobel_magnitude(slope).unique().tolist() == [1]


def test_the_loss_of_each_stage_is_the_sum_of_its_terms(trainer_of):
    trainer = trainer_of(nnUNetTrainerRMR_paper)
    target = batch()["target"]
    first = trainer.network(batch()["data"])
    loss, terms = trainer.loss(first, target), trainer.loss.take()
    assert loss.item() == pytest.approx(terms["image_refinement"] + terms["feature_refinement"], rel=1e-5)
    trainer.network.stage.fill_(2)
    loss, terms = trainer.loss(trainer.network(batch()["data"]), target), trainer.loss.take()
    assert loss.item() == pytest.approx(10 * terms["segmentation"] + 12 * terms["intensity"] + 32 * terms["gradient"],
                                        rel=1e-5)


def test_a_residuals_loss_is_its_mean_square_and_that_of_its_steps():
    board = ((torch.arange(4)[:, None] + torch.arange(4)) % 2 * 3.0)[None, None]  # steps of 3 along both axes
    assert losses.residual_loss(board, 2) == 40 * 4.5 + 20 * (9 + 9)


def test_fusion_wants_the_reference_modality_and_the_strongest_edge_of_any():
    edge, flat = torch.zeros(1, 1, 6, 6, 6), torch.zeros(1, 1, 6, 6, 6)
    edge[..., 3:] = 2
    clean = torch.cat((flat, edge), 1)
    assert losses.fusion_terms(edge, clean, 1) == {"intensity": 0, "gradient": 0}
    assert losses.fusion_terms(edge, clean, 0)["intensity"] == 1
    assert losses.fusion_terms(-edge, clean, 1)["gradient"] == 0, "the direction does not count"
    assert losses.fusion_terms(flat, clean, 0)["gradient"] > 0


def test_losses_of_an_empty_patch_are_finite():
    zero = torch.zeros(1, 2, 12, 12, 12, requires_grad=True)
    features = torch.zeros(1, 2, 4, 12, 12, 12)
    loss = sum(losses.refinement_terms(features, features, zero, torch.zeros(1, 2, 12, 12, 12)).values())
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(zero.grad).all()


@pytest.mark.parametrize("dim", [2, 3])
def test_sobel_of_a_ramp_is_its_slope_on_every_axis(dim):
    axes = torch.meshgrid(*[torch.arange(6.0)] * dim, indexing="ij")
    ramp = sum((i + 1) * a for i, a in enumerate(axes))[None, None]
    torch.testing.assert_close(losses.sobel_magnitude(ramp),
                               torch.full((1, 1, *[4] * dim), float(sum(range(1, dim + 1)))))


@pytest.mark.parametrize("shape", [(18, 20, 22), (24, 30)])
def test_ssim_agrees_with_scikit_image(shape):
    rng = np.random.default_rng(0)
    a = rng.random(shape)
    b = a + 0.2 * rng.standard_normal(shape)
    expected = structural_similarity(a, b, data_range=1.3, gaussian_weights=True, sigma=1.5,
                                     use_sample_covariance=False)
    result = losses.ssim(torch.tensor(a)[None, None], torch.tensor(b)[None, None], torch.full((1, 1), 1.3))
    assert result.item() == pytest.approx(expected, abs=1e-6)


def test_ssim_is_one_for_equal_images_and_exists_for_thin_ones():
    x = torch.randn(2, 3, 4, 16, 16)
    torch.testing.assert_close(losses.ssim(x, x, torch.ones(2, 3)), torch.ones(2, 3))


# ---- degradations ---------------------------------------------------------------------------------------------------

def test_degradations_are_drawn_from_the_published_ranges():
    transform = DegradeTransform(2, (1.0, 1.0, 1.0), options=nnUNetTrainerRMR_paper.settings.degradation_options)
    shape = (32, 128, 128)
    draws = {kind: [transform.draw(kind, shape) for _ in range(200)] for kind in ("noise", "blur")}
    sigmas = [d["sigma"] for d in draws["noise"]]
    assert 0 <= min(sigmas) < 0.01 and 0.09 < max(sigmas) <= 0.1
    assert not any(d["rician"] for d in draws["noise"])
    sigmas = [d["sigma_mm"] for d in draws["blur"]]
    assert all(len(set(s)) == 1 for s in sigmas)
    assert 0.1 <= min(sigmas)[0] < 0.3 and 2.8 < max(sigmas)[0] <= 3
    fourier = transform.draw("fourier", shape)
    assert fourier["share"] == 1 / 64 and all(12 <= edge <= 16 for edge in fourier["edge"])


def test_noise_relative_to_the_range_grows_with_it():
    image = torch.rand(40, 40, 40)
    for scale in (1, 5):
        noise = add_noise(scale * image, sigma=0.1, rician=False, seed=0, of_range=True) - scale * image
        assert noise.std().item() == pytest.approx(0.1 * scale, rel=0.05)


# ---- on its own -----------------------------------------------------------------------------------------------------

def test_nothing_else_needs_the_published_form():
    package = Path(losses.__file__).parents[1]
    others = [file for file in package.rglob("*.py") if file.parent.name != "published"]
    needs = re.compile(r"^\s*(from|import)\b.*\bpublished\b", re.MULTILINE)
    assert len(others) > 50 and not [file for file in others if needs.search(file.read_text())]
