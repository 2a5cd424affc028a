"""The benchmark's loop: every case under every condition through every model, each prediction scored and recorded."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask

from nnunetv2_rmr.evaluation.benchmark.fusion import CaseFusion
from nnunetv2_rmr.evaluation.benchmark.model import BenchmarkModel
from nnunetv2_rmr.evaluation.benchmark.records import RESTORED_TO, CaseRecords
from nnunetv2_rmr.evaluation.fusion_metrics.similarity import restoration_scores
from nnunetv2_rmr.evaluation.image_folder import ImageFolder
from nnunetv2_rmr.evaluation.scan_degradations import image_difference
from nnunetv2_rmr.evaluation.scan_degradations.conditions import CLEAN, MISSING, Condition, apply
from nnunetv2_rmr.evaluation.segmentation_metrics import LabelOrRegion, declared_values, segmentation_scores
from nnunetv2_rmr.files.input_check import check_files, read_label_map
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.fusion.body import body_mask


@dataclass(frozen=True)
class LabelledCases:
    """What models are tested on. label_folder: reference segmentations, CASE.nii.gz. labels: name -> label or region.
    tolerance_mm: of the NSD. seed: of the degradations."""

    images: ImageFolder
    label_folder: Path
    labels: dict[str, LabelOrRegion]
    ignore_label: int | None
    tolerance_mm: float
    seed: int

    def label_file(self, case: str) -> Path:
        return self.label_folder / f"{case}{self.images.file_ending}"

    def read(self, case: str) -> tuple[np.ndarray, dict, np.ndarray]:
        """Images (C, Z, Y, X) float32, nnU-Net's properties and the reference segmentation (Z, Y, X).

        Raises BadCaseError naming the file.
        """
        file = self.label_file(case)
        images, properties = self.images.read(case, beside=[str(file)], zeros=True)
        reference = self.read_reference(case)
        if images.shape[1:] != reference.shape:
            raise BadCaseError(f"{file}: size {reference.shape}, its images have {images.shape[1:]}")
        return images, properties, reference

    def read_reference(self, case: str) -> np.ndarray:
        """The reference segmentation (Z, Y, X). Raises BadCaseError naming the file."""
        return read_label_map(str(self.label_file(case)), self.images.reader_writer(),
                              declared_values(self.labels, self.ignore_label))

    def check_reference(self, case: str) -> None:
        """Raises BadCaseError if its reference segmentation can not be used, whatever its images are."""
        check_files([str(self.label_file(case))])
        self.read_reference(case)


def to_do(records: CaseRecords, planned: Sequence[Condition],
          models: Sequence[BenchmarkModel]) -> list[tuple[Condition, BenchmarkModel]]:
    """What is not measured yet, or has failed."""
    return [(condition, model) for condition in planned for model in models
            if not records.done((model.name, condition))]


def run_case(case: str, cases: LabelledCases, models: Sequence[BenchmarkModel], planned: Sequence[Condition], out: Path,
             tick: Callable[[int], None]) -> None:
    """Predict and score what out/records does not hold yet; tick(n) after n predictions. Failures are recorded."""
    records = CaseRecords(out, case)
    todo = to_do(records, planned, models)
    tick(len(models) * len(planned) - len(todo))
    if not todo:
        return
    tester = unreadable = None
    try:
        tester = _CaseTester(case, cases)
    except Exception as error:
        unreadable = error
        _tell_unknown(error)
    for condition, model in todo:
        try:
            if unreadable is not None:
                raise unreadable
            result = tester.test(model, condition)
        except Exception as error:  # one prediction that fails must not cost the others
            if error is not unreadable:
                _tell_unknown(error)
            result = {"error": f"{type(error).__name__}: {str(error).strip()}"}
        records.add((model.name, condition), result)
        tick(1)


def _tell_unknown(error: Exception) -> None:
    """The traceback of what is not known to be the fault of files or of the disk, on standard error."""
    if not isinstance(error, (ValueError, OSError)):
        traceback.print_exception(error)


@contextmanager
def measured(device: torch.device) -> Iterator[dict]:
    """Yields a dictionary that holds, after the body, "seconds" and "peak_memory_gb" (10^9 bytes; None if unknown).

    Peak memory: on CUDA what torch allocated on the GPU; elsewhere the resident memory of this process, which Linux can
    tell for a stretch of time, other systems not.
    """
    cost = {"seconds": None, "peak_memory_gb": None}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    start = time.perf_counter()
    yield cost
    cost["seconds"] = round(time.perf_counter() - start, 3)
    if device.type == "cuda":
        cost["peak_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    else:
        with suppress(OSError):
            line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
            cost["peak_memory_gb"] = int(line.split()[1]) * 1024 / 1e9


class _CaseTester:
    """One case in memory: its images, and what predictions and fused images are measured with."""

    def __init__(self, case: str, cases: LabelledCases):
        self.name, self.cases, self.channels = case, cases, cases.images.names
        self.images, self.properties, self.reference = cases.read(case)
        self.body = body_mask(self.images)
        self.spacing = tuple(float(s) for s in self.properties["spacing"])
        self._condition: Condition | None = None  # of self._degraded
        self._clean_targets: dict[str, torch.Tensor] = {}

    def degraded(self, condition: Condition) -> np.ndarray:
        """The images under a condition; the last ones are kept, for all models."""
        if condition != self._condition:
            self._degraded = apply(condition, self.images, self.spacing, self.name, self.channels, self.cases.seed)
            self._condition = condition
        return self._degraded

    def test(self, model: BenchmarkModel, condition: Condition) -> dict:
        images = self.degraded(condition)
        fuse = model.fuses and condition.corruption != MISSING
        with measured(model.device) as cost:
            segmentation, fused = model.predict(images, self.properties, fuse=fuse)
        result = dict(cost)
        if condition != CLEAN:
            pairs = [(x, y) for x, y in zip(self.images, images) if not np.array_equal(x, y)]  # what was changed
            result["image_difference"] = float(np.mean([image_difference(*pair, self.body) for pair in pairs] or [0.0]))
        if fuse:
            result |= self._restoration(model, images, fused)
        if fuse and condition == CLEAN:
            result |= self._fusion(model, fused)
        result["scores"] = {
            name: segmentation_scores(self.reference, segmentation, label, self.spacing, self.cases.tolerance_mm,
                                      self.cases.ignore_label)
            for name, label in self.cases.labels.items()}
        return result

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
        regions = {name: region_or_label_to_mask(self.reference, label) for name, label in self.cases.labels.items()}
        ignore = self.cases.ignore_label
        labelled = np.ones_like(self.body) if ignore is None else self.reference != ignore
        return CaseFusion(self.images, self.channels, self.body, labelled, regions, self.spacing)
