"""nnU-Net's segmentation loss and, beside it, that of the restored modalities and of scans without labels."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from nnunetv2_rmr.losses.consistency import consistency, ramp

TERMS = ("segmentation", "restoration")
CONSISTENCY = "consistency"


class LoggedTerms(nn.Module):
    """Base of a loss that is a sum of several terms, logged at the end of an epoch. names: of all it may have."""

    def __init__(self, names: Sequence[str]):
        super().__init__()
        self.names = names
        self._logged: list[torch.Tensor] = []

    def log(self, terms: Mapping[str, torch.Tensor]) -> None:
        """The unweighted terms of a training step."""
        absent = torch.full_like(next(iter(terms.values())).detach(), torch.nan)
        self._logged.append(torch.stack([terms.get(name, absent).detach().float() for name in self.names]))

    def take(self) -> dict[str, float]:
        """Means of all terms over the steps since the last call; NaN for those that there were none of."""
        logged, self._logged = self._logged, []
        values = torch.stack(logged).mean(0).tolist() if logged else [float("nan")] * len(self.names)
        return dict(zip(self.names, values))


class RMRLoss(LoggedTerms):
    """For both kinds of outputs that RMRNet gives nnU-Net's steps: TrainingOutputs in training, logits in validation.

    segmentation: nnU-Net's loss, of logits (a list under deep supervision) and target. restoration_weight: of the mean
    squared difference between restored and clean modalities in normalised intensities. Squared, not absolute: many
    patches are clean, and absolute differences would hold the head at handing every modality on. consistency_weight: of
    the unlabelled samples' loss, at the end of its ramp; None: there are no such samples. regions: as in `consistency`.
    The trainer sets `progress`, 0 to 1, of the training.
    """

    def __init__(self, segmentation: nn.Module, restoration_weight: float, consistency_weight: float | None = None,
                 regions: bool = False):
        super().__init__(TERMS if consistency_weight is None else (*TERMS, CONSISTENCY))
        self.segmentation, self.regions = segmentation, regions
        self.restoration_weight, self.consistency_weight = restoration_weight, consistency_weight
        self.progress = 0.0

    def forward(self, outputs, target) -> torch.Tensor:
        if not hasattr(outputs, "restored"):  # of a validation step: logits
            return self.segmentation(outputs, target)
        labelled = len(outputs.clean) - (0 if outputs.taught is None else len(outputs.taught))
        terms = {"segmentation": self.segmentation(_first(outputs.logits, labelled), _first(target, labelled)),
                 "restoration": (outputs.restored - outputs.clean).square().mean()}
        loss = terms["segmentation"] + self.restoration_weight * terms["restoration"]
        if outputs.taught is not None:
            finest = outputs.logits[0] if isinstance(outputs.logits, (list, tuple)) else outputs.logits
            terms[CONSISTENCY] = consistency(finest[labelled:], outputs.taught, self.regions)
            weight = self.consistency_weight * ramp(self.progress)  # type: ignore[operator]  # else nothing is taught
            loss = loss + weight * terms[CONSISTENCY]
        self.log(terms)
        return loss


def _first(of_batch: torch.Tensor | list[torch.Tensor], number: int) -> torch.Tensor | list[torch.Tensor]:
    if isinstance(of_batch, (list, tuple)):
        return [of_scale[:number] for of_scale in of_batch]
    return of_batch[:number]
