"""From scores of cases to summary JSON, long CSV and the table that is printed."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd

from nnunetv2_rmr.evaluation.fusion_metrics.contrast import LESION_CONTRAST
from nnunetv2_rmr.evaluation.fusion_metrics.verdict import facts, verdict
from nnunetv2_rmr.files.atomic import replacing, write_json

CSV_COLUMNS = ("case", "method", "metric", "of", "value")  # of: a modality, a region; empty: of the whole image
PACKAGES = ("nnunetv2-rmr", "nnunetv2", "numpy", "scipy", "PyWavelets")


def summarise(cases: list[dict], failed: dict[str, str], methods: Sequence[str], rules: dict) -> dict:
    """Content of the summary, in nnU-Net's words; "mean", "std" (n - 1) and "n" over the finite values.

    cases: entries of "metric_per_case". failed: reason by case. "verdict": of every method, in words.
    """
    tables: dict[str, dict] = {"mean": {}, "std": {}, "n": {}}
    for method in methods:
        values = pd.DataFrame([case["metrics"][method] for case in cases], columns=list(rules["metrics"]), dtype=float)
        values = values.where(np.isfinite(values))
        for name, of_metrics in (("mean", values.mean()), ("std", values.std()), ("n", values.count())):
            tables[name][method] = of_metrics.to_dict()
    verdicts = {method: verdict(method, [_facts(case, method, rules["sources"]) for case in cases])
                for method in methods} if cases else {}
    return {"metric_per_case": cases, **tables, "verdict": verdicts, "failed_cases": failed, "rules": rules,
            "versions": _versions()}


def _facts(case: dict, method: str, channels: Sequence[str]) -> dict:
    return facts({channel: scores["own edges"] for channel, scores in case["sources"][method].items()},
                 case["copy_of"][method], case["relative_contrast"][method],
                 {channel: case["contrast"][channel] for channel in channels if channel in case["contrast"]})


def write_summary(summary: dict, json_file: Path) -> Path:
    """Write the JSON file and, beside it, the CSV file, whose name is returned."""
    csv_file = json_file.with_suffix(".csv")
    rows = [(case["case"], *row) for case in summary["metric_per_case"] for row in _rows(case)]
    with replacing(csv_file) as temporary:
        pd.DataFrame(rows, columns=CSV_COLUMNS).to_csv(temporary, index=False)
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
    """Means, one row per metric and one column per method; last the modalities that the method's images copy, with how
    many of the cases if not all."""
    cases = summary["metric_per_case"]
    shown = pd.DataFrame(summary["mean"]).map(lambda value: f"{value:.3f}" if math.isfinite(value) else "–")
    shown.loc["copy of"] = [
        ", ".join(modality if n == len(cases) else f"{modality} {n}/{len(cases)}" for modality, n in
                  Counter(filter(None, (case["copy_of"][method] for case in cases))).most_common()) or "–"
        for method in shown.columns]
    return shown.to_string()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
