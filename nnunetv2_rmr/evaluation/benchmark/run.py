"""The benchmark's loop: every case under every condition through every model, each prediction scored and recorded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_rmr.evaluation.benchmark.conditions import CLEAN, Condition, apply
from nnunetv2_rmr.evaluation.benchmark.cost import measured
from nnunetv2_rmr.evaluation.benchmark.model import BenchmarkModel
from nnunetv2_rmr.evaluation.benchmark.records import CaseRecords
from nnunetv2_rmr.evaluation.corruptions import image_difference
from nnunetv2_rmr.evaluation.restoration import restoration_scores
from nnunetv2_rmr.evaluation.segmentation_metrics import LabelOrRegion, segmentation_scores
from nnunetv2_rmr.inference.input_check import check_files


@dataclass(frozen=True)
class Case:
    """files: images of all channels. label: reference segmentation."""

    name: str
    files: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class Scoring:
    """labels: name -> label or region. tolerance_mm: of the NSD."""

    labels: dict[str, LabelOrRegion]
    ignore_label: int | None
    tolerance_mm: float
    seed: int


def run_case(case: Case, models: Sequence[BenchmarkModel], planned: Sequence[Condition], reader: BaseReaderWriter,
             scoring: Scoring, out: Path, tick: Callable[[int], None]) -> None:
    """Predict and score what out/records does not hold yet; tick(n) after n predictions. Failures are recorded."""
    records = CaseRecords(out, case.name)
    todo = {condition: [m for m in models if not records.done((m.name, condition))] for condition in planned}
    tick(len(models) * len(planned) - sum(map(len, todo.values())))
    if not any(todo.values()):
        return

    def fail(predictions: dict[Condition, list[BenchmarkModel]], error: Exception) -> None:
        for condition, waiting in predictions.items():
            for model in waiting:
                records.add((model.name, condition), {"error": _message(error)})
        tick(sum(map(len, predictions.values())))

    try:
        check_files([str(f) for f in (*case.files, case.label)])  # readers take truncated files
        images, properties = reader.read_images([str(f) for f in case.files])
        reference, _ = reader.read_seg(str(case.label))
        if images.shape[1:] != reference.shape[1:]:
            raise ValueError(f"{case.label}: size {reference.shape[1:]}, its images have {images.shape[1:]}")
    except Exception as error:  # readers raise whatever they like
        fail(todo, error)
        return

    tester = _CaseTester(case.name, images.astype(np.float32), properties, reference[0], scoring)
    for condition, waiting in todo.items():
        if not waiting:
            continue
        try:
            corrupted = tester.corrupted(condition, models[0].channels)
        except Exception as error:  # NaN in an image, say, of a format that the checks above do not look into
            fail({condition: waiting}, error)
            continue
        for model in waiting:
            try:
                result = tester.test(model, condition, corrupted)
            except Exception as error:  # one prediction that fails must not cost the others
                result = {"error": _message(error)}
            records.add((model.name, condition), result)
            tick(1)


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}"


class _CaseTester:
    """One case in memory: its images, and the clean case's fused image of every model that has one."""

    def __init__(self, name: str, images: np.ndarray, properties: dict, reference: np.ndarray, scoring: Scoring):
        self.name, self.images, self.properties = name, images, properties
        self.reference, self.scoring = reference, scoring
        self.body = (images != 0).any(0)
        self.spacing = tuple(float(s) for s in properties["spacing"])
        self.clean_fused: dict[str, np.ndarray] = {}

    def corrupted(self, condition: Condition, channels: Sequence[str]) -> np.ndarray:
        return apply(condition, self.images, self.spacing, self.name, channels, self.scoring.seed)

    def test(self, model: BenchmarkModel, condition: Condition, images: np.ndarray) -> dict:
        fuse = model.fuses and condition.corruption != "missing"
        if fuse and condition != CLEAN and model.name not in self.clean_fused:  # a resumed run
            self.clean_fused[model.name] = model.predict(self.images, self.properties, fuse=True)[1]
        with measured(model.device) as cost:
            segmentation, fused = model.predict(images, self.properties, fuse=fuse)
        result = dict(cost)
        if condition == CLEAN:
            if fuse:
                self.clean_fused[model.name] = fused
        else:
            result["image_difference"] = self._image_difference(images)
            if fuse:
                result |= self._restoration(model, images, fused)
        result["scores"] = {
            name: {metric: None if np.isnan(score) else score for metric, score in segmentation_scores(
                self.reference, segmentation, label, self.spacing, self.scoring.tolerance_mm,
                self.scoring.ignore_label).items()}
            for name, label in self.scoring.labels.items()}
        return result

    def _image_difference(self, images: np.ndarray) -> float:
        """Mean over the channels that were changed."""
        changed = [i for i in range(len(images)) if not np.array_equal(images[i], self.images[i])]
        return float(np.mean([image_difference(self.images[i], images[i], self.body) for i in changed] or [0.0]))

    def _restoration(self, model: BenchmarkModel, images: np.ndarray, fused: np.ndarray) -> dict[str, float]:
        """Fused image of the corrupted case against that of the clean one; and what the network started from."""
        body, channel = torch.from_numpy(self.body), model.reference
        pairs = {"fused": (fused, self.clean_fused[model.name]),
                 "degraded": (images[channel], self.images[channel])}
        scores = {}
        for what, pair in pairs.items():
            for metric, value in restoration_scores(*map(torch.from_numpy, pair), body).items():
                scores[f"{what}_{metric}"] = value if np.isfinite(value) else None
        return scores
