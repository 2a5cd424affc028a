"""From single scores to means, paired differences with intervals and a test, and errors relative to the reference's."""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from nnunetv2_rmr.evaluation.scan_degradations import SCAN_DEGRADATIONS

METRICS = ("Dice", "HD95", "NSD")
CONDITION = ["corruption", "seen", "severity", "modality"]
GROUPS = ("clean", "seen", "unseen", "missing")
CONFIDENCE = 0.95  # of intervals
QUANTILES = (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2)
SMALLEST_ERROR = 0.01  # guards the denominators of CE and rCE
MOST_CASES_EXACT = 14  # 2^13 choices of signs, about as many as are drawn for more cases
SIGNS_DRAWN = 9999


class Bootstrap:
    """Percentile intervals of means over cases. The same resamples everywhere, so differences are paired.

    n_cases: rows of what is given. n: resamples.
    """

    def __init__(self, n_cases: int, n: int, seed: int):
        drawn = np.random.default_rng(seed).integers(0, n_cases, (n, n_cases))
        # how often each case is in each resample: means of resamples are then matrix products
        self.counts = np.stack([np.bincount(row, minlength=n_cases) for row in drawn]).astype(float)

    def intervals(self, values: np.ndarray, kinds: Sequence[str]) -> list[dict[str, float]]:
        """values: (cases, conditions, labels), NaN where a case has no score. kinds: of degradation, one per condition.

        Returns {"mean", "low", "high", "n"} of every label and then of the mean over labels, which is nnU-Net's: over
        the cases first, then over the labels that any case has. Between these two, conditions are averaged, those of
        one degradation first. (A case's own mean over conditions would be another thing where it has no score under
        some: a false positive in one condition of five would weigh like one in all.) n counts the cases with a score.
        """
        n_cases, n_conditions, n_labels = values.shape
        valid = ~np.isnan(values)
        flat, weights = np.where(valid, values, 0).reshape(n_cases, -1), valid.reshape(n_cases, -1)
        with np.errstate(invalid="ignore"):
            resampled = ((self.counts @ flat) / (self.counts @ weights)).reshape(-1, n_conditions, n_labels)
        resampled = over_conditions(resampled, kinds)
        means = over_conditions(_nanmean(values, 0), kinds)
        scored = valid.any(1)
        columns = [(means[i], resampled[:, i], scored[:, i]) for i in range(n_labels)]
        columns.append((_nanmean(means, 0), _nanmean(resampled, 1), scored.any(1)))
        found = []
        for mean, drawn, of_case in columns:
            drawn = drawn[~np.isnan(drawn)]
            low, high = np.quantile(drawn, QUANTILES) if len(drawn) else (np.nan, np.nan)
            found.append({"mean": float(mean), "low": float(low), "high": float(high), "n": int(of_case.sum())})
        return found


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nothing but NaN: NaN
        return np.nanmean(values, axis)


