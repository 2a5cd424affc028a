"""Missing modalities: what the fusion module sees in the place of a modality that is not there."""

from collections.abc import Sequence

import torch


def fill_absent(features: Sequence[torch.Tensor], presence: torch.Tensor) -> list[torch.Tensor]:
    """Replace the features of absent modalities by the mean of the present ones, sample by sample.

    The mean, not zeros: one decoder decodes the features of every modality, so all of them live in one space and the
    mean lies in it (it stands for an image between those that are there), while zeros may stand for anything. After
    HeMIS (Havaei et al. 2016, doi:10.1007/978-3-319-46723-8_54), which fuses by moments over the present modalities.

    features: of every modality, M x (B, F, *spatial); what those of an absent one hold does not matter.
    presence: boolean (B, M), or (1, M) for all samples; with all True the features come back as they were, bit by bit.
    """
    if presence.ndim != 2 or presence.shape[1] != len(features):
        raise ValueError(f"presence must have the shape (B, {len(features)}), got {tuple(presence.shape)}")
    here = presence.bool().reshape(*presence.shape, *[1] * (features[0].ndim - 1))
    total = sum([torch.where(here[:, i], f, torch.zeros_like(f)) for i, f in enumerate(features)])
    mean = total / here.sum(1).clamp_min(1)
    return [torch.where(here[:, i], f, mean) for i, f in enumerate(features)]
