"""From scores of cases to summary JSON, long CSV and the table that is printed."""

import csv
import math
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from nnunetv2_rmr.atomic import replacing, write_json
from nnunetv2_rmr.evaluation.fusion_metrics.scores import METRICS

CSV_COLUMNS = ("case", "method", "metric", "value")
PACKAGES = ("nnunetv2-rmr", "nnunetv2", "numpy", "scipy", "PyWavelets")


def summarise(cases: list[dict], failed: dict[str, str], methods: Sequence[str], rules: dict) -> dict:
    """Content of the summary, in nnU-Net's words; "mean", "std" (n - 1) and "n" over the finite values.

    cases: entries of "metric_per_case". failed: reason by case.
    """
    tables: dict[str, dict] = {"mean": {}, "std": {}, "n": {}}
    for method in methods:
        values = {metric: [v for case in cases if math.isfinite(v := case["metrics"][method][metric])]
                  for metric in METRICS}
        tables["mean"][method] = {m: float(np.mean(v)) if v else math.nan for m, v in values.items()}
        tables["std"][method] = {m: float(np.std(v, ddof=1)) if len(v) > 1 else math.nan for m, v in values.items()}
        tables["n"][method] = {m: len(v) for m, v in values.items()}
    return {"metric_per_case": cases, **tables, "failed_cases": failed, "rules": rules, "versions": _versions()}


def write_summary(summary: dict, json_file: Path) -> Path:
    """Write the JSON file and, beside it, the CSV file, whose name is returned."""
    csv_file = json_file.with_suffix(".csv")
    with replacing(csv_file) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for case in summary["metric_per_case"]:
            writer.writerows((case["case"], method, metric, "" if math.isnan(value) else value)
                             for method, scores in case["metrics"].items() for metric, value in scores.items())
    write_json(summary, json_file)
    return csv_file


def table(summary: dict) -> str:
    """Means, one row per metric and one column per method."""
    methods = list(summary["mean"])
    rows = [["metric", *methods]]
    rows += [[metric, *(_number(summary["mean"][method][metric]) for method in methods)] for metric in METRICS]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
                     for row in rows)


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
