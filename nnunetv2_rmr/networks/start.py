"""Where a training starts: shared features that are the modalities, a fused image that is the reference modality."""

import torch
from torch import nn

from nnunetv2_rmr.networks.rmrnet import RMRNet

NOISE = 0.3  # share of their random start that the weights keep beside the identity: it tells channels apart


def modality_of_feature(feature: int, modalities: int, reference: int) -> int:
    """Index of the modality that a shared feature starts as; the reference modality is first."""
    return (reference + feature) % modalities


@torch.no_grad()
def start_as_modalities(net: RMRNet, reference: int) -> None:
    """Sets the last layers of fusion module and fusion decoder of a network with "near_identity" convolutions.

    The other layers hand channels on already (see blocks.py), so that every feature of a modality is a noisy copy of
    it. Now every shared feature becomes one of a modality (see modality_of_feature), the fused image one of the
    reference modality, and the reconstruction of every modality one of itself. So the segmentation network starts on
    what nnU-Net would give it, and fusion and restoration have to learn only what is to change.

    reference: index of the reference modality. Raises ValueError if the fusion module has no 1x1(x1) convolution in
    the end (fusion_collect), as there is nothing of the modalities in what the last one sees.
    """
    if not net.fusion.collect:
        raise ValueError("start_as_modalities needs a fusion module whose last convolution sees the modalities")
    modalities = net.num_modalities
    last = net.fusion.last[0]
    _keep_noise(last)
    features = last.out_channels
    for i in range(features):
        last.weight[i, modality_of_feature(i, modalities, reference) * features + i] += 1
    decoders = [(net.fusion_decoder, [reference])]
    if net.all_modalities_decoder is not None:
        decoders.append((net.all_modalities_decoder, list(range(modalities))))
    for decoder, images in decoders:
        last = decoder.layers[-1]
        _keep_noise(last)
        for image, modality in enumerate(images):
            # the hidden channels start as copies of the shared ones, again and again if there are more
            channels = [i for i in range(last.in_channels)
                        if modality_of_feature(i % features, modalities, reference) == modality]
            if channels:  # not so with more modalities than features
                last.weight[image, channels] += 1 / len(channels)


def _keep_noise(convolution: nn.Module) -> None:
    convolution.weight.mul_(NOISE)
    nn.init.zeros_(convolution.bias)
