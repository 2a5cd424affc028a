"""Networks that nnssl has pretrained on scans without labels (github.com/MIC-DKFZ/nnssl), as a start for nnU-Net's."""

from __future__ import annotations

from os import PathLike

import torch
from torch import nn

from nnunetv2_rmr.files.refused import BadCaseError

ADAPTATION_PLAN = "nnssl_adaptation_plan"  # in the checkpoints


def take_encoder(network: nn.Module, checkpoint: dict, file: str | PathLike) -> None:
    """Stem and encoder get the pretrained weights, all else keeps its own; as nnU-Net's development version does.

    network: nnU-Net's own. Raises BadCaseError if the two networks have other encoders.
    """
    plan, weights = checkpoint[ADAPTATION_PLAN], checkpoint["network_weights"]
    try:
        for key in ("key_to_encoder", "key_to_stem"):
            part, theirs = network.get_submodule(getattr(network, key)), plan[key]
            own = part.state_dict()
            found = {name.removeprefix(f"{theirs}."): weight for name, weight in weights.items()
                     if name.startswith(f"{theirs}.")}
            part.load_state_dict({name: _for_all_modalities(weight, own.get(name)) for name, weight in found.items()})
    except (AttributeError, KeyError, RuntimeError) as error:
        architecture = (plan.get("architecture_plans") or {}).get("arch_class_name", "another network")
        raise BadCaseError(f"-pretrained_weights {file}: nnssl has pretrained {architecture}, whose encoder is not "
                           "that of these plans (of ResEncL plans may have it: nnUNetv2_plan_and_preprocess -pl "
                           f"nnUNetPlannerResEncL): {type(error).__name__}: {error}") from None


def _for_all_modalities(weight: torch.Tensor, own: torch.Tensor | None) -> torch.Tensor:
    """Of a convolution that saw one image: for as many as `own` sees, of which it takes the mean."""
    if own is None or weight.ndim < 2 or weight.shape[1] != 1 or own.shape[1] == 1:
        return weight
    return weight.expand(-1, own.shape[1], *weight.shape[2:]) / own.shape[1]


def refuse_plans_of_nnssl(plans: dict, trainer: str) -> None:
    """Raises BadCaseError for plans that name a checkpoint, which would be passed over without a word."""
    if file := (plans.get("pretrain_info") or {}).get("checkpoint_path"):
        raise BadCaseError(f"these plans are to start from {file}, which only nnU-Net's PretrainedTrainers read there: "
                           f"for {trainer} take the plans that they were made of, and -pretrained_weights {file}")
