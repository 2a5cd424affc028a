"""nnU-Net's segmentation loss and, beside it, the distance of the restored modalities to the clean ones."""

from __future__ import annotations

import torch
from torch import nn

from nnunetv2_rmr.losses.terms import LoggedTerms
from nnunetv2_rmr.networks.rmrnet import TrainingOutputs

TERMS = ("segmentation", "restoration")


class SegmentationAndRestorationLoss(LoggedTerms):
    """For both kinds of outputs that RMRNet gives nnU-Net's training and validation steps.

    segmentation: nnU-Net's loss, of logits (a list under deep supervision) and target. weight: of the restoration loss,
    the mean squared difference between restored and clean modalities in normalised intensities. Squared, not absolute:
    many patches are clean, and absolute differences would hold the head at handing every modality on.
    """

    def __init__(self, segmentation: nn.Module, weight: float):
        super().__init__(TERMS)
        self.segmentation, self.weight = segmentation, weight

    def forward(self, outputs, target) -> torch.Tensor:
        if not isinstance(outputs, TrainingOutputs):
            return self.segmentation(outputs, target)
        segmentation = self.segmentation(outputs.logits, target)
        restoration = (outputs.restored - outputs.clean).square().mean()
        self.log({"segmentation": segmentation, "restoration": restoration})
        return segmentation + self.weight * restoration
