"""From the restored modalities of a whole case to its fused image."""

from collections.abc import Sequence

import numpy as np
import torch

from nnunetv2_rmr.evaluation.body import body_mask
from nnunetv2_rmr.evaluation.fusion_baselines.gradient import gradient

_RESAMPLED_ZERO = 1e-3  # standard deviations; cubic resampling leaves traces of the body in what was zero


def fuse_restored(restored: torch.Tensor, data: torch.Tensor, spacing: Sequence[float], reference: int,
                  presence: torch.Tensor | None = None) -> torch.Tensor:
    """Gradient fusion of the modalities that are there.

    restored, data (what was predicted from, as nnU-Net preprocesses it): (M, D, H, W), normalised intensities.
    spacing: mm per axis; two numbers for a 2D configuration, whose slices are fused one by one. presence: (M,) or (1,
    M), False for a missing modality; None: all are there. Without the reference modality the last one that is there
    takes its place. Returns (D, H, W), float32, in the reference modality's normalised intensities; outside of the body
    the restored reference modality.
    """
    there = [i for i in range(len(restored)) if presence is None or presence.reshape(-1)[i]]
    images = restored.float().cpu().numpy()
    mask = body_mask([np.where(np.abs(image) < _RESAMPLED_ZERO, 0, image)
                      for image in data[there].float().cpu().numpy()])
    reference = there.index(reference) if reference in there else len(there) - 1
    sources = [np.where(mask, images[i], 0) for i in there]
    fused = images[there[reference]].copy()
    if len(spacing) == mask.ndim:
        if mask.any():
            fused[mask] = gradient(sources, mask, spacing, reference)[mask]
    else:
        for z in np.flatnonzero(mask.any((1, 2))):
            inside = mask[z]
            fused[z][inside] = gradient([source[z] for source in sources], inside, spacing, reference)[inside]
    return torch.from_numpy(fused)
