"""How well the fused image of a degraded case restores that of the clean one."""

import numpy as np
import torch

from nnunetv2_rmr.evaluation.fusion_metrics.similarity import StructuralSimilarity


def restoration_scores(restored: torch.Tensor, clean: torch.Tensor, inside: torch.Tensor) -> dict[str, float]:
    """PSNR in dB and SSIM of `restored` against `clean`.

    All (D, H, W); inside: boolean, the voxels with data. The 0.1 and the 99.9 percentile of `clean` inside the mask
    become 0 and 1 in both images (if both are one value, its range counts as 1). PSNR = 10 log10(1 / MSE inside the
    mask), infinite for equal images. SSIM: mean over the mask, windows see only their part inside, see
    StructuralSimilarity.
    """
    mask = inside.cpu().numpy()
    restored, clean = (image.cpu().numpy().astype(np.float64) for image in (restored, clean))
    low, high = np.quantile(clean[mask], (0.001, 0.999))
    span = high - low or 1.0
    with np.errstate(divide="ignore"):
        psnr = float(-10 * np.log10(np.square((restored[mask] - clean[mask]) / span).mean()))
    metric = StructuralSimilarity(mask)
    x, y = (metric.describe(np.where(mask, (image - low) / span, 0).astype(np.float32)) for image in (restored, clean))
    return {"PSNR": psnr, "SSIM": metric.compare(x, y)["SSIM"]}
