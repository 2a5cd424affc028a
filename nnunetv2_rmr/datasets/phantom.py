"""A small multi-modal MRI data set of brains with white-matter lesions, simulated: no download, no patients.

Anatomy: the grey and white matter maps of the ICBM-152 2009a template that the nilearn wheel carries (Fonov et al.,
NeuroImage 2011;54:313-327), deformed anew for every subject. Images: the signal equations of T1w after a contrast
agent, T2w and FLAIR, a smooth receive bias, Rician noise (Gudbjartsson and Patz, Magn Reson Med 1995;34:910-914).
Lesions: blobs in white matter, near the ventricles more often than elsewhere, with log-normal volumes; their relaxation
times lie between those of white matter and of a watery tissue. Half of them take up contrast agent, as active lesions
do: that only T1ce shows. Numbers without a source are choices made to look plausible: good for demonstrations and
tests, not for conclusions about patients.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from importlib.util import find_spec
from math import cos, exp, radians, sin
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from scipy import ndimage

from nnunetv2_rmr.files.atomic import replacing, write_json

# ---- signals --------------------------------------------------------------------------------------------------------

class Tissue(NamedTuple):
    """proton_density: relative to water, 0 to 1. t1, t2: relaxation times in ms."""

    proton_density: float
    t1: float
    t2: float


# T1 and T2 of white and grey matter at 3 T: Wansapura, Holland, Dunn, Ball, J Magn Reson Imaging 1999;9:531-538.
# T1 and T2 of subarachnoid CSF at 3 T: 4309 and 1886 ms in "Quantification of T1 and T2 of subarachnoid CSF:
# Implications for water exchange between CSF and brain tissues", Magn Reson Med, PMC10696635.
# Water contents: 69.1 % and 83.7 % in "A Single-Scan, Rapid Whole-Brain Protocol for Quantitative Water Content Mapping
# With Neurobiological Implications", Front Neurol 2019;10:1333.
WHITE_MATTER = Tissue(proton_density=0.69, t1=832, t2=80)
GREY_MATTER = Tissue(proton_density=0.84, t1=1331, t2=110)
CSF = Tissue(proton_density=1.00, t1=4300, t2=1900)


# Equations: Bernstein, King, Zhou, Handbook of MRI Pulse Sequences, 2004. All of them are for a perfect pulse and a
# steady state; the gradient echo decays with T2 here instead of T2*, which at an echo time of 3 ms is nearly the same
# factor for every tissue. tr, te, ti: repetition, echo and inversion time in ms.

def spin_echo(tissue: Tissue, tr: float, te: float) -> float:
    return tissue.proton_density * (1 - exp(-tr / tissue.t1)) * exp(-te / tissue.t2)


def spoiled_gradient_echo(tissue: Tissue, tr: float, te: float, flip: float) -> float:
    """flip: angle in degrees."""
    e1, angle = exp(-tr / tissue.t1), radians(flip)
    return tissue.proton_density * sin(angle) * (1 - e1) / (1 - cos(angle) * e1) * exp(-te / tissue.t2)


def inversion_recovery(tissue: Tissue, tr: float, te: float, ti: float) -> float:
    """Of a spin echo after an inversion pulse; the signal has a sign."""
    longitudinal = 1 - 2 * exp(-ti / tissue.t1) + exp(-tr / tissue.t1)
    return tissue.proton_density * longitudinal * exp(-te / tissue.t2)


# In ms^-1 per mmol/l, gadobutrol in plasma at 3 T, 37 degrees: 5.0 l/mmol/s in Rohrer, Bauer, Mintorovitch, Requardt,
# Weinmann, Invest Radiol 2005;40:715-724.
RELAXIVITY = 0.005


def with_contrast_agent(tissue: Tissue, concentration: float) -> Tissue:
    """The same tissue with gadolinium, in mmol/l: T1 is shortened. So would T2 be, by too little to be seen here."""
    return tissue._replace(t1=1 / (1 / tissue.t1 + RELAXIVITY * concentration))


# T1ce: T1-weighted, after the contrast agent, which enters lesions only.
# FLAIR's inversion time is where CSF crosses zero at this repetition time: ti = t1 ln(2 / (1 + exp(-tr / t1)))
SEQUENCES: dict[str, Callable[[Tissue], float]] = {
    "T1ce": partial(spoiled_gradient_echo, tr=20, te=3, flip=25),
    "T2": partial(spin_echo, tr=5000, te=100),
    "FLAIR": partial(inversion_recovery, tr=9000, te=120, ti=2480),
}

CHANNELS = tuple(SEQUENCES)  # the order of the files _0000, _0001, _0002
LESION_VOLUME_ML = (0.2, 12.0)  # smallest and largest; a lesion that finds no room in white matter stays smaller
ENHANCING = 0.5  # probability of a lesion
_WATERY = Tissue(proton_density=0.92, t1=1800, t2=180)  # where the line ends on which lesions lie
_FINE = 2  # anatomy lives on a grid so many times finer than the images, which gives partial volume


class TemplateMissingError(RuntimeError):
    """The tissue maps are not installed. The message says what to do."""


class Template(NamedTuple):
    """Tissue fractions, 0 to 1, float32, one shape, 1 mm voxels, axes right-anterior-superior.

    lesion_weight: relative probability of a lesion's centre. origin: position of voxel (0, 0, 0) in mm.
    """

    white: np.ndarray
    grey: np.ndarray
    brain: np.ndarray
    lesion_weight: np.ndarray
    origin: np.ndarray


class PhantomCase(NamedTuple):
    """images: channel name -> int16 (X, Y, Z), arbitrary units, 0 outside of the brain and nowhere else. label: uint8,
    same shape, 1 where lesions fill at least half of a voxel. tissues: "white", "grey", "csf", "lesion" -> fraction of
    each voxel, float32, same shape. affine: voxel indices to mm.
    """

    images: dict[str, np.ndarray]
    label: np.ndarray
    tissues: dict[str, np.ndarray]
    affine: np.ndarray


# ---- anatomy --------------------------------------------------------------------------------------------------------

def _read_map(name: str) -> np.ndarray:
    # found without importing nilearn, which would load scikit-learn and take seconds
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise TemplateMissingError("the phantom is made of the ICBM-152 tissue maps in the package nilearn, which is "
                                   'not installed: pip install "nnunetv2-rmr[demo]"')
    path = Path(spec.origin).parent / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.is_file():
        raise TemplateMissingError(f"the installed nilearn has no {path.name} (any more); the phantom is made of it. "
                                   f'nilearn 0.10 to 0.12 have it: pip install "nilearn<0.13"')
    return np.asarray(nibabel.load(path).dataobj).astype(np.float32)


@lru_cache(maxsize=1)
def load_template() -> Template:
    """The ICBM-152 maps around the brain. Raises TemplateMissingError without nilearn."""
    white, grey, brain = _read_map("wm"), _read_map("gm"), _read_map("t1") > 0
    # the maps are averages over 152 people; squared they come closer to the sharp borders in one
    parts = np.stack([white, grey, 255 - white - grey]) ** 2
    white, grey, fluid = np.where(brain, parts / parts.sum(0), 0)
    # ventricles: fluid more than 3 cm away from the brain's surface
    ventricles = (fluid > 0.5) & (ndimage.distance_transform_edt(brain) > 30)
    to_ventricles = ndimage.distance_transform_edt(~ventricles)  # mm
    weight = np.where(white > 0.7, 0.1 + np.exp(-to_ventricles / 10), 0)
    weight[:, :, :57] = 0  # below z = -15 mm: mostly brain stem and cerebellum
    # 15 mm of air leave room for larger brains, and are enough for nnU-Net to normalise within the brain only
    low, high = (extreme(np.argwhere(brain), axis=0) for extreme in (np.min, np.max))
    size = high - low + 1 + 2 * 15

    def around_brain(image: np.ndarray) -> np.ndarray:
        return np.pad(image.astype(np.float32), 15)[tuple(slice(a, a + n) for a, n in zip(low, size))]

    return Template(around_brain(white), around_brain(grey), around_brain(brain), around_brain(weight),
                    origin=np.array([-98.0, -134.0, -72.0]) + low - 15)


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], voxel_mm: float, scale_mm: float) -> np.ndarray:
    """Random field of mean 0 and standard deviation 1, float32 of `shape`, that changes over `scale_mm`: a sum of
    Gaussians of random height on a lattice with edges of that length."""
    lattice = [int(np.ceil(n * voxel_mm / scale_mm)) + 3 for n in shape]
    field = rng.standard_normal(lattice).astype(np.float32)
    for axis, (n, nodes) in enumerate(zip(shape, lattice)):
        away = np.arange(n)[:, None] * voxel_mm / scale_mm - (np.arange(nodes) - 1)  # in lattice widths
        field = np.moveaxis(np.tensordot(np.exp(-away ** 2).astype(np.float32), field, axes=(1, axis)), 0, axis)
    return (field - field.mean()) / field.std()


def _deformed_grid(rng: np.random.Generator, template: Template, shape: tuple[int, ...], voxel_mm: float) -> np.ndarray:
    """Where in the template (in voxels = mm) every voxel of a new subject lies; (3, X, Y, Z).

    Rotation up to 6 degrees about each axis, size +-6 % along each, displacements of 3 mm (over 30 mm) and 1 mm (over
    12 mm) standard deviation along each, which do not fold.
    """
    centre = (np.array(template.brain.shape) - 1) / 2
    matrix = np.diag(rng.uniform(0.94, 1.06, 3))
    for angle, (i, j) in zip(np.radians(rng.uniform(-6, 6, 3)), ((1, 2), (0, 2), (0, 1))):
        rotation = np.eye(3)
        rotation[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = matrix @ rotation
    axes = [(np.arange(n) + 0.5) * voxel_mm - 0.5 - c for n, c in zip(shape, centre)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    grid = np.tensordot(matrix.astype(np.float32), grid, axes=1)
    for axis in range(3):
        grid[axis] += (centre[axis] + 3 * smooth_field(rng, shape, voxel_mm, 30)
                       + smooth_field(rng, shape, voxel_mm, 12))
    return grid


# ---- lesions --------------------------------------------------------------------------------------------------------

def draw_lesion_volumes(rng: np.random.Generator) -> np.ndarray:
    """Volumes in ml of one subject's lesions: 10 to 20 of them, log-normal (median 0.8 ml), within LESION_VOLUME_ML."""
    volumes = rng.lognormal(np.log(0.8), 1.0, rng.integers(10, 21))
    return np.clip(volumes, *LESION_VOLUME_ML)


