"""What every degradation has in common."""

from __future__ import annotations

import abc
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform


class Degradation(ImageOnlyTransform, abc.ABC):
    """A batchgeneratorsv2 transform that degrades every modality of an image (C, D, H, W) or (C, H, W) on its own.

    A subclass says how parameters are drawn and how they are applied. Drawing uses numpy's global generator only:
    nnU-Net's forked workers reseed numpy but inherit one and the same torch state, so that torch draws would repeat
    from worker to worker. Random fields come from a generator of their own, seeded by a drawn integer; `corrupt` is
    therefore a pure function of its arguments.
    """

    @abc.abstractmethod
    def draw(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Parameters of one modality of spatial `shape`: the keyword arguments of `corrupt`."""

    @staticmethod
    @abc.abstractmethod
    def corrupt(image: torch.Tensor, **parameters: Any) -> torch.Tensor:
        """A degraded copy of one modality (D, H, W) or (H, W)."""

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        image = data_dict["image"]
        return {"per_modality": [self.draw(tuple(image.shape[1:])) for _ in range(image.shape[0])]}

    def _apply_to_image(self, img: torch.Tensor, per_modality: list[dict[str, Any]]) -> torch.Tensor:
        return torch.stack([self.corrupt(channel, **parameters) for channel, parameters in zip(img, per_modality)])
