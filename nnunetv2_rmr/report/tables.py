"""The report's tables."""

from __future__ import annotations

import math

import numpy as np

from nnunetv2_rmr.report.comparison import Line, comparisons, optional
from nnunetv2_rmr.report.data import ALL, GROUPS, MEAN, METRICS, Benchmark
from nnunetv2_rmr.report.html import Markup, number, table, tag
from nnunetv2_rmr.report.verdict import signed

FINAL = "checkpoint_final.pth"


def summary(benchmark: Benchmark, label: str) -> Markup:
    """Clean, seen, unseen, missing."""
    errors = _mean_errors(benchmark, label)
    lines = [Line(group, (GROUPS[group],)) for group in benchmark.groups]
    keys = {"seen": "mCE_seen", "unseen": "mCE_unseen"}

    def mean_error(model: str, line: Line) -> float | None:
        return errors.get(model, {}).get(keys.get(line.corruption))

    return comparisons(benchmark, lines, [""], label, error=("mCE", mean_error), kind="summary")


def models(benchmark: Benchmark, label: str) -> Markup:
    """What the models are and what they cost."""
    errors = _mean_errors(benchmark, label)
    costs = {c["model"]: c for c in benchmark.summary.get("cost", [])}
    rows = []
    for name in benchmark.models:
        about = benchmark.summary["models"][name]
        folds = ", ".join(map(str, about.get("folds") or [])) or "–"
        if about.get("checkpoint", FINAL) != FINAL:  # a training that may not be finished must not pass for one that is
            folds += f" ({about['checkpoint']})"
        numbers = [errors.get(name, {}).get("mCE"), errors.get(name, {}).get("rmCE"),
                   costs.get(name, {}).get("seconds"), costs.get(name, {}).get("peak_memory_gb")]
        rows.append([name + (" (reference)" if name == benchmark.reference and benchmark.others else ""),
                     *(about.get(key) or "–" for key in ("trainer", "plans", "configuration")), folds,
                     *(optional(v, digits) for v, digits in zip(numbers, (2, 2, 1, 2)))])
    return table(["model", "trainer", "plans", "configuration", "folds", "mCE", "relative mCE", "seconds per case",
                  "peak memory, GB"], rows)


def where(benchmark: Benchmark, label: str) -> Markup:
    """Every corruption, mean over severities, the largest gains first."""
    # of all modalities together, where these were corrupted, as are the differences beside them
    listed = sorted(benchmark.summary.get("corruption_errors", []), key=lambda e: e.get("modality", MEAN) == ALL)
    errors = {(e["model"], e["corruption"]): e["CE"] for e in listed
              if e["label"] == label and e.get("modality", MEAN) in (MEAN, ALL)}
    gains = {c: max((d.difference for m in benchmark.others if (d := benchmark.difference(m, c, label))),
                    default=-math.inf) for c in benchmark.corruptions if c != "missing"}
    lines = [Line(c, (c, benchmark.corruptions[c].get("seen", "–")))
             for c in sorted(gains, key=gains.get, reverse=True)]

    def error(model: str, line: Line) -> float | None:
        return errors.get((model, line.corruption))

    return comparisons(benchmark, lines, ["corruption", "in training"], label, error=("CE", error))


def drops(benchmark: Benchmark, label: str) -> Markup:
    """How much Dice every model loses from clean images to corrupted ones."""
    errors = _mean_errors(benchmark, label)
    groups, rows = [g for g in benchmark.groups if g != "clean"], []
    for model in benchmark.models:
        clean = benchmark.score(model, "clean", label).mean
        lost = [signed(benchmark.score(model, g, label).mean - clean) for g in groups]
        error = errors.get(model, {})
        rows.append([model, number(clean), *lost, optional(error.get("mCE_seen"), 2),
                     optional(error.get("mCE_unseen"), 2)])
    return table(["model", "Dice, clean", *(f"change, {g}" for g in groups), "mCE, seen", "mCE, unseen"], rows)


def missing_modality(benchmark: Benchmark, label: str) -> Markup:
    """One modality replaced by zeros."""
    lines = [Line("missing", (m,), m) for m in benchmark.summary.get("modalities", [])
             if any(not math.isnan(benchmark.score(model, "missing", label, modality=m).mean)
                    for model in benchmark.models)]
    return comparisons(benchmark, lines, ["missing"], label)


def metric(benchmark: Benchmark, name: str, label: str) -> Markup:
    """HD95 or NSD of every group and corruption, mean over severities."""
    lines = [Line(group, (GROUPS[group],)) for group in benchmark.groups]
    lines += [Line(c, (c,)) for c in benchmark.corruptions if c != "missing"]
    return comparisons(benchmark, lines, [METRICS[name]], label, name)


def restoration(benchmark: Benchmark) -> Markup:
    """PSNR and SSIM against the clean target of the fusion: of the fused image of corrupted input, and of the target
    made of that input. The clean row: how far the fused image is from its target anyway.
    """
    columns = ["degraded_PSNR", "fused_PSNR", "degraded_SSIM", "fused_SSIM"]
    if not benchmark.fusing:
        return tag("p", "Not measured: no model fuses.")
    if "fusion" not in benchmark.summary:
        return tag("p", "Not measured: an older version compared the fused images with those of the clean scans, which "
                        "tells how stable they are, not how good.")
    rows = benchmark.cases
    rows = rows[rows["fused_PSNR"].notna()].replace([np.inf, -np.inf], np.nan)
    if rows.empty:
        return tag("p", "Not measured: an older version predicted, or nothing could be predicted.")
    if (rows["modality"][rows["corruption"] != "clean"] == ALL).any():
        rows = rows[rows["modality"] == ALL]
    listed = []
    for (model, corruption, modality), part in rows.groupby(["model", "corruption", "modality"], sort=False):
        means = part[columns].mean()
        gain = (part["fused_PSNR"] - part["degraded_PSNR"]).mean()
        listed.append([corruption if modality == ALL else f"{corruption}, {modality} only", model, str(len(part)),
                       *(number(means[c], 1 if "PSNR" in c else 3) for c in columns[:2]), signed(gain, 1),
                       *(number(means[c], 3) for c in columns[2:])])
    return table(["corruption", "model", "images", "PSNR without restoration, dB", "PSNR of the fused image, dB",
                  "gain, dB", "SSIM without restoration", "SSIM, fused"], listed)


def corruption_list(benchmark: Benchmark) -> Markup:
    """What every corruption does at severities 1 to 5."""
    rows = []
    for name, info in benchmark.corruptions.items():
        parameters = [str(p) for p in info.get("parameters") or []]
        rows.append([name, info.get("seen", "–"), info.get("description", ""),
                     *(parameters + [""] * 5)[:5]])
    return table(["corruption", "in training", "simulates", *map(str, range(1, 6))], rows)


def _mean_errors(benchmark: Benchmark, label: str) -> dict[str, dict]:
    return {e["model"]: e for e in benchmark.summary.get("mean_corruption_errors", []) if e["label"] == label}
