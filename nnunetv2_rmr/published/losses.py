"""The published losses, with the published weights.

On z-scores the losses on images weigh more than on intensities up to 1, for which the weights were chosen.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from nnunetv2_rmr.losses.restoration import LoggedTerms
from nnunetv2_rmr.published.network import Stage1Outputs, Stage2Outputs

MSE, TOTAL_VARIATION, SSIM = 40.0, 20.0, 1.0  # of both levels of the refinement constraint; SSIM of the images
SEGMENTATION, INTENSITY = 10.0, 12.0
GRADIENT = 32.0  # 1 with the published 3D Sobel kernels, which are 32 times as large as ours
SIGMA, RADIUS = 1.5, 5  # of the SSIM's window, in voxels

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


def ssim(x: torch.Tensor, y: torch.Tensor, data_range: torch.Tensor) -> torch.Tensor:
    """Mean SSIM per image, Wang et al. 2004: Gaussian window (sigma 1.5, 11 taps), K1 = .01, K2 = .03.

    x, y: (B, C, *spatial). data_range: L, (B, C). Windows lie inside the image; along axes shorter than 11 voxels they
    are shortened to fit. Returns (B, C).
    """
    span = data_range.reshape(*data_range.shape, *[1] * (x.ndim - 2))
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_x, mean_xx, mean_xy, mean_y, mean_yy = (_local_mean(image) for image in (x, x * x, x * y, y, y * y))
    covariance, variances = mean_xy - mean_x * mean_y, mean_xx - mean_x * mean_x + mean_yy - mean_y * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).flatten(2).mean(-1)


def _local_mean(image: torch.Tensor) -> torch.Tensor:
    for axis in range(2, image.ndim):
        radius = min(RADIUS, (image.shape[axis] - 1) // 2)
        weights = [math.exp(-(i ** 2) / (2 * SIGMA ** 2)) for i in range(-radius, radius + 1)]
        image = _correlate(image, [weight / sum(weights) for weight in weights], axis)
    return image


def sobel_magnitude(x: torch.Tensor) -> torch.Tensor:
    """Sum over axes of absolute Sobel responses, in intensity units per voxel (kernels normalised).

    x: (B, C, *spatial), each axis at least 3 long. Returns (B, C, *(spatial - 2)).
    """
    total = 0
    for derivative_axis in range(2, x.ndim):
        response = x
        for axis in range(2, x.ndim):
            response = _correlate(response, (-0.5, 0, 0.5) if axis == derivative_axis else (0.25, 0.5, 0.25), axis)
        total = total + response.abs()
    return total


def _correlate(x: torch.Tensor, kernel: Sequence[float], axis: int) -> torch.Tensor:
    """Along one axis, where the kernel lies inside: by len(kernel) - 1 voxels shorter."""
    length = x.shape[axis] - len(kernel) + 1
    return sum(weight * x.narrow(axis, i, length) for i, weight in enumerate(kernel) if weight)
