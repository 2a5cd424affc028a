"""Thermal noise of a scan: Rician for MRI magnitude images, Gaussian for everything else.

image: any shape. sigma: standard deviation (of Rician noise in either channel) in units of the image, of a z-scored one
in standard deviations of the normalised case; 0: identity. seed: of the noise field.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar, sample_scalar


def _normal_field(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    # drawn on the CPU, so that a seed means the same field on every device
    return torch.randn(image.shape, generator=generator, dtype=torch.float32).to(image)


def add_gaussian_noise(image: torch.Tensor, sigma: float, seed: int) -> torch.Tensor:
    """Add white Gaussian noise, of the same deviation in every voxel."""
    # in place here and elsewhere: fresh memory for every intermediate volume would cost more than the arithmetic
    return _normal_field(image, torch.Generator().manual_seed(int(seed))).mul_(sigma).add_(image)


def add_rician_noise(image: torch.Tensor, sigma: float, seed: int, floor: float | None = None) -> torch.Tensor:
    """Add the noise of an MRI magnitude image: equal Gaussian noise in the real and in the imaginary channel.

    With signal S >= 0, measured from the intensity `floor` because normalised data are signed, the magnitude is
    M = sqrt((S + n1)^2 + n2^2), n1, n2 ~ N(0, sigma^2). Where S >> sigma this is Gaussian noise with a bias of
    sigma^2 / 2S; where S = 0 it is Rayleigh noise with mean sigma sqrt(pi/2): noise brightens and flattens what is dark
    (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618).

    floor: the value that stands for no signal; default: the lowest value of the image. That is the air around the body,
    or the darkest tissue where the background was set to the mean (nnU-Net's normalisation in a mask).
    """
    if sigma == 0:
        return image.clone()  # the square root of a square is exact only up to rounding
    generator = torch.Generator().manual_seed(int(seed))
    floor = float(image.min()) if floor is None else floor
    real = _normal_field(image, generator).mul_(sigma).add_(image).sub_(floor)
    imaginary = _normal_field(image, generator).mul_(sigma)
    return real.hypot_(imaginary).add_(floor)


def draw_noise(shape: Sequence[int], spacing: Sequence[float], *, sigma: RandomScalar = (0.1, 0.7),
               p_rician: float = 0.5, of_range: bool = False) -> dict[str, Any]:
    """Rician noise with probability `p_rician`, else Gaussian. of_range: sigma is a fraction of the range of the patch
    (maximum - minimum) instead, as RMR's authors draw it."""
    return {"sigma": float(sample_scalar(sigma)), "rician": bool(np.random.uniform() < p_rician),
            "seed": int(np.random.randint(2**31 - 1)), "of_range": of_range}


def add_noise(image: torch.Tensor, sigma: float, rician: bool, seed: int, of_range: bool = False) -> torch.Tensor:
    """What `draw_noise` has drawn, on one modality (D, H, W) or (H, W)."""
    if of_range:
        sigma = sigma * float(image.max() - image.min())
    return (add_rician_noise if rician else add_gaussian_noise)(image, sigma, seed)
