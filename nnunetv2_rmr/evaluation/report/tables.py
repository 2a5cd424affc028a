"""The report's tables."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from nnunetv2_rmr.evaluation.report.charts import whisker
from nnunetv2_rmr.evaluation.report.data import ALL, GROUPS, METRICS, Benchmark, Difference, Score
from nnunetv2_rmr.evaluation.report.html import Markup, number, table, tag
from nnunetv2_rmr.evaluation.report.verdict import BETTER, WORSE, finding, interval, signed

_MARKS = {BETTER: "▲ better", WORSE: "▼ worse"}


def summary(benchmark: Benchmark, label: str) -> Markup:
    """Clean, seen, unseen, missing: every model's mean Dice, and what the differences to the reference show."""
    errors = {e["model"]: e for e in benchmark.summary.get("mean_corruption_errors", []) if e["label"] == label}
    header, rows = ["", *(tag("span", m, Markup("<br>mean Dice")) for m in benchmark.models)], []
    for model in benchmark.others:
        header += [tag("span", f"{model} − {benchmark.reference}", Markup("<br>paired, per case")), "",
                   tag("span", "cases", Markup("<br>better / worse")), tag("span", "this shows", Markup("<br>"), model),
                   tag("span", "mCE", Markup("<br>(1 = "), benchmark.reference, ")")]
    found = {(m, g): benchmark.difference(m, g, label) for m in benchmark.others for g in benchmark.groups}
    reach = _reach(found.values())
    for group in benchmark.groups:
        row = [GROUPS[group], *(_score(benchmark.score(m, group, label)) for m in benchmark.models)]
        for model in benchmark.others:
            key = {"seen": "mCE_seen", "unseen": "mCE_unseen"}.get(group)
            error = errors.get(model, {}).get(key) if key else None
            row += [*_difference(found[model, group], reach, benchmark.confidence),
                    optional(error, 2)]
        rows.append(row)
    return table(header, rows, kind="summary")



def models(benchmark: Benchmark, label: str) -> Markup:
    """What the models are and what they cost."""
    errors = {e["model"]: e for e in benchmark.summary.get("mean_corruption_errors", []) if e["label"] == label}
    costs = {c["model"]: c for c in benchmark.summary.get("cost", [])}
    rows = []
    for name in benchmark.models:
        about = benchmark.summary["models"][name]
        folds = ", ".join(map(str, about.get("folds") or [])) or "–"
        numbers = [errors.get(name, {}).get("mCE"), errors.get(name, {}).get("rmCE"),
                   costs.get(name, {}).get("seconds"), costs.get(name, {}).get("peak_memory_gb")]
        rows.append([name + (" (reference)" if name == benchmark.reference and benchmark.others else ""),
                     *(about.get(key) or "–" for key in ("trainer", "plans", "configuration")), folds,
                     *(optional(v, digits) for v, digits in zip(numbers, (2, 2, 1, 2)))])
    return table(["model", "trainer", "plans", "configuration", "folds", "mCE", "relative mCE", "seconds per case",
                  "peak memory, GB"], rows)


def where(benchmark: Benchmark, label: str) -> Markup:
    """Every corruption, mean over severities: differences of Dice, the largest gains first."""
    listed = {(m, c): benchmark.difference(m, c, label) for m in benchmark.others for c in benchmark.corruptions
              if c != "missing"}
    errors = {(e["model"], e["corruption"]): e["CE"] for e in benchmark.summary.get("corruption_errors", [])
              if e["label"] == label}
    gains = {c: max((d.difference for m in benchmark.others if (d := listed[m, c])), default=-math.inf)
             for c in benchmark.corruptions if c != "missing"}
    order = sorted(gains, key=gains.get, reverse=True)
    header, rows, reach = ["corruption", "in training", *benchmark.models], [], _reach(listed.values())
    for model in benchmark.others:
        header += [f"{model} − {benchmark.reference}", "", "better / worse", "this shows", "CE"]
    for corruption in order:
        row = [corruption, benchmark.corruptions[corruption].get("seen", "–"),
               *(_score(benchmark.score(m, corruption, label)) for m in benchmark.models)]
        for model in benchmark.others:
            error = errors.get((model, corruption))
            row += [*_difference(listed[model, corruption], reach, benchmark.confidence),
                    optional(error, 2)]
        rows.append(row)
    return table(header, rows)


