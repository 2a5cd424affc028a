"""How well the fused image of a degraded case restores that of the clean one."""

import torch

from nnunetv2_rmr.losses.filters import crop_border
from nnunetv2_rmr.losses.ssim import ssim_map, ssim_radii


def restoration_scores(restored: torch.Tensor, clean: torch.Tensor, inside: torch.Tensor) -> dict[str, float]:
    """PSNR in dB and SSIM of `restored` against `clean`.

    All (D, H, W); inside: boolean, the voxels with data. Both scores use the range between the 0.1 and the 99.9
    percentile of `clean` inside the mask as data range L. PSNR = 10 log10(L^2 / MSE inside the mask), infinite for
    equal images. SSIM (Wang et al. 2004) is the mean over the mask, with both images zero outside of it; voxels whose
    window would leave the volume do not count (if there are others).
    """
    values = clean[inside].double()
    low, high = torch.quantile(_thinned(values), torch.tensor([0.001, 0.999], dtype=values.dtype))
    span = float(high - low)
    mse = float((restored[inside].double() - values).square().mean())
    psnr = float("inf") if mse == 0 else float(10 * torch.log10(torch.tensor(span ** 2 / mse)))
    masked = [torch.where(inside, image, 0).float()[None, None] for image in (restored, clean)]
    similarity = ssim_map(*masked, data_range=span)[0, 0]
    counted = crop_border(inside, ssim_radii(inside.shape))
    return {"PSNR": psnr, "SSIM": float((similarity[counted] if counted.any() else similarity).mean())}


def _thinned(values: torch.Tensor, limit: int = 2 ** 23) -> torch.Tensor:
    # torch.quantile refuses more than 2^24 values
    return values[:: 1 + len(values) // limit]
