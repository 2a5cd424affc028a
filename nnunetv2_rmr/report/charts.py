"""The report's charts: what is drawn, and where. parts.html draws it as SVG.

Not by matplotlib: a report has hundreds of small panels, whose points say what they are when pointed at.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from matplotlib.ticker import MaxNLocator

from nnunetv2_rmr.report.data import GROUPS, Benchmark, Score
from nnunetv2_rmr.report.verdict import interval, number

# Okabe and Ito's colours, which the colour-blind can tell apart; markers and dashes say the same without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("", "6 3", "2 2", "8 3 2 3")
MARKERS = {"circle": "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z", "square": "M-.88-.88H.88V.88H-.88z",
           "triangle": "M0-1.25L1.08.63H-1.08z", "diamond": "M0-1.25L1.25 0 0 1.25-1.25 0z"}  # paths of about radius 1


@dataclass(frozen=True)
class Look:
    colour: str
    dash: str
    path: str

    @classmethod
    def of(cls, index: int) -> "Look":
        return cls(*(choice[index % len(choice)] for choice in (COLOURS, DASHES, tuple(MARKERS.values()))))


@dataclass(frozen=True)
class Point:
    x: float
    score: Score
    says: str

    @property
    def has_limits(self) -> bool:
        return not math.isnan(self.score.low + self.score.high)


@dataclass
class Chart:
    """Axes around lines of points, one line for each Look. xs, ys: from, to. kind: "bands" shows intervals, "points"
    are without lines, around a diagonal.
    """

    kind: str
    about: str
    xs: tuple[float, float]
    ys: tuple[float, float]
    lines: list[tuple[Look, list[Point]]]
    title: str = ""
    x_label: str = ""
    y_label: str = "mean Dice"
    x_ticks: dict[float, str] = field(default_factory=dict)
    width: float = 230
    height: float = 165
    description: str = ""
    corners: tuple[str, str] = ("", "")  # texts at the upper left and the lower right

    def x(self, value: float) -> float:
        """Coordinate in the picture; left and right of the axes leave room for numbers."""
        return round(36 + (value - self.xs[0]) / (self.xs[1] - self.xs[0]) * (self.width - 44), 1)

    @property
    def y_ticks(self) -> dict[float, str]:
        return ticks(*self.ys)

    def y(self, value: float) -> float:
        return round(self.height - 32 - (value - self.ys[0]) / (self.ys[1] - self.ys[0]) * (self.height - 56), 1)


def ticks(low: float, high: float) -> dict[float, str]:
    """Round values in [low, high], and what is written there."""
    values = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)
    return {float(v): f"{v:.10g}" for v in values if low - 1e-9 <= v <= high + 1e-9}


def dice_range(values: Iterable[float]) -> tuple[float, float]:
    """From a round value below all of them to 1."""
    low = min((v for v in values if not math.isnan(v)), default=0.0)
    return max(0.0, min(0.9, math.floor(10 * low) / 10)), 1.0


def curves(benchmark: Benchmark, label: str, modality: str, x_axis: str) -> list[Chart]:
    """A panel per kind of degradation: mean Dice against severity or against the image difference (`x_axis`)."""
    lines = {c: [(Look.of(i), _curve(benchmark, m, c, label, modality, x_axis))
                 for i, m in enumerate(benchmark.models)] for c in benchmark.degradations}
    lines = {c: models for c, models in lines.items() if any(len(points) > 1 for _, points in models)}
    points = [p for models in lines.values() for _, of_model in models for p in of_model]
    ys = dice_range(v for p in points for v in (p.score.mean, p.score.low))
    right = 5 if x_axis == "severity" else max((p.x for p in points), default=0) * 1.03 or 1
    x_ticks = ticks(0, right) if x_axis != "severity" else {s: str(s) for s in range(6)}
    charts = []
    for kind, models in lines.items():
        info = benchmark.degradations[kind]
        charts.append(Chart("bands", f"{kind}: mean Dice against {x_axis}", (0, right), ys, models,
                            f"{kind} ({info.get('seen', '?')})", x_axis, x_ticks=x_ticks,
                            description=info.get("description", "")))
    return charts


def _curve(benchmark: Benchmark, model: str, kind: str, label: str, modality: str, x_axis: str) -> list[Point]:
    points = []
    for severity in range(6):
        score = benchmark.score(model, kind, label, severity=severity, modality=modality)
        if severity == 0 and math.isnan(score.mean):  # the clean images are everybody's severity 0
            score = benchmark.score(model, "clean", label, severity=0)
        x = severity
        if x_axis != "severity" and severity > 0:
            x = benchmark.changes.get((modality, kind, severity), math.nan)
        if not math.isnan(score.mean + x):
            points.append(Point(x, score, says(f"{model}, {x_axis} {x:.3g}", score)))
    return points


def says(name: str, score: Score) -> str:
    return f"{name}: {number(score.mean)}" + (f" ({limits})" if (limits := interval(score)) else "")


def scatter(benchmark: Benchmark, model: str, label: str) -> list[Chart]:
    """A panel per group: Dice of `model` against the reference's, a point per case (mean over the conditions)."""
    reference = benchmark.reference
    table = benchmark.case_means(label).pivot(index=["seen", "case"], columns="model", values="Dice")
    if not {model, reference} <= set(table.columns):
        return []
    limits = dice_range(table.to_numpy().ravel())
    charts = []
    for i, group in enumerate(benchmark.groups):
        rows = table.loc[group][[reference, model]].dropna()
        points = [Point(a, Score(b), f"{case}: {reference} {number(a)}, {model} {number(b)}")
                  for case, (a, b) in zip(rows.index, rows.to_numpy())]
        charts.append(Chart("points", f"Dice per case, {GROUPS[group]}", limits, limits, [(Look.of(i), points)],
                            f"{group}, n = {len(rows)}", f"Dice, {reference}", f"Dice, {model}", ticks(*limits), 235,
                            235, corners=(f"{model} better", f"{reference} better")))
    return charts
