"""The published network: encoders -> fusion module -> { fusion decoder -> fused image, U-Net -> logits }.

Sizes are those of the paper and, where it says nothing, of the authors' code (github.com/HaoZhang1018/RMR-Fusion).
"""

from typing import NamedTuple

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from torch import nn

from nnunetv2_rmr.networks.fusing import FusingNetwork
from nnunetv2_rmr.published.swin_encoder import ConvPReLU, SwinEncoder

FEATURES = 16  # of every modality, and of the fused ones
GROWTH, LAYERS = 16, 5  # of the fusion module
DECODER_HIDDEN, DECODER_LAYERS = 8, 4


class DenseFusion(nn.Module):
    """Dense block: every layer sees the features of all modalities and what the layers before it made; a last
    convolution sees the last layer. Input (B, channels, *spatial), output (B, FEATURES, *spatial).
    """

    def __init__(self, dim: int, channels: int):
        super().__init__()
        conv_op = convert_dim_to_conv_op(dim)
        self.layers = nn.ModuleList(ConvPReLU(conv_op, channels + i * GROWTH, GROWTH) for i in range(LAYERS))
        self.last = ConvPReLU(conv_op, GROWTH, FEATURES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            new = layer(x)
            x = torch.cat((x, new), dim=1)
        return self.last(new)


class FusionDecoder(nn.Sequential):
    """Features (B, FEATURES, *spatial) -> an image (B, 1, *spatial): the fused one or, in stage 1, a modality."""

    def __init__(self, dim: int):
        conv_op = convert_dim_to_conv_op(dim)
        super().__init__(*(ConvPReLU(conv_op, DECODER_HIDDEN if i else FEATURES, DECODER_HIDDEN)
                           for i in range(DECODER_LAYERS)), conv_op(DECODER_HIDDEN, 1, kernel_size=1))


class Stage1Outputs(NamedTuple):
    """Features (B, M, FEATURES, *spatial) of degraded and of clean modalities, and the modalities (B, M, *spatial):
    decoded from the degraded ones' features, and clean."""

    degraded_features: torch.Tensor
    clean_features: torch.Tensor
    reconstructed: torch.Tensor
    clean: torch.Tensor


class Stage2Outputs(NamedTuple):
    """logits (B, classes, *spatial), a list under deep supervision; fused (B, 1, *spatial); clean (B, M, *spatial)."""

    logits: torch.Tensor | list[torch.Tensor]
    fused: torch.Tensor
    clean: torch.Tensor


class PublishedRMRNet(FusingNetwork):
    """segmentation: any segmentation network with FEATURES + extra input channels. M modalities; dim: 2 or 3.

    Given M clean modalities before its own input (see DegradeTransform) it returns what the losses of its stage need.
    The stage, 1 or 2, is kept in the weights.
    """

    num_images = 1

    def __init__(self, segmentation: nn.Module, num_modalities: int, input_channels: int, dim: int):
        super().__init__()
        self.num_modalities, self.input_channels = num_modalities, input_channels
        self.encoders = nn.ModuleList(SwinEncoder(dim, FEATURES) for _ in range(num_modalities))
        self.fusion = DenseFusion(dim, num_modalities * FEATURES)
        self.fusion_decoder = FusionDecoder(dim)
        self.segmentation = segmentation
        self.register_buffer("stage", torch.tensor(1))
        self.register_load_state_dict_post_hook(_warn_of_stage_1)

    def forward(self, x: torch.Tensor, images: bool = False):
        if x.shape[1] == self.input_channels:
            logits, fused = self._segment_and_fuse(x, images)
            return (logits, fused) if images else logits
        clean, seen = x[:, :self.num_modalities], x[:, self.num_modalities:]
        if self.stage == 1:
            degraded_features, clean_features = self._encode(seen), self._encode(clean)
            reconstructed = torch.cat([self.fusion_decoder(features) for features in degraded_features], dim=1)
            return Stage1Outputs(torch.stack(degraded_features, 1), torch.stack(clean_features, 1), reconstructed,
                                 clean)
        extra = seen[:, self.num_modalities:]  # the extra channels are there only
        return Stage2Outputs(*self._segment_and_fuse(torch.cat((clean, extra), 1), True), clean)

    def _encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [encoder(x[:, i:i + 1]) for i, encoder in enumerate(self.encoders)]

    def _segment_and_fuse(self, x: torch.Tensor, images: bool):
        shared = self.fusion(torch.cat(self._encode(x), dim=1))
        fused = self.fusion_decoder(shared) if images else None
        return self.segmentation(torch.cat((shared, x[:, self.num_modalities:]), dim=1)), fused


def _warn_of_stage_1(network: PublishedRMRNet, incompatible_keys) -> None:
    if network.stage == 1:
        print("WARNING: these weights were saved in stage 1 of the training: neither fusion nor segmentation has been "
              "trained yet, so that both outputs mean nothing")
