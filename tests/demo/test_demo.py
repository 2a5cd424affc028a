import io
import json
import re
import subprocess
import sys
from html import unescape

import pytest

from nnunetv2_rmr.cli import demo as cli
from nnunetv2_rmr.demo.run import KINDS, DemoOptions, DemoRefused, prepare_folder, show_step


def test_help_needs_no_torch():
    code = ("import sys; from nnunetv2_rmr.cli.demo import parser; parser().format_help(); "
            "sys.exit('torch' in sys.modules or 'scipy' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_folder_that_is_not_empty_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(SystemExit) as stop:
        cli.main(["--out", str(tmp_path)])
    assert stop.value.code == 2
    assert "not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


def test_overwrite_replaces_a_demo_and_nothing_else(tmp_path):
    precious = tmp_path / "nnUNet_raw" / "Dataset101_BraTS", tmp_path / "thesis"
    for folder in (*precious, tmp_path / "nnUNet_raw" / "Dataset999_Phantom", tmp_path / "nnUNet_results",
                   tmp_path / "benchmark"):
        folder.mkdir(parents=True)
    (tmp_path / "demo.log").write_text("old")
    prepare_folder(DemoOptions(tmp_path, overwrite=True))
    assert {*tmp_path.rglob("*")} == {*precious, tmp_path / "nnUNet_raw"}


def test_overwrite_leaves_folders_of_no_demo_alone(tmp_path):
    (tmp_path / "nnUNet_raw" / "Dataset999_Phantom").mkdir(parents=True)
    with pytest.raises(DemoRefused, match="nor an earlier demo's"):
        prepare_folder(DemoOptions(tmp_path, overwrite=True))
    assert (tmp_path / "nnUNet_raw" / "Dataset999_Phantom").is_dir()


def test_too_little_to_train_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["--out", str(tmp_path / "out"), "--cases", "4"])
    assert "'4' is not a whole number from 5" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_step_on_a_terminal_has_a_bar_and_elsewhere_two_lines():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream in (io.StringIO(), terminal := Terminal()):
        with show_step(stream, "train RMR", 4) as tick:
            tick()
            tick(3)
        lines = stream.getvalue().replace("\r", "\n").strip().splitlines()
        assert lines[0].startswith("[4/6] train RMR") and lines[-1].startswith("[4/6] train RMR: done in 00:0")
        assert (len(lines) == 2 and "\r" not in stream.getvalue()) == (stream is not terminal)
        assert ("0/4" in lines[0]) == (stream is terminal)


RECORDED = """
# how each training starts, and how much lesion its patches hold
import json
from nnunetv2_rmr.demo.job import set_environment
set_environment(options.out)
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
start, step, seen = nnUNetTrainer.on_train_start, nnUNetTrainer.train_step, {}

def on_train_start(self):
    start(self)
    weights = [w for name, w in self.network.state_dict().items() if not name.startswith("image_decoder.")]
    seen[type(self).__name__] = {"weights": [float(w.double().sum()) for w in weights], "lesion": []}

def train_step(self, batch):
    seen[type(self).__name__]["lesion"] += [int((target > 0).sum()) for target in batch["target"][0]]
    return step(self, batch)

nnUNetTrainer.on_train_start, nnUNetTrainer.train_step = on_train_start, train_step
"""


@pytest.mark.slow
def test_tiny_demo_end_to_end(tmp_path):
    # a process of its own, because the demo sets nnU-Net's environment variables
    out = tmp_path / "out"
    code = f"""
from pathlib import Path
from nnunetv2_rmr.demo.run import DemoOptions, prepare_folder, run_demo
options = DemoOptions(Path({str(out)!r}), cases=5, test_cases=1, epochs=2, iterations=2, validation_iterations=1,
                      spacing_mm=4, patch_size=(24, 24, 24), features=6, stages=3)
prepare_folder(options)
{RECORDED}
run_demo(options)
print(json.dumps(seen))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["benchmark", "demo.log"]
    assert "[6/6]" in done.stdout and "Epoch" not in done.stdout
    nnunet, rmr = json.loads(done.stdout.splitlines()[-1]).values()
    assert nnunet == rmr and len(set(nnunet["lesion"])) > 4, "both start alike and see the same patches"
    summary = json.loads((out / "benchmark" / "summary.json").read_text())
    assert list(summary["models"]) == ["nnU-Net", "RMR"] and summary["cases"] == ["phantom_005"]
    assert {score["corruption"] for score in summary["scores"]} >= {"clean", *KINDS}
    page = (out / "benchmark" / "report.html").read_text()
    assert summary["fusion"]["models"]["RMR"]["verdict"] in unescape(re.sub("<[^>]*>", "", page))
    assert "phantom_005: clean" in page
