"""Task balance by uncertainty: every loss term learns its own weight (Kendall, Gal and Cipolla 2018)."""

from collections.abc import Mapping, Sequence

import torch

# nnU-Net's Dice loss is minus the Dice score; a term below zero would be given ever more weight
LOWEST = {"segmentation": -1.0}


def uncertainty_weighted(terms: Mapping[str, torch.Tensor], weights: Mapping[str, float],
                         log_variances: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Sum over terms of exp(-s) w (L - lowest) + s / 2, s the learned logarithm of the task's variance.

    With s = 0, where training starts, this has the gradient of the fixed weights w. At its minimum over s every term
    counts 1/2, whatever its scale: a term that can not be made small gets little weight. Without s / 2 for a term at
    its lowest, as refinement is if nothing is degraded, since s would fall for ever. Kendall et al. 2018,
    doi:10.1109/CVPR.2018.00781, eq. 7 and 10, with one form for all terms.

    terms: L, scalars, unweighted. weights: w > 0, of every term. log_variances: s, of every term.
    """
    total = 0.0
    for name, term in terms.items():
        loss, s = term - LOWEST.get(name, 0.0), log_variances[name]
        total = total + torch.exp(-s) * weights[name] * loss + s / 2 * (loss.detach() > 0)
    return total


def separate_log_variances(optimizer: torch.optim.Optimizer, log_variances: Sequence[torch.nn.Parameter]) -> None:
    """Give the log-variances a group of their own, without weight decay and with a momentum of .9.

    nnU-Net's .99 lets a single number overshoot far: its gradient hardly changes from batch to batch.
    """
    own = {id(s) for s in log_variances}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in own]
    optimizer.add_param_group({"params": list(log_variances), "momentum": 0.9, "weight_decay": 0.0})
