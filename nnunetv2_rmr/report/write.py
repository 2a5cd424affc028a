"""The benchmark's report: one HTML file that opens anywhere, without network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from nnunetv2_rmr.files.atomic import remove_leftovers, replacing
from nnunetv2_rmr.report import charts, examples, fusion, tables
from nnunetv2_rmr.report.data import ALL, MEAN, METRICS, Benchmark
from nnunetv2_rmr.report.html import Markup, page, selector, switched, tag
from nnunetv2_rmr.report.rules import rules
from nnunetv2_rmr.report.verdict import FEW, emphasised, failures, verdict
from nnunetv2_rmr.report.viewer import viewer


def write_report(out: Path) -> Path:
    """Write OUT/report.html from what the benchmark left in OUT; returns its name.

    An example whose files can not be used is left out, and named on the page and on stderr.
    Raises ReportRefused if results.csv, cases.csv or summary.json can not be used.
    """
    benchmark = Benchmark(out)
    shown, problems = examples.load_examples(benchmark)
    for problem in problems:
        print(f"report: {problem}", file=sys.stderr)
    title = "Robustness: " + (" and ".join([", ".join(benchmark.others), benchmark.reference])
                              if benchmark.others else benchmark.reference)
    filename = Path(out) / "report.html"
    remove_leftovers([out])
    content = page(title, *_sections(benchmark, title, shown, problems))
    with replacing(filename) as temporary:
        Path(temporary).write_text(content, encoding="utf-8")
    return filename


def _sections(b: Benchmark, title: str, shown: list[examples.Example], problems: list[str]) -> list[Markup]:
    def per_label(make: Callable[[str], object]) -> Markup:
        return switched({label: make(label) for label in b.labels}, by="label")

    label_names = {label: "mean over labels" if label == MEAN else label for label in b.labels}
    *sentences, count = verdict(b)
    few = "few" if len(b.summary.get("cases", [])) < FEW else None
    parts = [tag("div", selector("label", "Label:", label_names), class_="bar"),
             per_label(lambda label: tables.summary(b, label)), per_label(lambda label: tables.models(b, label))]
    if b.others:
        parts += [tag("h2", "Where: every corruption, mean over severities"),
                  tag("p", "Largest gains first. Single corruptions are tested without correction for their number.",
                      class_="note"),
                  per_label(lambda label: tables.where(b, label))]
    parts += [tag("h2", "Dice against severity"), *_curves(b, per_label),
              tag("h2", "Seen against unseen corruptions"), charts.legend(b),
              per_label(lambda label: charts.groups(b, label)), per_label(lambda label: tables.drops(b, label))]
    if "missing" in b.groups:
        parts += [tag("h2", "One modality missing"), per_label(lambda label: tables.missing_modality(b, label))]
    if b.others:
        parts += [tag("h2", "Case by case"),
                  tag("p", "A point is a case: its mean Dice over the corruptions and severities of the group. Points "
                           "above the dashed line are better than the reference.", class_="note"),
                  *(per_label(lambda label, m=model: charts.scatter(b, m, label)) for model in b.others)]
    parts += [tag("h2", "Surface distance and surface Dice"),
              *(per_label(lambda label, m=m: tables.metric(b, m, label)) for m in METRICS if m != "Dice"),
              *fusion.section(b),
              tag("h2", "Restoration: is the fused image of corrupted scans closer to the clean one than without it?"),
              tables.restoration(b)]
    # the bar with the selector sticks to the top of the window as far as this part of the page goes
    lost = failures(b)
    parts = [tag("h1", title), *(tag("p", emphasised(sentence), class_="verdict") for sentence in sentences),
             tag("p", count, class_=few), *([tag("p", lost, class_="few")] if lost else []), tag("section", *parts)]
    if shown:
        several = len(shown) > 1
        parts += [tag("h2", "Cases that gained most and least" if several else "A case"),
                  tag("p", "Axial slices, the patient's right on the left; coloured outlines: segmentation, dotted: "
                           f"{examples.LABEL}. Corrupted images have the grey window of the clean ones where these "
                           "are shown too."
                           + (" The cases were chosen for being extreme; they are not typical." if several else ""),
                      class_="note"),
                  examples.pictures(b, shown), tag("h2", "Look for yourself"),
                  viewer([example.loaded for example in shown], _label_names(b))]
    return [*parts, *(tag("p", problem, class_="few") for problem in problems),
            tag("h2", "Rules and caveats"), rules(b), tag("h3", "Corruptions"), tables.corruption_list(b)]


def _curves(b: Benchmark, per_label: Callable) -> list[Markup]:
    axes = {"severity": "severity"}
    modalities = {m: "all modalities" if m == ALL else f"{m} only" for m in b.modalities or [ALL]}
    if any(charts.image_differences(b, m) for m in modalities):
        axes["image difference"] = "how much the images changed"

    def per_modality(label: str) -> Markup:
        return switched({m: switched({x: charts.curves(b, label, m, x) for x in axes}, by="axis")
                         for m in modalities}, by="modality")

    return [tag("p", selector("modality", "Corrupted:", modalities), "  ", selector("axis", "Horizontal axis:", axes)),
            charts.legend(b), per_label(per_modality),
            tag("p", f"Bands: {b.confidence:.0%} intervals of the mean (bootstrap over cases)"
                     + ("; who is better is not read off them, but tested by the paired differences above" if b.others
                        else "")
                     + ". Equal severities of two corruptions are not equally harmful; on the axis of image change "
                     "they can be compared.", class_="note")]


def _label_names(b: Benchmark) -> dict[int, str]:
    return {int(value): name for value, name in b.summary.get("label_values", {}).items()}


