"""Loss terms of a training, collected step by step and logged at the end of an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn


class LoggedTerms(nn.Module):
    """Base of a loss that is a sum of several terms. names: of all it may have."""

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
