"""What is done to which modality of the scans, and how strongly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_rmr.evaluation.scan_degradations import SCAN_DEGRADATIONS, degrade_scans

ALL = "all"  # modalities
MISSING = "missing"
KNOWN = (*SCAN_DEGRADATIONS, MISSING)


@dataclass(frozen=True, order=True)
class Condition:
    """corruption: a degradation's name, "clean" or "missing". severity: 0 (clean) to 5. modality: a channel's name, or
    "all"."""

    corruption: str = "clean"
    severity: int = 0
    modality: str = ALL

    @property
    def seen(self) -> str:
        """"clean", "missing", or whether RMR's training has such degradations: "seen" or "unseen"."""
        if self.corruption in SCAN_DEGRADATIONS:
            return "seen" if SCAN_DEGRADATIONS[self.corruption].trained else "unseen"
        return self.corruption

    def channels(self, names: Sequence[str]) -> list[int]:
        """Numbers of the modalities it is about, of these."""
        return list(range(len(names))) if self.modality == ALL else [list(names).index(self.modality)]


CLEAN = Condition()


def conditions(names: Sequence[str], severities: Sequence[int], modalities: Sequence[str],
               channels: Sequence[str]) -> list[Condition]:
    """The clean images, then every degradation at every severity in every modality.

    modalities: "all" (together) and names of single channels. "missing" has one severity and takes one channel at a
    time, whatever is asked for: without any image there is nothing to segment.
    """
    planned = [CLEAN]
    for name in names:
        if name == MISSING:
            planned += [Condition(MISSING, 1, channel) for channel in channels]
        else:
            planned += [Condition(name, severity, modality) for modality in modalities for severity in severities]
    return list(dict.fromkeys(planned))


def apply(condition: Condition, images: np.ndarray, spacing: Sequence[float], case: str, channels: Sequence[str],
          seed: int) -> np.ndarray:
    """The images (C, Z, Y, X) of a case under a condition; spacing in mm, Z, Y, X. Returns a float32 copy. Raises
    ValueError for an unknown degradation, which must not pass for the clean images."""
    chosen = condition.channels(channels)
    if condition != CLEAN and condition.corruption != MISSING:
        return degrade_scans(images, spacing, condition.corruption, condition.severity, case=case, channels=chosen,
                             seed=seed)
    images = images.astype(np.float32)
    if condition.corruption == MISSING:
        images[chosen] = 0
    return images
