"""Two-level refinement constraint: degraded input leads to the clean input's features and reconstructions (RMR)."""

import torch

from nnunetv2_rmr.losses.batch import batch_std
from nnunetv2_rmr.losses.residual import residual_loss
from nnunetv2_rmr.losses.ssim import ssim


def feature_refinement(degraded: torch.Tensor, clean: torch.Tensor, mse_weight: float, tv_weight: float,
                       tv_norm: str = "l1", relative: bool = True) -> torch.Tensor:
    """MSE + TV of the residual between features of degraded and of clean input, both (B, M, F, *spatial).

    If `relative`, measured in units of the clean features' variance, so that shrinking all features does not look like
    progress; the published loss is not.
    """
    scale = batch_std(clean.detach()).float().clamp_min(1e-3) if relative else 1.0
    return residual_loss(degraded, clean, clean.ndim - 3, mse_weight, tv_weight, tv_norm, scale)


def image_refinement(reconstructed: torch.Tensor, clean: torch.Tensor, mse_weight: float, tv_weight: float,
                     ssim_weight: float, tv_norm: str = "l1") -> torch.Tensor:
    """MSE + TV of the residual + (1 - SSIM) between reconstructed and clean modalities, both (B, M, *spatial).

    The SSIM's data range is each clean image's own, at least 1 (an empty patch has none).
    """
    loss = residual_loss(reconstructed, clean, clean.ndim - 2, mse_weight, tv_weight, tv_norm)
    if ssim_weight > 0:
        flat = clean.flatten(2)
        span = (flat.amax(-1) - flat.amin(-1)).clamp_min(1)
        loss = loss + ssim_weight * (1 - ssim(reconstructed, clean, span).mean())
    return loss
