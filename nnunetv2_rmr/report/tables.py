"""What stands in the report's tables; report.html writes them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from nnunetv2_rmr.report.data import ALL, GROUPS, MEAN, Benchmark


@dataclass(frozen=True)
class Line:
    """A row: the kind of degradation (or group) and modality it is about, its first cells, and perhaps of each model
    the error as a ratio to the reference's.
    """

    kind: str
    cells: tuple[str, ...]
    modality: str = ALL
    errors: dict[str, float | None] = field(default_factory=dict)


def group_lines(benchmark: Benchmark, label: str) -> list[Line]:
    """Clean, seen, unseen, missing."""
    errors = benchmark.mean_errors(label).items()  # of trained and never trained kinds
    return [Line(group, (GROUPS[group],), errors={model: e.get(f"mCE_{group}") for model, e in errors})
            for group in benchmark.groups]


def degradation_lines(benchmark: Benchmark, label: str) -> list[Line]:
    """Every degradation, mean over severities, the largest gains first."""
    # of all modalities together, where these were degraded, as are the differences beside them
    listed = sorted(benchmark.summary["corruption_errors"], key=lambda e: e.get("modality", MEAN) == ALL)
    errors: dict[str, dict] = {}
    for e in listed:
        if e["label"] == label and e.get("modality", MEAN) in (MEAN, ALL):
            errors.setdefault(e["corruption"], {})[e["model"]] = e["CE"]
    gains = {c: max((d.difference for m in benchmark.others if (d := benchmark.difference(m, c, label))),
                    default=-math.inf) for c in benchmark.degradations if c != "missing"}
    return [Line(c, (c, benchmark.degradations[c].get("seen", "–")), errors=errors.get(c, {}))
            for c in sorted(gains, key=gains.get, reverse=True)]


def missing_lines(benchmark: Benchmark, label: str) -> list[Line]:
    """One modality replaced by zeros."""
    return [Line("missing", (m,), m) for m in benchmark.channels
            if any(not math.isnan(benchmark.score(model, "missing", label, modality=m).mean)
                   for model in benchmark.models)]


def metric_lines(benchmark: Benchmark) -> list[Line]:
    """Every group and degradation."""
    names = [*benchmark.groups, *(c for c in benchmark.degradations if c != "missing")]
    return [Line(name, (GROUPS.get(name, name),)) for name in names]


def reach(benchmark: Benchmark, lines: Iterable[Line], label: str, metric: str) -> float:
    """The largest difference or limit of these lines: one scale for all their plots."""
    found = [benchmark.difference(m, line.kind, label, metric, modality=line.modality)
             for m in benchmark.others for line in lines]
    ends = [abs(v) for d in found if d for v in (d.difference, d.low, d.high) if not math.isnan(v)]
    return max(ends, default=0) or 1.0


def restoration(benchmark: Benchmark) -> list[dict]:
    """Of every degradation and model the means of PSNR and SSIM against the clean target of the fusion: "fused" of the
    fused image of degraded input, "degraded" of the target made of that input. The clean row: how far the fused image
    is from its target anyway.
    """
    rows = benchmark.cases[benchmark.cases["fused_PSNR"].notna()].replace([np.inf, -np.inf], np.nan)
    if (rows["modality"][rows["corruption"] != "clean"] == ALL).any():
        rows = rows[rows["modality"] == ALL]
    rows = rows.assign(gain=rows["fused_PSNR"] - rows["degraded_PSNR"])
    grouped = rows.groupby(["model", "corruption", "modality"], sort=False)
    means = grouped[["degraded_PSNR", "fused_PSNR", "gain", "degraded_SSIM", "fused_SSIM"]].mean()
    return means.assign(images=grouped.size()).reset_index().to_dict("records")
