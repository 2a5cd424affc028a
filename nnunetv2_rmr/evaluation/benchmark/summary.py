"""From the records to results.csv, cases.csv and summary.json, which hold all that the report shows."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from nnunetv2_rmr.evaluation.benchmark import statistics
from nnunetv2_rmr.evaluation.benchmark.fusion import summarise_fusion
from nnunetv2_rmr.evaluation.benchmark.records import RESTORED_TO
from nnunetv2_rmr.evaluation.scan_degradations import SCAN_DEGRADATIONS
from nnunetv2_rmr.files.atomic import replacing, write_json

SAME_KIND = {"anisotropy": "low_resolution"}  # kinds for testing and for training are else called the same
KEY = ("model", "corruption", "seen", "severity", "modality", "case")
RESTORATION = ("fused_PSNR", "fused_SSIM", "degraded_PSNR", "degraded_SSIM")
OF_CASE = ("seconds", "peak_memory_gb", *RESTORATION, "image_difference")


def tables(records: Sequence[dict]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """results: a row per label of every prediction; cases: a row per prediction."""
    results = [{**{k: r[k] for k in KEY}, "label": label, **scores}
               for r in records for label, scores in r["scores"].items()]
    # what an older version compared the fused images with must not be averaged with what they are compared with now
    cases = [{k: None if k in RESTORATION and r.get("restored_to") != RESTORED_TO else r.get(k)
              for k in (*KEY, *OF_CASE)} for r in records]
    scores = statistics.METRICS
    return (pd.DataFrame(results, columns=[*KEY, "label", *scores]).astype(dict.fromkeys(scores, float)),
            pd.DataFrame(cases, columns=[*KEY, *OF_CASE]).astype(dict.fromkeys(OF_CASE, float)))


def summarise(records: Sequence[dict], failed: Sequence[dict], settings: dict, reference: str,
              n_bootstrap: int) -> dict:
    """Everything that is computed from the records of finished predictions, and the `failed` ones.

    settings: of benchmark.json, see job.py.
    """
    results, per_case = tables(records)
    results = statistics.finished_by_all(results)
    models, labels, cases = list(settings["models"]), list(settings["labels"]), settings["cases"]
    bootstrap = statistics.Bootstrap(len(cases), n_bootstrap, settings["seed"])
    scores, differences = statistics.scores_and_differences(results, models, cases, labels, reference, bootstrap)
    errors, mean_errors = statistics.relative_errors(scores, models, reference)
    cost = per_case.groupby("model", sort=False).agg({"seconds": "median", "peak_memory_gb": "max"})
    used = {name: kind for name in results.corruption.unique() if (kind := SCAN_DEGRADATIONS.get(name))}
    return {
        "models": settings["models"], "reference": reference, "cases": cases, "labels": labels,
        "label_values": settings["label_values"],
        "modalities": settings["modalities"],
        "corruptions": {name: {"seen": "seen" if kind.trained else "unseen", "description": kind.description,
                               "unit": kind.unit, "parameters": [str(p) for p in kind.parameters]}
                        for name, kind in used.items()},
        "n_bootstrap": n_bootstrap, "seed": settings["seed"], "confidence": statistics.CONFIDENCE,
        "versions": {name: version(name) for name in ("nnunetv2-rmr", "nnunetv2", "torch", "numpy", "scipy")},
        "notes": _notes(settings, list(used), n_bootstrap),
        "scores": scores, "differences": differences, "corruption_errors": errors,
        "mean_corruption_errors": mean_errors,
        "fusion": summarise_fusion(records, settings["fusing"]),
        "failed": [{k: r[k] for k in (*KEY, "error")} for r in failed],
        "cost": [{"model": model, **row} for model, row in cost.to_dict("index").items()],
    }


def _notes(settings: dict, used: Sequence[str], n_bootstrap: int) -> list[str]:
    """The rules by which the numbers were made."""
    trained_too = {model: not_held_out(settings, model, used) for model in settings["models"]}
    return [
        "Dice as nnUNetv2_evaluate_folder: NaN, not counted, where neither reference nor prediction has the label; "
        "the mean over labels is the mean of the labels' means over cases.",
        "HD95 in mm between surface voxels; NSD with a tolerance of "
        f"{settings['tolerance_mm']:g} mm. Nothing in one of the two: Dice and NSD 0, HD95 the image's diagonal.",
        f"Intervals: {statistics.CONFIDENCE:.0%} percentile bootstrap over cases, {n_bootstrap} resamples; differences "
        "are paired by case. With few cases they are too narrow, so they do not decide what is called better.",
        "p: two-sided sign-flip test over cases of the paired difference, which decides what is called better or "
        f"worse (every choice of signs up to {statistics.MOST_CASES_EXACT} cases, {statistics.SIGNS_DRAWN} random "
        "ones for more); not corrected for the number of comparisons.",
        "CE: mean error (1 - Dice) over severities divided by the reference model's; rCE: the same of the error "
        f"beyond the clean one. Denominators are taken as at least {statistics.SMALLEST_ERROR:g}.",
        "missing: one modality at a time replaced by zeros; models of nnunetv2-rmr are told, as with --missing.",
        "Fusion, on clean images: a modality's own edges are those that no other one has (Qabf, 0.975 is all of "
        "them); contrast of lesions in proportion to the modality that shows each best, of every case the smallest "
        "over labels. gradient: classical fusion of the same images. A copy of one modality is no fusion.",
        "Restoration: fused image of the degraded case against the target of the fusion, made of the clean case "
        "(the gradient fusion of its modalities), within the body; beside it the target made of the degraded "
        "case. Clean: how far the fused image is from its target anyway.",
        "Seconds: median of preprocessing, prediction and export of a case; memory: the largest peak.",
        *(f"{model} was trained on {', '.join(kinds)}: never trained by RMR's default training, but by this model's."
          for model, kinds in trained_too.items() if kinds),
    ]


def not_held_out(settings: dict, model: str, used: Sequence[str]) -> list[str]:
    """Kinds that the default training never has, but that this model's training had."""
    trained_on = settings.get("trained_on", {}).get(model, [])
    return [name for name in used if not SCAN_DEGRADATIONS[name].trained and SAME_KIND.get(name, name) in trained_on]


