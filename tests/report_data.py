"""A benchmark's folder of invented numbers and tiny volumes, as `nnUNetv2_rmr_benchmark` would leave it."""

import json
import warnings
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from nnunetv2_rmr.evaluation.benchmark.fusion import summarise_fusion
from nnunetv2_rmr.evaluation.benchmark.statistics import p_values, shares_of_cases, sign_flips

MODALITIES = ("T1", "FLAIR")
LABELS = ("whole", "core")
KINDS = {"noise": ("seen", "Rician noise"), "blur": ("seen", "Gaussian blur"),
         "motion": ("unseen", "head motion"), "bias_field": ("unseen", "smooth intensity inhomogeneity")}


def write_benchmark(folder: Path, *, models=("vanilla", "rmr"), cases: int = 8, seed: int = 0, gain: float = 0.04,
                    examples: bool = True, names: str = "case") -> Path:
    """Models after the first, the reference, are better by `gain` x severity on degraded images."""
    rng = np.random.default_rng(seed)
    case_names = [f"{names}_{i:02d}" for i in range(cases)]
    conditions = [("clean", "clean", 0, "all")]
    conditions += [(c, kind, s, m) for (c, (kind, _)), s, m in product(KINDS.items(), range(1, 6),
                                                               ("all", *MODALITIES))]
    conditions += [("missing", "missing", 1, m) for m in MODALITIES]
    severity = np.array([s for _, _, s, _ in conditions])[:, None]
    partly = np.array([1 if m == "all" else 0.5 for *_, m in conditions])[:, None]
    shape = (len(conditions), cases)
    image = 0.85 - 0.07 * severity * partly + rng.normal(0, 0.05, cases) + rng.normal(0, 0.03, shape)
    luck = rng.normal(0, 0.05, cases)
    dice = np.stack([image + (gain * severity + luck) * i + rng.normal(0, 0.015, shape) for i in range(len(models))])
    dice = np.clip(np.stack([dice, dice - 0.1], -1), 0, 1)  # model, condition, case, label
    if cases > 1:
        dice[:, :, -1, LABELS.index("core")] = np.nan  # a case without this label
    scores = {"Dice": dice, "HD95": 30 * (1 - dice), "NSD": np.minimum(1, dice + 0.05)}
    results, costs = [], []
    for (i, model), (c, (corruption, kind, s, modality)), (k, case) in product(
            enumerate(models), enumerate(conditions), enumerate(case_names)):
        results += [(model, corruption, kind, s, modality, case, label, *(v[i, c, k, j] for v in scores.values()))
                    for j, label in enumerate(LABELS)]
        restored = (30 - s, 0.9, 25 - 2 * s, 0.7) if corruption != "clean" else (33, 0.95, None, 1)
        costs.append((model, corruption, s, modality, case, 3.1 + i, 1.2 + 0.5 * i,
                      *(restored if i and corruption != "missing" else (None,) * 4),
                      0.05 * s * (1 + (corruption == "motion"))))
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(results, columns=["model", "corruption", "seen", "severity", "modality", "case", "label",
                                   *scores]).to_csv(folder / "results.csv", index=False)
    pd.DataFrame(costs, columns=["model", "corruption", "severity", "modality", "case", "seconds", "peak_memory_gb",
                                 "fused_PSNR", "fused_SSIM", "degraded_PSNR", "degraded_SSIM", "image_difference"]
                 ).to_csv(folder / "cases.csv", index=False)
    (folder / "summary.json").write_text(json.dumps(_summary(scores, conditions, models, case_names, rng)))
    if examples:
        _write_examples(folder / "examples", models, case_names[0], rng)
    return folder


def _interval(values: np.ndarray, rng: np.random.Generator) -> dict:
    values = values[np.isfinite(values)]
    if not len(values):
        return {"mean": None, "low": None, "high": None, "n": 0}
    low, high = np.quantile(rng.choice(values, (200, len(values))).mean(1), (0.025, 0.975))
    return {"mean": values.mean(), "low": low, "high": high, "n": len(values)}