def grow_lesions(rng: np.random.Generator, weight: np.ndarray, allowed: np.ndarray, volumes_ml: np.ndarray,
                 voxel_mm: float) -> np.ndarray:
    """One blob per volume, numbered from 1 in an int16 map of the shape of `weight`.

    weight: relative probability of a centre; allowed: boolean, where blobs may grow. A blob is the part of a bumpy
    ellipsoid that is allowed, grown until it has its volume, or nothing is left within twice its radius.
    """
    lesions = np.zeros(weight.shape, dtype=np.int16)
    candidates = np.flatnonzero(weight)
    cumulated = np.cumsum(weight.ravel()[candidates], dtype=np.float64)
    bumps = smooth_field(rng, weight.shape, voxel_mm, 6)
    for number, volume in enumerate(volumes_ml, start=1):
        pick = np.searchsorted(cumulated, rng.random() * cumulated[-1])
        centre = np.array(np.unravel_index(candidates[pick], weight.shape))
        radius = (volume * 1000 * 3 / (4 * np.pi)) ** (1 / 3) / voxel_mm  # of the ball of this volume, in voxels
        reach = int(np.ceil(2 * radius))
        box = tuple(slice(max(0, c - reach), c + reach + 1) for c in centre)
        offsets = np.stack(np.meshgrid(*[np.arange(n)[s] - c for n, s, c in zip(weight.shape, box, centre)],
                                       indexing="ij"))
        stretch = rng.uniform(0.7, 1.4, (3, 1, 1, 1))
        distance = np.sqrt(((offsets / stretch) ** 2).sum(0)) * (1 + 0.15 * bumps[box])
        free = allowed[box] & (lesions[box] == 0) & (distance <= 2 * radius)
        wanted = round(volume * 1000 / voxel_mm ** 3)
        nearest = np.argsort(np.where(free, distance, np.inf), axis=None)[:min(wanted, np.count_nonzero(free))]
        lesions[box][np.unravel_index(nearest, distance.shape)] = number
    return lesions


