"""nnU-Net's segmentation loss and, beside it, the distance of the restored modalities to the clean ones."""

from __future__ import annotations

import torch
from torch import nn

from nnunetv2_rmr.networks.shared import TrainingOutputs

TERMS = ("segmentation", "restoration")


class SegmentationAndRestorationLoss(nn.Module):
    """For both kinds of outputs that SharedRMRNet gives nnU-Net's training and validation steps.

    segmentation: nnU-Net's loss, of logits (a list under deep supervision) and target. weight: of the restoration loss,
    the mean squared difference between restored and clean modalities in normalised intensities. Squared, not absolute:
    most patches are clean, and absolute differences would hold the head at handing every modality on.
    """

    def __init__(self, segmentation: nn.Module, weight: float):
        super().__init__()
        self.segmentation, self.weight = segmentation, weight
        self._terms: list[torch.Tensor] = []

    def forward(self, outputs, target) -> torch.Tensor:
        if not isinstance(outputs, TrainingOutputs):
            return self.segmentation(outputs, target)
        segmentation = self.segmentation(outputs.logits, target)
        restoration = (outputs.restored - outputs.clean).square().mean()
        self._terms.append(torch.stack([segmentation.detach().float(), restoration.detach()]))
        return segmentation + self.weight * restoration

    def take_terms(self) -> dict[str, float]:
        """Means of the unweighted terms over all training steps since the last call; NaN if there were none."""
        terms, self._terms = self._terms, []
        values = torch.stack(terms).mean(0).tolist() if terms else [float("nan")] * len(TERMS)
        return dict(zip(TERMS, values))
