"""Saliency: where in the image which modality has something to show."""

import torch

from nnunetv2_rmr.losses.filters import separable_filter

WINDOW = tuple(w / 256 for w in (1, 8, 28, 56, 70, 56, 28, 8, 1))  # binomial: a Gaussian of sigma 1.4 voxels
TEMPERATURE = 0.25  # in intensity units: a modality with as much more contrast has e times the weight


@torch.no_grad()
def local_contrast(x: torch.Tensor) -> torch.Tensor:
    """Standard deviation in a small window around every voxel, in intensity units.

    x: (B, C, *spatial). Returns the same shape. At the border the window is what of it lies inside.
    """
    kernels = [WINDOW] * (x.ndim - 2)
    weight, mean, square = separable_filter(torch.stack((torch.ones_like(x), x, x * x)), kernels)
    mean = mean / weight
    return (square / weight - mean * mean).clamp_min(0).sqrt()


@torch.no_grad()
def saliency_weights(clean: torch.Tensor) -> torch.Tensor:
    """Weights of the modalities, voxel by voxel: softmax of their local contrast.

    Salience as energy in a window is that of Burt and Kolczynski 1993 (doi:10.1109/ICCV.1993.378222), who fuse by
    it; softmax in the place of their threshold between choosing and averaging.

    clean: (B, M, *spatial), normalised intensities. Returns (B, M, *spatial), at least 0, summing to 1 over M.
    """
    return torch.softmax(local_contrast(clean) / TEMPERATURE, dim=1)
