"""The benchmark's report: one HTML file."""

import sys
from pathlib import Path

from nnunetv2_rmr.report import charts, tables
from nnunetv2_rmr.report.data import ALL, MEAN, METRICS, Benchmark
from nnunetv2_rmr.report.examples import load_examples
from nnunetv2_rmr.report.page import write_page
from nnunetv2_rmr.report.verdict import FEW, fewest_cases, finding, verdict
from nnunetv2_rmr.report.viewer import viewer


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
