"""Normalised intensities back to something like raw ones, for damage that acts on the signal of the scanner."""

from __future__ import annotations

import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar

# mean / standard deviation of raw images: about 1 with air around the body, 2.0 to 7.0 (median 4.1) in the masks of 16
# skull-stripped images of BraTS 2021
OFFSET: RandomScalar = (1.0, 6.0)


def to_signal(image: torch.Tensor, offset: float) -> tuple[torch.Tensor, float]:
    """The raw signal in standard deviations, at least 0: z-score + mean / standard deviation.

    The z-score has forgotten that ratio, so it is assumed; the lowest value bounds it, as magnitude images have nothing
    below zero. Voxels that are exactly 0 are what nnU-Net's mask or padding left out: they have no signal.

    Args:
        image: normalised, one modality, any shape.
        offset: assumed mean / standard deviation of the raw image; raised to -image.min() where that is larger.

    Returns the signal and the offset that was used.
    """
    offset = max(offset, -float(image.min()))
    return torch.where(image == 0, 0, image + offset), offset


def from_signal(signal: torch.Tensor, image: torch.Tensor, offset: float) -> torch.Tensor:
    """The changed signal as z-scores again (of the same mean and deviation); where `image` is exactly 0, it stays 0."""
    return torch.where(image == 0, image, signal - offset)