def write_summary(out: Path, records: Sequence[dict], failed: Sequence[dict], settings: dict, reference: str,
                  n_bootstrap: int) -> dict:
    """Write the three files; returns the summary."""
    for name, table in zip(("results.csv", "cases.csv"), tables(records)):
        with replacing(out / name) as temporary:
            table.to_csv(temporary, index=False)
    summary = summarise(records, failed, settings, reference, n_bootstrap)
    write_json(summary, out / "summary.json")
    return summary


def lines_of_groups(summary: dict) -> list[str]:
    """For the terminal, in columns: mean Dice of every model, and the difference to the reference, per group."""
    reference, others = summary["reference"], [m for m in summary["models"] if m != summary["reference"]]

    def find(entries: list[dict], group: str) -> dict[str, dict]:
        """By model, the mean over labels."""
        modality = "all" if group == "clean" else "mean"
        return {e["model"]: e for e in entries if (e["corruption"], e["metric"], e["label"], e["modality"]) ==
                (group, "Dice", "mean", modality) and e["severity"] in (0, "mean")}

    rows = [["test images", *(f"Dice, {m}" for m in summary["models"]),
             *(f"{m} - {reference} [interval], better/worse, p" for m in others)]]
    for group in statistics.GROUPS:
        if scores := find(summary["scores"], group):
            found = find(summary["differences"], group)
            rows.append([group, *(f"{scores[model]['mean']:.3f}" for model in summary["models"]),
                         *("{difference:+.3f} [{low:+.3f}, {high:+.3f}], {better}/{worse}, {p:.3g}".format(**found[m])
                           for m in others)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
