"""Degrade the scans of one case, reproducibly."""

import hashlib
from collections.abc import Sequence

import numpy as np

from nnunetv2_rmr.evaluation.scan_degradations.base import nonzero_body
from nnunetv2_rmr.evaluation.scan_degradations.kinds import SCAN_DEGRADATIONS

SEVERITIES = (1, 2, 3, 4, 5)


def generator(seed: int, case: str, name: str, channel: int) -> np.random.Generator:
    """The same realisation for the same arguments, on every machine and in every order of calls."""
    key = hashlib.sha256(f"{seed}|{case}|{name}|{channel}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key, "big"))


def degrade_scans(images: np.ndarray, spacing: Sequence[float], name: str, severity: int, *, case: str,
                  channels: Sequence[int] | None = None, seed: int = 0) -> np.ndarray:
    """A float32 copy of a case in which channels are degraded, each with a realisation of its own.

    Args:
        images: (C, Z, Y, X), raw intensities, Z = 1 for 2D data as nnU-Net reads them.
        spacing: in mm, in the order Z, Y, X.
        name: a key of SCAN_DEGRADATIONS.
        severity: 1 to 5. The realisation does not depend on it: the same noise gets stronger.
        case: its identifier, part of the seed, as are name and channel.
        channels: those to degrade, None: all. Others are returned unchanged.
        seed: of the whole benchmark.

    Raises ValueError for an unknown name, severity or channel, for images of another shape or with values that are not
    finite, and ImportError if TorchIO is needed and missing.
    """
    if name not in SCAN_DEGRADATIONS:
        raise ValueError(f"unknown degradation {name!r}; known: {', '.join(SCAN_DEGRADATIONS)}")
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

    degradation = SCAN_DEGRADATIONS[name]
    parameter = degradation.parameters[int(severity) - 1]
    spacing = tuple(float(s) for s in spacing)
    body = nonzero_body(images)
    result = images.astype(np.float32)
    for channel in channels:
        rng = generator(seed, case, name, channel)
        result[channel] = degradation.apply(result[channel], spacing, parameter, rng, body)
    return result


def try_out(names: Sequence[str]) -> None:
    """Apply each kind to a small volume: what is missing shows now and not after hours. Raises ImportError."""
    volume = np.random.default_rng(0).random((1, 16, 16, 16), dtype=np.float32)
    for name in names:
        degrade_scans(volume, (1.0, 1.0, 1.0), name, 1, case="")


def image_difference(clean: np.ndarray, degraded: np.ndarray, body: np.ndarray) -> float:
    """Root mean squared difference in the body / standard deviation of the clean image there. 0: nothing changed.

    Equal severities of two kinds do not mean equal differences. All (Z, Y, X), body boolean. NaN if the body is empty
    or the clean image constant in it. Raises ValueError for different shapes.
    """
    if not clean.shape == degraded.shape == body.shape:
        raise ValueError(f"clean {clean.shape}, degraded {degraded.shape} and body {body.shape} must have one shape")
    inside = clean[body].astype(np.float64)
    if inside.size == 0 or (deviation := inside.std()) == 0:
        return float("nan")
    return float(np.sqrt(np.mean((degraded[body] - inside) ** 2)) / deviation)
