"""What a part of the campaign has found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np


@dataclass
class Outcome:
    """Every try is one of: fine, refused with a message, or a finding."""

    what: str
    number_fine: int = 0
    number_refused: int = 0
    findings: list[str] = field(default_factory=list)

    def fine(self) -> None:
        self.number_fine += 1

    def refused(self, with_message: bool) -> None:
        if with_message:
            self.number_refused += 1
        else:
            self.findings.append("refused without a word")

    def wrong(self, told: str) -> None:
        self.findings.append(told)

    def compare(self, told: str, read: np.ndarray, file: Path) -> None:
        """read: (X, Y, Z). With what nibabel finds in the file, an independent reader."""
        try:
            wanted = np.asarray(nibabel.load(file).dataobj, np.float32)
        except Exception as error:
            return self.wrong(f"{told}: taken, but nibabel says {type(error).__name__}: {error}")
        wanted = wanted.reshape([n for n in wanted.shape if n != 1])
        read = read.reshape([n for n in read.shape if n != 1])
        if wanted.shape != read.shape:
            self.wrong(f"{told}: read as {read.shape}, the file holds {wanted.shape}")
        elif not np.allclose(read, wanted, rtol=1e-5, atol=1e-30):
            self.wrong(f"{told}: read with other values than the file holds, {np.abs(read - wanted).max():g} apart")
        else:
            self.fine()

    @property
    def row(self) -> str:
        return (f"| {self.what} | {self.number_fine + self.number_refused + len(self.findings)} | {self.number_fine} | "
                f"{self.number_refused} | {len(self.findings)} |")
