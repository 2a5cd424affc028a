"""Loss of resolution: a wide point spread function, or thick slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar, sample_scalar

from nnunetv2_rmr.degradations.base import Degradation


def gaussian_blur(image: torch.Tensor, sigma_mm: float | Sequence[float], spacing_mm: Sequence[float]) -> torch.Tensor:
    """Blur with a Gaussian point spread function given in mm, the same at every voxel and in every slice.

    Separable: per axis one product with the matrix G[i, j] ~ exp(-(x_i - x_j)^2 / 2 sigma^2), x in mm, every row of
    which sums to one. So voxels beyond the border count nothing, constants stay constant, and the cost does not depend
    on sigma.

    Args:
        image: (..., D, H, W) or (..., H, W); axes before the spatial ones are not blurred.
        sigma_mm: standard deviation in mm, one for all axes or one per axis; 0 leaves an axis alone.
        spacing_mm: voxel spacing, one per spatial axis.
    """
    sigmas = [float(sigma_mm)] * len(spacing_mm) if np.isscalar(sigma_mm) else [float(s) for s in sigma_mm]
    if len(sigmas) != len(spacing_mm) or len(spacing_mm) > image.ndim:
        raise ValueError(
            f"sigma_mm {sigma_mm}, spacing_mm {list(spacing_mm)} and image of shape {tuple(image.shape)} do not match"
        )
    blurred = image
    for axis, (sigma, spacing) in enumerate(zip(sigmas, spacing_mm), start=image.ndim - len(spacing_mm)):
        if sigma == 0 or image.shape[axis] == 1:
            continue
        x = torch.arange(image.shape[axis], dtype=torch.float64) * float(spacing)
        kernel = torch.exp(-0.5 * ((x[:, None] - x) / sigma) ** 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).to(image)
        if axis == image.ndim - 1:
            blurred = blurred @ kernel.T
        else:
            blurred = (kernel @ blurred.flatten(axis + 1)).reshape(image.shape)
    return image.clone() if blurred is image else blurred


class BlurTransform(Degradation):
    """Blur: with probability `p_thick_slices` along one random axis only (thick slices), else the same on every axis.

    Sigmas are factors of the data set's finest spacing, so that they suit a mouse scan as well as a man's. Thick slices
    are drawn among the axes whose spacing is less than twice the finest: coarser ones have thick slices already. A
    slice profile of full width w has sigma w / 2.355: factors 1 to 3 are slices of 2.4 to 7 finest voxels.

    Args:
        spacing: of the patches in mm, one per spatial axis.
        sigma: of the isotropic blur / finest spacing; a pair (low, high) is drawn from uniformly, per modality.
        thick_slice_sigma: across the thick slices / finest spacing; likewise.
        p_thick_slices: probability of thick slices.
    """

    def __init__(
        self,
        spacing: Sequence[float],
        sigma: RandomScalar = (0.5, 2.0),
        thick_slice_sigma: RandomScalar = (1.0, 3.0),
        p_thick_slices: float = 0.5,
    ) -> None:
        super().__init__()
        self.spacing = tuple(float(s) for s in spacing)
        self.sigma = sigma
        self.thick_slice_sigma = thick_slice_sigma
        self.p_thick_slices = p_thick_slices

    def draw(self, shape: tuple[int, ...]) -> dict[str, Any]:
        finest = min(self.spacing)
        if np.random.uniform() < self.p_thick_slices:
            axis = np.random.choice([i for i, s in enumerate(self.spacing) if s < 2 * finest])
            sigma_mm = [0.0] * len(self.spacing)
            sigma_mm[axis] = float(sample_scalar(self.thick_slice_sigma)) * finest
        else:
            sigma_mm = [float(sample_scalar(self.sigma)) * finest] * len(self.spacing)
        return {"sigma_mm": tuple(sigma_mm), "spacing_mm": self.spacing}

    @staticmethod
    def corrupt(image: torch.Tensor, sigma_mm: Sequence[float], spacing_mm: Sequence[float]) -> torch.Tensor:
        return gaussian_blur(image, sigma_mm, spacing_mm)
