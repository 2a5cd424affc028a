"""All degradations of raw scans. Each acts on the signal of the body, see `ScanDegradation`.

Where training has the same kind, its arithmetic is used. Motion, ghosting, spikes and bias field are TorchIO's, with
parameters drawn here: other implementations than those that a model may have been trained on.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nnunetv2_rmr.degradations import fourier
from nnunetv2_rmr.degradations.artefacts import GHOSTS, SPIKES
from nnunetv2_rmr.degradations.artefacts import ORDER as ORDER_OF_BIAS_FIELD
from nnunetv2_rmr.degradations.noise import add_rician_noise
from nnunetv2_rmr.degradations.resolution import axes_without_thick_slices, gaussian_blur, thick_slice_matrix

Spacing = tuple[float, float, float]

FOURIER_SHARE = 0.8  # of the body's bounding box; up to 0.4 in training
FOURIER_EDGE_MM = (12, 24)  # as in training, where it is in finest voxels
MOVES = (2, 4, 6)  # even: the centre of k-space, half way, lies between two moves
DEGREES_PER_MM = 0.5
JITTER = 0.2  # of the time between two moves


def magnitude(image: np.ndarray) -> np.ndarray:
    """What a scanner stores of an image with negative values: their magnitude. (Setting them to zero would let nnU-Net
    take them for background.)"""
    return np.abs(image)


def deviation(signal: np.ndarray, body: np.ndarray) -> float:
    """Standard deviation of the signal in the body."""
    return float(signal[body].std(dtype=np.float64))


def tissue_average(average: Callable[[np.ndarray], np.ndarray], signal: np.ndarray, body: np.ndarray) -> np.ndarray:
    """A local average over the body only. Background is what was cut away, not tissue without signal: averaging over it
    would darken the rim of the body, which no scanner does."""
    weight = average(body.astype(np.float32))
    return average(np.where(body, signal, np.float32(0))) / np.maximum(weight, np.finfo(np.float32).tiny)


def add_noise(signal: np.ndarray, spacing: Spacing, sigma: float, rng: np.random.Generator,
              body: np.ndarray) -> np.ndarray:
    """Rician noise; sigma of either channel in standard deviations of the image in the body."""
    sigma_raw = sigma * deviation(signal, body)
    return add_rician_noise(torch.from_numpy(signal), sigma_raw, seed=int(rng.integers(2 ** 31)), floor=0.0).numpy()


def blur(signal: np.ndarray, spacing: Spacing, sigma_mm: float, rng: np.random.Generator,
         body: np.ndarray) -> np.ndarray:
    """Gaussian point spread function of standard deviation sigma_mm, over the body only. Nothing is drawn."""
    return tissue_average(lambda image: gaussian_blur(torch.from_numpy(image), sigma_mm, spacing).numpy(), signal, body)


def damage_fourier(signal: np.ndarray, spacing: Spacing, strength: float, rng: np.random.Generator,
                    body: np.ndarray) -> np.ndarray:
    """Damaged spectra in random boxes; strength 1 replaces what is in the middle of a box.

    The background is set to the mean of the body first, which is what nnU-Net's normalisation makes of it in training.
    """
    edge_mm, seed = rng.uniform(*FOURIER_EDGE_MM), int(rng.integers(2 ** 31))
    edge = [max(fourier.MIN_EDGE, round(edge_mm / s)) for s in spacing]  # cut to the image where that is smaller
    filled = np.where(body, signal, signal[body].mean())
    return magnitude(fourier.damage_fourier_locally(torch.from_numpy(filled), FOURIER_SHARE, strength, edge,
                                                     fourier.AMPLITUDE_SIGMA, seed).numpy())


def import_torchio():
    """The module torchio. Raises ImportError with what to type, also for versions that may mean other things."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations in what it imports are none of our user's business
            import torchio
    except ImportError as error:
        raise ImportError(f'this degradation needs TorchIO: pip install "nnunetv2-rmr[benchmark]" ({error})') from error
    if not torchio.__version__.startswith("1."):
        raise ImportError(f"this degradation needs TorchIO 1.x, but {torchio.__version__} is installed: "
                          'pip install "nnunetv2-rmr[benchmark]"')
    return torchio


def apply_torchio(name: str, volume: np.ndarray, spacing: tuple[float, ...], **parameters: Any) -> np.ndarray:
    """A copy of the volume (3 axes) after the deterministic transform torchio.`name` with these parameters.

    TorchIO calls the axes of its arrays X, Y, Z, but no transform used here treats them as left, front or up: we hand
    over the volume as it is and read X as "first axis". The affine says that the axes are orthogonal, `spacing` mm wide
    and that the origin of the world lies in the middle of the volume: TorchIO's Motion rotates about that origin.
    """
    torchio = import_torchio()
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-0.5 * (n - 1) * s for n, s in zip(volume.shape, spacing)]
    image = torchio.ScalarImage(tensor=torch.from_numpy(np.array(volume, dtype=np.float32))[None], affine=affine)
    transform = getattr(torchio, name)(copy=False, **parameters)
    with torch.random.fork_rng(devices=[]):  # TorchIO draws whether to apply the transform, even when that is certain
        return transform(image).data[0].numpy()


