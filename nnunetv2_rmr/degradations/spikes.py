"""Stripes through the whole image, from spikes in k-space."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar, sample_scalar

from nnunetv2_rmr.degradations.base import Degradation

SPIKES = (1, 4)  # as in the benchmark
LOWEST = 1 / 64  # cycles per voxel; a slower wave is shading, not a stripe


def add_stripes(image: torch.Tensor, rms: float, spikes: int, seed: int) -> torch.Tensor:
    """Add one plane wave per spike, as electric discharges during the acquisition leave them.

    A point of k-space is a wave in the image: it is added as such, A cos(2 pi f x + phase), with frequencies f drawn
    uniformly from k-space and A = rms sqrt(2 / spikes), so that all of them together have the root mean square `rms`.
    (That a magnitude image folds what gets below zero is neglected: dark voxels only.)

    Args:
        image: one modality, (D, H, W) or (H, W).
        rms: of the stripes, in units of the image; for z-scores in standard deviations of the case. 0: identity.
        spikes: their number, at least 1.
        seed: of frequencies and phases.
    """
    rng = np.random.default_rng(seed)
    stripes = torch.zeros_like(image)
    for _ in range(spikes):
        frequency = np.zeros(image.ndim)
        while np.abs(frequency).max() < LOWEST:
            frequency = rng.uniform(-0.5, 0.5, image.ndim)
        wave = torch.exp(2j * torch.pi * torch.tensor(rng.uniform()))
        for f, size in zip(frequency, image.shape):  # exp(a + b) = exp(a) exp(b): one short vector per axis
            wave = wave[..., None] * torch.exp(2j * torch.pi * float(f) * torch.arange(size))
        stripes += wave.real.to(image)
    return image + rms * (2 / spikes) ** 0.5 * stripes


class SpikesTransform(Degradation):
    """Stripes from a random number of spikes in k-space.

    Args:
        rms: of the stripes / standard deviation of the case (z-score units); a pair (low, high) is drawn from
            uniformly, per modality. The same unit as the benchmark's, whose severities 1 to 3 the default spans.
        spikes: lowest and highest number of them, drawn per modality.
    """

    def __init__(self, rms: RandomScalar = (0.2, 0.5), spikes: tuple[int, int] = SPIKES) -> None:
        super().__init__()
        self.rms = rms
        self.spikes = spikes

    def draw(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "rms": float(sample_scalar(self.rms)),
            "spikes": int(np.random.randint(self.spikes[0], self.spikes[1] + 1)),
            "seed": int(np.random.randint(2**31 - 1)),
        }

    @staticmethod
    def corrupt(image: torch.Tensor, **parameters: Any) -> torch.Tensor:
        return add_stripes(image, **parameters)
