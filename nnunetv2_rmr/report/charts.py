"""The report's charts, as inline SVG."""

from __future__ import annotations

import math

from nnunetv2_rmr.report import svg
from nnunetv2_rmr.report.data import GROUPS, Benchmark, Difference, Score
from nnunetv2_rmr.report.html import Markup, number, tag
from nnunetv2_rmr.report.verdict import BETTER, WORSE, interval, signed

SEVERITIES = range(6)


def legend(benchmark: Benchmark) -> Markup:
    parts = []
    for i, model in enumerate(benchmark.models):
        colour, dash, shape = _look(i)
        line = svg.polyline([(0, 7), (34, 7)], colour, dash) + svg.marker(17, 7, shape, colour)
        parts.append(tag("span", Markup(svg.picture(34, 14, model, line)), " ", model, class_="key"))
    return tag("p", *parts, class_="legend")


def _look(index: int) -> tuple[str, str, str]:
    return tuple(choice[index % len(choice)] for choice in (svg.COLOURS, svg.DASHES, svg.MARKERS))


def curves(benchmark: Benchmark, label: str, modality: str, x_axis: str) -> Markup:
    """A small panel per corruption: mean Dice against severity or against the image difference (`x_axis`)."""
    changes = {} if x_axis == "severity" else image_differences(benchmark, modality)
    lines = {c: {m: _curve(benchmark, m, c, label, modality, x_axis, changes) for m in benchmark.models}
             for c in benchmark.corruptions}
    lines = {c: models for c, models in lines.items() if any(len(points) > 1 for points in models.values())}
    if not lines:
        return tag("p", "Not measured.")
    everything = [(x, v) for models in lines.values() for points in models.values() for x, s in points
                  for v in (s.mean, s.low, s.high) if not math.isnan(v)]
    low = max(0.0, math.floor(10 * min(v for _, v in everything)) / 10)
    right = 5 if x_axis == "severity" else max(x for x, _ in everything) * 1.03 or 1
    pictures = []
    for corruption, models in lines.items():
        plot = svg.Plot((0, right), (low, max(1.0, low + 0.1)))
        info = benchmark.corruptions[corruption]
        parts = [plot.axes(f"{corruption} ({info.get('seen', '?')})", x_axis, "mean Dice",
                           list(SEVERITIES) if x_axis == "severity" else None)]
        for i, points in enumerate(models.values()):
            parts.append(svg.band([(plot.x(x), plot.y(s.low), plot.y(s.high)) for x, s in points
                                   if not math.isnan(s.low + s.high)], _look(i)[0]))
        for i, (model, points) in enumerate(models.items()):
            colour, dash, shape = _look(i)
            at = [(plot.x(x), plot.y(s.mean)) for x, s in points]
            parts.append(svg.polyline(at, colour, dash))
            parts += [svg.marker(*xy, shape, colour, title=f"{model}, {x_axis} {x:.3g}: {number(s.mean)} "
                                                           f"({number(s.low)} to {number(s.high)})")
                      for xy, (x, s) in zip(at, points)]
        pictures.append(Markup(svg.picture(plot.width, plot.height, f"{corruption}: mean Dice against {x_axis}",
                                           "".join(parts), info.get("description", ""))))
    return tag("div", *pictures, class_="panels")


def _curve(benchmark: Benchmark, model: str, corruption: str, label: str, modality: str,
           x_axis: str, changes: dict[tuple[str, int], float]) -> list[tuple[float, Score]]:
    points = []
    for severity in SEVERITIES:
        score = benchmark.score(model, corruption, label, severity=severity, modality=modality)
        if severity == 0 and math.isnan(score.mean):  # the clean images are everybody's severity 0
            score = benchmark.score(model, "clean", label, severity=0)
        x = severity if x_axis == "severity" or severity == 0 else changes.get((corruption, severity), math.nan)
        if not math.isnan(score.mean + x):
            points.append((x, score))
    return points


def image_differences(benchmark: Benchmark, modality: str) -> dict[tuple[str, int], float]:
    """(corruption, severity) -> mean over cases of how much the corruption changed the images."""
    table = benchmark.cases
    if "image_difference" not in table:
        return {}
    rows = table[(table["modality"] == modality) & table["image_difference"].notna()]
    return rows.groupby(["corruption", "severity"])["image_difference"].mean().to_dict()