def move(signal: np.ndarray, spacing: Spacing, shift_mm: float, rng: np.random.Generator,
         body: np.ndarray) -> np.ndarray:
    """Rigid moves between parts of k-space (torchio.Motion, after Shaw et al. 2019).

    The number of moves, their times, directions and axes and the slow phase-encoding axis are drawn. During each move's
    part of the scan the body lies shift_mm off its place, turned by half as many degrees; while the centre of k-space
    is acquired it lies in its place, so that labels stay right.
    """
    axes = [axis for axis, size in enumerate(signal.shape) if size > 1]
    phase_axis = axes[rng.integers(len(axes))]
    moves = int(rng.choice(MOVES))
    times = (np.arange(1, moves + 1) + rng.uniform(-JITTER, JITTER, moves)) / (moves + 1)
    directions = [vector / np.linalg.norm(vector) for vector in rng.normal(size=(2 * moves, 3))]
    shifts, turns = np.reshape(directions, (2, moves, 3))
    if len(axes) < 3:  # a single slice moves within its plane
        flat = [axis for axis in range(3) if axis not in axes]
        shifts[:, flat] = 0
        turns[:, axes] = 0

    order = [axis for axis in range(3) if axis != phase_axis] + [phase_axis]  # TorchIO's phase axis is the last
    moved = apply_torchio("Motion", signal.transpose(order), tuple(spacing[axis] for axis in order),
                          degrees=shift_mm * DEGREES_PER_MM * turns[:, order], translation=shift_mm * shifts[:, order],
                          times=times, image_interpolation="linear")
    return magnitude(moved.transpose(np.argsort(order)))


def add_ghosts(signal: np.ndarray, spacing: Spacing, amplitude: float, rng: np.random.Generator,
               body: np.ndarray) -> np.ndarray:
    """Every n-th plane of k-space is scaled (torchio.Ghosting), as periodic motion or flow does; axis and n are drawn.

    Scaling every n-th plane by 1 - s puts n - 1 copies of amplitude s / n into the image, a field of view / n apart, so
    s = n * amplitude. The central plane is kept.
    """
    axes = [axis for axis, size in enumerate(signal.shape) if size > 1]
    axis = int(axes[rng.integers(len(axes))])
    ghosts = int(rng.integers(GHOSTS[0], GHOSTS[1] + 1))
    return magnitude(apply_torchio("Ghosting", signal, spacing, num_ghosts=ghosts, axis=axis,
                                   intensity=ghosts * amplitude, restore=None))


def add_stripes(signal: np.ndarray, spacing: Spacing, strength: float, rng: np.random.Generator,
                body: np.ndarray) -> np.ndarray:
    """Spikes in k-space (torchio.Spike), as electric discharges leave them; their number and places are drawn.

    One spike A in a k-space of N points adds stripes (A / N) cos(...) of RMS A / (N sqrt 2), and the RMS of several
    adds up in squares. TorchIO takes A as a multiple of the largest point; for a signal >= 0 that is its sum.
    """
    positions = rng.uniform(size=(rng.integers(SPIKES[0], SPIKES[1] + 1), 3))
    rms = strength * deviation(signal, body)
    total = float(signal.sum(dtype=np.float64))
    if total == 0:
        return signal
    spike = rms * np.sqrt(2 / len(positions)) * signal.size
    return magnitude(apply_torchio("Spike", signal, spacing, spikes_positions=positions, intensity=spike / total))


def shade(signal: np.ndarray, spacing: Spacing, strength: float, rng: np.random.Generator,
          body: np.ndarray) -> np.ndarray:
    """Multiply by a gain whose logarithm is a polynomial of order 3 (torchio.BiasField), with drawn coefficients.

    The logarithm has mean 0 and standard deviation `strength` in the body: a constant gain is no shading, and nnU-Net
    normalises it away.
    """
    order = ORDER_OF_BIAS_FIELD
    coefficients = rng.uniform(-1, 1, (order + 1) * (order + 2) * (order + 3) // 6).tolist()  # in three variables
    log_gain = np.log(apply_torchio("BiasField", np.ones_like(signal), spacing, coefficients=coefficients, order=order))
    inside = log_gain[body].astype(np.float64)
    if inside.std() == 0:  # a body of one voxel
        return signal
    log_gain = (log_gain - inside.mean()) / inside.std()
    return (signal * np.exp(strength * log_gain)).astype(np.float32)


def thicken_slices(signal: np.ndarray, spacing: Spacing, thickness_mm: float, rng: np.random.Generator,
                   body: np.ndarray) -> np.ndarray:
    """Average over slices of thickness_mm and interpolate linearly back to the grid; axis and offset are drawn.

    Averages are over the body only. (TorchIO's RandomAnisotropy takes single voxels instead of averages, that is thin
    slices with gaps.)
    """
    axes = [axis for axis, size in enumerate(signal.shape) if size > 1]
    axes = [axes[i] for i in axes_without_thick_slices([spacing[axis] for axis in axes])]
    drawn, start = rng.random(2)
    if not axes:
        return signal
    axis = axes[int(drawn * len(axes))]
    if thickness_mm <= spacing[axis]:
        return signal
    matrix = thick_slice_matrix(signal.shape[axis], spacing[axis], thickness_mm, start).astype(np.float32)
    return tissue_average(lambda image: np.moveaxis(np.tensordot(matrix, image, (1, axis)), 0, axis), signal, body)


def bend_intensities(signal: np.ndarray, spacing: Spacing, exponent: float, rng: np.random.Generator,
                     body: np.ndarray) -> np.ndarray:
    """signal^g, g = exponent or 1 / exponent (drawn), brought back to the mean and standard deviation in the body.

    What a gamma curve does to mean and deviation nnU-Net's normalisation undoes, so it would only feign a difference.
    Dark voxels can get below zero by it.
    """
    exponent = exponent if rng.random() < 0.5 else 1 / exponent
    inside = signal[body].astype(np.float64)
    if inside.std() == 0:
        return signal
    bent = (inside / inside.mean()) ** exponent
    result = signal.copy()
    result[body] = (bent - bent.mean()) * (inside.std() / bent.std()) + inside.mean()
    return result
