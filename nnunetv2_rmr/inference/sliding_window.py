"""nnU-Net's sliding window, in whose one pass the network also gives its images, and every pass is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunetv2_rmr.inference.passes import LabelSizes
from nnunetv2_rmr.networks.fusing import FusingNetwork, unwrapped


class ImageAccumulator:
    """Weighted mean of overlapping tiles, in float32, with nnU-Net's Gaussian weights.

    shape: (images, D, H, W), of the (padded) volume; patch_size: of a tile, two numbers for 2D configurations.
    """

    def __init__(self, shape: Sequence[int], patch_size: Sequence[int], use_gaussian: bool, device: torch.device):
        self.sum = torch.zeros(shape, dtype=torch.float32, device=device)
        self.weight_sum = torch.zeros_like(self.sum[0])
        self.weight = compute_gaussian(tuple(patch_size), sigma_scale=1 / 8, value_scaling_factor=10,
                                       dtype=torch.float32, device=device) if use_gaussian else 1.0

    def add(self, slicer: tuple, tile: torch.Tensor) -> None:
        """tile: (1, images, *patch_size), belongs at `slicer`, nnU-Net's, whose first entry is the channel axis."""
        self.sum[slicer] += tile[0].to(self.sum.device, torch.float32) * self.weight
        self.weight_sum[slicer[1:]] += self.weight

    def mean(self) -> torch.Tensor:
        return self.sum / self.weight_sum


class _OfOneTile(nn.Module):
    """Stands in for the network during one tile: its first, un-mirrored call also yields the images, if they are
    wanted, and of every call `look` is shown its number and its logits.

    So nnU-Net's own mirroring code runs unchanged and the images cost one pass through their head, no second forward.
    """

    images: torch.Tensor  # of the first call

    def __init__(self, network: nn.Module, wants_images: bool, look: Callable[[int, torch.Tensor], None] | None):
        super().__init__()
        self.network, self.wants_images, self.look = network, wants_images, look
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.wants_images and self.calls == 0:
            logits, self.images = self.network(x, images=True)
        else:
            logits = self.network(x)
        if self.look is not None:
            self.look(self.calls, logits)
        self.calls += 1
        return logits


class ImagePredictor(nnUNetPredictor):
    """Predicts logits as nnUNetPredictor does and, of a FusingNetwork, images besides."""

    network: nn.Module
    configuration_manager: ConfigurationManager

    # on the class, because a stock predictor can become one of these after its own __init__
    _images_of_folds: list[torch.Tensor] | None = None  # None: nobody asks for images
    _sizes_of_folds: list[torch.Tensor] | None = None  # None: nobody asks for them
    _accumulator: ImageAccumulator | None = None
    _sizes: LabelSizes | None = None
    _inside: Sequence[slice]
    _tiles: Iterator[tuple]

    @property
    def fuses(self) -> bool:
        """Whether the loaded model has a fused image to give."""
        return isinstance(unwrapped(self.network), FusingNetwork)

    @property
    def fusing_network(self) -> FusingNetwork:
        """The network without wrappers, of a model that `fuses`."""
        return cast(FusingNetwork, unwrapped(self.network))

    def predict_everything(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Of a preprocessed case (C, D, H, W): nnU-Net's logits (classes, D, H, W) and the images (images, D, H, W),
        both means over the folds; None for the images of a network that has none. And how many voxels every pass gives
        to every label, (passes, labels), see `LabelSizes`. All on the CPU.
        """
        images: list[torch.Tensor] = []
        sizes: list[torch.Tensor] = []
        self._images_of_folds, self._sizes_of_folds = images if self.fuses else None, sizes
        try:
            logits = super().predict_logits_from_preprocessed_data(data)
        finally:
            self._images_of_folds = self._sizes_of_folds = self._accumulator = self._sizes = None
        return logits, sum(images[1:], images[0]) / len(images) if self.fuses else None, torch.cat(sizes)

    def predict_images_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        """The images alone, with the present weights: (images, D, H, W), normalised, on the CPU.

        data: (C, D, H, W) preprocessed.
        """
        self._images_of_folds = []
        try:
            self.predict_sliding_window_return_logits(data)
            return self._images_of_folds[0]
        finally:
            self._images_of_folds = self._accumulator = None

    def predict_sliding_window_return_logits(self, input_image: torch.Tensor) -> torch.Tensor:
        _, unpad = pad_nd_image(input_image[:1], self.configuration_manager.patch_size, "constant", {"value": 0},
                                True)  # as nnU-Net pads an image smaller than the patch
        self._inside = unpad[1:]
        logits = super().predict_sliding_window_return_logits(input_image)
        if self._images_of_folds is not None and self._accumulator is not None:
            inside = (slice(None), *self._inside)
            self._images_of_folds.append(self._accumulator.mean().cpu()[inside])
        if self._sizes_of_folds is not None and self._sizes is not None:
            self._sizes_of_folds.append(self._sizes.result())
        return logits

    def _internal_predict_sliding_window_return_logits(self, data: torch.Tensor, slicers, do_on_device: bool = True):
        # nnU-Net's calls it once more, with results on the CPU, where the GPU's memory was not enough
        self._tiles = iter(slicers)  # nnU-Net predicts the tiles in this order
        if self._images_of_folds is not None:
            self._accumulator = ImageAccumulator((self.fusing_network.num_images, *data.shape[1:]),
                                                 self.configuration_manager.patch_size, self.use_gaussian,
                                                 self.device if do_on_device else torch.device("cpu"))
        if self._sizes_of_folds is not None:
            axes = (self.allowed_mirroring_axes or ()) if self.use_mirroring else ()
            self._sizes = LabelSizes(slicers, self._inside, axes, self.label_manager.has_regions)
        return super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        if self._accumulator is None and self._sizes is None:
            return super()._internal_maybe_mirror_and_predict(x)
        tile, network = next(self._tiles), self.network
        look = partial(self._sizes.add, tile) if self._sizes is not None else None
        self.network = stand_in = _OfOneTile(network, self._accumulator is not None, look)
        try:
            logits = super()._internal_maybe_mirror_and_predict(x)
        finally:
            self.network = network
        if self._accumulator is not None:
            self._accumulator.add(tile, stand_in.images)
        return logits
