"""Ghosts: faint displaced copies along the phase-encoding axis, as periodic motion and flow leave them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar, sample_scalar

from nnunetv2_rmr.degradations.base import Degradation
from nnunetv2_rmr.degradations.raw_signal import OFFSET, from_signal, to_signal

GHOSTS = (2, 5)  # as in the benchmark


def add_ghosts(image: torch.Tensor, axis: int, ghosts: int, amplitude: float, offset: float) -> torch.Tensor:
    """Weaken every n-th plane of k-space but the central one, and take the magnitude.

    Weakening every n-th plane by s takes n copies of amplitude s / n from the image, an n-th of the field of view
    apart (one of them is the image itself), so s = n * amplitude. The field of view is the patch; copies that leave it
    on one side come in on the other, as they do in a scan.

    Args:
        image: one modality, (D, H, W) or (H, W), normalised.
        axis: of phase encoding.
        ghosts: n.
        amplitude: of every ghost / amplitude of the image. 0: identity.
        offset: assumed mean / standard deviation of the raw image, see `to_signal`.
    """
    if amplitude == 0:
        return image.clone()
    signal, offset = to_signal(image, offset)
    spectrum = torch.fft.rfft(signal, dim=axis)  # holds each pair of planes +k, -k once, so that both are weakened
    spectrum.narrow(axis, 1, spectrum.shape[axis] - 1).movedim(axis, 0)[ghosts - 1 :: ghosts] *= 1 - ghosts * amplitude
    return from_signal(torch.fft.irfft(spectrum, n=image.shape[axis], dim=axis).abs(), image, offset)


class GhostingTransform(Degradation):
    """Ghosts along a random axis.

    Args:
        amplitude: of every ghost / amplitude of the image; a pair (low, high) is drawn from uniformly, per modality.
            The same unit as the benchmark's, whose severities 1 to 3 the default spans.
        ghosts: lowest and highest number of them, drawn per modality.
        offset: assumed mean / standard deviation of the raw image; likewise.
    """

    def __init__(
        self,
        amplitude: RandomScalar = (0.05, 0.15),
        ghosts: tuple[int, int] = GHOSTS,
        offset: RandomScalar = OFFSET,
    ) -> None:
        super().__init__()
        self.amplitude = amplitude
        self.ghosts = ghosts
        self.offset = offset

    def draw(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "axis": int(np.random.randint(len(shape))),
            "ghosts": int(np.random.randint(self.ghosts[0], self.ghosts[1] + 1)),
            "amplitude": float(sample_scalar(self.amplitude)),
            "offset": float(sample_scalar(self.offset)),
        }

    @staticmethod
    def corrupt(image: torch.Tensor, **parameters: Any) -> torch.Tensor:
        return add_ghosts(image, **parameters)
