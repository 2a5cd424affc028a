"""The last transform of the training pipeline: hands on the clean and the degraded patch."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunetv2_rmr.degradations import artefacts, fourier, noise, resolution
from nnunetv2_rmr.settings import RMRSettings

NONE = "none"


class Degradation(NamedTuple):
    """One kind of damage to one modality, (D, H, W) or (H, W).

    draw(shape, spacing, **options): the keyword arguments of `apply`; spacing in mm. Options that are a pair (low,
    high) are drawn from uniformly. Drawing uses numpy's global generator only: nnU-Net's forked workers reseed numpy
    but inherit one and the same torch state, so that torch draws would repeat from worker to worker. Random fields come
    from a generator of their own, seeded by a drawn integer.
    apply(image, **parameters): a degraded copy; a pure function of its arguments.
    """

    draw: Callable[..., dict[str, Any]]
    apply: Callable[..., torch.Tensor]


DEGRADATIONS = {
    "noise": Degradation(noise.draw_noise, noise.add_noise),
    "blur": Degradation(resolution.draw_blur, resolution.gaussian_blur),
    "fourier": Degradation(fourier.draw_fourier, fourier.damage_fourier_locally),
    "bias_field": Degradation(artefacts.draw_bias_field, artefacts.shade),
    "ghosting": Degradation(artefacts.draw_ghosts, artefacts.add_ghosts),
    "low_resolution": Degradation(resolution.draw_thick_slices, resolution.thicken_slices),
    "spikes": Degradation(artefacts.draw_stripes, artefacts.add_stripes),
}


def remember_foreground(**data_dict: Any) -> dict[str, Any]:
    """A transform that stores where the body is as data_dict['foreground'], a boolean (D, H, W) or (H, W).

    nnU-Net marks what lies outside the body (zero in all modalities) or outside the image (padding) as -1 in
    segmentation channel 0, until its RemoveLabelTransform turns -1 into background. This one goes before it.
    """
    return data_dict | {"foreground": data_dict["segmentation"][0] >= 0}


def only_degraded(num_modalities: int, **data_dict: Any) -> dict[str, Any]:
    """A transform after DegradeTransform: the degraded modalities and the extra channels, without the clean ones."""
    return data_dict | {"image": data_dict["image"][num_modalities:]}


class DegradeTransform(BasicTransform):
    """Degrade a sample, and return the clean and the degraded modalities stacked along the channel axis.

    image (C + E, *spatial) -> (2C + E, *spatial): C clean modalities, the same C degraded, then E extra channels as
    they were (the one-hot segmentation of a cascade). With probability `p_clean` the whole sample stays clean; else
    each modality draws its own kind of degradation from `probabilities`. A modality that stays clean, and all that lies
    outside data_dict['foreground'] (if there; it is taken out of the dictionary), is bitwise the same in both halves.

    num_modalities: C. spacing: of the patches in mm, one per spatial axis. probabilities: of "none" and the kinds in
    DEGRADATIONS; what is left out is 0, and their sum is 1. None: those of the default settings. options: per kind,
    keyword arguments of its `draw`, e.g. {"noise": {"p_rician": 0}}. magnitude: for every modality, whether it is a
    magnitude image, as MRI is: only these get Rician noise. None: all are. modality_dropout: probability that the
    sample loses modalities: 1 to C - 1 of them, every number and every choice equally likely. They are zero in both
    halves, as nnU-Net's preprocessing leaves a missing one here. also: further transforms of the degraded half, before
    ours, whatever is drawn; in the foreground, too. Raises ValueError for unknown kinds and wrong options.
    """

    def __init__(self, num_modalities: int, spacing: Sequence[float], p_clean: float = RMRSettings.p_clean,
                 probabilities: Mapping[str, float] | None = None,
                 options: Mapping[str, Mapping[str, Any]] | None = None, magnitude: Sequence[bool] | None = None,
                 modality_dropout: float = 0.0, also: Sequence[BasicTransform] = ()):
        super().__init__()
        self.num_modalities, self.spacing = num_modalities, tuple(float(s) for s in spacing)
        self.p_clean, self.modality_dropout = p_clean, modality_dropout
        self.probabilities = dict(RMRSettings().degradation_probabilities if probabilities is None else probabilities)
        self.magnitude = [True] * num_modalities if magnitude is None else list(magnitude)
        self.options, self.also = options or {}, list(also)
        unknown = ({*self.probabilities} - {NONE, *DEGRADATIONS}) | ({*self.options} - {*DEGRADATIONS})
        if unknown:
            raise ValueError(f"unknown degradations {sorted(unknown)}; known: {[NONE, *DEGRADATIONS]}")
        values = self.probabilities.values()
        if min(values, default=0) < 0 or abs(sum(values) - 1) > 1e-6:
            raise ValueError(f"degradation probabilities must be positive and sum to 1, got {self.probabilities}")
        for kind, of_kind in self.options.items():
            try:
                signature(DEGRADATIONS[kind].draw).bind((), (), **of_kind)
            except TypeError as error:
                raise ValueError(f"degradation_options of {kind}: {error}") from None

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        shape = tuple(data_dict["image"].shape[1:])
        if len(shape) != len(self.spacing):
            raise ValueError(f"spacing {self.spacing} does not fit an image of spatial shape {shape}")
        lost = self._draw_lost()
        if np.random.uniform() < self.p_clean:
            return {"kinds": [NONE] * self.num_modalities, "parameters": [{}] * self.num_modalities, "lost": lost}
        weights = np.array(list(self.probabilities.values()))
        kinds = np.random.choice(list(self.probabilities), self.num_modalities, p=weights / weights.sum()).tolist()
        parameters = [{} if kind == NONE else self.draw(kind, shape) for kind in kinds]
        for drawn, is_magnitude in zip(parameters, self.magnitude):
            if "rician" in drawn and not is_magnitude:
                drawn["rician"] = False
        return {"kinds": kinds, "parameters": parameters, "lost": lost}

    def draw(self, kind: str, shape: Sequence[int]) -> dict[str, Any]:
        """Parameters of a kind for a modality of this shape, with the options given."""
        return DEGRADATIONS[kind].draw(shape, self.spacing, **self.options.get(kind, {}))

    def _draw_lost(self) -> list[int]:
        if self.modality_dropout == 0 or np.random.uniform() >= self.modality_dropout:
            return []
        return np.random.permutation(self.num_modalities)[: np.random.randint(1, self.num_modalities)].tolist()

    def apply(self, data_dict: dict[str, Any], kinds: list[str], parameters: list[dict[str, Any]],
              lost: Sequence[int] = ()) -> dict[str, Any]:
        image, foreground = data_dict["image"], data_dict.pop("foreground", None)
        num_modalities = self.num_modalities
        out = torch.cat([image[:num_modalities], image])
        seen = image[:num_modalities].clone() if self.also else image  # they may work in place
        for transform in self.also:
            seen = transform(image=seen)["image"]
        for i, (kind, drawn) in enumerate(zip(kinds, parameters)):
            if kind == NONE and not self.also:
                continue
            degraded = seen[i] if kind == NONE else DEGRADATIONS[kind].apply(seen[i], **drawn)
            if foreground is None:
                out[num_modalities + i] = degraded
            else:
                torch.where(foreground, degraded, image[i], out=out[num_modalities + i])
        for i in lost:
            out[i] = out[num_modalities + i] = 0
        data_dict["image"] = out
        return data_dict


def degradation_arguments(settings: RMRSettings, configuration_manager: ConfigurationManager) -> dict[str, Any]:
    """Arguments of `DegradeTransform`: what a training with these settings draws. CT is no magnitude."""
    return {"p_clean": settings.p_clean, "probabilities": settings.degradation_probabilities,
            "options": settings.degradation_options, "modality_dropout": settings.modality_dropout,
            "magnitude": [not scheme.startswith("CT") for scheme in configuration_manager.normalization_schemes]}


def add_degradations(transforms: ComposeTransforms, num_modalities: int, spacing: Sequence[float],
                     clean_targets: bool = False, **settings: Any) -> ComposeTransforms:
    """The same pipeline with `DegradeTransform` at its end, and the body remembered where nnU-Net still knows it.

    transforms: of an nnU-Net trainer. clean_targets: nnU-Net's own noise, blur and low resolution reach the degraded
    half only. Else what is to be restored has them, too, and the network is taught to remove a blur here and to keep it
    there. Raises ValueError for a pipeline without nnU-Net's RemoveLabelTransform. The rest are DegradeTransform's.
    """
    steps = list(transforms.transforms)
    if clean_targets:
        settings["also"] = [step for step in steps if _degrades(step)]
        steps = [step for step in steps if not _degrades(step)]
    position = next((i for i, step in enumerate(steps) if isinstance(step, RemoveLabelTransform)), None)
    if position is None:
        raise ValueError("the pipeline has no RemoveLabelTransform, so the body cannot be told from the background")
    steps.insert(position, remember_foreground)
    return ComposeTransforms([*steps, DegradeTransform(num_modalities, spacing, **settings)])


def _degrades(step: BasicTransform) -> bool:
    step = step.transform if isinstance(step, RandomTransform) else step
    return isinstance(step, (GaussianNoiseTransform, GaussianBlurTransform, SimulateLowResolutionTransform))


def degrade_case(image: torch.Tensor, foreground: torch.Tensor, spacing: Sequence[float], seed: int,
                 **settings: Any) -> torch.Tensor:
    """A degraded copy of a whole case (C, *spatial): every modality degraded, with kinds and strengths as in training.

    image: normalised as for training. foreground: boolean (*spatial), outside of which the image stays as it is.
    spacing: in mm, one per spatial axis; or two for a 3D case, as a 2D configuration has them: every slice is then a
    sample of its own, as it is in training. seed: decides everything, 0 to 2^32 - 1; the global generators are left as
    they were. settings: of `DegradeTransform`; `p_clean`, `modality_dropout` and the probability of "none" are 0.
    """
    probabilities = dict(settings.get("probabilities") or RMRSettings().degradation_probabilities)
    probabilities.pop(NONE, None)
    total = sum(probabilities.values())
    if total == 0:
        return image.clone()
    settings |= {"p_clean": 0.0, "modality_dropout": 0.0,
                 "probabilities": {kind: p / total for kind, p in probabilities.items()}}
    transform = DegradeTransform(image.shape[0], spacing, **settings)

    def degrade(sample: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        return transform(image=sample, foreground=inside)["image"][image.shape[0] :]

    state = np.random.get_state()
    np.random.seed(seed)
    try:
        if image.ndim == len(spacing) + 2:
            return torch.stack([degrade(image[:, z], inside) for z, inside in enumerate(foreground)], dim=1)
        return degrade(image, foreground)
    finally:
        np.random.set_state(state)
