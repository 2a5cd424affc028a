"""Two-level refinement constraint: degraded input leads to the clean input's features and reconstructions (RMR)."""

import torch

from nnunetv2_rmr.losses.batch import batch_std
from nnunetv2_rmr.losses.ssim import ssim


def total_variation(x: torch.Tensor, spatial_dims: int, norm: str = "l1") -> torch.Tensor:
    """Differences between neighbours along the last `spatial_dims` axes.

    norm "l1": mean absolute difference, averaged over the axes. "l2": mean squared difference, summed over the axes,
    which is what RMR's authors compute.
    """
    axes = range(x.ndim - spatial_dims, x.ndim)
    differences = [x.diff(dim=axis) for axis in axes if x.shape[axis] > 1]
    if norm == "l2":
        return torch.stack([d.square().mean() for d in differences]).sum()
    return torch.stack([d.abs().mean() for d in differences]).mean()


def feature_refinement(degraded: torch.Tensor, clean: torch.Tensor, mse_weight: float, tv_weight: float,
                       tv_norm: str = "l1", relative: bool = True) -> torch.Tensor:
    """MSE + TV of the residual between features of degraded and of clean input, both (B, M, F, *spatial).

    If `relative`, measured in units of the clean features' variance, so that shrinking all features does not look like
    progress; the published loss is not.
    """
    clean = clean.detach()
    spatial_dims = clean.ndim - 3
    residual = degraded - clean
    if relative:
        residual = residual / batch_std(clean).clamp_min(1e-3)
    return mse_weight * residual.square().mean() + tv_weight * total_variation(residual, spatial_dims, tv_norm)


def image_refinement(reconstructed: torch.Tensor, clean: torch.Tensor, mse_weight: float, tv_weight: float,
                     ssim_weight: float, tv_norm: str = "l1") -> torch.Tensor:
    """MSE + TV of the residual + (1 - SSIM) between reconstructed and clean modalities, both (B, M, *spatial).

    The SSIM's data range is each clean image's own, at least 1 (an empty patch has none).
    """
    residual = reconstructed - clean
    loss = mse_weight * residual.square().mean() + tv_weight * total_variation(residual, clean.ndim - 2, tv_norm)
    if ssim_weight > 0:
        flat = clean.flatten(2)
        span = (flat.amax(-1) - flat.amin(-1)).clamp_min(1)
        loss = loss + ssim_weight * (1 - ssim(reconstructed, clean, span).mean())
    return loss
