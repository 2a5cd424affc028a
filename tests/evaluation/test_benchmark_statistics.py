"""Means, paired intervals and relative errors, against values computed by hand."""

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test

from nnunetv2_rmr.evaluation.benchmark.model import BenchmarkModel
from nnunetv2_rmr.evaluation.benchmark.statistics import (
    METRICS,
    Bootstrap,
    finished_by_all,
    groups_of,
    over_conditions,
    p_values,
    relative_errors,
    scores_and_differences,
    shares_of_cases,
    sign_flips,
)
from nnunetv2_rmr.evaluation.benchmark.summary import not_held_out
from nnunetv2_rmr.evaluation.scan_degradations import SCAN_DEGRADATIONS
from nnunetv2_rmr.report.data import Difference
from nnunetv2_rmr.report.verdict import finding

NAN = float("nan")
CASES, LABELS = ["a", "b", "c"], ["whole", "core"]


def results(**dice_of_model: dict) -> pd.DataFrame:
    """model={(kind, severity): {case: (whole, core)}} -> the benchmark's table; HD95 and NSD follow Dice."""
    rows = []
    seen = {"clean": "clean", "noise": "seen", "ghosting": "unseen"}
    for model, conditions in dice_of_model.items():
        for (kind, severity), cases in conditions.items():
            for case, values in cases.items():
                for label, dice in zip(LABELS, values):
                    rows.append({"model": model, "corruption": kind, "seen": seen[kind],
                                 "severity": severity, "modality": "all", "case": case, "label": label,
                                 "Dice": dice, "HD95": 10 * (1 - dice), "NSD": dice})
    return pd.DataFrame(rows)


def find(entries: list[dict], **wanted) -> dict:
    found = [e for e in entries if all(e[k] == v for k, v in wanted.items())]
    assert len(found) == 1, (wanted, found)
    return found[0]


def evaluate(table: pd.DataFrame, models=("vanilla", "rmr")):
    return scores_and_differences(table, list(models), CASES, LABELS, "vanilla", Bootstrap(3, 500, 0))


CLEAN, NOISE1, NOISE5, GHOSTING = ("clean", 0), ("noise", 1), ("noise", 5), ("ghosting", 3)
TABLE = results(
    vanilla={CLEAN: {"a": (0.8, 0.6), "b": (0.6, NAN), "c": (0.7, 0.4)},
             NOISE1: {"a": (0.7, 0.5), "b": (0.5, NAN), "c": (0.6, 0.3)},
             NOISE5: {"a": (0.5, 0.3), "b": (0.3, NAN), "c": (0.4, 0.1)},
             GHOSTING: {"a": (0.4, 0.2), "b": (0.4, 0.0), "c": (0.4, 0.4)}},
    rmr={CLEAN: {"a": (0.9, 0.7), "b": (0.7, NAN), "c": (0.8, 0.5)},
         NOISE1: {"a": (0.8, 0.7), "b": (0.8, NAN), "c": (0.8, 0.5)},
         NOISE5: {"a": (0.7, 0.6), "b": (0.7, NAN), "c": (0.7, 0.6)},
         GHOSTING: {"a": (0.3, 0.2), "b": (0.5, 0.0), "c": (0.4, 0.4)}})


def test_a_missing_modality_is_a_degradation_and_its_group_at_once():
    groups = list(groups_of([("clean", "clean", 0, "all"), ("ghosting", "unseen", 1, "all"),
                             ("missing", "missing", 1, "T1"), ("missing", "missing", 1, "T2")]))
    names = [name for name, _ in groups]
    assert len(names) == len(set(names))
    assert dict(groups)["missing", "mean", "mean"] == [2, 3] and dict(groups)["unseen", "mean", "mean"] == [1]


def test_mean_over_labels_is_the_mean_of_the_labels_means_as_in_nnunet():
    scores, _ = evaluate(TABLE)
    clean = {"model": "vanilla", "corruption": "clean", "metric": "Dice"}
    assert find(scores, **clean, label="whole")["mean"] == pytest.approx(0.7)
    assert find(scores, **clean, label="core")["mean"] == pytest.approx(0.5)
    assert find(scores, **clean, label="core")["n"] == 2
    mean = find(scores, **clean, label="mean")
    assert mean["mean"] == pytest.approx(0.6) and mean["n"] == 3
    assert mean["low"] <= mean["mean"] <= mean["high"]


