"""Artefacts of the scanner on normalised patches: shading by coils, ghosts, stripes from spikes in k-space.

They act on the raw signal, which normalisation has shifted and scaled: `to_signal` goes back to something like it.
image: one modality, (D, H, W) or (H, W), normalised. offset: assumed mean / standard deviation of the raw image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar, sample_scalar
from numpy.polynomial import legendre

# mean / standard deviation of raw images: about 1 with air around the body, 2.0 to 7.0 (median 4.1) in the masks of 16
# skull-stripped images of BraTS 2021
OFFSET: RandomScalar = (1.0, 6.0)
ORDER = 3  # of the bias field's polynomial; the model is that of Van Leemput et al. 1999, doi:10.1109/42.811268
GHOSTS = (2, 5)  # lowest and highest number
SPIKES = (1, 4)  # likewise
LOWEST = 1 / 64  # cycles per voxel; a slower wave is shading, not a stripe


def to_signal(image: torch.Tensor, offset: float) -> tuple[torch.Tensor, float]:
    """The raw signal in standard deviations, at least 0, z-score + offset; and the offset that was used.

    The z-score has forgotten it, so it is assumed; the lowest value bounds it, as magnitude images have nothing below
    zero. Voxels that are exactly 0 are what nnU-Net's mask or padding left out: they have no signal.
    """
    offset = max(offset, -float(image.min()))
    return torch.where(image == 0, 0, image + offset), offset


def from_signal(signal: torch.Tensor, image: torch.Tensor, offset: float) -> torch.Tensor:
    """The changed signal as z-scores again (of the same mean and deviation); where `image` is exactly 0, it stays 0."""
    return torch.where(image == 0, image, signal - offset)


def draw_log_gain(shape: tuple[int, ...], strength: float, extent: float, rng: np.random.Generator) -> np.ndarray:
    """The logarithm of a smooth gain: a random polynomial over the field of view, of which the patch is a part.

    A sum of products of Legendre polynomials of total degree 1 to ORDER with normal coefficients. As they are
    orthogonal, the coefficients' norm sets the logarithm's standard deviation over the whole field of view, `strength`.
    Its mean is 0 there: a constant gain is no shading, and normalisation removes it. extent: edge of the field of view
    / edge of the patch, at least 1; the patch lies anywhere in it.
    """
    degrees = np.indices([ORDER + 1] * len(shape)).sum(0)
    coefficients = np.where((degrees > 0) & (degrees <= ORDER), rng.normal(size=degrees.shape), 0)
    coefficients *= strength / np.linalg.norm(coefficients)
    field = coefficients
    for size in shape:
        start = rng.uniform(-1, 1 - 2 / extent)
        position = start + (np.arange(size) + 0.5) / size * 2 / extent
        # of unit mean square over -1..1
        basis = legendre.legvander(position, ORDER) * np.sqrt(2 * np.arange(ORDER + 1) + 1)
        field = np.tensordot(field, basis, (0, 1))  # the axes come back to their order after the last one
    return field


def shade(image: torch.Tensor, strength: float, extent: float, offset: float, seed: int) -> torch.Tensor:
    """Multiply the raw signal by a smooth gain (`draw_log_gain`), as coils and an uneven transmit field do. Strength 0:
    identity."""
    if strength == 0:
        return image.clone()
    gain = np.exp(draw_log_gain(tuple(image.shape), strength, extent, np.random.default_rng(seed)))
    signal, offset = to_signal(image, offset)
    return from_signal(signal * torch.from_numpy(gain).to(image), image, offset)


def draw_bias_field(shape: Sequence[int], spacing: Sequence[float], *, strength: RandomScalar = (0.04, 0.12),
                    extent: RandomScalar = (1.0, 2.0), offset: RandomScalar = OFFSET) -> dict[str, Any]:
    """Parameters of `shade`. strength: the default spans the severities 1 to 3 of the test-time bias field."""
    return {"strength": float(sample_scalar(strength)), "extent": float(sample_scalar(extent)),
            "offset": float(sample_scalar(offset)), "seed": int(np.random.randint(2**31 - 1))}


def add_ghosts(image: torch.Tensor, axis: int, ghosts: int, amplitude: float, offset: float) -> torch.Tensor:
    """Faint displaced copies, as periodic motion and flow leave them: weaken every n-th plane of k-space but the
    central one, and take the magnitude.

    Weakening every n-th plane by s takes n copies of amplitude s / n from the image, an n-th of the field of view
    apart (one of them is the image itself), so s = n * amplitude. The field of view is the patch; copies that leave it
    on one side come in on the other, as they do in a scan. axis: of phase encoding. ghosts: n. amplitude: of every
    ghost / amplitude of the image; 0: identity.
    """
    if amplitude == 0:
        return image.clone()
    signal, offset = to_signal(image, offset)
    spectrum = torch.fft.rfft(signal, dim=axis)  # holds each pair of planes +k, -k once, so that both are weakened
    spectrum.narrow(axis, 1, spectrum.shape[axis] - 1).movedim(axis, 0)[ghosts - 1 :: ghosts] *= 1 - ghosts * amplitude
    return from_signal(torch.fft.irfft(spectrum, n=image.shape[axis], dim=axis).abs(), image, offset)


def draw_ghosts(shape: Sequence[int], spacing: Sequence[float], *, amplitude: RandomScalar = (0.05, 0.15),
                ghosts: tuple[int, int] = GHOSTS, offset: RandomScalar = OFFSET) -> dict[str, Any]:
    """Of `add_ghosts`, along a random axis. amplitude: the default spans the severities 1 to 3 of the test-time
    ghosting."""
    return {"axis": int(np.random.randint(len(shape))), "ghosts": int(np.random.randint(ghosts[0], ghosts[1] + 1)),
            "amplitude": float(sample_scalar(amplitude)), "offset": float(sample_scalar(offset))}


def add_stripes(image: torch.Tensor, rms: float, spikes: int, seed: int) -> torch.Tensor:
    """Add one plane wave per spike in k-space, as electric discharges during the acquisition leave them.

    A point of k-space is a wave in the image: it is added as such, A cos(2 pi f x + phase), with frequencies f drawn
    uniformly from k-space and A = rms sqrt(2 / spikes), so that all of them together have the root mean square `rms`.
    (That a magnitude image folds what gets below zero is neglected: dark voxels only.) rms: in units of the image; 0:
    identity. seed: of frequencies and phases.
    """
    rng = np.random.default_rng(seed)
    stripes = torch.zeros_like(image)
    for _ in range(spikes):
        frequency = np.zeros(image.ndim)
        while np.abs(frequency).max() < LOWEST:
            frequency = rng.uniform(-0.5, 0.5, image.ndim)
        wave = torch.exp(2j * torch.pi * torch.tensor(rng.uniform()))
        for f, size in zip(frequency, image.shape):  # exp(a + b) = exp(a) exp(b): one short vector per axis
            wave = wave[..., None] * torch.exp(2j * torch.pi * float(f) * torch.arange(size))
        stripes += wave.real.to(image)
    return image + rms * (2 / spikes) ** 0.5 * stripes


def draw_stripes(shape: Sequence[int], spacing: Sequence[float], *, rms: RandomScalar = (0.2, 0.5),
                 spikes: tuple[int, int] = SPIKES) -> dict[str, Any]:
    """Of `add_stripes`. rms: the default spans the severities 1 to 3 of the test-time spikes."""
    return {"rms": float(sample_scalar(rms)), "spikes": int(np.random.randint(spikes[0], spikes[1] + 1)),
            "seed": int(np.random.randint(2**31 - 1))}
