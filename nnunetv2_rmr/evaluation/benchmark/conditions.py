"""Under which conditions the models are tested: what is done to which modality, and how strongly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_rmr.evaluation.corruptions import CORRUPTIONS, corrupt_case

ALL = "all"  # modalities


@dataclass(frozen=True, order=True)
class Condition:
    """severity: 0 (clean) to 5. modality: a channel's name, or "all"."""

    corruption: str = "clean"
    severity: int = 0
    modality: str = ALL

    @property
    def seen(self) -> str:
        """"clean", "missing", or whether RMR's training has such degradations: "seen" or "unseen"."""
        if self.corruption in ("clean", "missing"):
            return self.corruption
        return "seen" if CORRUPTIONS[self.corruption].seen else "unseen"


CLEAN = Condition()
KNOWN = (*CORRUPTIONS, "missing")


def conditions(corruptions: Sequence[str], severities: Sequence[int], modalities: Sequence[str],
               channels: Sequence[str]) -> list[Condition]:
    """The clean images, then every corruption at every severity in every modality.

    modalities: "all" (together) and names of single channels. "missing" has one severity and takes one channel at a
    time, whatever is asked for: without any image there is nothing to segment.
    """
    planned = [CLEAN]
    for corruption in corruptions:
        if corruption == "missing":
            planned += [Condition("missing", 1, channel) for channel in channels]
        else:
            planned += [Condition(corruption, severity, modality) for modality in modalities for severity in severities]
    return list(dict.fromkeys(planned))


def try_out(corruptions: Sequence[str]) -> None:
    """Apply each to a small volume, so that a missing library is found now. Raises ImportError saying what to do."""
    volume = np.random.default_rng(0).random((1, 16, 16, 16), dtype=np.float32)
    for corruption in corruptions:
        if corruption != "missing":
            corrupt_case(volume, (1.0, 1.0, 1.0), corruption, 1, case="")


def apply(condition: Condition, images: np.ndarray, spacing: Sequence[float], case: str, channels: Sequence[str],
          seed: int) -> np.ndarray:
    """The images (C, Z, Y, X) of a case under a condition; spacing in mm, Z, Y, X. Returns a float32 copy."""
    if condition == CLEAN:
        return images.astype(np.float32)
    chosen = None if condition.modality == ALL else [list(channels).index(condition.modality)]
    if condition.corruption == "missing":
        images = images.astype(np.float32)
        images[chosen] = 0
        return images
    return corrupt_case(images, tuple(spacing), condition.corruption, condition.severity, case=case, channels=chosen,
                        seed=seed)