def test_a_degradation_is_averaged_over_severities_and_a_group_over_kinds():
    scores, _ = evaluate(TABLE)
    key = {"model": "vanilla", "metric": "Dice", "label": "whole", "modality": "mean", "severity": "mean"}
    assert find(scores, **key, corruption="noise")["mean"] == pytest.approx((0.6 + 0.4) / 2)
    assert find(scores, **key, corruption="seen")["mean"] == pytest.approx(0.5)
    assert find(scores, **key, corruption="unseen")["mean"] == pytest.approx(0.4)


def test_a_false_positive_under_one_condition_of_two_weighs_half_as_much_as_under_both():
    found = {CLEAN: {"a": (0.8, NAN), "b": (0.8, NAN)}}
    nothing, false_positive = {"a": (0.8, NAN), "b": (0.8, NAN)}, {"a": (0.8, NAN), "b": (0.0, NAN)}
    nothing["b"] = (NAN, NAN)
    table = results(vanilla=found | {NOISE1: nothing, NOISE5: false_positive},
                    rmr=found | {NOISE1: false_positive, NOISE5: false_positive})
    scores, _ = evaluate(table)
    key = {"corruption": "noise", "severity": "mean", "modality": "mean", "metric": "Dice", "label": "whole"}
    assert find(scores, **key, model="vanilla")["mean"] == pytest.approx((0.8 + 0.4) / 2)
    assert find(scores, **key, model="rmr")["mean"] == pytest.approx(0.4)


def test_what_a_model_failed_on_counts_for_no_model():
    # where it failed all do badly; without this the one that failed would look better
    lost = TABLE[~((TABLE.model == "rmr") & (TABLE.corruption == "noise") & (TABLE.severity == 5))]
    twin = pd.concat([lost[lost.model == "rmr"], TABLE[TABLE.model == "rmr"].assign(model="vanilla")])
    _, differences = evaluate(finished_by_all(twin))
    assert all(d["difference"] == 0 for d in differences)
    assert not any(d["corruption"] == "noise" and d["severity"] == 5 for d in differences)


def test_a_model_that_failed_everywhere_has_no_scores_and_the_others_theirs():
    table = finished_by_all(TABLE[TABLE.model == "vanilla"])
    scores, _ = evaluate(table)
    assert find(scores, model="vanilla", corruption="clean", metric="Dice", label="whole")["mean"] == pytest.approx(0.7)
    assert all(np.isnan(s["mean"]) for s in scores if s["model"] == "rmr")
    errors, _ = relative_errors(scores, ["vanilla", "rmr"], "vanilla")
    assert all(np.isnan(e["CE"]) for e in errors if e["model"] == "rmr")


def test_differences_are_paired_so_a_constant_gain_has_no_spread():
    _, differences = evaluate(TABLE)
    d = find(differences, model="rmr", corruption="clean", metric="Dice", label="whole")
    assert (d["difference"], d["low"], d["high"]) == pytest.approx((0.1, 0.1, 0.1))
    assert (d["better"], d["worse"], d["n"]) == (3, 0, 3)


def test_the_interval_of_a_mixed_difference_contains_zero():
    _, differences = evaluate(TABLE)
    d = find(differences, corruption="ghosting", severity=3, metric="Dice", label="whole")
    assert d["difference"] == pytest.approx(0.0, abs=1e-12)
    assert d["low"] < 0 < d["high"] and (d["better"], d["worse"]) == (1, 1)


def test_for_distances_smaller_is_better():
    _, differences = evaluate(TABLE)
    d = find(differences, corruption="clean", metric="HD95", label="whole")
    assert d["difference"] == pytest.approx(-1.0) and (d["better"], d["worse"]) == (3, 0)


def test_a_model_does_not_differ_from_itself():
    twin = pd.concat([TABLE[TABLE.model == "vanilla"], TABLE[TABLE.model == "vanilla"].assign(model="rmr")])
    _, differences = evaluate(twin)
    assert all(d["difference"] == d["low"] == d["high"] == d["better"] == d["worse"] == 0 for d in differences)
    assert all(d["p"] == 1 for d in differences)


