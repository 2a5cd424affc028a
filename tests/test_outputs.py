"""Where commands write: what can not be is told before any work."""

import sys
from importlib.metadata import entry_points

import pytest

from nnunetv2_rmr.cli.argument_types import output_file, output_folder
from nnunetv2_rmr.cli.predict_demo import MODEL

OPTIONS = {  # beside -o
    "predict": ("-i", ".", "-d", "1", "-c", "3d_fullres"), "predict_from_modelfolder": ("-i", ".", "-m", str(MODEL)),
    "benchmark": ("-i", ".", "-l", ".", "-m", f"a={MODEL}"), "corrupt": ("-i", ".", "--corruption", "noise",
                                                                         "--severity", "1"),
    "fuse": ("-i", "."), "demo": (), "report": (), "export_vanilla": ("-m", str(MODEL)),
    "import": ("-i", ".", "-d", "1", "-n", "X", "--modality", "T1=1", "T2=2", "--label", "3"),
    "view": ("-i", ".", "-p", ".", "case"), "evaluate_fusion": ("-fused", ".", "-i", ".")}
NO_OUTPUT = {"trainers", "doctor", "train_ddp", "plan_experiment", "plan_and_preprocess", "preprocess_unlabelled"}
COMMANDS = {entry.name.removeprefix("nnUNetv2_rmr_"): entry for entry in entry_points(group="console_scripts")
            if entry.name.startswith("nnUNetv2_rmr_")}


def refused(command: str, output: str, monkeypatch, capsys) -> str:
    monkeypatch.setattr(sys, "argv", [f"nnUNetv2_rmr_{command}", *OPTIONS[command], "-o", output])
    with pytest.raises(SystemExit) as left:
        COMMANDS[command].load()()
    assert left.value.code
    return capsys.readouterr().err + str(left.value)


def test_these_are_all_commands():
    assert set(COMMANDS) == set(OPTIONS) | NO_OUTPUT


@pytest.mark.parametrize("command", OPTIONS)
def test_a_file_in_the_place_of_the_output_folder_is_told_before_any_work(command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    outputs = ("file/x.json",) if command in ("view", "evaluate_fusion") else ("file", "file/x/y")
    for output in outputs:
        told = refused(command, output, monkeypatch, capsys)
        assert "error: " in told and "-o" in told and "a folder is needed, but file is a file" in told


@pytest.mark.parametrize("command", ["view", "evaluate_fusion"])
def test_a_folder_in_the_place_of_the_output_file_is_told_before_any_work(command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").mkdir()
    assert "-o: 'x.json': is a folder" in refused(command, "x.json", monkeypatch, capsys)


@pytest.mark.parametrize("type_", [output_folder, output_file])
def test_whether_an_output_can_be_written_is_not_for_the_parser_of_options_to_say(type_):
    too_long = f"{'x' * 300}/out.json"  # as what may not be looked at: an OSError, which argparse does not catch
    assert str(type_(too_long)) == too_long
