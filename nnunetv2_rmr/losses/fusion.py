"""Fusion losses: the fused image has the reference modality's intensities and every modality's edges."""

import torch

from nnunetv2_rmr.losses.filters import sobel_magnitude
from nnunetv2_rmr.losses.saliency import saliency_weights


def intensity_loss(fused: torch.Tensor, clean: torch.Tensor, target: str, reference: int,
                   norm: str = "l1") -> torch.Tensor:
    """Mean distance of the fused image to its intensity target.

    fused: (B, 1, *spatial); clean: (B, M, *spatial), the undegraded modalities, normalised intensities.
    target: "reference" (the modality with index `reference`, RMR's choice) or "maximum" (voxel-wise, over modalities)
        or "saliency" (the modalities' mean, weighted voxel by voxel by what there is to see in them, see saliency.py).
    norm: "l1", absolute differences (RMR), or "l2", squared ones. As many patches are clean, absolute differences hold
        the network at handing the reference modality on: the least change to clean patches costs at once what a
        restored one saves only little by little. Squared ones do not count what is small.
    """
    if target == "reference":
        wanted = clean[:, reference:reference + 1]
    elif target == "maximum":
        wanted = clean.amax(dim=1, keepdim=True)
    elif target == "saliency":
        wanted = (saliency_weights(clean) * clean).sum(dim=1, keepdim=True)
    else:
        raise ValueError(f"intensity target must be 'reference', 'maximum' or 'saliency', got {target!r}")
    difference = fused - wanted
    return difference.square().mean() if norm == "l2" else difference.abs().mean()


def gradient_loss(fused: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """L1 distance between the fused image's Sobel magnitude and the largest of the modalities' (RMR).

    fused: (B, 1, *spatial); clean: (B, M, *spatial). In intensity units per voxel.
    """
    with torch.no_grad():
        wanted = sobel_magnitude(clean).amax(dim=1, keepdim=True)
    return (sobel_magnitude(fused) - wanted).abs().mean()
