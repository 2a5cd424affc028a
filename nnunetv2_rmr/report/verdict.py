"""Numbers put into words: what a comparison shows, and what it does not."""

import math

from markupsafe import Markup, escape

from nnunetv2_rmr.evaluation.fusion_metrics.verdict import listed
from nnunetv2_rmr.report.data import GROUPS, MEAN, Benchmark, Difference, Score

BETTER, WORSE, NOT_SHOWN = "better", "worse", "no difference shown"
TOO_FEW, ONE_CASE, NOT_MEASURED = "too few cases", "one case only", "not measured"
PHRASES = {BETTER: "better than {reference} on ", WORSE: "worse than {reference} on ", NOT_SHOWN: f"{NOT_SHOWN} on ",
           TOO_FEW: "too few cases to show a difference on ",
           ONE_CASE: "one case only, which shows nothing about {model} against {reference}: difference on "}
BOLD = ("better than", "worse than", NOT_SHOWN, "too few cases to show a difference", ONE_CASE, "One case only")
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


def number(value: float | None, digits: int = 3) -> str:
    """'–' for None and NaN, '∞' for infinity."""
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """'+0.012', '−0.012', '0.000'; '–' for NaN."""
    if math.isnan(value):
        return "–"
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def percent(part: float) -> str:
    """'95 %', '2.5 %'."""
    return f"{100 * part:.3g} %"


def interval(of: Score | Difference, digits: int = 3) -> str:
    """'0.612 to 0.740', of differences '−0.004 to +0.012'; empty if there are no limits, or a single case."""
    if of.n < 2 or math.isnan(of.low + of.high):
        return ""
    write = signed if isinstance(of, Difference) else number
    return f"{write(of.low, digits)} to {write(of.high, digits)}"


def p_text(difference: Difference) -> str:
    """'p = 0.031', 'p < 0.001'; empty if there was no test."""
    if math.isnan(difference.p):
        return ""
    return "p < 0.001" if difference.p < 0.001 else f"p = {difference.p:.3g}"


def emphasised(sentence_: str) -> Markup:
    """The sentence as HTML, with what it says in bold."""
    html = str(escape(sentence_))
    for word in BOLD:
        html = html.replace(word, f"<b>{word}</b>")
    return Markup(html)


def sentence(model: str, reference: str, differences: dict[str, Difference | None], confidence: float) -> str:
    """One sentence on a model against the reference. differences: group of GROUPS -> difference of the mean Dice."""
    parts: list[str] = []
    findings = {group: finding(d, confidence) for group, d in differences.items()}
    for found, phrase in PHRASES.items():
        numbers = []
        for group in (g for g, f in findings.items() if f == found):
            first = not parts and not numbers
            limits = interval(differences[group])
            if limits:
                limits = f", {percent(confidence)} interval {limits}" if first else f", {limits}"
            change = ("Dice " if first else "") + signed(differences[group].difference)
            numbers.append(f"{GROUPS[group]} ({change}{limits})")
        if numbers:
            parts.append(phrase.format(model=model, reference=reference) + listed(numbers))
    if not parts:
        return f"{model} and {reference} have no case in common: nothing can be compared."
    if set(findings.values()) <= {ONE_CASE, NOT_MEASURED}:
        return parts[0][0].upper() + parts[0][1:] + "."
    return f"{model}: " + "; ".join(parts) + "."


def verdict(benchmark: Benchmark) -> list[str]:
    """The page's first lines: a sentence for each model that is compared, then how far they carry."""
    confidence, reference = benchmark.confidence, benchmark.reference
    lines = [sentence(model, reference, {g: benchmark.difference(model, g, MEAN) for g in benchmark.groups}, confidence)
             for model in benchmark.others]
    if not lines:
        means = {g: benchmark.score(reference, g).mean for g in benchmark.groups}
        where = [f"{value:.3f} on {GROUPS[g]}" for g, value in means.items() if not math.isnan(value)]
        lines = [f"{reference} alone, nothing to compare with: mean Dice {listed(where or ['–'])}."]
    return [*lines, _cases(len(benchmark.test_cases), confidence, compared=bool(benchmark.others))]


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
