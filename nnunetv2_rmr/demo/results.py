"""What the demo is asked for, and what it finds out."""

from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_rmr.demo.degraded import DEGRADATIONS
from nnunetv2_rmr.demo.job import DATASET, TRAINERS, Training
from nnunetv2_rmr.evaluation.fusion_metrics.verdict import Facts

CONDITIONS = ("clean", *DEGRADATIONS)


@dataclass(frozen=True)
class DemoOptions:
    """out: folder of all results. cases: for training and validation together. patch_size: in voxels, axes Z, Y, X.

    iterations, validation_iterations: per epoch. spacing_mm: edge of the voxels. features: of the first of the
    network's `stages` stages. keep: leave data, models and predictions in `out`.
    """

    out: Path
    cases: int = 12
    test_cases: int = 4
    epochs: int = 16
    iterations: int = 25
    validation_iterations: int = 4
    spacing_mm: float = 2.5
    patch_size: tuple[int, int, int] = (32, 40, 32)
    features: int = 12
    stages: int = 4
    device: str = "cpu"
    seed: int = 0
    keep: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class DemoResults:
    """dice: trainer -> condition -> case -> Dice of the lesions (NaN: nothing there and nothing found).

    psnr: condition -> case -> {"fused": ..., "gradient": ...}, see psnr_of_case. fusion: case -> {"RMR": ...,
    "gradient": ...}, see facts_of_case. seconds: per step.
    """

    options: DemoOptions
    trainings: dict[str, Training] = field(default_factory=dict)
    dice: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    psnr: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    fusion: dict[str, dict[str, Facts]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def cases(self) -> list[str]:
        return sorted(self.dice[TRAINERS[0]]["clean"])

    def images(self, condition: str) -> Path:
        out = self.options.out
        return out / "nnUNet_raw" / DATASET / "imagesTs" if condition == "clean" else out / "degraded" / condition

    @property
    def labels(self) -> Path:
        return self.options.out / "nnUNet_raw" / DATASET / "labelsTs"

    def predictions(self, trainer: str, condition: str) -> Path:
        return self.options.out / "predictions" / trainer / condition
