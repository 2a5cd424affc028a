"""Reconstruction loss: every modality can be decoded from the fused features, so that none of them is lost in these."""

import torch


def reconstruction_loss(decoded: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """L1 distance of the modalities decoded from the fused features to the clean ones, both (B, M, *spatial)."""
    return (decoded - clean).abs().mean()
