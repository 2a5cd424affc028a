"""Corrupt the modalities of one case, reproducibly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from nnunetv2_rmr.evaluation.corruptions.base import body_mask
from nnunetv2_rmr.evaluation.corruptions.registry import CORRUPTIONS, SEVERITIES


def generator(seed: int, case: str, name: str, channel: int) -> np.random.Generator:
    """The same realisation for the same arguments, on every machine and in every order of calls."""
    key = hashlib.sha256(f"{seed}|{case}|{name}|{channel}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key, "big"))


def corrupt_case(images: np.ndarray, spacing: Sequence[float], name: str, severity: int, *, case: str,
                 channels: Sequence[int] | None = None, seed: int = 0) -> np.ndarray:
    """A float32 copy of a case in which channels are corrupted, each with a realisation of its own.

    Args:
        images: (C, Z, Y, X), raw intensities, Z = 1 for 2D data as nnU-Net reads them.
        spacing: in mm, in the order Z, Y, X.
        name: a key of CORRUPTIONS.
        severity: 1 to 5. The realisation does not depend on it: the same noise gets stronger.
        case: its identifier, part of the seed, as are name and channel.
        channels: those to corrupt, None: all. Others are returned unchanged.
        seed: of the whole benchmark.

    Raises ValueError for an unknown name, severity or channel, for images of another shape or with values that are not
    finite, and TorchIOMissingError if TorchIO is needed and missing.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}; known: {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be a whole number from 1 to 5, got {severity!r}")
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"images must have the shape (C, Z, Y, X), got {images.shape}")
    if len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise ValueError(f"spacing must be three positive numbers (mm; Z, Y, X), got {list(spacing)}")
    channels = range(len(images)) if channels is None else channels
    if unknown := [c for c in channels if c not in range(len(images))]:
        raise ValueError(f"channels {unknown} are not there: the images have {len(images)}, counted from 0")
    if not np.isfinite(images).all():
        raise ValueError(f"case {case}: the images hold NaN or infinite values")

    corruption = CORRUPTIONS[name]
    parameter = corruption.parameters[int(severity) - 1]
    spacing = tuple(float(s) for s in spacing)
    body = body_mask(images)
    result = images.astype(np.float32)
    for channel in channels:
        result[channel] = corruption.apply(result[channel], spacing, parameter, generator(seed, case, name, channel),
                                           body)
    return result
