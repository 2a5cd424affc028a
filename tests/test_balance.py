"""Balance of the loss terms by learned uncertainty."""

import math
import re
from pathlib import Path

import pytest
import SimpleITK as sitk
import tiny
import torch
from conftest import PLAIN
from plans import CHANNELS, make_plans

from nnunetv2_rmr.losses.coupled import term_weights
from nnunetv2_rmr.losses.uncertainty import separate_log_variances, uncertainty_weighted
from nnunetv2_rmr.networks.build import build_rmrnet
from nnunetv2_rmr.settings import RMRSettings

WEIGHTS = {"segmentation": 1.0, "intensity": 0.5}


def log_variances(value: float = 0.0) -> torch.nn.ParameterDict:
    return torch.nn.ParameterDict({name: torch.nn.Parameter(torch.tensor(value)) for name in WEIGHTS})


def network(**settings):
    torch.manual_seed(0)
    plans = make_plans(settings=RMRSettings(**settings))
    return build_rmrnet(plans, plans.get_configuration("test"), len(CHANNELS), 2, False)


def test_training_starts_with_the_gradient_of_the_fixed_weights():
    terms = {name: torch.tensor(value, requires_grad=True) for name, value in (("segmentation", -0.4),
                                                                               ("intensity", 0.3))}
    uncertainty_weighted(terms, WEIGHTS, log_variances()).backward()
    assert {name: term.grad.item() for name, term in terms.items()} == WEIGHTS


@pytest.mark.parametrize("value", [0.01, 0.3, 8.0])
def test_at_its_best_every_term_counts_one_half_whatever_its_scale(value):
    learned = torch.nn.ParameterDict({"intensity": torch.nn.Parameter(torch.zeros(()))})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(())), *learned.values()], 0.01, 0.99, nesterov=True,
                                weight_decay=3e-5)
    separate_log_variances(optimizer, list(learned.values()))
    lowest = 0.0
    for _ in range(400):
        optimizer.zero_grad()
        uncertainty_weighted({"intensity": torch.tensor(value)}, WEIGHTS, learned).backward()
        optimizer.step()
        lowest = min(lowest, learned["intensity"].item())
    best = math.log(2 * WEIGHTS["intensity"] * value)
    assert learned["intensity"].item() == pytest.approx(best, abs=0.02)
    assert lowest > min(best, 0) - 1.5  # and does not overshoot far


def test_a_dice_loss_below_zero_is_not_given_weight_without_end():
    learned = log_variances()
    for _ in range(2):  # whether at s = 0 or far below
        total = uncertainty_weighted({"segmentation": torch.tensor(-0.9)}, WEIGHTS, learned)
        gradient, = torch.autograd.grad(total, learned["segmentation"])
        assert total > -10
        with torch.no_grad():
            learned["segmentation"].fill_(-10.0)
    assert gradient < 0  # descending, s rises again


def test_a_term_that_is_always_zero_is_not_given_weight_without_end():
    learned = log_variances()  # as refinement is, if nothing is degraded
    total = uncertainty_weighted({"intensity": torch.zeros((), requires_grad=True)}, WEIGHTS, learned)
    assert torch.autograd.grad(total, learned["intensity"])[0] == 0


def test_the_network_carries_a_log_variance_for_every_weighted_term_of_stage_2():
    settings = {"balance": "uncertainty", "gradient_weight": 0.0}
    plain, balanced = network(gradient_weight=0.0), network(**settings)
    assert set(balanced.log_variances) == set(term_weights(2, RMRSettings(**settings)))
    new = balanced.state_dict().keys() - plain.state_dict().keys()
    assert new == {f"log_variances.{name}" for name in balanced.log_variances}
    for name, value in plain.state_dict().items():  # drawn as ever; models trained before load
        assert torch.equal(value, balanced.state_dict()[name])
    assert not any(p is s for p in balanced.autoencoder_parameters() for s in balanced.log_variances.values())


def test_the_log_variances_get_an_optimiser_group_of_their_own():
    net = network(balance="uncertainty")
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.99, weight_decay=3e-5)
    separate_log_variances(optimizer, list(net.log_variances.values()))
    weights, ours = optimizer.param_groups
    assert [id(p) for p in ours["params"]] == [id(p) for p in net.log_variances.values()]
    assert len(weights["params"]) + len(ours["params"]) == len(list(net.parameters()))
    assert (ours["lr"], ours["weight_decay"], weights["weight_decay"]) == (0.01, 0, 3e-5)


def test_an_unknown_balance_is_refused():
    with pytest.raises(ValueError, match="balance must be 'fixed' or 'uncertainty', got 'dwa'"):
        RMRSettings(balance="dwa")


@pytest.mark.slow
def test_the_command_trains_resumes_and_keeps_what_was_learned(nnunet, tmp_path):
    """With all that may be fused and degraded switched on. Afterwards the model predicts as any other."""
    env = nnunet | {"nnUNet_results": str(tmp_path), "nnUNet_rmr_seed": "3", "TINY_ONLY_TRAINS": "1"}
    trainer = "nnUNetTrainerRMR_tiny_everything"
    command = ("nnUNetv2_train", PLAIN, tiny.CONFIGURATION, 0, "-tr", trainer, "-device", tiny.DEVICE)
    tiny.run(*command, env=env | {"TINY_KILLED_AT": "iteration 20"}, check=False)  # in the last of four epochs
    fold = tmp_path / f"Dataset{PLAIN}_Tiny" / f"{trainer}__nnUNetPlans__{tiny.CONFIGURATION}" / "fold_0"

    def learned(checkpoint: str) -> dict[str, float]:
        state = torch.load(fold / checkpoint, map_location="cpu", weights_only=False)["network_weights"]
        return {name: value.item() for name, value in state.items() if name.startswith("log_variances")}

    before = learned("checkpoint_latest.pth")
    assert len(before) == 6 and all(before.values())
    output = tiny.run(*command, "--c", env=env).stdout
    after = learned("checkpoint_final.pth")
    assert before.keys() == after.keys() and before != after
    assert re.findall(r"reconstruction [\d.]+", output)
    assert "learned factors of the weights" in output

    images = Path(nnunet["nnUNet_raw"]) / f"Dataset{PLAIN}_Tiny" / "imagesTs"
    for command in ("nnUNetv2_rmr_predict", "nnUNetv2_predict"):
        tiny.run(f"{command}_from_modelfolder", "-i", images, "-o", tmp_path / command, "-m", fold.parent, "-f", 0,
                 "-device", tiny.DEVICE, "--disable_tta", env=env)
    for case in ("caseTs00.nii.gz", "caseTs01.nii.gz"):
        segmentations = [sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / command / case)))
                         for command in ("nnUNetv2_rmr_predict", "nnUNetv2_predict")]
        assert (segmentations[0] != segmentations[1]).mean() < 0.01  # on a GPU not to the last voxel
        assert (tmp_path / "nnUNetv2_rmr_predict" / "fused" / case).is_file()
