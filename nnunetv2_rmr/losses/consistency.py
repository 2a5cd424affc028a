"""How far a network's answer to a degraded patch is from what its average says of the clean one."""

import torch


def consistency(logits: torch.Tensor, taught: torch.Tensor, regions: bool) -> torch.Tensor:
    """Mean squared difference of the probabilities, summed over classes or regions (Tarvainen & Valpola 2017).

    logits, taught: (B, classes, *spatial); regions: each has a probability of its own.
    """
    def probabilities(of: torch.Tensor) -> torch.Tensor:
        return of.float().sigmoid() if regions else of.float().softmax(1)

    return (probabilities(logits) - probabilities(taught)).square().sum(1).mean()


def ramp(progress: float) -> float:
    """What the loss is multiplied with, from .007 to 1: at first the average has nothing to teach. progress: 0 to 1, of
    the training. A Gaussian over its first 40 % (Laine & Aila 2017, arXiv:1610.02242)."""
    missing = max(0.0, 1 - progress / 0.4)
    return float(torch.exp(torch.tensor(-5 * missing ** 2)))