def test_a_label_that_no_case_has_does_not_count():
    table = TABLE.copy()
    table.loc[table.label == "core", ["Dice", "HD95", "NSD"]] = NAN
    scores, _ = evaluate(table)
    assert find(scores, model="rmr", corruption="clean", metric="Dice", label="mean")["mean"] == pytest.approx(0.8)
    core = find(scores, model="rmr", corruption="clean", metric="Dice", label="core")
    assert np.isnan(core["mean"]) and np.isnan(core["low"]) and core["n"] == 0


def test_the_bootstrap_is_the_plain_one():
    values = np.random.default_rng(1).random((3, 2))
    drawn = np.random.default_rng(0).integers(0, 3, (500, 3))
    expected = np.quantile(values[drawn].mean((1, 2)), (0.025, 0.975))
    mean = Bootstrap(3, 500, 0).intervals(values[:, None], ["clean"])[-1]
    assert (mean["low"], mean["high"]) == pytest.approx(tuple(expected))


def said(scores: np.ndarray) -> list[str]:
    """The report's word for each metric and label. scores: (2 models, METRICS, cases, labels), on clean images."""
    _, _, n_cases, n_labels = scores.shape
    models, cases, labels = (["vanilla", "rmr"], [f"case{i}" for i in range(n_cases)],
                             [f"label{i}" for i in range(n_labels)])
    keys = pd.MultiIndex.from_product([models, ["clean"], ["clean"], [0], ["all"], cases, labels],
                                      names=["model", "corruption", "seen", "severity", "modality", "case", "label"])
    table = pd.DataFrame(np.moveaxis(scores, 1, 3).reshape(-1, len(METRICS)), keys, METRICS).reset_index()
    _, differences = scores_and_differences(table, models, cases, labels, "vanilla", Bootstrap(n_cases, 500, 0))
    return [finding(Difference(**{f.name: d[f.name] for f in fields(Difference)}), 0.95, d["metric"] == "HD95")
            for d in differences if d["label"] != "mean"]


@pytest.mark.parametrize("n", [6, 7, 10, 20])
def test_of_models_that_do_not_differ_one_in_twenty_is_called_better_or_worse(n):
    rng, shape = np.random.default_rng(n), (2, n, 1334)
    dice = np.clip(rng.beta(6, 2, shape[1:]) + rng.normal(0, 0.05, shape), 0, 1)  # cases of unequal difficulty
    far_outliers, nearly_perfect = rng.lognormal(1, 1.5, shape), rng.beta(8, 2, shape)
    words = said(np.stack((dice, far_outliers, nearly_perfect), 1))
    wrong = words.count("better") + words.count("worse")
    assert wrong + words.count("no difference shown") == len(words) == 4002
    assert 0.02 < wrong / len(words) <= 0.055


def test_a_clear_effect_is_found_in_seven_cases():
    rng, shape = np.random.default_rng(0), (7, 100)
    vanilla = rng.beta(6, 2, shape) * 0.8
    dice = np.stack((vanilla, vanilla + rng.normal(0.05, 0.025, shape)))
    words = said(np.stack((dice, 1 - dice, -dice), 1))  # as Dice, as distance, and the other way round
    assert words[:100].count("better") == words[100:200].count("better") == words[200:].count("worse") > 95


@pytest.mark.parametrize(("n", "tolerance"), [(8, 1e-12), (14, 1e-12), (16, 0.01)])
def test_p_is_that_of_scipys_permutation_test(n, tolerance):
    values = np.random.default_rng(n).exponential(size=(n, 3)) - [0.6, 0.8, 0.4]
    expected = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    np.testing.assert_allclose(p_values(values / n, sign_flips(n)), expected.pvalue, rtol=0, atol=tolerance)


def test_equal_sums_count_as_equal_whatever_their_last_digits():
    whole = np.random.default_rng(0).integers(-5, 6, (8, 200)).astype(float)  # sums of these have no rounding
    np.testing.assert_array_equal(p_values(whole / 10, sign_flips(8)), p_values(whole, sign_flips(8)))


