"""The published losses, with the published weights.

On z-scores the losses on images weigh more than on intensities up to 1, for which the weights were chosen.
"""

from __future__ import annotations

import torch
from torch import nn

from nnunetv2_rmr.losses.filters import sobel_magnitude
from nnunetv2_rmr.losses.ssim import ssim
from nnunetv2_rmr.losses.terms import LoggedTerms
from nnunetv2_rmr.published.network import Stage1Outputs, Stage2Outputs

MSE, TOTAL_VARIATION, SSIM = 40.0, 20.0, 1.0  # of both levels of the refinement constraint; SSIM of the images
SEGMENTATION, INTENSITY = 10.0, 12.0
GRADIENT = 32.0  # 1 with the published 3D Sobel kernels, which are 32 times as large as ours

TERMS = ("image_refinement", "feature_refinement", "segmentation", "intensity", "gradient")


class PublishedLoss(LoggedTerms):
    """For all kinds of outputs that PublishedRMRNet gives nnU-Net's training and validation steps.

    segmentation: nnU-Net's loss (published: Dice alone). reference: index of the reference modality. The losses on
    images and features are computed in float32 also under autocast.
    """

    def __init__(self, segmentation: nn.Module, reference: int):
        super().__init__(TERMS)
        self.segmentation, self.reference = segmentation, reference

    def forward(self, outputs, target) -> torch.Tensor:
        if isinstance(outputs, Stage1Outputs):
            with torch.autocast(outputs.clean.device.type, enabled=False):
                terms = refinement_terms(*(output.float() for output in outputs))
            self.log(terms)
            return terms["image_refinement"] + terms["feature_refinement"]
        if not isinstance(outputs, Stage2Outputs):
            return self.segmentation(outputs, target)
        segmentation = self.segmentation(outputs.logits, target)
        with torch.autocast(outputs.clean.device.type, enabled=False):
            terms = fusion_terms(outputs.fused.float(), outputs.clean, self.reference)
        self.log(terms | {"segmentation": segmentation})
        return SEGMENTATION * segmentation + INTENSITY * terms["intensity"] + GRADIENT * terms["gradient"]


def refinement_terms(degraded_features: torch.Tensor, clean_features: torch.Tensor, reconstructed: torch.Tensor,
                     clean: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two-level refinement constraint: degraded input leads to the clean input's features and reconstructions.

    Features (B, M, F, *spatial), images (B, M, *spatial). The SSIM's data range is each clean image's own, at least 1
    (an empty patch has none).
    """
    dim = clean.ndim - 2
    values = clean.flatten(2)
    span = (values.amax(-1) - values.amin(-1)).clamp_min(1)
    return {"image_refinement": residual_loss(reconstructed - clean, dim)
            + SSIM * (1 - ssim(reconstructed, clean, span).mean()),
            "feature_refinement": residual_loss(degraded_features - clean_features, dim)}


def residual_loss(residual: torch.Tensor, dim: int) -> torch.Tensor:
    """Mean square of a residual and mean squares of the differences between neighbours, summed over the last `dim`
    axes (the authors' total variation), weighted."""
    variation = sum(residual.diff(dim=axis).square().mean()
                    for axis in range(residual.ndim - dim, residual.ndim) if residual.shape[axis] > 1)
    return MSE * residual.square().mean() + TOTAL_VARIATION * variation


def fusion_terms(fused: torch.Tensor, clean: torch.Tensor, reference: int) -> dict[str, torch.Tensor]:
    """L1 distances: of the fused image (B, 1, *spatial) to the reference modality of clean (B, M, *spatial), and of its
    Sobel magnitude to the largest of the modalities'.
    """
    with torch.no_grad():
        edges = sobel_magnitude(clean).amax(dim=1, keepdim=True)
    return {"intensity": (fused - clean[:, reference:reference + 1]).abs().mean(),
            "gradient": (sobel_magnitude(fused) - edges).abs().mean()}
