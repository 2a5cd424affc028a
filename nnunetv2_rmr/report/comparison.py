"""Tables of every model against the reference: means, paired difference as a plot and in numbers, what it shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nnunetv2_rmr.report.charts import whisker
from nnunetv2_rmr.report.data import ALL, METRICS, Benchmark, Difference, Score
from nnunetv2_rmr.report.html import Markup, joined, number, table, tag
from nnunetv2_rmr.report.verdict import BETTER, WORSE, finding, interval, p_text, signed

BREAK = Markup("<br>")
_MARKS = {BETTER: "▲ better", WORSE: "▼ worse"}  # for those who do not see the colours


@dataclass(frozen=True)
class Line:
    """A row of a table: the corruption (or group) and modality it is about, and its first cells."""

    corruption: str
    cells: tuple[str, ...]
    modality: str = ALL


def comparisons(benchmark: Benchmark, lines: Sequence[Line], header: Sequence[str], label: str, metric: str = "Dice",
                error: tuple[str, Callable[[str, Line], float | None]] | None = None, kind: str = "") -> Markup:
    """One table per compared model; with no other model one of the reference alone.

    header: of the lines' own cells. error: header and values of a last column, a ratio to the reference's.
    """
    digits, lower = (1, True) if metric == "HD95" else (3, False)
    found = {(m, line): benchmark.difference(m, line.corruption, label, metric, modality=line.modality)
             for m in benchmark.others for line in lines}
    ends = [abs(v) for d in found.values() if d for v in (d.difference, d.low, d.high) if not math.isnan(v)]
    reach = max(ends, default=1.0)  # one scale for all plots of the page's part
    caption = "" if metric == "Dice" else f"{METRICS[metric]}: {'lower' if lower else 'higher'} is better"
    tables = []
    for model in benchmark.others or [None]:
        pair = [benchmark.reference] if model is None else [benchmark.reference, model]
        head = [*header, *(tag("span", m, BREAK, f"mean {metric}") for m in pair)]
        if model is not None:
            head += _headers(benchmark, model, lower)
            head += [tag("span", error[0], BREAK, f"({pair[0]}: 1)")] if error else []
        rows = []
        for line in lines:
            row = [*line.cells, *(_score(benchmark.score(m, line.corruption, label, metric, modality=line.modality),
                                         digits) for m in pair)]
            if model is not None:
                row += _difference(found[model, line], reach, benchmark.confidence, digits, lower)
                row += [optional(error[1](model, line), 2)] if error else []
            rows.append(row)
        tables.append(table(head, rows, caption, kind))
    return joined(tables)


def optional(value: float | None, digits: int) -> str:
    return "–" if value is None else number(value, digits)


def _headers(benchmark: Benchmark, model: str, lower_is_better: bool) -> list[object]:
    sides = "← better | worse →" if lower_is_better else "← worse | better →"
    return [tag("span", sides, class_="sides"),
            tag("span", f"{model} − {benchmark.reference}", BREAK, "paired, per case"),
            tag("span", "cases", BREAK, "better / worse"), tag("span", "this shows", BREAK, f"{model} is")]


def _score(score: Score, digits: int) -> Markup:
    mean = tag("b", number(score.mean, digits))
    if score.n < 2 or math.isnan(score.low + score.high):
        return mean
    limits = f"{number(score.low, digits)} to {number(score.high, digits)}"
    return tag("span", mean, BREAK, tag("small", limits))


def _difference(d: Difference | None, reach: float, confidence: float, digits: int,
                lower_is_better: bool) -> list[object]:
    shows = finding(d, confidence, lower_is_better)
    word = tag("span", _MARKS.get(shows, shows), class_="shows " + shows.split()[0])
    if d is None:
        return ["", "–", "–", word]
    limits = interval(d, digits) if d.n > 1 else ""
    if d.n > 1:
        word = tag("span", word, BREAK, tag("small", p_text(d)))
    numbers = tag("span", tag("b", signed(d.difference, digits)), BREAK, tag("small", limits))
    return [whisker(d, reach, shows, digits), numbers, f"{d.better} / {d.worse} of {d.n}", word]
