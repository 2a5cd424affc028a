"""Local damage to the Fourier spectrum."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar, sample_scalar

TILE = 4  # edge of a tile of the phase spectrum, in frequency bins
AMPLITUDE_SIGMA = 0.5  # frequency bins
MIN_EDGE = 4  # voxels; a smaller box has hardly a spectrum
MAX_SHARE = 0.8  # random boxes would take forever to cover the last corners


def draw_boxes(shape: Sequence[int], share: float, edge: Sequence[int],
               rng: np.random.Generator) -> list[tuple[slice, ...]]:
    """Random boxes of one size that cover `share` of a volume, or by less than one box more; they may overlap.

    edge: of every box in voxels, one per axis; cut to the volume. Raises ValueError for a share not in 0 to 0.8.
    """
    if not 0 <= share <= MAX_SHARE:
        raise ValueError(f"share of the volume must lie in 0..{MAX_SHARE}, got {share}")
    shape = np.asarray(shape)
    edge = np.minimum(edge, shape)
    covered = np.zeros(shape, dtype=bool)
    boxes, voxels = [], 0
    while voxels < share * covered.size:
        # the centre is drawn in the whole volume, else its border would hardly ever be hit
        start = np.clip((rng.uniform(0, shape) - edge / 2).astype(int), 0, shape - edge)
        box = tuple(slice(s, s + e) for s, e in zip(start.tolist(), edge.tolist()))
        voxels += int((~covered[box]).sum())
        covered[box] = True
        boxes.append(box)
    return boxes


def _outer(*factors: torch.Tensor) -> torch.Tensor:
    product = torch.ones(())
    for factor in factors:
        product = product[..., None] * factor
    return product


def _shuffle_in_tiles(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Indices into a flat array of `shape` that permute it at random within tiles of `TILE` entries per axis."""
    tile = np.zeros((), dtype=int)
    for size in shape:
        tile = tile[..., None] * size + np.arange(size) // TILE
    tile = tile.ravel()
    shuffled = np.empty_like(tile)
    shuffled[np.argsort(tile, kind="stable")] = np.lexsort((rng.random(tile.size), tile))
    return shuffled


def damage_spectrum(images: torch.Tensor, amplitude_sigma: float, rng: np.random.Generator) -> torch.Tensor:
    """Blur the amplitude spectra and shuffle the phase spectra of whole images, keeping each one's mean and deviation.

    The amplitudes are blurred by a Gaussian (circular, like the spectrum). The phases are permuted at random within
    tiles of `TILE` bins per axis, so that a phase stays among similar frequencies. The inverse transform is real: the
    images keep their signs.

    images: (N, D, H, W) or (N, H, W), treated independently, with the same permutation. amplitude_sigma: in frequency
    bins.
    """
    axes, shape = tuple(range(1, images.ndim)), images.shape[1:]
    mean = images.mean(axes, keepdim=True)
    spectrum = torch.fft.rfftn(images - mean, dim=axes)

    # blurring a spectrum is multiplying its transform by a Gaussian; that is circular and right on a half spectrum
    envelope = _outer(*(torch.exp(-2 * (torch.pi * amplitude_sigma * torch.fft.fftfreq(n)) ** 2) for n in shape))
    amplitude = torch.fft.irfftn(spectrum.abs(), s=shape, dim=axes) * envelope.to(images)
    amplitude = torch.fft.rfftn(amplitude, dim=axes).real.clamp_min(0)

    shuffled = torch.from_numpy(_shuffle_in_tiles(spectrum.shape[1:], rng)).to(images.device)
    phase = spectrum.sgn().flatten(1)[:, shuffled].reshape(spectrum.shape)

    damaged = torch.fft.irfftn(amplitude * phase, s=shape, dim=axes)
    damaged -= damaged.mean(axes, keepdim=True)
    before, after = (torch.linalg.vector_norm(x, dim=axes, keepdim=True) for x in (images - mean, damaged))
    return damaged * (before / after.clamp_min(torch.finfo(images.dtype).tiny)) + mean


def _window(shape: Sequence[int]) -> torch.Tensor:
    """1 in the middle of a box, falling smoothly over the outer quarters, above 0 in every voxel."""
    ramps = []
    for size in shape:
        position = torch.arange(size) + 0.5
        to_border = torch.minimum(position, size - position) / (size / 4)
        ramps.append(torch.sin(0.5 * torch.pi * to_border.clamp_max(1)) ** 2)
    return _outer(*ramps)


def damage_fourier_locally(image: torch.Tensor, share: float, strength: float, edge: Sequence[int],
                           amplitude_sigma: float, seed: int) -> torch.Tensor:
    """Damage the spectra of random boxes: patches of ripples and lost structure, as local artefacts leave them.

    Each box gets its amplitude spectrum blurred and its phase spectrum shuffled (`damage_spectrum`) and is blended
    into the image by a smooth window. Every box is computed from the untouched image; where boxes overlap, the changes
    are averaged by their windows, so that neither order nor seams exist. The mean of the image is kept. After the
    Fourier degradation of RMR (Zhang et al. 2024, doi:10.1609/aaai.v38i7.28536), for signed data of any size.

    image: one modality, (D, H, W) or (H, W). share, edge: see `draw_boxes`; every voxel of a box changes. strength: 0
    (identity) to 1 (the middle of a box is replaced). seed: of boxes and permutation.
    """
    rng = np.random.default_rng(seed)
    boxes = draw_boxes(image.shape, share, edge, rng)
    if not boxes:
        return image.clone()
    contents = torch.stack([image[box] for box in boxes])
    window = _window(contents.shape[1:]).to(image)
    changes = damage_spectrum(contents, amplitude_sigma, rng).sub_(contents).mul_(window)
    change, weight = torch.zeros_like(image), torch.zeros_like(image)
    for box, box_change in zip(boxes, changes):
        change[box] += box_change
        weight[box] += window
    change /= weight.clamp_min(1)
    weight.clamp_(max=1)
    change -= weight.mul_(change.sum() / weight.sum())
    return change.mul_(strength).add_(image)


def draw_fourier(shape: Sequence[int], spacing: Sequence[float], *, share: RandomScalar = (0.1, 0.4),
                 strength: RandomScalar = (0.5, 1.0), edge: RandomScalar = (12, 24),
                 amplitude_sigma: RandomScalar = AMPLITUDE_SIGMA) -> dict[str, Any]:
    """Local Fourier degradation (`damage_fourier_locally`) of a random share of the volume at a random strength.

    edge: of the boxes / finest spacing, drawn for every axis; at most half the patch, at least 4 voxels.
    """
    edges = [round(sample_scalar(edge) * min(spacing) / s) for s in spacing]
    return {"share": float(sample_scalar(share)), "strength": float(sample_scalar(strength)),
            "edge": tuple(max(MIN_EDGE, min(n, size // 2)) for n, size in zip(edges, shape)),
            "amplitude_sigma": float(sample_scalar(amplitude_sigma)), "seed": int(np.random.randint(2**31 - 1))}
