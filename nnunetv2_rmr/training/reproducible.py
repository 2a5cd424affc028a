"""Reproducible training: with nnUNet_rmr_seed in the environment, two runs (also interrupted ones) are the same.

Bit by bit on CPU with at most one data augmentation worker (nnUNet_n_proc_DA=0 or 1); more workers deliver their
batches in an order that nobody controls.
"""

import os

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform


def seed_from_environment() -> int | None:
    """The integer in nnUNet_rmr_seed, None if unset. Raises ValueError if it is not a non-negative integer."""
    value = os.environ.get("nnUNet_rmr_seed", "")
    if value == "":
        return None
    if not value.isdecimal():
        raise ValueError(f"nnUNet_rmr_seed must be a non-negative integer, got {value!r}")
    return int(value)


def seed_everything(*entropy: int) -> None:
    """Seed the random generators that nnU-Net and batchgeneratorsv2 draw from."""
    state = np.random.SeedSequence(entropy).generate_state(2)
    np.random.seed(state[0])
    torch.manual_seed(int(state[1]))


class SeedNextSample(BasicTransform):
    """Last transform of a pipeline: seeds the generators by the sample's number before the next sample is drawn.

    nnU-Net's loaders have no seed and no state to save. Chained like this every sample depends on its number alone,
    so a resumed training that starts counting at `samples_before` sees what it would have seen. (The very first
    sample of a process is not covered; nnU-Net draws one batch to warm up and throws it away.)
    """

    def __init__(self, seed: int, stream: int, samples_before: int):
        super().__init__()
        self.seed, self.stream, self.count = seed, stream, samples_before

    def apply(self, data_dict: dict, **params) -> dict:
        seed_everything(self.seed, self.stream, self.count)
        self.count += 1
        return data_dict
