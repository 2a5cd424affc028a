"""Is what the models show as fused a fusion, or a copy of one modality?"""

from __future__ import annotations

from nnunetv2_rmr.report.data import Benchmark, number
from nnunetv2_rmr.report.html import Markup, table, tag
from nnunetv2_rmr.report.html import number as shown

HEADING = "Is the fused image a fusion?"


def section(benchmark: Benchmark) -> list[Markup]:
    """Verdict of every model that fuses, and the numbers beside those of gradient fusion and a copy; nothing if none
    fuses.
    """
    fusing = benchmark.fusing
    if not fusing:
        return []
    entries = {model: _entry(benchmark, model) for model in fusing}
    parts = [tag("h2", HEADING), *(_sentence(model, entry) for model, entry in entries.items())]
    rows = {model: entry for model, entry in entries.items() if entry.get("cases")}
    if rows:
        baselines = benchmark.summary["fusion"].get("baselines", {})
        parts.append(_table([*rows.items(), *baselines.items()], benchmark.summary.get("modalities", [])))
        parts.append(tag("p", "Clean images. Own edges: those that no other modality has, 0.975 is all of them, a dash "
                              "that there are too few. Lesion contrast: 1 is that of the modality which shows the "
                              "label best, below 0 is reversed; mean over cases of the smallest over labels.",
                         class_="note"))
    return parts


def _entry(benchmark: Benchmark, model: str) -> dict:
    return benchmark.summary.get("fusion", {}).get("models", {}).get(model, {})


def _sentence(model: str, entry: dict) -> Markup:
    problems = "; ".join(entry.get("problems", [])[:3])
    if not entry.get("cases"):
        reason = problems or "an older version predicted its clean cases, or they failed"
        return tag("p", f"{model}: not measured ({reason}).", class_="few")
    copy = entry["copy"] or ""
    text = [entry["verdict"].removesuffix(copy), tag("b", copy)] if copy else [entry["verdict"]]
    if problems:
        text.append(f" Not measured: {problems}.")
    return tag("p", *text, class_="few" if copy else None)


def _table(rows: list[tuple[str, dict]], modalities: list[str]) -> Markup:
    cells = [[name, str(entry["cases"]), *(shown(number(entry["own_edges"].get(m)), 2) for m in modalities),
              shown(number(entry["smallest_contrast"]), 2), _copies(entry)] for name, entry in rows]
    return table(["image", "cases", *(f"own edges, {m}" for m in modalities), "smallest lesion contrast", "copy of"],
                 cells)


def _copies(entry: dict) -> Markup | str:
    copies = ", ".join(m if n == entry["cases"] else f"{m} ({n} of {entry['cases']})"
                       for m, n in entry["copy_of"].items())
    return tag("b", copies) if copies else "no copy"
