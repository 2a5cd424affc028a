"""The benchmark's report: one HTML file."""

import math
import sys
from pathlib import Path

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.report import charts, tables
from nnunetv2_rmr.report.data import ALL, MEAN, METRICS, Benchmark
from nnunetv2_rmr.report.page import write_page
from nnunetv2_rmr.report.verdict import FEW, fewest_cases, finding, number, signed, verdict
from nnunetv2_rmr.report.viewer import LABEL, Study, load_study, viewer


def write_report(out: Path) -> Path:
    """Write OUT/report.html from what the benchmark left in OUT; returns its name.

    An example whose files can not be used is left out, and named on the page and on stderr.
    Raises BadCaseError if results.csv, cases.csv or summary.json can not be used.
    """
    benchmark = Benchmark(out)
    examples, problems = load_examples(benchmark)
    for problem in problems:
        print(f"report: {problem}", file=sys.stderr)
    axes = {"severity": "severity"}
    if benchmark.changes:
        axes["image difference"] = "how much the images changed"
    models = [", ".join(benchmark.others), benchmark.reference] if benchmark.others else [benchmark.reference]
    file = Path(out) / "report.html"
    write_page(
        file, "report.html", title="Robustness: " + " and ".join(models), b=benchmark, verdict=verdict(benchmark),
        label_names={label: "mean over labels" if label == MEAN else label for label in benchmark.labels},
        modalities={m: "all modalities" if m == ALL else f"{m} only" for m in benchmark.modalities or [ALL]},
        axes=axes, examples=examples, problems=problems, charts=charts, tables=tables,
        viewer=viewer(examples, benchmark.label_values),
        finding=finding, fewest_cases=fewest_cases, FEW=FEW, ALL=ALL, METRICS=METRICS)
    return file


def load_examples(benchmark: Benchmark) -> tuple[list[Study], list[str]]:
    """By gain (mean Dice of the best model over the reference's, under the example's condition), the largest first,
    those without one last; and a message for each that could not be read."""
    gains, problems = [], []
    for entry in benchmark.examples:
        try:
            gains.append(_load(benchmark, entry))
        except KeyError as error:
            problems.append(f"{benchmark.folder / 'examples' / 'INDEX.json'}: an example has no entry {error}")
        except BadCaseError as error:
            problems.append(f"example left out: {error}")
    return [study for _, study in sorted(gains, key=lambda pair: -pair[0])], problems


def _load(benchmark: Benchmark, entry: dict) -> tuple[float, Study]:
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
    caption = "mean Dice: " + ", ".join(f"{m} {number(dice[m])}" + (f" ({signed(gains[m])})" if m in gains else "")
                                        for m in benchmark.models)
    study = load_study(f"{entry['case']}: {condition(entry)}", entry["case"], images, segmentations, caption)
    return max((g for g in gains.values() if not math.isnan(g)), default=-math.inf), study


def condition(entry: dict) -> str:
    """'clean', 'noise, severity 3', 'missing, T1'."""
    if entry["corruption"] == "clean":
        return "clean"
    severity = "" if entry["corruption"] == "missing" else f", severity {entry['severity']}"
    where = "" if entry["modality"] == ALL else f", {entry['modality']}"
    return f"{entry['corruption']}{severity}{where}"
