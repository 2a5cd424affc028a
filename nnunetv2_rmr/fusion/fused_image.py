"""From the images that a network gives of a whole case to its fused image."""

from collections.abc import Sequence

import numpy as np
import torch

from nnunetv2_rmr.fusion.body import body_of_preprocessed
from nnunetv2_rmr.fusion.gradient import gradient


def fused_image(images: torch.Tensor, data: torch.Tensor, spacing: Sequence[float], reference: int,
                presence: torch.Tensor | None = None, body: np.ndarray | None = None) -> torch.Tensor:
    """Gradient fusion of the modalities that are there; what a network has fused itself, it leaves as it is.

    images: (M, D, H, W), the modalities as the network has restored them, or (1, D, H, W), fused by the network.
    data: (M, D, H, W), what it saw, as nnU-Net preprocesses it; both in normalised intensities. spacing: mm per axis;
    two numbers for a 2D configuration, whose slices are fused one by one. presence: (M,), False for a missing modality;
    None: all are there. Without the reference modality the last one that is there takes its place. body: boolean
    (D, H, W), of `data`, where it is known already. Returns (D, H, W), float32, in the reference modality's normalised
    intensities; outside of the body the restored reference modality.
    """
    images = images.float().cpu()
    if len(images) == 1:
        return images[0]
    there = [i for i in range(len(images)) if presence is None or presence[i]]
    reference = there.index(reference) if reference in there else len(there) - 1
    if body is None:
        body = body_of_preprocessed(data[there].float().cpu().numpy())
    return torch.from_numpy(_fuse(images[there].numpy(), body, spacing, reference))


def fusion_target(modalities: torch.Tensor, num_images: int, spacing: Sequence[float], reference: int,
                  presence: torch.Tensor | None = None) -> torch.Tensor:
    """What the fused image of a case aims at, made from its clean modalities (M, D, H, W): their fusion or, of a
    network that fuses them itself, whose num_images is 1, the reference modality. Else as `fused_image`.
    """
    images = modalities if num_images > 1 else modalities[reference:reference + 1]
    return fused_image(images, modalities, spacing, reference, presence)


def _fuse(images: np.ndarray, mask: np.ndarray, spacing: Sequence[float], reference: int) -> np.ndarray:
    sources = np.where(mask, images, 0)
    fused = images[reference].copy()
    if len(spacing) == mask.ndim:
        if mask.any():
            fused[mask] = gradient(list(sources), mask, spacing, reference)[mask]
    else:
        for z in np.flatnonzero(mask.any((1, 2))):
            inside = mask[z]
            fused[z][inside] = gradient(list(sources[:, z]), inside, spacing, reference)[inside]
    return fused
