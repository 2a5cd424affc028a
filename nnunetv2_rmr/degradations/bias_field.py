"""Smooth shading, as receive coils and an inhomogeneous transmit field leave it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar, sample_scalar
from numpy.polynomial import legendre

from nnunetv2_rmr.degradations.base import Degradation
from nnunetv2_rmr.degradations.raw_signal import OFFSET, from_signal, to_signal

ORDER = 3  # of the polynomial; the model is that of Van Leemput et al. 1999, doi:10.1109/42.811268


def draw_log_gain(
    shape: tuple[int, ...], strength: float, extent: float, rng: np.random.Generator, order: int = ORDER
) -> np.ndarray:
    """The logarithm of a smooth gain: a random polynomial over the field of view, of which the patch is a part.

    A sum of products of Legendre polynomials of total degree 1 to `order` with normal coefficients. As they are
    orthogonal, the coefficients' norm sets the logarithm's standard deviation over the whole field of view. Its mean is
    0 there: a constant gain is no shading, and normalisation removes it.

    Args:
        shape: of the patch, 2D or 3D.
        strength: standard deviation of the logarithm over the field of view. 0: none.
        extent: edge of the field of view / edge of the patch, at least 1; the patch lies anywhere in it.
        rng: generator.
    """
    degrees = np.indices([order + 1] * len(shape)).sum(0)
    coefficients = np.where((degrees > 0) & (degrees <= order), rng.normal(size=degrees.shape), 0)
    coefficients *= strength / np.linalg.norm(coefficients)
    field = coefficients
    for size in shape:
        start = rng.uniform(-1, 1 - 2 / extent)
        position = start + (np.arange(size) + 0.5) / size * 2 / extent
        # of unit mean square over -1..1
        basis = legendre.legvander(position, order) * np.sqrt(2 * np.arange(order + 1) + 1)
        field = np.tensordot(field, basis, (0, 1))  # the axes come back to their order after the last one
    return field


def shade(image: torch.Tensor, strength: float, extent: float, offset: float, seed: int) -> torch.Tensor:
    """Multiply the raw signal by a smooth gain (`draw_log_gain`).

    Args:
        image: one modality, (D, H, W) or (H, W), normalised.
        strength: standard deviation of the gain's logarithm. 0: identity.
        extent: edge of the field of view / edge of the patch.
        offset: assumed mean / standard deviation of the raw image, see `to_signal`.
        seed: of the field.
    """
    if strength == 0:
        return image.clone()
    gain = np.exp(draw_log_gain(tuple(image.shape), strength, extent, np.random.default_rng(seed)))
    signal, offset = to_signal(image, offset)
    return from_signal(signal * torch.from_numpy(gain).to(image), image, offset)


class BiasFieldTransform(Degradation):
    """Smooth multiplicative shading of the raw signal.

    Args:
        strength: standard deviation of the gain's logarithm; a pair (low, high) is drawn from uniformly, per modality.
            The same unit as the benchmark's, whose severities 1 to 3 the default spans.
        extent: edge of the field of view / edge of the patch, likewise.
        offset: assumed mean / standard deviation of the raw image, likewise.
    """

    def __init__(
        self, strength: RandomScalar = (0.04, 0.12), extent: RandomScalar = (1.0, 2.0), offset: RandomScalar = OFFSET
    ) -> None:
        super().__init__()
        self.strength = strength
        self.extent = extent
        self.offset = offset

    def draw(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "strength": float(sample_scalar(self.strength)),
            "extent": float(sample_scalar(self.extent)),
            "offset": float(sample_scalar(self.offset)),
            "seed": int(np.random.randint(2**31 - 1)),
        }

    @staticmethod
    def corrupt(image: torch.Tensor, **parameters: Any) -> torch.Tensor:
        return shade(image, **parameters)
