"""The scripts in benchmarks/ start, and report machine, versions and arguments beside their numbers."""

import json
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from nnunetv2_rmr.networks.start import modality_of_feature

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(file.name for file in FOLDER.glob("*.py") if "__main__" in file.read_text())


def run(monkeypatch, script: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER / "short_trainers"))
    for name in ("raw", "preprocessed", "results"):  # some scripts set these for themselves
        monkeypatch.setenv(f"nnUNet_{name}", "")
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s != "peak_memory.py"])  # whose arguments are a command
def test_a_script_says_what_it_answers(script, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, script, "--help")
    assert stopped.value.code == 0
    assert f"python benchmarks/{script}" in capsys.readouterr().out


@pytest.mark.parametrize(("script", "arguments"), [
    ("front_cost.py", ("--patch", 8, 8, 8)),
    ("degradation_cost.py", ("--patch", 16, 16, 16, "--samples", 2)),
    ("loss_filters.py", ("--shape", 1, 1, 12, 12, 12, "--repeats", 1)),
    ("training_step.py", ("--patch", 16, 16, 16, "--repeats", 1, "--stage", 1, 2)),
])
def test_numbers_come_with_machine_versions_and_arguments(script, arguments, monkeypatch, tmp_path):
    run(monkeypatch, script, *arguments, "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["rows"]
    assert {"device", "threads", "python", "torch", "nnunetv2", "nnunetv2-rmr"} == set(found["machine"])
    assert str(arguments[1]) in str(found["arguments"])


@pytest.mark.parametrize(("modalities", "features"), [(3, 8), (2, 8), (4, 4)])
def test_features_that_are_modalities_start_a_segmentation_network_as_nnunet_does(modalities, features, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER / "short_trainers"))
    from short_trainers import of_features

    reference = modalities - 1
    image, weight = torch.randn(1, modalities, 5, 5, 5), torch.randn(6, modalities, 3, 3, 3)
    shared = image[:, [modality_of_feature(i, modalities, reference) for i in range(features)]]
    found = torch.nn.functional.conv3d(shared, of_features(weight, features, reference))
    torch.testing.assert_close(found, torch.nn.functional.conv3d(image, weight), atol=1e-5, rtol=1e-5)


def test_several_trainings_of_a_fold_count_as_one_case_with_their_mean(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    from quick_compare import report

    dice = {("a", 0): .5, ("a", 10): .7, ("a", 1): .4, ("a", 11): .6, ("b", 0): .7, ("b", 10): .9, ("b", 1): .6,
            ("b", 11): .4}
    found = pd.DataFrame([{"trainer": trainer, "seed": seed, "condition": "clean", "training_seconds": 1, "Dice": value}
                          for (trainer, seed), value in dice.items()])
    report(found, ["a", "b"], [0, 10, 1, 11], cross_validated=True)
    printed = capsys.readouterr().out
    assert "| clean | a | 0.550 | 0.600 0.500 |" in printed
    assert "| clean | b | 0.650 | 0.800 0.500 | +0.100 ± 1.271 |" in printed  # two cases, .2 and 0
