"""Two-level refinement constraint: degraded input leads to the clean input's features and reconstructions (RMR)."""

import torch

from nnunetv2_rmr.losses.batch import batch_std
from nnunetv2_rmr.losses.residual import residual_loss
from nnunetv2_rmr.losses.ssim import ssim


def feature_refinement(degraded: torch.Tensor, clean: torch.Tensor, mse_weight: float, tv_weight: float,
                       tv_norm: str = "l1", relative: bool = True) -> torch.Tensor:
    """MSE + TV of the residual between features of degraded and of clean input, both (B, M, F, *spatial).

    If `relative`, it moves the degraded features only, and is measured in units of the clean features' variance, so
    that shrinking all features does not look like progress. If not, it is the published loss, undivided and moving
    both. (Undivided it must: blurred input has weaker features than clean input. If they alone were moved, weights
    would grow to make them stronger, the clean features would grow with them, and so on without end.)
    """
    if not relative:
        return residual_loss(degraded, clean, clean.ndim - 3, mse_weight, tv_weight, tv_norm)
    clean = clean.detach()
    scale = batch_std(clean).float().clamp_min(1e-3)
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
