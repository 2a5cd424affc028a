"""Accumulates images tile by tile, in float32, with nnU-Net's Gaussian weights."""

import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian


class ImageAccumulator:
    """Weighted mean of overlapping tiles.

    shape: (images, D, H, W), of the (padded) volume; patch_size: of a tile, two numbers for 2D configurations.
    """

    def __init__(self, shape: tuple[int, ...], patch_size: tuple[int, ...], use_gaussian: bool, device: torch.device):
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
