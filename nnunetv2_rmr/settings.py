"""Everything about RMR that a user can choose, as one typed object that travels in plans.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import get_origin, get_type_hints

from nnunetv2_rmr import __version__

PLANS_KEY = "rmr"
# beside the settings in a trained model's plans.json:
VERSION_KEY = "version"  # of this package
UNLABELLED_KEY = "unlabelled_cases"  # how many it has learned from, if any: then its network is a MeanTeacher


@dataclass(frozen=True)
class RMRSettings:
    """Settings of one training. Those that were changed are written to the trained model's plans.json under "rmr".

    docs/settings.md says what each does. To change one, derive a trainer class with another `settings`, or add e.g.
    {"rmr": {"p_clean": 0.5}} to the plans file; a trainer refuses plans that say otherwise than itself.
    """

    # whose intensities and units the fused image has: channel name or index; None: FLAIR, else PET, else the last
    reference_modality: str | int | None = None

    # of the mean squared error of the restored modalities (z-scores), beside nnU-Net's loss
    restoration_weight: float = 10.0

    # training degradations (see degradations/)
    p_clean: float = 0.35  # probability that a sample stays clean in every modality
    degradation_probabilities: dict[str, float] = field(
        default_factory=lambda: {"none": 0.25, "noise": 0.25, "blur": 0.25, "fourier": 0.25})
    degradation_options: dict[str, dict] = field(default_factory=dict)  # per kind, arguments of its draw

    # missing modalities (see docs/missing.md)
    modality_dropout: float = 0.0  # probability that a sample loses one or more modalities, never all

    # scans without labels, if the data set has any (see docs/unlabelled.md)
    unlabelled_fraction: float = 0.0  # of every batch, say .5; 0: they are not used
    consistency_weight: float = 1.0  # of the loss on them, beside nnU-Net's

    # a picture of the training every so many epochs; 0: none; None: about ten times a training
    panel_every: int | None = None

    # whether the final validation also fuses its cases and measures how well degraded ones are restored
    validation_fusion: bool = True

    def __post_init__(self):
        self._refuse_wrong_types()
        for name in ("p_clean", "modality_dropout", "unlabelled_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"RMR setting {name} must be in [0, 1], got {getattr(self, name)}")
        if self.restoration_weight <= 0:
            raise ValueError(f"RMR setting restoration_weight must be positive, got {self.restoration_weight}: a head "
                             "that never learned would give the fused image. For nnU-Net with RMR's degradations and "
                             "nothing else there is nnUNetTrainer_RMRDegradations")
        for name in ("consistency_weight", "panel_every"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"RMR setting {name} must be 0 or more, got {getattr(self, name)}")

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
        refuse_version_0_1(plans)
        if stored is None and defaults is None:
            raise ValueError(f'the plans hold no RMR settings (key "{PLANS_KEY}"): '
                             f"this model was not trained by a trainer of nnunetv2-rmr")
        stored = dict(stored or {})
        version = stored.pop(VERSION_KEY, None)
        stored.pop(UNLABELLED_KEY, None)
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(stored) - set(known)):
            raise ValueError(f'unknown RMR setting(s) {", ".join(unknown)} under "{PLANS_KEY}" in the plans'
                             + (f" (of version {version})" if version not in (None, __version__) else "")
                             + f"; known: {', '.join(known)}")
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

    def changed(self) -> dict:
        """Those settings that are not the default ones."""
        defaults = asdict(RMRSettings())
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    def into_plans(self, plans: dict, unlabelled_cases: int = 0) -> dict:
        """Copy of plans with the changed ones of these settings, this version, and that number, under "rmr"."""
        learned_from = {UNLABELLED_KEY: unlabelled_cases} if unlabelled_cases else {}
        return {**plans, PLANS_KEY: self.changed() | learned_from | {VERSION_KEY: __version__}}


def unlabelled_cases(plans: dict) -> int:
    """How many a model with these plans has learned from."""
    return (plans.get(PLANS_KEY) or {}).get(UNLABELLED_KEY, 0)


def refuse_version_0_1(plans: dict) -> None:
    """Raises ValueError for plans of version 0.1, or of a model of it."""
    planned = {configuration.get("architecture", {}).get("network_class_name")
               for configuration in plans.get("configurations", {}).values()}
    if ("stage1_fraction" in (plans.get(PLANS_KEY) or {})
            or "nnunetv2_rmr.networks.from_plans.RMRNetFromPlans" in planned):
        raise ValueError("these plans, or the model they are of, were made by nnunetv2-rmr 0.1, whose network was "
                         "another one: predict with version 0.1.0, or plan and train again")


def channel_names(dataset_json: dict) -> list[str]:
    """Names of the input channels, in the order of their file numbers (_0000, _0001 ...)."""
    names = dataset_json.get("channel_names") or dataset_json["modality"]  # the older spelling
    return [names[key] for key in sorted(names, key=int)]


# by which, beside modalities, something else is meant: the fused image, all modalities or their mean, ways of fusing
TAKEN = ("fused", "all", "mean", "copy", "gradient", "average", "maximum", "laplacian", "wavelet", "guided")


def distinct_names(names: Sequence[str]) -> list[str]:
    """The modalities' names as keys: with their number where several have one name, or where it is TAKEN."""
    folded = [name.casefold() for name in names]
    return [f"{name} ({i:04d})" if folded.count(folded[i]) > 1 or folded[i] in TAKEN else name
            for i, name in enumerate(names)]


def reference_channel(reference_modality: str | int | None, names: list[str]) -> int:
    """Index of the reference modality: as set, else the first channel whose name holds FLAIR, else PET, else the last.

    Raises ValueError if the data set has no such channel, or several of this name.
    """
    folded = [name.casefold() for name in names]
    if reference_modality is None:
        shows_lesions = (i for wanted in ("flair", "pet") for i, name in enumerate(folded) if wanted in name)
        return next(shows_lesions, len(names) - 1)
    if isinstance(reference_modality, int):
        found = [i for i in range(len(names)) if i == reference_modality]
    else:
        found = [i for i, name in enumerate(folded) if name == reference_modality.casefold()]
    if len(found) != 1:
        numbered = ", ".join(f"{i}={name}" for i, name in enumerate(names))
        several = "several of the data set's channels have this name, give the number of one:"
        raise ValueError(f"RMR setting reference_modality={reference_modality!r}: "
                         f"{several if found else 'the channels of the data set are'} {numbered}")
    return found[0]
