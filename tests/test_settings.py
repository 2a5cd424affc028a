import json

import pytest

from nnunetv2_rmr.settings import RMRSettings, channel_names, reference_channel


def test_settings_survive_the_plans_file():
    settings = RMRSettings(intensity_weight=2.5, reference_modality="T1")
    plans = json.loads(json.dumps(settings.into_plans({"dataset_name": "x"})))
    assert RMRSettings.from_plans(plans) == settings
    assert plans["dataset_name"] == "x"


def test_what_stands_in_the_plans_wins_over_the_class():
    defaults = RMRSettings(features=8, gradient_weight=3)
    settings = RMRSettings.from_plans({"rmr": {"features": 12}}, defaults)
    assert settings.features == 12 and settings.gradient_weight == 3


def test_plans_that_undo_what_a_trainer_is_named_for_are_refused():
    own = RMRSettings(intensity_weight=0.0)
    own.refuse_contradiction({"rmr": {"intensity_weight": 0.0, "gradient_weight": 1.0}}, "noFusionLoss")
    with pytest.raises(ValueError, match=r"noFusionLoss has .*intensity_weight=0.0, but the plans say 1.0"):
        own.refuse_contradiction({"rmr": {"intensity_weight": 1.0}}, "noFusionLoss")


def test_plans_without_settings_are_not_a_trained_rmr_model():
    with pytest.raises(ValueError, match="not trained by a trainer of nnunetv2-rmr"):
        RMRSettings.from_plans({})


@pytest.mark.parametrize("bad", [{"featurs": 3}, {"stage1_fraction": 1.0}, {"p_clean": 2}, {"gradient_weight": -1},
                                 {"intensity_target": "mean"}, {"intensity_weight": "heavy"}, {"features": 8.5},
                                 {"freeze_autoencoder": 1}, {"stage1_lr": True}, {"degradation_options": []},
                                 {"features": 0}, {"fusion_layers": 0}, {"decoder_layers": 0}, {"panel_every": -1}])
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


def test_a_misspelt_setting_is_named_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match=r"RMR setting\(s\) intensity_wieght .* did you mean intensity_weight\?"):
        RMRSettings.from_plans({"rmr": {"intensity_wieght": 1.0}})
    with pytest.raises(ValueError, match=r"unknown RMR setting\(s\) xyz .* known: reference_modality, "):
        RMRSettings.from_plans({"rmr": {"xyz": 1.0}})