def missing_modality(benchmark: Benchmark, label: str) -> Markup:
    """Dice when one modality is replaced by zeros."""
    modalities = [m for m in benchmark.summary.get("modalities", [])
                  if any(not math.isnan(benchmark.score(model, "missing", label, modality=m).mean)
                         for model in benchmark.models)]
    found = {(model, m): benchmark.difference(model, "missing", label, modality=m) for model in benchmark.others
             for m in modalities}
    header, reach = ["missing", *benchmark.models], _reach(found.values())
    for model in benchmark.others:
        header += [f"{model} − {benchmark.reference}", "", "better / worse", "this shows"]
    rows = []
    for modality in modalities:
        row = [modality, *(_score(benchmark.score(m, "missing", label, modality=modality)) for m in benchmark.models)]
        for model in benchmark.others:
            row += _difference(found[model, modality], reach, benchmark.confidence)
        rows.append(row)
    return table(header, rows)


def metric(benchmark: Benchmark, name: str, label: str) -> Markup:
    """HD95 or NSD of every group and corruption, mean over severities."""
    lower, digits = name == "HD95", 1 if name == "HD95" else 3
    lines = [*benchmark.groups, *(c for c in benchmark.corruptions if c != "missing")]
    found = {(m, c): benchmark.difference(m, c, label, name) for m in benchmark.others for c in lines}
    reach = _reach(found.values())
    header = [METRICS[name], *benchmark.models]
    for model in benchmark.others:
        header += [f"{model} − {benchmark.reference}", "", "better / worse", "this shows"]
    rows = []
    for line in lines:
        row = [GROUPS.get(line, line), *(_score(benchmark.score(m, line, label, name), digits)
                                         for m in benchmark.models)]
        for model in benchmark.others:
            row += _difference(found[model, line], reach, benchmark.confidence, digits, lower)
        rows.append(row)
    return table(header, rows, caption=f"{METRICS[name]}: {'lower' if lower else 'higher'} is better")


def restoration(benchmark: Benchmark) -> Markup:
    """PSNR and SSIM of the fused image of corrupted input, against those of the corrupted reference modality."""
    columns = ["degraded_PSNR", "fused_PSNR", "degraded_SSIM", "fused_SSIM"]
    rows = benchmark.cases
    if not set(columns) <= set(rows.columns):
        return tag("p", "Not measured: no model fuses.")
    rows = rows[rows["fused_PSNR"].notna() & (rows["corruption"] != "clean")].replace([np.inf, -np.inf], np.nan)
    if rows.empty:
        return tag("p", "Not measured: no model fuses.")
    listed = []
    for (model, corruption, modality), part in rows.groupby(["model", "corruption", "modality"], sort=False):
        if modality != ALL and corruption != "missing":
            continue
        means = part[columns].mean()
        gain = (part["fused_PSNR"] - part["degraded_PSNR"]).mean()
        listed.append([corruption if modality == ALL else f"{modality} missing", model, str(len(part)),
                       *(number(means[c], 1 if "PSNR" in c else 3) for c in columns[:2]), signed(gain, 1),
                       *(number(means[c], 3) for c in columns[2:])])
    return table(["corruption", "model", "images", "PSNR of the corrupted scan, dB", "PSNR of the fused image, dB",
                  "gain, dB", "SSIM, corrupted", "SSIM, fused"], listed)


def corruption_list(benchmark: Benchmark) -> Markup:
    """What every corruption does at severities 1 to 5."""
    rows = []
    for name, info in benchmark.corruptions.items():
        parameters = [str(p) for p in info.get("parameters") or []]
        rows.append([name, info.get("seen", "–"), info.get("description", ""),
                     *(parameters + [""] * 5)[:5]])
    return table(["corruption", "in training", "simulates", *map(str, range(1, 6))], rows)


def optional(value: float | None, digits: int) -> str:
    return "–" if value is None else number(value, digits)


def _reach(differences: Iterable[Difference | None]) -> float:
    ends = [abs(v) for d in differences if d for v in (d.difference, d.low, d.high) if not math.isnan(v)]
    return max(ends, default=1.0)


def _score(score: Score, digits: int = 3) -> Markup:
    if math.isnan(score.low + score.high):
        return tag("span", number(score.mean, digits))
    return tag("span", tag("b", number(score.mean, digits)), Markup("<br>"),
               tag("small", f"{number(score.low, digits)} to {number(score.high, digits)}"))


def _difference(d: Difference | None, reach: float, confidence: float, digits: int = 3,
                lower_is_better: bool = False) -> list[object]:
    """Four cells: plot, numbers, counts, what it shows."""
    shows = finding(d, confidence, lower_is_better)
    word = tag("span", _MARKS.get(shows, shows), class_="shows " + shows.split()[0])
    if d is None:
        return ["", "–", "–", word]
    limits = interval(d, digits) if d.n > 1 else ""
    numbers = tag("span", tag("b", signed(d.difference, digits)), Markup("<br>"), tag("small", limits))
    return [whisker(d, reach, lower_is_better), numbers, f"{d.better} / {d.worse} of {d.n}", word]
