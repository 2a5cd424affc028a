"""nnU-Net's segmentation network, as it is, and a small head on its last features that restores every modality."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import nn

from nnunetv2_rmr.networks.features import Tap, find_last_features
from nnunetv2_rmr.networks.fusing import FusingNetwork

HIDDEN = 16  # channels of the head
# how the names of a MeanTeacher's weights begin that predict; another fold may have been trained with one
TEACHER = "averaged.seg_layers.network."
_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
_INTERPOLATION = {2: "bilinear", 3: "trilinear"}


class TrainingOutputs(NamedTuple):
    """Of a degraded batch. logits: (B, classes, *spatial), a list under deep supervision. restored: (B, M, *spatial),
    float32. clean: (B, M, *spatial), what the latter should be. taught: (U, classes, *spatial), what the logits of the
    last U samples, which are unlabelled, should be (see MeanTeacher).
    """

    logits: torch.Tensor | list[torch.Tensor]
    restored: torch.Tensor
    clean: torch.Tensor
    taught: torch.Tensor | None = None


class RestorationHead(nn.Module):
    """What is to be added to every modality: a 3x3(x3) convolution of the last features beside the raw modalities,
    PReLU, and a 1x1(x1) convolution that starts at zero.

    Before the latter each hidden channel is scaled by a gate that sees all of them, averaged over the body: how noisy
    or blurred a scan is can be told from a whole patch, not from a voxel's neighbours, and a clean one is to be left
    alone (squeeze and excitation, Hu et al. 2018, doi:10.1109/CVPR.2018.00745).
    """

    def __init__(self, dim: int, channels: int, num_modalities: int):
        super().__init__()
        convolution = _CONVOLUTIONS[dim]
        self.hidden = nn.Sequential(convolution(channels + num_modalities, HIDDEN, 3, padding=1), nn.PReLU(HIDDEN))
        self.gate = nn.Linear(HIDDEN, HIDDEN)
        self.last = nn.Linear(HIDDEN, num_modalities)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: torch.Tensor, modalities: torch.Tensor) -> torch.Tensor:
        """features (B, channels, *spatial), modalities (B, M, *spatial), which are zero outside the body. Returns
        (B, M, *spatial), float32 also under autocast.
        """
        hidden = self.hidden(torch.cat((features, modalities.to(features.dtype)), 1)).flatten(2)
        # planners ask without data, on a device that autocast does not know
        with nullcontext() if hidden.is_meta else torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.float()
            body = (modalities != 0).any(1).flatten(1).float()
            mean = torch.einsum("bcn,bn->bc", hidden, body) / body.sum(1, keepdim=True).clamp_min(1)
            weights = self.last.weight * torch.sigmoid(self.gate(mean))[:, None]  # (B, M, HIDDEN): a gate per sample
            return (weights @ hidden + self.last.bias[:, None]).reshape(modalities.shape)


class RMRNet(FusingNetwork):
    """Segments and restores in one pass; both tasks share all of the segmentation network but its last layer.

    The head sees the network's last features and the raw modalities, which still know what the features forgot. What it
    adds to each modality starts at zero.

    segmentation: any network that takes M modalities and extra channels (a cascade's) and gives logits. State dicts
    have the segmentation network's own names, so a checkpoint of nnU-Net's trainer can be a start for this network, and
    this network's without "image_decoder" is one of nnU-Net's. patch_size: in voxels, of the configuration.

    Raises ValueError if the network's last features can not be found (see find_last_features).
    """

    def __init__(self, segmentation: nn.Module, num_modalities: int, input_channels: int, patch_size: Sequence[int]):
        super().__init__()
        self.num_modalities = self.num_images = num_modalities
        self.input_channels = input_channels
        self.segmentation = segmentation
        module, channels, scale = find_last_features(segmentation, input_channels, patch_size)
        self._coarser = {*scale} != {1}
        self._tap = Tap(segmentation.get_submodule(module))
        head = RestorationHead(len(patch_size), channels, num_modalities)
        # nnU-Net's -pretrained_weights passes over what has ".seg_layers." in its name, and would refuse other names
        # that a vanilla checkpoint lacks
        self.image_decoder = nn.ModuleDict({"seg_layers": head})
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_only_teacher)
        self.register_load_state_dict_pre_hook(_with_prefix)

    def forward(self, x: torch.Tensor, images: bool = False):
        """x: (B, channels, *spatial), M modalities and extra channels: their logits, at no more than they cost nnU-Net;
        with `images` logits and all modalities restored, (B, M, *spatial), float32 also under autocast. If M clean
        modalities stand before these (see DegradeTransform): TrainingOutputs of the others.
        """
        if x.shape[1] == self.input_channels:
            return self._segment_and_restore(x) if images else self.segmentation(x)
        if x.shape[1] != self.num_modalities + self.input_channels:
            raise ValueError(f"the network takes {self.input_channels} channels, in training after "
                             f"{self.num_modalities} clean modalities, got {x.shape[1]}")
        clean, seen = x[:, :self.num_modalities], x[:, self.num_modalities:]
        return TrainingOutputs(*self._segment_and_restore(seen), clean)

    def _segment_and_restore(self, x: torch.Tensor) -> tuple[torch.Tensor | list[torch.Tensor], torch.Tensor]:
        with self._tap:
            logits = self.segmentation(x)
            features = self._tap.held
        modalities = x[:, :self.num_modalities]
        if self._coarser:
            features = nn.functional.interpolate(
                features,  # type: ignore[arg-type]  # the pass above has filled the tap
                modalities.shape[2:], mode=_INTERPOLATION[modalities.ndim - 2])
        return logits, modalities.float() + self.image_decoder["seg_layers"](features, modalities)


def weights_that_segment(state: dict) -> dict:
    """Of a state dict of this network, with or without MeanTeacher, those that predict segmentations, under the names
    of nnU-Net's own network."""
    state = dict(state)
    _only_teacher(None, state, "")
    return {name: weight for name, weight in state.items() if not name.startswith("image_decoder.")}


def _only_teacher(module: nn.Module | None, state: dict, prefix: str, *args) -> None:
    """For a network without teacher that is given the state of one with it: the teacher's weights, which predict."""
    taught = {name: value for name, value in state.items() if name.startswith(f"{prefix}averaged.")}
    for name, value in taught.items():
        del state[name]
        if name.startswith(prefix + TEACHER):
            state[prefix + name.removeprefix(prefix + TEACHER)] = value


def _without_prefix(module: nn.Module, state: dict, prefix: str, local_metadata: dict) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}segmentation.")]:
        state[prefix + name.removeprefix(f"{prefix}segmentation.")] = state.pop(name)


def _with_prefix(module: nn.Module, state: dict, prefix: str, *args) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        if not name.startswith((f"{prefix}image_decoder.", f"{prefix}segmentation.")):
            state[f"{prefix}segmentation." + name.removeprefix(prefix)] = state.pop(name)