def draw_lesion_tissues(rng: np.random.Generator, number: int) -> list[tuple[Tissue, Tissue]]:
    """What lesions are made of before and after the contrast agent.

    Proton density and T2: 35 to 100 % of the way from white matter to watery tissue; T1 20 to 100 % of that. About
    every second lesion then takes up .2 to .5 mmol/l and is bright in T1ce; of the others some are hardly seen there.
    """
    tissues = []
    for _ in range(number):
        severity, t1_part = rng.uniform(0.35, 1), rng.uniform(0.2, 1)
        concentration = rng.uniform(0.2, 0.5) * (rng.random() < ENHANCING)
        parts = (severity, severity * t1_part, severity)
        lesion = Tissue(*(healthy + part * (watery - healthy)
                          for healthy, watery, part in zip(WHITE_MATTER, _WATERY, parts)))
        tissues.append((lesion, with_contrast_agent(lesion, concentration)))
    return tissues


# ---- images ---------------------------------------------------------------------------------------------------------

def _means_of_blocks(fine: np.ndarray) -> np.ndarray:
    x, y, z = (n // _FINE for n in fine.shape)
    return fine.reshape(x, _FINE, y, _FINE, z, _FINE).mean((1, 3, 5), dtype=np.float32)


def add_rician_noise(rng: np.random.Generator, signal: np.ndarray, sigma: float) -> np.ndarray:
    """Magnitude of `signal` plus complex Gaussian noise of standard deviation `sigma` per part."""
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(sigma)
    return np.hypot(signal + real, imaginary)


def simulate_case(seed: int, index: int, spacing_mm: float = 2.5) -> PhantomCase:
    """Subject number `index` of the family `seed`: the same numbers give the same subject. Isotropic voxels."""
    rng = np.random.default_rng([seed, index])
    template = load_template()
    voxel = spacing_mm / _FINE
    shape = tuple(int(np.ceil(n / spacing_mm)) * _FINE for n in template.brain.shape)

    grid = _deformed_grid(rng, template, shape, voxel)
    white, grey, brain, weight = (ndimage.map_coordinates(image, grid, order=1, output=np.float32) for image in
                                  (template.white, template.grey, template.brain, template.lesion_weight))
    lesions = grow_lesions(rng, weight, white > 0.5, draw_lesion_volumes(rng), voxel)
    healthy = np.where(lesions > 0, 0, 1).astype(np.float32)
    fine = {"white": white * healthy, "grey": grey * healthy, "csf": np.clip(brain - white - grey, 0, 1) * healthy,
            "lesion": 1 - healthy}
    tissues = {name: _means_of_blocks(fraction) for name, fraction in fine.items()}
    inside = _means_of_blocks(brain) >= 0.5

    lesion_tissues = draw_lesion_tissues(rng, int(lesions.max()))
    images = {}
    for channel, signal_of in SEQUENCES.items():
        signal = sum(tissues[name] * np.float32(signal_of(tissue)) for name, tissue in
                     (("white", WHITE_MATTER), ("grey", GREY_MATTER), ("csf", CSF)))
        of_lesions = np.array([0, *(signal_of(after if channel == "T1ce" else before)
                                    for before, after in lesion_tissues)], dtype=np.float32)
        signal += _means_of_blocks(of_lesions[lesions])
        bias = np.exp(0.06 * smooth_field(rng, signal.shape, spacing_mm, 80))
        white_signal = signal_of(WHITE_MATTER)
        image = add_rician_noise(rng, signal * bias, white_signal / rng.uniform(20, 35))
        image *= rng.uniform(300, 900) / white_signal  # every scanner has units of its own
        images[channel] = np.where(inside, np.maximum(np.rint(image), 1), 0).astype(np.int16)

    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = template.origin - 0.5 + spacing_mm / 2
    label = ((tissues["lesion"] >= 0.5) & inside).astype(np.uint8)
    return PhantomCase(images, label, tissues, affine)


# ---- data set -------------------------------------------------------------------------------------------------------

def write_phantom_dataset(nnunet_raw: str | Path, dataset_id: int, name: str, n_train: int, n_test: int, seed: int = 0,
                          spacing_mm: float = 2.5, on_case: Callable[[], None] = lambda: None) -> Path:
    """Write nnunet_raw/DatasetXXX_name as nnU-Net wants it, test labels in labelsTs; return that folder.

    The test cases are the subjects after the training cases. on_case is called after every case.
    """
    folder = Path(nnunet_raw) / f"Dataset{dataset_id:03d}_{name}"
    for sub in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for index in range(n_train + n_test):
        case, part = simulate_case(seed, index, spacing_mm), "Tr" if index < n_train else "Ts"
        files = {f"images{part}/phantom_{index:03d}_{c:04d}.nii.gz": case.images[channel]
                 for c, channel in enumerate(CHANNELS)}
        files[f"labels{part}/phantom_{index:03d}.nii.gz"] = case.label
        for filename, array in files.items():
            with replacing(folder / filename) as temporary:
                nibabel.save(nibabel.Nifti1Image(array, case.affine), temporary)
        on_case()
    description = {
        "channel_names": {str(c): channel for c, channel in enumerate(CHANNELS)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": n_train,
        "file_ending": ".nii.gz",
        "name": name,
        "description": f"Simulated brains with lesions (phantom of nnunetv2-rmr, seed {seed}); no patients",
    }
    write_json(description, folder / "dataset.json")
    return folder
