"""The benchmark's chosen cases: loaded, with their scores and pictures, most improved first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.report.data import ALL, Benchmark
from nnunetv2_rmr.report.panels import panel
from nnunetv2_rmr.report.verdict import number, signed
from nnunetv2_rmr.report.viewer import LABEL, Study, load_study
from nnunetv2_rmr.settings import reference_channel


@dataclass
class Example:
    study: Study
    severity: int
    gain: float  # mean Dice of the best model over the reference's, under this condition; NaN if there is none
    heading: str
    png: str = ""  # a row of slices, base64


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
    windows: dict[str, dict] = {}
    for example in sorted(examples, key=lambda e: e.severity):  # windows of the clean images, where there are some
        study = example.study
        modalities = [m for m in benchmark.channels if m in study.images] or list(study.images)
        background = modalities[reference_channel(None, modalities)]
        example.png = panel(study, windows.setdefault(study.case, {}), background)
    return sorted(examples, key=lambda e: -e.gain if not math.isnan(e.gain) else math.inf), problems


def _load(benchmark: Benchmark, entry: dict) -> Example:
    folder = benchmark.folder / "examples"
    images = {name: folder / file for name, file in entry["images"].items()}
    images |= {f"fused, {model}": folder / file for model, file in (entry.get("fused") or {}).items()}
    segmentations = {LABEL: folder / entry["label"]} if entry.get("label") else {}
    segmentations |= {model: folder / file for model, file in entry["predictions"].items()}
    rows = benchmark.results
    for key in ("case", "corruption", "severity", "modality"):
        rows = rows[rows[key] == entry[key]]
    dice = dict.fromkeys(benchmark.models, math.nan) | rows.groupby("model")["Dice"].mean().to_dict()
    gains = {m: dice[m] - dice[benchmark.reference] for m in benchmark.others}
    gain = max((g for g in gains.values() if not math.isnan(g)), default=math.nan)
    caption = "mean Dice: " + ", ".join(f"{m} {number(dice[m])}" + (f" ({signed(gains[m])})" if m in gains else "")
                                        for m in benchmark.models)
    study = load_study(f"{entry['case']}: {condition(entry)}", entry["case"], images, segmentations, caption)
    return Example(study, int(entry["severity"]), gain, _heading(benchmark, gain))


def condition(entry: dict) -> str:
    """'clean', 'noise, severity 3', 'missing, T1'."""
    if entry["corruption"] == "clean":
        return "clean"
    severity = "" if entry["corruption"] == "missing" else f", severity {entry['severity']}"
    where = "" if entry["modality"] == ALL else f", {entry['modality']}"
    return f"{entry['corruption']}{severity}{where}"


def _heading(benchmark: Benchmark, gain: float) -> str:
    if math.isnan(gain):
        return "Not comparable" if benchmark.others else "Examples"
    better = benchmark.others[0] if len(benchmark.others) == 1 else "the best other model"
    improved, what = ("Improved", "is above") if gain > 0 else ("Not improved", "is not above")
    return f"{improved}: {better} {what} {benchmark.reference}"
