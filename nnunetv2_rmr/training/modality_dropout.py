"""Modality dropout: which modalities a training sample has to do without."""

import torch


def draw_presence(samples: int, modalities: int, probability: float) -> torch.Tensor:
    """Boolean (samples, modalities), False where a modality is withheld.

    With `probability` a sample loses modalities: 1 to modalities - 1 of them, every number and every choice equally
    likely, never all. Draws from torch's global CPU generator.
    """
    lost = torch.randint(1, modalities, (samples, 1)) * (torch.rand(samples, 1) < probability)
    rank = torch.rand(samples, modalities).argsort(1).argsort(1)
    return rank >= lost
