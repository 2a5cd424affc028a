"""Numbers put into words: what a comparison shows, and what it does not."""

from __future__ import annotations

import math

from nnunetv2_rmr.report.data import GROUPS, MEAN, Benchmark, Difference
from nnunetv2_rmr.report.html import Markup, show

BETTER, WORSE, NOT_SHOWN = "better", "worse", "no difference shown"
TOO_FEW, ONE_CASE, NOT_MEASURED = "too few cases", "one case only", "not measured"
FEW = 20  # cases below which bootstrap intervals are called rough


def fewest_cases(confidence: float) -> int:
    """The number of cases below which no difference can be shown.

    If models do not differ, all n cases agree in sign with probability 2 * 0.5^n, the smallest p of the sign-flip test:
    with 5 cases in 6 % of all comparisons.
    """
    return math.ceil(1 - math.log2(1 - confidence))


def finding(difference: Difference | None, confidence: float, lower_is_better: bool = False) -> str:
    """What a paired difference shows: one of the words above, by its p. Without one no difference is shown."""
    if difference is None or difference.n == 0 or math.isnan(difference.difference):
        return NOT_MEASURED
    if difference.n == 1:
        return ONE_CASE
    if difference.n < fewest_cases(confidence):
        return TOO_FEW
    if not difference.p <= 1 - confidence:  # NaN shows nothing either
        return NOT_SHOWN
    return BETTER if (difference.difference > 0) != lower_is_better else WORSE


def percent(part: float) -> str:
    """'95 %', '2.5 %'."""
    return f"{100 * part:.3g} %"


def signed(value: float, digits: int = 3) -> str:
    """'+0.012', '−0.012', '0.000'; '–' for NaN."""
    if math.isnan(value):
        return "–"
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def interval(difference: Difference, digits: int = 3) -> str:
    """'−0.004 to +0.012'; empty if there are no limits."""
    if math.isnan(difference.low) or math.isnan(difference.high):
        return ""
    return f"{signed(difference.low, digits)} to {signed(difference.high, digits)}"


def p_text(difference: Difference) -> str:
    """'p = 0.031', 'p < 0.001'; empty if there was no test."""
    if math.isnan(difference.p):
        return ""
    return "p < 0.001" if difference.p < 0.001 else f"p = {difference.p:.3g}"


def emphasised(sentence_: str) -> Markup:
    """The sentence as HTML, with what it says in bold."""
    words = ("better than", "worse than", NOT_SHOWN, "too few cases to show a difference", ONE_CASE, "One case only")
    html = show(sentence_)
    for word in words:
        html = html.replace(word, f"<b>{word}</b>")
    return Markup(html)


def _joined(parts: list[str], last: str = " and ") -> str:
    return last.join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _with_numbers(group: str, d: Difference, confidence: float, first: bool) -> str:
    limits = interval(d) if d.n > 1 else ""
    of = f"{percent(confidence)} interval " if first else ""
    return f"{GROUPS[group]} ({'Dice ' if first else ''}{signed(d.difference)}{', ' + of + limits if limits else ''})"


_PHRASES = {BETTER: "better than {reference} on {where}", WORSE: "worse than {reference} on {where}",
            NOT_SHOWN: "no difference shown on {where}", TOO_FEW: "too few cases to show a difference on {where}"}


def sentence(model: str, reference: str, differences: dict[str, Difference | None], confidence: float) -> str:
    """One sentence on a model against the reference. differences: group of GROUPS -> difference of the mean Dice."""
    by_finding: dict[str, list[str]] = {}
    for group, d in differences.items():
        by_finding.setdefault(finding(d, confidence), []).append(group)
    by_finding.pop(NOT_MEASURED, None)
    if not by_finding:
        return f"{model} and {reference} have no case in common: nothing can be compared."
    if alone := by_finding.pop(ONE_CASE, None):
        where = _joined([_with_numbers(g, differences[g], confidence, g == alone[0]) for g in alone])
        one = f"one case only, which shows nothing about {model} against {reference}: difference on {where}"
        if not by_finding:
            return one[0].upper() + one[1:] + "."
    parts, first = [], True
    for found, phrase in _PHRASES.items():
        if groups := by_finding.get(found):
            texts = []
            for group in groups:
                texts.append(_with_numbers(group, differences[group], confidence, first))
                first = False
            parts.append(phrase.format(reference=reference, where=_joined(texts)))
    if alone:
        parts.append(one)
    return f"{model}: " + "; ".join(parts) + "."


def verdict(benchmark: Benchmark) -> list[str]:
    """The page's first lines: a sentence for each model that is compared, then how far they carry."""
    confidence, n = benchmark.confidence, len(benchmark.summary.get("cases", []))
    if not benchmark.others:
        means = {g: benchmark.score(benchmark.reference, g).mean for g in benchmark.groups}
        where = [f"{value:.3f} on {GROUPS[g]}" for g, value in means.items() if not math.isnan(value)]
        return [f"{benchmark.reference} alone, nothing to compare with: mean Dice {_joined(where or ['–'])}.",
                _cases(n, confidence, compared=False)]
    lines = [sentence(model, benchmark.reference,
                      {g: benchmark.difference(model, g, MEAN) for g in benchmark.groups}, confidence)
             for model in benchmark.others]
    return [*lines, _cases(n, confidence, compared=True)]


def failures(benchmark: Benchmark) -> str:
    """What could not be predicted; empty if all could."""
    if not benchmark.failed:
        return ""
    of_model = {m: n for m in benchmark.models if (n := sum(f["model"] == m for f in benchmark.failed))}
    return ("Failed predictions: " + ", ".join(f"{n} of {m}" for m, n in of_model.items())
            + ". What one model failed on is left out for all, so that means are over the same images.")


def _cases(n: int, confidence: float, compared: bool) -> str:
    count = f"{n} test case{'' if n == 1 else 's'}."
    if n == 1:
        return f"{count} Its numbers say nothing about other patients."
    if compared and n < fewest_cases(confidence):
        return (f"{count} That is too few: of two models that do not differ, one is better in all {n} cases in "
                f"{percent(2 * 0.5 ** n)} of comparisons. To show a difference at {percent(confidence)} takes "
                f"{fewest_cases(confidence)} cases.")
    if n < FEW:
        tested = " 'Better' and 'worse' are said by a test that holds for few cases, too." if compared else ""
        return f"{count} So few make rough intervals, which tend to be too narrow.{tested}"
    return count
