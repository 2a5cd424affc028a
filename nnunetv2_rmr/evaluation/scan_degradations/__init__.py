"""Degradations of raw scans for testing, severities 1 to 5: what they are, docs/corruptions.md says with numbers."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from scipy import ndimage

from nnunetv2_rmr.evaluation.scan_degradations import kinds
from nnunetv2_rmr.evaluation.scan_degradations.kinds import Spacing

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class ScanDegradation:
    """One kind of damage at five severities.

    description: what is simulated. parameters: of severity 1 to 5, ever stronger; unit: theirs. trained: whether RMR's
    default training has degradations of this kind.
    simulate(signal, spacing, parameter, rng, body): a pure function; signal (Z, Y, X) float32, at least 0 in the body
    and 0 outside; spacing in mm in the same axis order; body boolean (Z, Y, X). Returns an array of the same shape.
    Generators in the same state give the same realisation at every parameter: the same noise field, the same moves.
    """

    name: str
    simulate: Callable[[np.ndarray, Spacing, Any, np.random.Generator, np.ndarray], np.ndarray]
    parameters: tuple[float, float, float, float, float]
    description: str
    unit: str
    trained: bool = False

    def apply(self, volume: np.ndarray, spacing: Spacing, parameter: float, rng: np.random.Generator,
              body: np.ndarray) -> np.ndarray:
        """A float32 copy of a volume (Z, Y, X) of raw intensities, outside the body as it was.

        The field of view that `simulate` sees is the body's bounding box, so that zeros around it change nothing.
        Signal is what an image has above zero or, if it has negative values (CT, images already normalised), above its
        lowest value in the body.
        """
        result = np.array(volume, dtype=np.float32)
        if not body.any():
            return result
        (box,) = ndimage.find_objects(body.astype(np.uint8))
        inside = body[box]
        floor = min(np.float32(0), result[box][inside].min())
        signal = np.where(inside, result[box] - floor, np.float32(0))
        degraded = self.simulate(signal, spacing, parameter, rng, inside)
        result[box][inside] = degraded[inside] + floor
        return result


# first the kinds that RMR's default training has, then those it never sees
SCAN_DEGRADATIONS = {kind.name: kind for kind in (
    ScanDegradation("noise", kinds.add_noise, (0.2, 0.35, 0.5, 0.7, 0.9), trained=True,
                    description="thermal noise of an MRI magnitude image (Rician)",
                    unit="sigma of either channel / standard deviation of the image in the body"),
    ScanDegradation("blur", kinds.blur, (0.8, 1.2, 1.8, 2.6, 4.0), trained=True,
                    description="loss of resolution in every direction (Gaussian point spread function)",
                    unit="sigma in mm"),
    ScanDegradation("fourier", kinds.damage_fourier, (0.2, 0.4, 0.6, 0.8, 1.0), trained=True,
                    description="patches of ripples and lost structure (local damage to the Fourier spectrum)",
                    unit="strength in boxes that cover 80 % of the body (1: their middle is replaced)"),
    ScanDegradation("motion", kinds.move, (0.3, 0.6, 1.0, 1.5, 2.2),
                    description="a patient who moves 2 to 6 times during the scan (rigid moves between parts of "
                                "k-space)",
                    unit="mm off the place, and half as many degrees"),
    ScanDegradation("ghosting", kinds.add_ghosts, (0.05, 0.1, 0.15, 0.2, 0.3),
                    description="displaced copies along the phase-encoding axis (periodic motion, flow)",
                    unit="amplitude of every ghost / amplitude of the image"),
    ScanDegradation("spikes", kinds.add_stripes, (0.2, 0.35, 0.5, 0.7, 0.9),
                    description="stripes through the whole image (1 to 4 spikes in k-space)",
                    unit="RMS of the stripes / standard deviation of the image in the body"),
    ScanDegradation("bias_field", kinds.shade, (0.04, 0.08, 0.12, 0.16, 0.2),
                    description="smooth shading (receive coil, transmit field)",
                    unit="standard deviation of the logarithm of the gain in the body"),
    ScanDegradation("anisotropy", kinds.thicken_slices, (3.0, 4.5, 6.0, 8.0, 10.0),
                    description="an acquisition with thick slices, interpolated to the grid",
                    unit="slice thickness in mm"),
    ScanDegradation("gamma", kinds.bend_intensities, (1.5, 2.0, 2.5, 3.0, 4.0),
                    description="another contrast (intensities raised to a power)",
                    unit="exponent, or its inverse"),
)}


def nonzero_body(images: np.ndarray) -> np.ndarray:
    """Where any modality is not zero, holes filled: nnU-Net's mask. (C, Z, Y, X) -> boolean (Z, Y, X).

    A scan with air around the head has no zeros to speak of; all of it counts as body then.
    """
    if images.shape[1] == 1:  # in 3D every hole of a single slice is open
        return create_nonzero_mask(images[:, 0])[None]
    return create_nonzero_mask(images)


def generator(seed: int, case: str, name: str, channel: int) -> np.random.Generator:
    """The same realisation for the same arguments, on every machine and in every order of calls."""
    key = hashlib.sha256(f"{seed}|{case}|{name}|{channel}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key, "big"))


def degrade_scans(images: np.ndarray, spacing: Sequence[float], name: str, severity: int, *, case: str,
                  channels: Sequence[int] | None = None, seed: int = 0) -> np.ndarray:
    """A float32 copy of a case in which channels are degraded, each with a realisation of its own.

    images: (C, Z, Y, X), raw intensities, Z = 1 for 2D data as nnU-Net reads them. spacing: in mm, Z, Y, X. severity: 1
    to 5; the realisation does not depend on it: the same noise gets stronger. case: its identifier, part of the seed,
    as are name and channel. channels: those to degrade, None: all; others are returned unchanged. seed: of the whole
    benchmark.

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