def test_p_is_at_least_that_of_one_choice_of_signs_and_the_same_in_every_run():
    ones = np.ones((40, 1))
    assert p_values(ones, sign_flips(40)) == pytest.approx(1 / 10000)
    for n in range(1, 8):
        assert p_values(ones[:n], sign_flips(n)) == pytest.approx(2 / 2 ** n)
    np.testing.assert_array_equal(sign_flips(40), sign_flips(40))


def test_p_leaves_out_cases_without_score_and_is_none_without_any():
    values = np.random.default_rng(0).normal(1, 1, (8, 1, 2))
    values[3, 0, 0] = values[:, 0, 1] = NAN
    of_label, of_nothing, mean = p_values(shares_of_cases(values, ["noise"]), sign_flips(8))
    assert of_label == mean == p_values(np.delete(values[:, :, 0], 3, 0), sign_flips(7)).item() < 1
    assert np.isnan(of_nothing)


def test_what_is_tested_is_the_difference_that_is_shown():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 6, 3))
    values[rng.random(values.shape) < 0.3] = NAN
    values[:, 2, 1] = NAN  # no case has this label under one condition
    kinds = ["noise"] * 3 + ["ghosting"] * 2 + ["blur"]
    shown = [interval["mean"] for interval in Bootstrap(7, 10, 0).intervals(values, kinds)]
    np.testing.assert_allclose(shares_of_cases(values, kinds).sum(0), shown)


def test_relative_errors_are_ratios_of_errors_to_the_references():
    scores, _ = evaluate(TABLE)
    errors, means = relative_errors(scores, ["vanilla", "rmr"], "vanilla")
    noise = find(errors, model="rmr", corruption="noise", label="whole", modality="mean")
    # errors: rmr 1 - (.8 + .7) / 2 = .25, vanilla .5; beyond the clean ones: .25 - .2 = .05, .5 - .3 = .2
    assert noise["CE"] == pytest.approx(0.25 / 0.5)
    assert noise["rCE"] == pytest.approx(0.05 / 0.2)
    mean = find(means, model="rmr", label="whole")
    assert mean["mCE_seen"] == pytest.approx(0.5) and mean["mCE_unseen"] == pytest.approx(1.0)
    assert mean["mCE"] == pytest.approx(0.75)
    assert all(e["CE"] == pytest.approx(1) for e in errors if e["model"] == "vanilla")


def test_a_perfect_reference_does_not_divide_by_zero():
    perfect, good = (dict.fromkeys(CASES, (dice, dice)) for dice in (1.0, 0.9))
    table = results(vanilla={CLEAN: perfect, NOISE1: perfect}, rmr={CLEAN: perfect, NOISE1: good})
    errors, _ = relative_errors(evaluate(table)[0], ["vanilla", "rmr"], "vanilla")
    of_noise = find(errors, model="rmr", corruption="noise", label="mean", modality="all")
    assert of_noise["CE"] == pytest.approx(0.1 / 0.01)


@pytest.mark.parametrize(("settings", "named"), [
    ({}, []),
    ({"degradation_probabilities": {"bias_field": 0.5, "low_resolution": 0.5}}, ["bias_field", "anisotropy"]),
    ({"degradation_probabilities": {"bias_field": 1.0}, "p_clean": 1.0}, []),
    ({"degradation_probabilities": {"bias_field": 0.0, "noise": 1.0}}, []),
])
def test_kinds_that_a_model_was_trained_on_are_not_called_never_trained_for_it(settings, named):
    trained_on = BenchmarkModel.trained_on.fget(SimpleNamespace(predictor=SimpleNamespace(
        plans_manager=SimpleNamespace(plans={"rmr": settings}))))
    assert not_held_out({"trained_on": {"m": trained_on}}, "m", list(SCAN_DEGRADATIONS)) == named
    assert not_held_out({"trained_on": {"m": trained_on}}, "vanilla", list(SCAN_DEGRADATIONS)) == []


def test_every_degradation_weighs_the_same_whatever_the_number_of_its_conditions():
    assert over_conditions(np.array([[1.0], [2.0], [6.0]]), ["noise", "noise", "blur"]).tolist() == [3.75]
