"""In words: what of each modality is in a fused image, and whether it is a copy of one of them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from nnunetv2_rmr.evaluation.fusion_metrics.edges import COMPLETE, OWN_EDGES
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import mean

Facts = dict  # of one case: "own_edges" {modality: value}, "copy_of" name or None, "contrast" {region: {"relative",
#               "best" modality}}; plain, so that it can be kept as JSON (null for NaN)


def facts(own_edges: Mapping[str, float], copy_of: str | None, relative: Mapping[str, float],
          contrast: Mapping[str, Mapping[str, float]]) -> Facts:
    """relative: of the fused image by region, see relative_contrast. contrast: modality -> region -> contrast."""
    best = {region: max(contrast, key=lambda modality: abs(contrast[modality][region])) for region in relative}
    return {"own_edges": dict(own_edges), "copy_of": copy_of,
            "contrast": {region: {"relative": value, "best": best[region]} for region, value in relative.items()}}


def verdict(name: str, cases: Sequence[Facts]) -> str:
    """One paragraph on the fused images `name` of all cases, means over them."""
    own_edges = mean_own_edges(cases)
    sentences = [f"{name}: of each modality's own edges it shows "
                 + ", ".join(f"{modality} {_number(value)}" for modality, value in own_edges.items())
                 + f" ({COMPLETE:.2f} is all of them)."]
    if absent := [modality for modality, value in own_edges.items() if value < OWN_EDGES]:
        sentences.append(f"Of what {listed(absent)} alone show{'s' * (len(absent) == 1)}, next to nothing is in it.")
    regions = list(dict.fromkeys(region for case in cases for region in case["contrast"]))
    if regions:
        sentences.append("Contrast of lesions, in proportion to the modality that shows each best: "
                         + "; ".join(_region(region, cases) for region in regions) + ".")
    return " ".join([*sentences, copy_sentence(cases)])


def copy_sentence(cases: Sequence[Facts]) -> str:
    """'This is a copy of FLAIR.', with how many of the cases if not all; 'This is no copy of one modality.'"""
    copies = Counter(case["copy_of"] for case in cases)
    named = [(modality, n) for modality, n in copies.most_common() if modality is not None]
    if not named:
        return "This is no copy of one modality."
    return "This is a copy of " + ", ".join(
        modality + ("" if n == len(cases) else f" in {n} of {len(cases)} cases") for modality, n in named) + "."


def listed(names: Sequence[str]) -> str:
    """'T1, T2 and FLAIR'"""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def mean_own_edges(cases: Sequence[Facts]) -> dict[str, float]:
    """By modality."""
    modalities = dict.fromkeys(modality for case in cases for modality in case["own_edges"])
    return {modality: mean([case["own_edges"].get(modality) for case in cases]) for modality in modalities}


def _region(region: str, cases: Sequence[Facts]) -> str:
    found = [case["contrast"][region] for case in cases if region in case["contrast"]]
    relative = [entry["relative"] for entry in found if entry["relative"] is not None]
    best = Counter(entry["best"] for entry in found).most_common()
    shown_by = ", ".join(modality + (f" {n}" if len(best) > 1 else "") for modality, n in best)
    turned = sum(value < 0 for value in relative)
    wrong = f", reversed in {turned} of {len(relative)}" if turned else ""
    return f"{region} {_number(mean(relative))} (best in {shown_by}{wrong})"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
