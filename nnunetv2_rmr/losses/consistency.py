"""How far a network's answer to a degraded patch is from what its average says of the clean one."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

SMOOTH = 1e-5  # as nnU-Net's


def consistency(logits: torch.Tensor, taught: torch.Tensor, regions: bool) -> torch.Tensor:
    """Soft Dice loss, of each sample, and cross-entropy to the average's probabilities: the kinds of loss that nnU-Net
    has, with these in the label's place. Soft Dice, unlike a mean over voxels, does not forget small lesions.

    logits, taught: (B, classes, *spatial); regions: each has a probability of its own.
    """
    logits, taught = logits.float(), taught.float()
    if regions:
        said, wanted = logits.sigmoid(), taught.sigmoid()
        entropy = binary_cross_entropy_with_logits(logits, wanted)
        foreground = said, wanted
    else:
        said, wanted = logits.softmax(1), taught.softmax(1)
        entropy = cross_entropy(logits, wanted)
        foreground = said[:, 1:], wanted[:, 1:]
    first, second = (probability.flatten(2) for probability in foreground)
    overlap = 2 * (first * second).sum(2) + SMOOTH
    return 1 - (overlap / (first.square().sum(2) + second.square().sum(2) + SMOOTH)).mean() + entropy


def ramp(progress: float) -> float:
    """What the loss is multiplied with, from .007 to 1: at first the average has nothing to teach. progress: 0 to 1, of
    the training. A Gaussian over its first 40 % (Laine & Aila 2017, arXiv:1610.02242)."""
    missing = max(0.0, 1 - progress / 0.4)
    return float(torch.exp(torch.tensor(-5 * missing ** 2)))
