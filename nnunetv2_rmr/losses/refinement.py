"""Two-level refinement constraint: degraded input leads to the clean input's features and reconstructions (RMR)."""

import torch

from nnunetv2_rmr.losses.batch import batch_std
from nnunetv2_rmr.losses.ssim import ssim


def total_variation(x: torch.Tensor, spatial_dims: int) -> torch.Tensor:
    """Mean absolute difference between neighbours, averaged over the last `spatial_dims` axes."""
    axes = range(x.ndim - spatial_dims, x.ndim)
    return torch.stack([x.diff(dim=axis).abs().mean() for axis in axes if x.shape[axis] > 1]).mean()


def feature_refinement(degraded: torch.Tensor, clean: torch.Tensor, mse_weight: float, tv_weight: float):
    """MSE + TV of the residual between features of degraded and of clean input, both (B, M, F, *spatial).

    Measured in units of the clean features' variance, so that shrinking all features does not look like progress.
    """
    clean = clean.detach()
    spatial_dims = clean.ndim - 3
    scale = batch_std(clean).clamp_min(1e-3)
    residual = (degraded - clean) / scale
    return mse_weight * residual.square().mean() + tv_weight * total_variation(residual, spatial_dims)


def image_refinement(reconstructed: torch.Tensor, clean: torch.Tensor, mse_weight: float, tv_weight: float,
                     ssim_weight: float) -> torch.Tensor:
    """MSE + TV of the residual + (1 - SSIM) between reconstructed and clean modalities, both (B, M, *spatial).

    The SSIM's data range is each clean image's own, at least 1 (an empty patch has none).
    """
    residual = reconstructed - clean
    loss = mse_weight * residual.square().mean() + tv_weight * total_variation(residual, clean.ndim - 2)
    if ssim_weight > 0:
        flat = clean.flatten(2)
        span = (flat.amax(-1) - flat.amin(-1)).clamp_min(1)
        loss = loss + ssim_weight * (1 - ssim(reconstructed, clean, span).mean())
    return loss
