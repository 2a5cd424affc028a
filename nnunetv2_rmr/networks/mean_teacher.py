"""A network and the running average of its weights, which teaches it on scans that have no labels."""

import copy
from typing import cast

import torch
from torch import nn

from nnunetv2_rmr.networks.fusing import FusingNetwork
from nnunetv2_rmr.networks.rmrnet import TEACHER, RMRNet

DECAY = 0.99  # of the average, per training step; in the first steps less, so that it forgets the start


class RunningAverage(nn.Module):
    """A copy of a network that follows its weights."""

    steps: torch.Tensor

    def __init__(self, network: RMRNet):
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.register_buffer("steps", torch.zeros(()))

    def train(self, mode: bool = True) -> "RunningAverage":
        return super().train(False)  # no dropout in what is taught

    @torch.compiler.disable
    @torch.no_grad()
    def follow(self, network: RMRNet) -> None:
        """Moves towards what the network has become; the first time all the way."""
        self.steps += 1
        share = (1 / self.steps).clamp_min(1 - DECAY)
        for weight, learnt in zip(self.network.parameters(), network.parameters(), strict=True):
            weight.lerp_(learnt, share)
        for statistic, present in zip(self.network.buffers(), network.buffers(), strict=True):  # of batch norms
            statistic.copy_(present)


class MeanTeacher(FusingNetwork):
    """The student learns; its average, the teacher, says what the student should see in unlabelled patches, and
    predicts: in evaluation mode this network is the teacher (Tarvainen & Valpola 2017, arXiv:1703.01780).

    The teacher sees such a patch clean, the student degraded: a degraded scan must lead where the clean one leads.
    State dicts hold the student under the names that it has alone, so nnU-Net's checkpoints can be a start (the teacher
    takes it over), and the teacher under names that nnU-Net's -pretrained_weights passes over.

    num_unlabelled: how many samples at the end of every training batch are unlabelled; the trainer sets it.
    """

    def __init__(self, student: RMRNet):
        super().__init__()
        self.num_modalities, self.num_images = student.num_modalities, student.num_images
        self.num_unlabelled = 0
        self.student = student
        self.averaged = nn.ModuleDict({"seg_layers": RunningAverage(student)})
        self.register_state_dict_post_hook(_without_student)
        self.register_load_state_dict_pre_hook(_with_student)

    @property
    def segmentation(self) -> nn.Module:  # type: ignore[override]  # only to be read: it is the student's
        return self.student.segmentation

    @property
    def average(self) -> RunningAverage:
        return cast(RunningAverage, self.averaged["seg_layers"])

    @property
    def teacher(self) -> RMRNet:
        return self.average.network

    def forward(self, x: torch.Tensor, images: bool = False):
        """As RMRNet's. In training TrainingOutputs, whose `taught` are the teacher's logits of unlabelled samples."""
        if hasattr(self.teacher.decoder, "deep_supervision"):  # nnU-Net switches the student's
            self.teacher.decoder.deep_supervision = self.decoder.deep_supervision
        if not self.training:
            return self.teacher(x, images)
        self.average.follow(self.student)
        outputs = self.student(x)
        if not self.num_unlabelled:
            return outputs
        with torch.no_grad():
            clean = torch.cat((x[:, :self.num_modalities], x[:, 2 * self.num_modalities:]), 1)
            taught = self.teacher(clean[-self.num_unlabelled:])
        return outputs._replace(taught=taught[0] if isinstance(taught, (list, tuple)) else taught)


def _without_student(module: nn.Module, state: dict, prefix: str, local_metadata: dict) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}student.")]:
        state[prefix + name.removeprefix(f"{prefix}student.")] = state.pop(name)


def _with_student(module: nn.Module, state: dict, prefix: str, *args) -> None:
    """Also of a model that was trained without a teacher, as another fold may be: the student is the teacher then."""
    names = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
    student = [name for name in names if not name.startswith(("student.", "averaged."))]
    alone = not any(name.startswith("averaged.") for name in names)
    for name in student:
        value = state.pop(prefix + name)
        state[f"{prefix}student.{name}"] = value
        if alone:
            state[f"{prefix}{TEACHER}{name}"] = value
    if alone and student:
        state[f"{prefix}averaged.seg_layers.steps"] = torch.zeros(())
