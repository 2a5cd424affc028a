"""Everything about RMR that a user can choose, as one typed object that travels in plans.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import get_origin, get_type_hints

PLANS_KEY = "rmr"
CHOICES = {
    "intensity_target": ("reference", "maximum", "saliency"),
    "balance": ("fixed", "uncertainty"),
    "convolutions": ("near_identity", "plain"),
    "stage1_schedule": ("poly", "cosine"),
    "stage2_optimizer": ("sgd", "adamw"),
    "stage2_schedule": ("poly", "cosine"),
    "intensity_norm": ("l1", "l2"),
    "tv_norm": ("l1", "l2"),
}


@dataclass(frozen=True)
class RMRSettings:
    """Settings of one training. They are written to the trained model's plans.json under "rmr" and read from there.

    docs/settings.md says what each does. To change one, derive a trainer class with another `settings`, or add e.g.
    {"rmr": {"intensity_weight": 0.5}} to the plans file; a trainer refuses plans that say otherwise than itself. Loss
    weights belong to losses on normalised intensities (z-scores).
    """

    # what is fused
    reference_modality: str | int | None = None  # channel name or index; None: FLAIR, else PET, else the last
    intensity_target: str = "reference"  # or "maximum" or "saliency", voxel-wise over the modalities

    # network (see networks/)
    encoder: str = "conv"
    features: int = 8
    fusion_growth: int = 8
    fusion_layers: int = 3
    fusion_collect: bool = True
    decoder_hidden: int = 8
    decoder_layers: int = 1
    convolutions: str = "near_identity"  # how they start; or "plain"

    # stages
    stage1_fraction: float = 0.02  # of num_epochs, the autoencoder's; 0: none
    stage1_lr: float = 1e-3  # of Adam
    stage1_weight_decay: float = 0.0
    stage1_schedule: str = "poly"  # nnU-Net's, over all epochs; or "cosine", over the stage
    freeze_autoencoder: bool = False  # in stage 2, as published
    stage2_optimizer: str = "sgd"  # nnU-Net's; or "adamw"
    stage2_lr: float | None = None  # None: nnU-Net's
    stage2_weight_decay: float | None = None  # None: nnU-Net's
    stage2_schedule: str = "poly"  # or "cosine"
    stage2_warmup_fraction: float = 0.0  # of the stage's epochs, before the cosine
    front_clip: float | None = 1.0  # largest norm of the gradient of all but the segmentation network; None: any
    stage2_degraded: bool = True  # False: stage 2 sees clean input only, as published

    # loss weights
    mse_weight: float = 1.0
    tv_weight: float = 1.0
    ssim_weight: float = 1.0
    feature_weight: float = 1.0  # of the feature level against the image level of the refinement constraint
    segmentation_weight: float = 1.0
    intensity_weight: float = 2.0
    intensity_norm: str = "l2"  # squared distances to the intensity target; "l1": absolute ones, as published
    gradient_weight: float = 0.5
    refinement_weight: float = 0.2  # of both levels together, in stage 2
    tv_norm: str = "l1"  # total variation of absolute differences; "l2": of squared ones
    feature_loss_relative: bool = True  # to the variance of the clean features
    all_modalities_weight: float = 0.0  # of decoding every modality from the fused features; 0: no head for it
    balance: str = "fixed"  # of the terms of stage 2; or "uncertainty": the weights above are where learned ones start

    # training degradations (see degradations/)
    p_clean: float = 0.7  # probability that a sample stays clean in every modality
    degradation_probabilities: dict[str, float] = field(
        default_factory=lambda: {"none": 0.25, "noise": 0.25, "blur": 0.25, "fourier": 0.25})
    degradation_options: dict[str, dict] = field(default_factory=dict)  # per kind, arguments of its transform

    # missing modalities (see docs/missing.md)
    modality_dropout: float = 0.0  # probability that a sample of stage 2 loses one or more modalities, never all

    # a picture of the training every so many epochs; 0: none; None: about ten times a training
    panel_every: int | None = None

    def __post_init__(self):
        self._refuse_wrong_types()
        if not 0 <= self.stage1_fraction < 1:
            raise ValueError(f"RMR setting stage1_fraction must be in [0, 1), got {self.stage1_fraction}")
        if not 0 <= self.p_clean <= 1:
            raise ValueError(f"RMR setting p_clean must be in [0, 1], got {self.p_clean}")
        if not 0 <= self.modality_dropout <= 1:
            raise ValueError(f"RMR setting modality_dropout must be in [0, 1], got {self.modality_dropout}")
        if self.front_clip is not None and self.front_clip <= 0:
            raise ValueError(f"RMR setting front_clip must be positive, got {self.front_clip}")
        if not 0 <= self.stage2_warmup_fraction < 1:
            raise ValueError(f"RMR setting stage2_warmup_fraction must be in [0, 1), got {self.stage2_warmup_fraction}")
        if self.stage2_warmup_fraction > 0 and self.stage2_schedule != "cosine":
            raise ValueError("RMR setting stage2_warmup_fraction needs stage2_schedule='cosine', "
                             f"got {self.stage2_schedule!r}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"RMR setting {name} must be {' or '.join(map(repr, choices))}, "
                                 f"got {getattr(self, name)!r}")
        for name, least in (("features", 1), ("fusion_growth", 1), ("fusion_layers", 1), ("decoder_hidden", 1),
                            ("decoder_layers", 1), ("panel_every", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"RMR setting {name} must be {least} or more, got {value}")
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name.endswith(("_weight", "_lr", "_weight_decay")) and value is not None and value < 0:
                raise ValueError(f"RMR setting {f.name} must not be negative, got {value}")

    def _refuse_wrong_types(self) -> None:
        hints = get_type_hints(type(self))
        for f in fields(self):
            value, hint = getattr(self, f.name), hints[f.name]
            kind = dict if get_origin(hint) is dict else hint  # isinstance takes no dict[str, float]
            whole = type(value) is int and isinstance(0.0, kind)  # 1 for 1.0
            if not (isinstance(value, kind) or whole) or (type(value) is bool and kind is not bool):
                raise ValueError(f"RMR setting {f.name} must be {f.type}, got {value!r}")

    @classmethod
    def from_plans(cls, plans: dict, defaults: RMRSettings | None = None) -> RMRSettings:
        """Settings in plans (the dict of plans.json); what it does not name comes from `defaults`.

        Raises ValueError for a name that is no setting, and for absent settings if there are no defaults.
        """
        misplaced = [f"{PLANS_KEY} in configuration {name}" for name, c in plans.get("configurations", {}).items()
                     if PLANS_KEY in c] + [key for key in plans if key != PLANS_KEY and key.lower() == PLANS_KEY]
        if misplaced:
            raise ValueError(f'nobody reads {", ".join(misplaced)} of the plans: RMR settings belong under '
                             f'"{PLANS_KEY}" at the top level')
        stored = plans.get(PLANS_KEY)
        if not isinstance(stored, dict | None):
            raise ValueError(f'RMR settings, under "{PLANS_KEY}" in the plans, must be a dictionary, got {stored!r}')
        if stored is None and defaults is None:
            raise ValueError(f'the plans hold no RMR settings (key "{PLANS_KEY}"): '
                             f"this model was not trained by a trainer of nnunetv2-rmr")
        stored = stored or {}
        unknown = sorted(set(stored) - {f.name for f in fields(cls)})
        if unknown:
            known = [f.name for f in fields(cls)]
            guesses = [g for name in unknown for g in get_close_matches(name, known, 1)]
            raise ValueError(f'unknown RMR setting(s) {", ".join(unknown)} under "{PLANS_KEY}" in the plans; '
                             + (f"did you mean {', '.join(guesses)}?" if guesses else f"known: {', '.join(known)}"))
        return replace(defaults or cls(), **stored)

    def refuse_contradiction(self, plans: dict, whose: str) -> None:
        """Raises ValueError if the plans change a setting that these settings, `whose`, have changed themselves:
        silently followed, they would undo what the trainer is named for.
        """
        stored, defaults = plans.get(PLANS_KEY) or {}, RMRSettings()
        for f in fields(self):
            own = getattr(self, f.name)
            if own != getattr(defaults, f.name) and stored.get(f.name, own) != own:
                raise ValueError(f'{whose} has the RMR setting {f.name}={own!r}, but the plans say '
                                 f'{stored[f.name]!r} under "{PLANS_KEY}": remove it there, or use another trainer')

    def changed(self, other: RMRSettings | None = None) -> dict:
        """Those settings that are not those of `other`, or the default ones."""
        others = asdict(other or RMRSettings())
        return {name: value for name, value in asdict(self).items() if value != others[name]}

    def into_plans(self, plans: dict) -> dict:
        """Copy of plans with these settings under "rmr"."""
        return {**plans, PLANS_KEY: asdict(self)}

    @property
    def starts_as_modalities(self) -> bool:
        """Whether a training starts with shared features that are the modalities (networks/start.py)."""
        return self.convolutions == "near_identity" and self.fusion_collect

    def network_arguments(self) -> dict:
        """Keyword arguments of RMRNet."""
        names = ("encoder", "features", "fusion_growth", "fusion_layers", "fusion_collect", "decoder_hidden",
                 "decoder_layers", "convolutions")
        return {name: getattr(self, name) for name in names} | {"all_modalities": self.all_modalities_weight > 0}


def channel_names(dataset_json: dict) -> list[str]:
    """Names of the input channels, in the order of their file numbers (_0000, _0001 ...)."""
    names = dataset_json.get("channel_names") or dataset_json["modality"]  # the older spelling
    return [names[key] for key in sorted(names, key=int)]


def reference_channel(reference_modality: str | int | None, names: list[str]) -> int:
    """Index of the reference modality: as set, else the first channel whose name holds FLAIR, else PET, else the last.

    Raises ValueError if the data set has no such channel, or several of this name.
    """
    folded = [name.casefold() for name in names]
    numbered = ", ".join(f"{i}={name}" for i, name in enumerate(names))
    if reference_modality is None:
        shows_lesions = (i for wanted in ("flair", "pet") for i, name in enumerate(folded) if wanted in name)
        return next(shows_lesions, len(names) - 1)
    if isinstance(reference_modality, int):
        if 0 <= reference_modality < len(names):
            return reference_modality
    elif folded.count(reference_modality.casefold()) == 1:
        return folded.index(reference_modality.casefold())
    elif reference_modality.casefold() in folded:
        raise ValueError(f"RMR setting reference_modality={reference_modality!r}: several of the data set's channels "
                         f"have this name, give the number of one: {numbered}")
    raise ValueError(f"RMR setting reference_modality={reference_modality!r}: the data set's channels are {numbered}")