def _summary(scores: dict, conditions, models, cases, rng) -> dict:
    selections = {("clean", 0, "all"): [k == "clean" for _, k, _, _ in conditions]}
    selections |= {(g, "mean", "mean"): [k == g for _, k, _, _ in conditions] for g in ("seen", "unseen", "missing")}
    for corruption, _, severity, modality in conditions[1:]:
        selections[corruption, "mean", modality] = [(c, m) == (corruption, modality) for c, _, _, m in conditions]
        selections[corruption, severity, modality] = [(c, s, m) == (corruption, severity, modality)
                                                      for c, _, s, m in conditions]
    rows, differences = [], []
    labels = {"mean": slice(None)} | {label: slice(j, j + 1) for j, label in enumerate(LABELS)}
    for (metric, values), (label, j), ((corruption, severity, modality), of) in product(
            scores.items(), labels.items(), selections.items()):
        if metric != "Dice" and severity not in (0, "mean"):
            continue
        chosen = values[:, of][..., j]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a case without the label: mean of nothing
            table = np.nanmean(np.nanmean(chosen, -1), 1)  # model, case
        key = {"corruption": corruption, "severity": severity, "modality": modality, "label": label, "metric": metric}
        rows += [{"model": m, **key, **_interval(table[i], rng)} for i, m in enumerate(models)]
        for i, model in enumerate(models[1:], 1):
            paired, sign = table[i] - table[0], -1 if metric == "HD95" else 1
            interval = _interval(paired, rng)
            p = p_values(shares_of_cases(paired[:, None, None], ["any"]), sign_flips(len(cases)))[0]
            differences.append({"model": model, **key, "difference": interval.pop("mean"), **interval,
                                "p": p if interval["n"] else None,
                                "better": int((sign * paired > 0).sum()), "worse": int((sign * paired < 0).sum())})
    means = [{"model": m, "label": label, "mCE": 0.8 if i else 1, "rmCE": 0.7 if i else 1, "mCE_seen": 0.75 if i else 1,
              "mCE_unseen": 0.85 if i else 1} for i, m in enumerate(models) for label in ("mean", *LABELS)]
    errors = [{"model": m, "corruption": c, "label": label, "CE": 0.8 if i else 1, "rCE": None}
              for i, m in enumerate(models) for c in KINDS for label in ("mean", *LABELS)]
    return {"models": {m: {"folder": f"models/{m}", "trainer": "nnUNetTrainer", "plans": "nnUNetPlans",
                           "configuration": "3d_fullres", "folds": [0]} for m in models},
            "reference": models[0], "cases": cases, "labels": list(LABELS),
            "label_values": {"1": "whole", "2": "core"}, "modalities": list(MODALITIES),
            "corruptions": {name: {"seen": kind, "description": text, "parameters": [f"{s} %" for s in range(1, 6)]}
                            for name, (kind, text) in KINDS.items()},
            "n_bootstrap": 200, "seed": 0, "confidence": 0.95, "versions": {"nnunetv2": "2.8.1"},
            "notes": ["invented numbers of a test"], "scores": rows, "differences": differences,
            "corruption_errors": errors, "mean_corruption_errors": means,
            "fusion": summarise_fusion([_clean_record(m, c) for m in models[1:] for c in cases], models[1:]),
            "cost": [{"model": m, "seconds": 3.1 + i, "peak_memory_gb": 1.2 if i else None}
                     for i, m in enumerate(models)]}


def _clean_record(model: str, case: str) -> dict:
    """rmr's fused image is a copy of FLAIR, those of others are not."""
    def facts(copied: str | None, own_edges: float, contrast: float) -> dict:
        return {"own_edges": {"T1": own_edges, "FLAIR": 0.97}, "copy_of": copied,
                "contrast": {label: {"relative": contrast, "best": "FLAIR"} for label in LABELS}}

    return {"model": model, "corruption": "clean", "case": case,
            "fusion": facts("FLAIR", 0.01, 1.0) if model == "rmr" else facts(None, 0.31, 0.8),
            "fusion_baselines": {"gradient": facts(None, 0.52, 0.9), "copy of FLAIR": facts("FLAIR", 0.0, 1.0)}}


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def _write_examples(folder: Path, models, case: str, rng) -> None:
    shape, affine = (28, 34, 24), np.array([[-2.0, 0, 0, 20], [0, 2, 0, -30], [0, 0, 2.5, -10], [0, 0, 0, 1]])
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    body = np.linalg.norm(grid, axis=0) < 0.85
    distance = np.linalg.norm(grid - np.array([0.3, 0.2, 0.1])[:, None, None, None], axis=0)
    label = ((distance < 0.35).astype(np.uint8) + (distance < 0.2)) * body
    index = []
    for severity in (0, 3):
        example = {"case": case, "corruption": "motion" if severity else "clean", "severity": severity,
                   "modality": "all", "images": {}, "label": f"{case}_label.nii.gz", "predictions": {}, "fused": {}}
        write_nifti(folder / example["label"], label.astype(np.uint8), affine)
        for i, modality in enumerate(MODALITIES):
            noise = rng.normal(0, 4 + 8 * severity, shape)
            image = np.where(body, 100 + 40 * (i + 1) * (label > 0) + 30 * grid[0] + noise, 0)
            example["images"][modality] = f"{case}_{severity}_{i}.nii.gz"
            write_nifti(folder / example["images"][modality], image.astype(np.float32), affine)
        for i, model in enumerate(models):
            moved = np.roll(label, 1 + severity - i, axis=0)
            example["predictions"][model] = f"{case}_{severity}_model{i}.nii.gz"
            write_nifti(folder / example["predictions"][model], moved.astype(np.uint8), affine)
            if i:
                example["fused"][model] = f"{case}_{severity}_fused{i}.nii.gz"
                write_nifti(folder / example["fused"][model], image.astype(np.float32), affine)
        index.append(example)
    (folder / "INDEX.json").write_text(json.dumps(index))
