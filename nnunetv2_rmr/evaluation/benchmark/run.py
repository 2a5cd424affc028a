"""The benchmark's loop: every case under every condition through every model, each prediction scored and recorded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_rmr.evaluation.benchmark.conditions import CLEAN, Condition, apply
from nnunetv2_rmr.evaluation.benchmark.cost import measured
from nnunetv2_rmr.evaluation.benchmark.fusion import CaseFusion
from nnunetv2_rmr.evaluation.benchmark.model import BenchmarkModel
from nnunetv2_rmr.evaluation.benchmark.records import RESTORED_TO, CaseRecords
from nnunetv2_rmr.evaluation.corruptions import image_difference
from nnunetv2_rmr.evaluation.restoration import restoration_scores
from nnunetv2_rmr.evaluation.segmentation_metrics import LabelOrRegion, segmentation_scores
from nnunetv2_rmr.files.input_check import check_array, check_files, read_label_map
from nnunetv2_rmr.fusion.body import body_mask


@dataclass(frozen=True)
class Case:
    """files: images of all channels. label: reference segmentation."""

    name: str
    files: tuple[Path, ...]
    label: Path

    @property
    def file_ending(self) -> str:
        return self.files[0].name.removeprefix(f"{self.name}_0000")


@dataclass(frozen=True)
class Scoring:
    """labels: name -> label or region. tolerance_mm: of the NSD."""

    labels: dict[str, LabelOrRegion]
    ignore_label: int | None
    tolerance_mm: float
    seed: int

    @property
    def declared(self) -> set[int]:
        """Values that a reference segmentation may hold."""
        values = {v for label in self.labels.values() for v in (label if isinstance(label, tuple) else (label,))}
        return values | {0} | ({self.ignore_label} if self.ignore_label is not None else set())


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
        check_array(images, models[0].channels, [str(f) for f in case.files], case.file_ending,
                    absent=[i for i, image in enumerate(images) if not image.any()])
        reference = read_label_map(str(case.label), reader, scoring.declared)
        if images.shape[1:] != reference.shape:
            raise ValueError(f"{case.label}: size {reference.shape}, its images have {images.shape[1:]}")
    except Exception as error:  # readers raise whatever they like
        fail(todo, error)
        return

    tester = _CaseTester(case.name, images.astype(np.float32), models[0].channels, properties, reference, scoring)
    for condition, waiting in todo.items():
        if not waiting:
            continue
        try:
            corrupted = tester.corrupted(condition)
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
    """One case in memory: its images, and what fused images of the clean case are measured with."""

    def __init__(self, name: str, images: np.ndarray, channels: Sequence[str], properties: dict, reference: np.ndarray,
                 scoring: Scoring):
        self.name, self.images, self.channels, self.properties = name, images, channels, properties
        self.reference, self.scoring = reference, scoring
        self.body = body_mask(images)
        self.spacing = tuple(float(s) for s in properties["spacing"])
        self._clean_targets: dict[str, torch.Tensor] = {}

    def corrupted(self, condition: Condition) -> np.ndarray:
        return apply(condition, self.images, self.spacing, self.name, self.channels, self.scoring.seed)

    def test(self, model: BenchmarkModel, condition: Condition, images: np.ndarray) -> dict:
        fuse = model.fuses and condition.corruption != "missing"
        with measured(model.device) as cost:
            segmentation, fused = model.predict(images, self.properties, fuse=fuse)
        result = dict(cost)
        if condition != CLEAN:
            result["image_difference"] = self._image_difference(images)
        if fuse:
            result |= self._restoration(model, images, fused)
        if fuse and condition == CLEAN:
            result |= self._fusion(model, fused)
        result["scores"] = {
            name: segmentation_scores(self.reference, segmentation, label, self.spacing, self.scoring.tolerance_mm,
                                      self.scoring.ignore_label)
            for name, label in self.scoring.labels.items()}
        return result

    def _image_difference(self, images: np.ndarray) -> float:
        """Mean over the channels that were changed."""
        changed = [i for i in range(len(images)) if not np.array_equal(images[i], self.images[i])]
        return float(np.mean([image_difference(self.images[i], images[i], self.body) for i in changed] or [0.0]))

    def _restoration(self, model: BenchmarkModel, images: np.ndarray, fused: np.ndarray) -> dict[str, float | str]:
        """Fused image of `images` against what the clean ones would have it be; and what `images` themselves give."""
        if model.name not in self._clean_targets:
            self._clean_targets[model.name] = model.target(torch.from_numpy(self.images), self.spacing)
        body, clean = torch.from_numpy(self.body), self._clean_targets[model.name]
        pairs = {"fused": torch.from_numpy(fused), "degraded": model.target(torch.from_numpy(images), self.spacing)}
        return {"restored_to": RESTORED_TO, **{
            f"{what}_{metric}": value for what, image in pairs.items()
            for metric, value in restoration_scores(image, clean, body).items()}}

    def _fusion(self, model: BenchmarkModel, fused: np.ndarray) -> dict:
        """Facts of the clean case's fused image, and of what it is compared with; or why there are none."""
        if len(self.images) < 2:
            return {"fusion": None, "fusion_error": "one modality only, nothing to fuse"}
        try:
            return {"fusion": self._case_fusion.facts(fused),
                    "fusion_baselines": self._case_fusion.baselines(model.reference)}
        except ValueError as error:  # an image without contrast, say, which may be segmented all the same
            return {"fusion": None, "fusion_error": str(error)}

    @cached_property
    def _case_fusion(self) -> CaseFusion:
        regions = {name: region_or_label_to_mask(self.reference, label) for name, label in self.scoring.labels.items()}
        ignore = self.scoring.ignore_label
        labelled = np.ones_like(self.body) if ignore is None else self.reference != ignore
        return CaseFusion(self.images, self.channels, self.body, labelled, regions, self.spacing)
