"""From scores of cases to summary JSON, long CSV and the table that is printed."""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from nnunetv2_rmr.evaluation.fusion_metrics.evaluate_case import LESION_CONTRAST
from nnunetv2_rmr.evaluation.fusion_metrics.scores import METRICS
from nnunetv2_rmr.evaluation.fusion_metrics.verdict import facts, verdict
from nnunetv2_rmr.files.atomic import replacing, write_json

CSV_COLUMNS = ("case", "method", "metric", "of", "value")  # of: a modality, a region; empty: of the whole image
PACKAGES = ("nnunetv2-rmr", "nnunetv2", "numpy", "scipy", "PyWavelets")


def summarise(cases: list[dict], failed: dict[str, str], methods: Sequence[str], rules: dict) -> dict:
    """Content of the summary, in nnU-Net's words; "mean", "std" (n - 1) and "n" over the finite values.

    cases: entries of "metric_per_case". failed: reason by case. "verdict": of every method, in words.
    """
    tables: dict[str, dict] = {"mean": {}, "std": {}, "n": {}}
    metrics = metrics_of(cases)
    for method in methods:
        values = {metric: [v for case in cases if math.isfinite(v := case["metrics"][method].get(metric, math.nan))]
                  for metric in metrics}
        tables["mean"][method] = {m: float(np.mean(v)) if v else math.nan for m, v in values.items()}
        tables["std"][method] = {m: float(np.std(v, ddof=1)) if len(v) > 1 else math.nan for m, v in values.items()}
        tables["n"][method] = {m: len(v) for m, v in values.items()}
    verdicts = {method: verdict(method, [_facts(case, method, rules["sources"]) for case in cases])
                for method in methods} if cases else {}
    return {"metric_per_case": cases, **tables, "verdict": verdicts, "failed_cases": failed, "rules": rules,
            "versions": _versions()}


def metrics_of(cases: Sequence[dict]) -> list[str]:
    """METRICS, behind the contrast of lesions if any case has one."""
    measured = any(LESION_CONTRAST in scores for case in cases for scores in case["metrics"].values())
    return [*([LESION_CONTRAST] if measured else []), *METRICS]


def _facts(case: dict, method: str, channels: Sequence[str]) -> dict:
    return facts({channel: scores["own edges"] for channel, scores in case["sources"][method].items()},
                 case["copy_of"][method], case["relative_contrast"][method],
                 {channel: case["contrast"][channel] for channel in channels if channel in case["contrast"]})


def write_summary(summary: dict, json_file: Path) -> Path:
    """Write the JSON file and, beside it, the CSV file, whose name is returned."""
    csv_file = json_file.with_suffix(".csv")
    with replacing(csv_file) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for case in summary["metric_per_case"]:
            writer.writerows((case["case"], *row, "" if math.isnan(value) else value) for *row, value in _rows(case))
    write_json(summary, json_file)
    return csv_file


def _rows(case: dict) -> Iterator[tuple[str, str, str, float]]:
    """Method, metric, modality or region, value."""
    for method, scores in case["metrics"].items():
        yield from ((method, metric, "", value) for metric, value in scores.items())
        for channel, of_channel in case["sources"][method].items():
            yield from ((method, metric, channel, value) for metric, value in of_channel.items())
        for region, value in case["relative_contrast"][method].items():
            yield method, LESION_CONTRAST, region, value


def table(summary: dict) -> str:
    """Means, one row per metric and one column per method."""
    methods = list(summary["mean"])
    rows = [["metric", *methods]]
    rows += [[metric, *(_number(summary["mean"][method][metric]) for method in methods)]
             for metric in metrics_of(summary["metric_per_case"])]
    rows.append(["copy of", *(_copied(method, summary["metric_per_case"]) for method in methods)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
                     for row in rows)


def _copied(method: str, cases: Sequence[dict]) -> str:
    """The modalities that the method's images copy, with how many of the cases if not all; else a dash."""
    copies = Counter(case["copy_of"][method] for case in cases if case["copy_of"][method] is not None)
    return ", ".join(modality if n == len(cases) else f"{modality} {n}/{len(cases)}"
                     for modality, n in copies.most_common()) or "–"


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
