"""From single scores to means, paired differences and their bootstrap intervals, and corruption errors."""

import warnings

import numpy as np
import pandas as pd

from nnunetv2_rmr.evaluation.corruptions import CORRUPTIONS

METRICS = ("Dice", "HD95", "NSD")
GROUPS = ("clean", "seen", "unseen", "missing")
SMALLEST_ERROR = 0.01  # guards the denominators of corruption errors


class Bootstrap:
    """Percentile intervals of means over cases. The same resamples everywhere, so differences are paired.

    n_cases: rows of what is given. n: resamples.
    """

    def __init__(self, n_cases: int, n: int, seed: int, confidence: float = 0.95):
        drawn = np.random.default_rng(seed).integers(0, n_cases, (n, n_cases))
        # how often each case is in each resample: means of resamples are then matrix products
        self.counts = np.stack([np.bincount(row, minlength=n_cases) for row in drawn]).astype(float)
        self.quantiles = (0.5 - confidence / 2, 0.5 + confidence / 2)

    def intervals(self, values: np.ndarray) -> list[dict[str, float]]:
        """values: (cases, labels), NaN where a case has no score.

        Returns {"mean", "low", "high", "n"} of every label and then of the mean over labels, which is nnU-Net's: over
        the cases first, then over the labels that any case has. n counts the cases with a score.
        """
        valid = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            resampled = (self.counts @ np.where(valid, values, 0)) / (self.counts @ valid)
        means = _nanmean(values, 0)
        columns = [(means[i], resampled[:, i], valid[:, i]) for i in range(values.shape[1])]
        columns.append((_nanmean(means, 0), _nanmean(resampled, 1), valid.any(1)))
        return [self._interval(*column) for column in columns]

    def _interval(self, mean: float, resampled: np.ndarray, valid: np.ndarray) -> dict[str, float]:
        resampled = resampled[~np.isnan(resampled)]
        low, high = np.quantile(resampled, self.quantiles) if len(resampled) else (np.nan, np.nan)
        return {"mean": float(mean), "low": float(low), "high": float(high), "n": int(valid.sum())}


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nothing but NaN: NaN
        return np.nanmean(values, axis)


def groups_of(results: pd.DataFrame, metric: str):
    """What is averaged: (corruption, severity, modality) -> DataFrame(index (model, case), columns labels).

    Every condition of its own; every corruption over its severities and modalities (severity "mean", modality "mean"),
    and over its severities alone; and the groups clean, seen, unseen and missing over their corruptions.
    """
    def per_case(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.pivot_table(metric, ["model", "case"], "label", aggfunc="mean", dropna=False, sort=False)

    corrupted = results[results.corruption != "clean"]
    for (corruption, severity, modality), rows in corrupted.groupby(["corruption", "severity", "modality"], sort=False):
        yield (corruption, int(severity), modality), per_case(rows)
    for (corruption, modality), rows in corrupted.groupby(["corruption", "modality"], sort=False):
        yield (corruption, "mean", modality), per_case(rows)
    for corruption, rows in corrupted.groupby("corruption", sort=False):
        yield (corruption, "mean", "mean"), per_case(rows)
    for group in GROUPS:
        rows = results[results.seen == group]
        if group == "clean":
            yield ("clean", 0, "all"), per_case(rows)
        elif len(rows) and group != "missing":  # missing is a corruption and a group
            by_corruption = rows.groupby(["model", "case", "corruption", "label"], sort=False)[metric].mean()
            yield (group, "mean", "mean"), per_case(by_corruption.reset_index())


def scores_and_differences(results: pd.DataFrame, models: list[str], cases: list[str], labels: list[str],
                           reference: str, bootstrap: Bootstrap) -> tuple[list[dict], list[dict]]:
    """Every group's mean per model, and its paired difference to the reference model; per label and over labels."""
    scores, differences = [], []
    for metric in METRICS:
        better = -1 if metric == "HD95" else 1
        for (corruption, severity, modality), table in groups_of(results, metric):
            values = {m: table.xs(m).reindex(index=cases, columns=labels).to_numpy(float)
                      for m in models if m in table.index.get_level_values(0)}
            keys = [{"corruption": corruption, "severity": severity, "modality": modality, "label": label,
                     "metric": metric} for label in (*labels, "mean")]
            for model, of_model in values.items():
                scores += [{"model": model, **key, **interval}
                           for key, interval in zip(keys, bootstrap.intervals(of_model))]
                if model == reference or reference not in values:
                    continue
                paired = of_model - values[reference]
                per_case = better * np.column_stack((paired, _nanmean(paired, 1)))
                for i, (key, interval) in enumerate(zip(keys, bootstrap.intervals(paired))):
                    differences.append({"model": model, **key, "difference": interval.pop("mean"), **interval,
                                        "better": int((per_case[:, i] > 0).sum()),
                                        "worse": int((per_case[:, i] < 0).sum())})
    return scores, differences


def corruption_errors(scores: list[dict], models: list[str], reference: str) -> tuple[list[dict], list[dict]]:
    """CE and rCE of every corruption, and their means (Hendrycks & Dietterich 2019, with 1 - Dice as error E).

    CE = mean over severities of E / the same of the reference; rCE the same of E - E(clean). Denominators below
    0.01, negative ones too, are replaced by 0.01.
    """
    error, clean = {}, {}
    for score in scores:
        if score["metric"] == "Dice" and score["corruption"] == "clean":
            clean[score["model"], score["label"]] = 1 - score["mean"]
        elif score["metric"] == "Dice" and score["severity"] == score["modality"] == "mean":
            error[score["model"], score["label"], score["corruption"]] = 1 - score["mean"]
    names = list(dict.fromkeys(c for _, _, c in error if c not in ("seen", "unseen", "missing")))
    labels = list(dict.fromkeys(label for _, label in clean))
    errors, means = [], []
    for model in models:
        for label in labels:
            of_label = {}
            for name in names:
                mine, theirs = (error.get((m, label, name), np.nan) for m in (model, reference))
                of_label[name] = mine / max(theirs, SMALLEST_ERROR), \
                    (mine - clean[model, label]) / max(theirs - clean[reference, label], SMALLEST_ERROR)
                errors.append({"model": model, "corruption": name, "label": label,
                               "CE": of_label[name][0], "rCE": of_label[name][1]})
            means.append({"model": model, "label": label, **_means(of_label)})
    return errors, means


def _means(of_corruption: dict[str, tuple[float, float]]) -> dict[str, float]:
    def mean(position: int, chosen: list[str]) -> float:
        return float(_nanmean(np.array([of_corruption[c][position] for c in chosen] or [np.nan]), 0))

    every = list(of_corruption)
    return {"mCE": mean(0, every), "rmCE": mean(1, every),
            "mCE_seen": mean(0, [c for c in every if CORRUPTIONS[c].seen]),
            "mCE_unseen": mean(0, [c for c in every if not CORRUPTIONS[c].seen])}