def over_conditions(values: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """(..., conditions, labels) -> (..., labels): means over the conditions of each degradation, then over these.
    """
    kinds = np.asarray(kinds)
    of_each = [_nanmean(values[..., kinds == name, :], -2) for name in dict.fromkeys(kinds)]
    return _nanmean(np.stack(of_each, -2), -2)


def shares_of_cases(values: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """(cases, conditions, labels) -> (cases, labels + 1): what every case adds to the means of `Bootstrap.intervals`.

    Of each label and of the mean over labels; 0 for a case without score, NaN where no case has one.
    """
    valid = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        shares = over_conditions(np.where(valid, values, 0) / valid.sum(0), kinds)
    return np.column_stack((shares, _nanmean(shares, 1)))


def sign_flips(n_cases: int) -> np.ndarray:
    """(choices, cases) of 1 and -1; the first choice flips nothing.

    Every choice up to 14 cases, but one only of two that are opposite, else 9999 random ones, the same in every run.
    """
    if n_cases <= MOST_CASES_EXACT:
        return 1.0 - 2 * (np.arange(2 ** (n_cases - 1))[:, None] >> np.arange(n_cases) & 1)
    drawn = np.random.default_rng(0).integers(0, 2, (SIGNS_DRAWN, n_cases))
    return np.concatenate((np.ones((1, n_cases)), 1.0 - 2 * drawn))


def p_values(shares: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Two-sided p, 0 to 1, of the sign-flip test of every column's sum; NaN where that is NaN.

    The part of the sign choices that give a sum at least as far from 0. If the two models are alike, each case's
    difference has either sign with equal probability, and p <= a comes out with probability a at most, whatever the
    values' distribution (Fisher, Design of Experiments, 1935; (k + 1) / (m + 1) if signs are drawn: Phipson and Smyth
    2010, here because the observed signs are among the choices).

    shares: (cases, columns), of `shares_of_cases`: a case of share 0 changes nothing. flips: of `sign_flips`.
    """
    sums = shares.sum(0)
    rounding = 1e-9 * np.abs(shares).sum(0)  # equal sums differ in their last digits
    return np.where(np.isnan(sums), np.nan, (np.abs(flips @ shares) >= np.abs(sums) - rounding).mean(0))


def finished_by_all(results: pd.DataFrame) -> pd.DataFrame:
    """Without the cases and conditions that some model failed on: means over different images do not compare."""
    models = results.groupby(["case", *CONDITION], sort=False).model.transform("nunique")
    return results[models == results.model.nunique()]


def groups_of(conditions: Sequence[tuple]) -> Iterator[tuple[tuple, list[int]]]:
    """What is averaged: (kind, severity, modality), numbers of the conditions (see CONDITION) in it.

    Every condition of its own; every degradation over its severities and modalities (severity "mean", modality "mean"),
    and over its severities alone; and the groups clean, seen and unseen over their degradations (missing is both a
    degradation and a group).
    """
    groups: list[dict[tuple, list[int]]] = [{} for _ in range(4)]
    for number, (kind, seen, severity, modality) in enumerate(conditions):
        if kind != "clean":
            keys = ((kind, int(severity), modality), (kind, "mean", modality), (kind, "mean", "mean"))
            for group, key in zip(groups, keys):
                group.setdefault(key, []).append(number)
        if seen != "missing":
            key = ("clean", 0, "all") if seen == "clean" else (seen, "mean", "mean")
            groups[3].setdefault(key, []).append(number)
    for group in groups:
        yield from group.items()


def scores_and_differences(results: pd.DataFrame, models: list[str], cases: list[str], labels: list[str],
                           reference: str, bootstrap: Bootstrap) -> tuple[list[dict], list[dict]]:
    """Every group's mean per model, and its paired difference to the reference model; per label and over labels.

    Beside a difference: its interval, p of the sign-flip test over cases, and in how many cases the model is better.
    No t-test: sign flips hold their 5 % for all differences symmetric about 0, where it has 2 % for heavy tails, and of
    skewed ones (exponential, 6 to 10 cases) they call 7 to 10 %, it 10 to 12 %.
    """
    conditions = list(results[CONDITION].drop_duplicates().itertuples(index=False, name=None))
    rows = results.set_index(["model", "case", *CONDITION, "label"])
    every = pd.MultiIndex.from_tuples([(m, case, *condition, label) for m in models for case in cases
                                       for condition in conditions for label in labels])
    flips = sign_flips(len(cases))
    scores, differences = [], []
    for metric in METRICS:
        better = -1 if metric == "HD95" else 1
        values = rows[metric].reindex(every).to_numpy(float)
        values = values.reshape(len(models), len(cases), len(conditions), len(labels))
        for (kind, severity, modality), chosen in groups_of(conditions):
            kinds = [conditions[number][0] for number in chosen]
            keys = [{"corruption": kind, "severity": severity, "modality": modality, "label": label,
                     "metric": metric} for label in (*labels, "mean")]
            for model, of_model in zip(models, values[:, :, chosen]):
                scores += [{"model": model, **key, **interval}
                           for key, interval in zip(keys, bootstrap.intervals(of_model, kinds))]
                if model == reference:
                    continue
                paired = of_model - values[models.index(reference)][:, chosen]
                per_case = over_conditions(paired, kinds)
                per_case = better * np.column_stack((per_case, _nanmean(per_case, 1)))
                ps = p_values(shares_of_cases(paired, kinds), flips)
                for i, (key, interval) in enumerate(zip(keys, bootstrap.intervals(paired, kinds))):
                    differences.append({"model": model, **key, "difference": interval.pop("mean"), **interval,
                                        "p": float(ps[i]),
                                        "better": int((per_case[:, i] > 0).sum()),
                                        "worse": int((per_case[:, i] < 0).sum())})
    return scores, differences


def relative_errors(scores: list[dict], models: list[str], reference: str) -> tuple[list[dict], list[dict]]:
    """CE and rCE of every degradation, and their means (Hendrycks & Dietterich 2019, with 1 - Dice as error E).

    CE = mean over severities of E / the same of the reference; rCE the same of E - E(clean). Denominators below
    0.01, negative ones too, are replaced by 0.01. For every modality that was degraded, and "mean" for all of these
    together, of which the means over degradations are.
    """
    error, clean = {}, {}
    for score in scores:
        if score["metric"] == "Dice" and score["corruption"] == "clean":
            clean[score["model"], score["label"]] = 1 - score["mean"]
        elif score["metric"] == "Dice" and score["severity"] == "mean":
            error[score["model"], score["label"], score["corruption"], score["modality"]] = 1 - score["mean"]
    found = dict.fromkeys((c, modality) for _, _, c, modality in error if c not in ("seen", "unseen", "missing"))
    labels = list(dict.fromkeys(label for _, label in clean))
    errors, means = [], []
    for model in models:
        for label in labels:
            of_kinds: dict[str, tuple[float, float]] = {}
            for name, modality in found:
                mine, theirs = (error.get((m, label, name, modality), np.nan) for m in (model, reference))
                entry = {"CE": mine / max(theirs, SMALLEST_ERROR),
                         "rCE": (mine - clean[model, label]) / max(theirs - clean[reference, label], SMALLEST_ERROR)}
                errors.append({"model": model, "corruption": name, "modality": modality, "label": label, **entry})
                if modality == "mean":
                    of_kinds[name] = tuple(entry.values())
            ce, rce = np.array(list(of_kinds.values())).reshape(-1, 2).T
            trained = np.array([SCAN_DEGRADATIONS[name].trained for name in of_kinds], bool)
            parts = {"mCE": ce, "rmCE": rce, "mCE_seen": ce[trained], "mCE_unseen": ce[~trained]}
            means.append({"model": model, "label": label,
                          **{name: float(_nanmean(values, 0)) for name, values in parts.items()}})
    return errors, means
