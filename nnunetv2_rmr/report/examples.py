"""The benchmark's chosen cases: loaded, with their scores, most improved first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.report.data import ALL, Benchmark
from nnunetv2_rmr.report.html import Markup, joined, number, png, tag
from nnunetv2_rmr.report.panels import panel
from nnunetv2_rmr.report.verdict import signed
from nnunetv2_rmr.report.viewer import LoadedStudy, Study, load_study
from nnunetv2_rmr.settings import reference_channel

LABEL = "expert label"


@dataclass
class Example:
    loaded: LoadedStudy
    severity: int
    dice: dict[str, float]  # model -> mean over labels, under this example's condition
    gain: float  # of the best model over the reference; NaN if there is none


def load_examples(benchmark: Benchmark) -> tuple[list[Example], list[str]]:
    """Examples by gain, the largest first, and a message for each that could not be read."""
    examples, problems = [], []
    for entry in benchmark.examples:
        try:
            examples.append(_load(benchmark, entry))
        except KeyError as error:
            problems.append(f"{benchmark.folder / 'examples' / 'INDEX.json'}: an example has no entry {error}")
        except BadCaseError as error:
            problems.append(f"example left out: {error}")
    return sorted(examples, key=lambda e: -e.gain if not math.isnan(e.gain) else math.inf), problems


def _load(benchmark: Benchmark, entry: dict) -> Example:
    folder = benchmark.folder / "examples"
    images = {name: folder / file for name, file in entry["images"].items()}
    images |= {f"fused, {model}": folder / file for model, file in (entry.get("fused") or {}).items()}
    segmentations = {LABEL: folder / entry["label"]} if entry.get("label") else {}
    segmentations |= {model: folder / file for model, file in entry["predictions"].items()}
    dice = _dice(benchmark, entry)
    gains = [dice[m] - dice[benchmark.reference] for m in benchmark.others
             if m in dice and benchmark.reference in dice]
    gains = [g for g in gains if not math.isnan(g)]
    study = Study(f"{entry['case']}: {condition(entry)}", entry["case"], images, segmentations,
                  caption(benchmark, dice))
    return Example(load_study(study), int(entry["severity"]), dice, max(gains, default=math.nan))


def condition(entry: dict) -> str:
    """'clean', 'noise, severity 3', 'missing, T1'."""
    if entry["corruption"] == "clean":
        return "clean"
    severity = "" if entry["corruption"] == "missing" else f", severity {entry['severity']}"
    where = "" if entry["modality"] == ALL else f", {entry['modality']}"
    return f"{entry['corruption']}{severity}{where}"


def _dice(benchmark: Benchmark, entry: dict) -> dict[str, float]:
    rows = benchmark.results
    for key in ("case", "corruption", "severity", "modality"):
        rows = rows[rows[key] == entry[key]]
    return rows.groupby("model")["Dice"].mean().to_dict()


def caption(benchmark: Benchmark, dice: dict[str, float]) -> str:
    """'mean Dice: vanilla 0.612, rmr 0.740 (+0.128)'."""
    parts = []
    for model in benchmark.models:
        value = dice.get(model, math.nan)
        change = f" ({signed(value - dice.get(benchmark.reference, math.nan))})" if model != benchmark.reference else ""
        parts.append(f"{model} {number(value)}{change}")
    return "mean Dice: " + ", ".join(parts)


def pictures(benchmark: Benchmark, examples: list[Example]) -> Markup:
    """A row of slices per example, under headings that say whether it gained or lost."""
    windows: dict[str, dict] = {}
    for example in sorted(examples, key=lambda e: e.severity):  # windows of the clean images, where there are some
        study = example.loaded.study
        example.png = panel(example.loaded, windows.setdefault(study.case, {}), _background(benchmark, study), LABEL)
    parts, heading = [], None
    for example in examples:
        if heading != (heading := _heading(benchmark, example)):
            parts.append(tag("h3", heading))
        study = example.loaded.study
        parts.append(tag("figure", tag("figcaption", tag("b", study.title), " · ", study.caption),
                         png(example.png, f"{study.title}: slices of the images and outlines of the segmentations")))
    return joined(parts)


def _heading(benchmark: Benchmark, example: Example) -> str:
    if math.isnan(example.gain):
        return "Examples" if not benchmark.others else "Not comparable"
    better = benchmark.others[0] if len(benchmark.others) == 1 else "the best other model"
    return f"Improved: {better} is above {benchmark.reference}" if example.gain > 0 else \
        f"Not improved: {better} is not above {benchmark.reference}"


def _background(benchmark: Benchmark, study: Study) -> str:
    modalities = [m for m in benchmark.summary.get("modalities", []) if m in study.images] or list(study.images)
    return modalities[reference_channel(None, modalities)]