def whisker(difference: Difference, reach: float, shows: str, digits: int) -> Markup:
    """Dot and interval on a line from -reach to +reach, with 0 marked. shows: of `verdict.finding`."""
    width, height = 150, 22

    def x(value: float) -> float:
        return width / 2 + value / (reach or 1) * (width / 2 - 6)

    colour = {BETTER: svg.COLOURS[0], WORSE: svg.COLOURS[1]}.get(shows, "#777")
    parts = [svg.line(4, 11, width - 4, 11, "grid"), svg.line(width / 2, 2, width / 2, height - 2, "axis")]
    if not math.isnan(difference.low + difference.high):
        parts.append(f'<line x1="{svg.f(x(difference.low))}" x2="{svg.f(x(difference.high))}" y1="11" y2="11" '
                     f'stroke="{colour}" stroke-width="2.5"/>')
    shape = "circle" if shows in (BETTER, WORSE) else "diamond"
    parts.append(svg.marker(x(difference.difference), 11, shape, colour, 4))
    title = f"{signed(difference.difference, digits)} ({interval(difference, digits) or 'no interval'}): {shows}"
    return Markup(svg.picture(width, height, title, "".join(parts)))


def groups(benchmark: Benchmark, label: str) -> Markup:
    """Mean Dice of every model on clean, seen, unseen and missing, with intervals."""
    found = benchmark.groups
    scores = [benchmark.score(m, g, label) for m in benchmark.models for g in found]
    low = min((v for s in scores for v in (s.mean, s.low) if not math.isnan(v)), default=0.0)
    low = max(0.0, math.floor(10 * low) / 10)
    plot = svg.Plot((-0.5, len(found) - 0.5), (low, max(1.0, low + 0.1)), 110 + 150 * len(found), 230)
    parts = [plot.axes("", "", "mean Dice", [])]
    parts += [svg.text(plot.x(i), plot.bottom + 15, GROUPS[g]) for i, g in enumerate(found)]
    for i, model in enumerate(benchmark.models):
        colour, dash, shape = _look(i)
        shift = (i - (len(benchmark.models) - 1) / 2) * 0.12
        points = [(plot.x(j + shift), benchmark.score(model, g, label), g) for j, g in enumerate(found)]
        points = [p for p in points if not math.isnan(p[1].mean)]
        parts.append(svg.polyline([(x, plot.y(s.mean)) for x, s, _ in points], colour, dash))
        for x, s, group in points:
            if not math.isnan(s.low + s.high):
                parts.append(f'<line x1="{svg.f(x)}" x2="{svg.f(x)}" y1="{svg.f(plot.y(s.low))}" '
                             f'y2="{svg.f(plot.y(s.high))}" stroke="{colour}" stroke-width="2"/>')
            title = f"{model}, {GROUPS[group]}: {number(s.mean)} ({number(s.low)} to {number(s.high)})"
            parts.append(svg.marker(x, plot.y(s.mean), shape, colour, 4.5, title))
    return Markup(svg.picture(plot.width, plot.height, "Mean Dice on clean, seen, unseen and missing", "".join(parts)))


def scatter(benchmark: Benchmark, model: str, label: str) -> Markup:
    """A panel per group: Dice of `model` against the reference's, a point per case (mean over the conditions)."""
    table = benchmark.case_means(label).pivot(index=["seen", "case"], columns="model", values="Dice")
    if not {model, benchmark.reference} <= set(table.columns):
        return tag("p", "Not measured.")
    low = max(0.0, math.floor(10 * table.min(axis=None)) / 10) if table.notna().any(axis=None) else 0.0
    high = max(1.0, low + 0.1)
    pictures = []
    for i, group in enumerate(benchmark.groups):
        rows = table.loc[group][[benchmark.reference, model]].dropna()
        plot = svg.Plot((low, high), (low, high), 235, 235)
        parts = [plot.axes(f"{group}, n = {len(rows)}", f"Dice, {benchmark.reference}", f"Dice, {model}"),
                 svg.line(plot.x(low), plot.y(low), plot.x(high), plot.y(high), "grid strong"),
                 svg.text(plot.x(low) + 6, plot.top + 12, f"{model} better", "start", "hint"),
                 svg.text(plot.right - 2, plot.bottom - 6, f"{benchmark.reference} better", "end", "hint")]
        parts += [svg.marker(plot.x(a), plot.y(b), svg.MARKERS[i], svg.COLOURS[i], 3.6,
                             f"{case}: {benchmark.reference} {number(a)}, {model} {number(b)}")
                  for case, (a, b) in zip(rows.index, rows.to_numpy())]
        pictures.append(Markup(svg.picture(plot.width, plot.height, f"Dice per case, {GROUPS[group]}", "".join(parts))))
    return tag("div", *pictures, class_="panels")

