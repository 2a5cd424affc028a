import json

import pytest
import tiny

from nnunetv2_rmr import __version__
from nnunetv2_rmr.evaluation.fusion_baselines import METHODS
from nnunetv2_rmr.settings import TAKEN, RMRSettings, channel_names, distinct_names, reference_channel


def test_settings_survive_the_plans_file():
    settings = RMRSettings(restoration_weight=2.5, reference_modality="T1")
    plans = json.loads(json.dumps(settings.into_plans({"dataset_name": "x"})))
    assert RMRSettings.from_plans(plans) == settings
    assert plans["dataset_name"] == "x"


def test_plans_hold_what_was_changed_and_the_version_and_nothing_else():
    assert RMRSettings().into_plans({})["rmr"] == {"version": __version__}
    assert RMRSettings(p_clean=0.5).into_plans({})["rmr"] == {"p_clean": 0.5, "version": __version__}


@pytest.mark.parametrize("plans", [
    {"rmr": {"stage1_fraction": 0.02, "p_clean": 0.7}},
    {"configurations": {"3d_fullres": {"architecture": {
        "network_class_name": "nnunetv2_rmr.networks.from_plans.RMRNetFromPlans"}}}}])
def test_models_and_plans_of_version_0_1_are_told_which_version_reads_them(plans):
    with pytest.raises(ValueError, match=r"made by nnunetv2-rmr 0\.1, .* predict with version 0\.1\.0"):
        RMRSettings.from_plans(plans, RMRSettings())


def test_a_setting_of_another_version_is_named_with_it():
    with pytest.raises(ValueError, match=r"unknown RMR setting\(s\) later .*\(of version 9\.9\)"):
        RMRSettings.from_plans({"rmr": {"later": 1, "version": "9.9"}})


def test_what_stands_in_the_plans_wins_over_the_class():
    defaults = RMRSettings(panel_every=8, restoration_weight=3)
    settings = RMRSettings.from_plans({"rmr": {"panel_every": 12}}, defaults)
    assert settings.panel_every == 12 and settings.restoration_weight == 3


def test_plans_that_undo_what_a_trainer_is_named_for_are_refused():
    own = RMRSettings(p_clean=0.0)
    own.refuse_contradiction({"rmr": {"p_clean": 0.0, "panel_every": 1}}, "noClean")
    with pytest.raises(ValueError, match=r"noClean has .*p_clean=0.0, but the plans say 1.0"):
        own.refuse_contradiction({"rmr": {"p_clean": 1.0}}, "noClean")


def test_plans_without_settings_are_not_a_trained_rmr_model():
    with pytest.raises(ValueError, match="not trained by a trainer of nnunetv2-rmr"):
        RMRSettings.from_plans({})


@pytest.mark.parametrize("bad", [{"panel_evry": 3}, {"p_clean": 2}, {"p_clean": -0.1}, {"restoration_weight": -1},
                                 {"restoration_weight": 0}, {"restoration_weight": "heavy"}, {"panel_every": 8.5},
                                 {"validation_fusion": 1}, {"p_clean": True}, {"degradation_options": []},
                                 {"modality_dropout": 1.5}, {"panel_every": -1}])
def test_a_wrong_setting_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RMRSettings.from_plans({"rmr": bad}, RMRSettings())


@pytest.mark.parametrize(("plans", "named"), [
    ({"configurations": {"3d_fullres": {"rmr": {"p_clean": 0.5}}}}, "rmr in configuration 3d_fullres"),
    ({"RMR": {"p_clean": 0.5}}, "RMR"), ({"rmr": [1]}, r"must be a dictionary, got \[1\]")])
def test_settings_in_the_wrong_place_are_refused(plans, named):
    with pytest.raises(ValueError, match=named):
        RMRSettings.from_plans(plans, RMRSettings())


def test_changed_settings_are_those_that_differ_from_the_defaults():
    assert RMRSettings().changed() == {}
    assert RMRSettings(p_clean=0.5, degradation_options={"blur": {}}).changed() == \
        {"p_clean": 0.5, "degradation_options": {"blur": {}}}


@pytest.mark.parametrize(("wanted", "names", "expected"), [
    (None, ["T1", "T2-FLAIR", "T1ce"], 1),
    (None, ["flair", "T1"], 0),
    (None, ["CT", "PET", "MR_T1"], 1),
    (None, ["PET", "FLAIR", "T1"], 1),
    (None, ["T2", "ADC"], 1),
    ("adc", ["T2", "ADC", "DWI"], 1),
    (0, ["T2", "ADC"], 0),
])
def test_reference_modality(wanted, names, expected):
    assert reference_channel(wanted, names) == expected


@pytest.mark.parametrize("wanted", ["CT", 2])
def test_a_reference_modality_that_is_not_there_is_refused(wanted):
    with pytest.raises(ValueError, match=r"reference_modality=.*0=T2, 1=ADC"):
        reference_channel(wanted, ["T2", "ADC"])


def test_of_channels_with_one_name_the_reference_modality_is_chosen_by_number():
    names = ["zscore", "Zscore"]
    assert reference_channel(0, names) == 0 and reference_channel(None, names) == 1
    with pytest.raises(ValueError, match=r"reference_modality='zscore': several .* 0=zscore, 1=Zscore"):
        reference_channel("zscore", names)


def test_channel_names_come_in_the_order_of_their_numbers():
    names = {str(i): f"m{i}" for i in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}
    assert channel_names({"channel_names": names}) == [f"m{i}" for i in range(11)]
    assert channel_names({"modality": {"0": "CT"}}) == ["CT"]


def test_modalities_that_share_a_name_with_one_another_or_with_the_fused_image_are_told_apart():
    assert {*METHODS, "mean"} <= {*TAKEN}  # of tables
    assert distinct_names(["CT", "MR", "ct", "fused", "All"]) == ["CT (0000)", "MR", "ct (0002)", "fused (0003)",
                                                                  "All (0004)"]
    assert distinct_names(["T1", "T1ce"]) == ["T1", "T1ce"]


def test_a_misspelt_setting_is_named_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match=r"RMR setting\(s\) restoration_wieght .* known: .*restoration_weight"):
        RMRSettings.from_plans({"rmr": {"restoration_wieght": 1.0}})
    with pytest.raises(ValueError, match=r"unknown RMR setting\(s\) xyz .* known: reference_modality, "):
        RMRSettings.from_plans({"rmr": {"xyz": 1.0}})


def test_every_setting_stands_in_the_documentation_with_its_default():
    text = (tiny.ROOT / "docs" / "settings.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
            if line.startswith("| `")]
    table, default = {name.strip("`"): cells for name, *cells in rows}, RMRSettings()
    assert list(table) == list(RMRSettings.__dataclass_fields__)
    for name, (meaning, stated, effect) in table.items():
        assert meaning and effect, name
        value = getattr(default, name)
        assert stated == str(value) or (isinstance(value, dict) and value), f"{name}: {stated} is not {value}"


def test_there_is_little_to_choose():
    assert len(RMRSettings.__dataclass_fields__) <= 18
