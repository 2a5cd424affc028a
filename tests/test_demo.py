import io
import itertools
import json
import re
import subprocess
import sys
from html import escape

import nibabel
import numpy as np
import pytest

from nnunetv2_rmr.cli import demo as cli
from nnunetv2_rmr.datasets.phantom import CHANNELS
from nnunetv2_rmr.demo.degraded import DEGRADATIONS, write_degraded
from nnunetv2_rmr.demo.fusion import facts_of_case, gradient_fusion, load_images, psnr_of_case
from nnunetv2_rmr.demo.progress import Progress
from nnunetv2_rmr.demo.report import fusion_answer, fusion_verdicts, mean_and_spread
from nnunetv2_rmr.demo.results import DemoOptions, DemoResults
from nnunetv2_rmr.demo.run import DemoRefused, expected_seconds, prepare_folder
from nnunetv2_rmr.evaluation.fusion_metrics.verdict import verdict


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


def test_overwrite_replaces_a_demo(tmp_path):
    (tmp_path / "nnUNet_raw" / "Dataset999_Phantom").mkdir(parents=True)
    (tmp_path / "demo.log").write_text("old")
    prepare_folder(DemoOptions(tmp_path, overwrite=True))
    assert not list(tmp_path.iterdir())


def test_overwrite_leaves_what_no_demo_has_written(tmp_path):
    (tmp_path / "demo.log").write_text("old")
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(DemoRefused, match=r"thesis\.doc"):
        prepare_folder(DemoOptions(tmp_path, overwrite=True))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("log", "message"), [((), "no earlier demo's folder"),
                                              (("demo.log",), "holds nnUNet_raw/Dataset101_BraTS, which no demo")])
def test_overwrite_leaves_the_users_own_nnunet_folders(tmp_path, log, message):
    (tmp_path / "nnUNet_raw" / "Dataset101_BraTS").mkdir(parents=True)
    for name in log:
        (tmp_path / name).write_text("old")
    with pytest.raises(DemoRefused, match=message):
        prepare_folder(DemoOptions(tmp_path, overwrite=True))
    assert (tmp_path / "nnUNet_raw" / "Dataset101_BraTS").is_dir()


def test_too_little_to_train_is_refused(tmp_path):
    with pytest.raises(DemoRefused, match="at least 5"):
        prepare_folder(DemoOptions(tmp_path / "out", cases=4))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_degraded_copies_differ_within_the_brain_only(tmp_path, kind):
    image = np.zeros((20, 20, 20), dtype=np.int16)
    image[5:15, 5:15, 5:15] = np.random.default_rng(0).integers(50, 200, (10, 10, 10))
    (tmp_path / "in").mkdir()
    for channel in range(2):
        nibabel.save(nibabel.Nifti1Image(image, np.diag([2, 2, 2, 1])), tmp_path / "in" / f"a_{channel:04d}.nii.gz")
    write_degraded(kind, tmp_path / "in", tmp_path / "out", seed=0)
    write_degraded(kind, tmp_path / "in", tmp_path / "again", seed=0)
    first, second, again = (np.asarray(nibabel.load(tmp_path / name).dataobj) for name in
                            ("out/a_0000.nii.gz", "out/a_0001.nii.gz", "again/a_0000.nii.gz"))
    np.testing.assert_array_equal(first > 0, image > 0)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, image)
    assert kind == "blur" or not np.array_equal(first, second)


def test_progress_into_a_file_has_a_line_per_step():
    stream = io.StringIO()
    progress = Progress({"first": 1, "second": 3}, stream)
    for name in ("first", "second"):
        with progress.step(name, 4):
            for _ in range(4):
                progress.tick()
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[1/2] first" and lines[1].startswith("[1/2] first: done in")
    assert lines[2].startswith("[2/2] second (") and "left" in lines[2]
    assert "\r" not in stream.getvalue() and list(progress.seconds) == ["first", "second"]


@pytest.mark.parametrize("seconds, said", [(80, False), (400, True)])
def test_progress_says_when_the_machine_is_slow(monkeypatch, seconds, said):
    times = itertools.chain([0, 0, seconds], itertools.repeat(seconds))
    monkeypatch.setattr("nnunetv2_rmr.demo.progress.time.monotonic", lambda: next(times))
    stream = io.StringIO()
    progress = Progress({"first": 100, "second": 100}, stream)
    with progress.step("first", 1):
        progress.tick()
    with progress.step("second", 1):
        pass
    assert ("4 times as slow as two free cores" in stream.getvalue()) == said


def test_progress_on_a_terminal_ends_at_the_total():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    progress = Progress({"only": 2.0}, Terminal())
    with progress.step("only", 3):
        progress.tick()
        progress.tick()
    assert progress.bar.n == pytest.approx(2.0)
    progress.close()


def test_expected_seconds_grow_with_the_training():
    short, long = (expected_seconds(DemoOptions("out", epochs=e)) for e in (2, 20))
    assert long["train RMR"] == pytest.approx(10 * short["train RMR"])
    assert long["predict"] == short["predict"]


def test_mean_and_spread_says_how_many_there_are():
    assert mean_and_spread([0.5, 0.7]) == "0.60 ± 0.14"
    assert mean_and_spread([0.5, float("nan")]) == "0.50 (n = 1)"
    assert mean_and_spread([float("nan")]) == "–"


@pytest.fixture
def results(tmp_path) -> DemoResults:
    """One test case, clean and with noise, without fused images. Each channel has stripes of its own."""
    rng, found = np.random.default_rng(0), DemoResults(DemoOptions(tmp_path, spacing_mm=2))
    brain = np.zeros((28, 28, 28), bool)
    brain[2:-2, 2:-2, 2:-2] = True
    lesion = np.zeros_like(brain)
    lesion[12:16, 12:16, 12:16] = True
    for i in range(len(CHANNELS)):
        image = 100 + rng.normal(0, 1, brain.shape) + 30 * lesion
        image[9 * i:9 * i + 9, ::4] += 40
        write(found.images("clean") / f"a_{i:04d}.nii.gz", np.where(brain, image, 0))
        write(found.images("noise") / f"a_{i:04d}.nii.gz", np.where(brain, image + rng.normal(0, 10, brain.shape), 0))
    write(found.labels / "a.nii.gz", lesion)
    return found


def write(file, array) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.diag([2, 2, 2, 1])), file)


def write_fused(results: DemoResults, condition: str, image: np.ndarray) -> None:
    write(results.predictions("nnUNetTrainerRMR", condition) / "fused" / "a.nii.gz", image)


@pytest.mark.parametrize("channel", ["T1ce", "FLAIR"])
def test_the_page_says_of_a_copy_what_it_is_a_copy_of(results, channel):
    write_fused(results, "clean", load_images(results, "clean", "a")[channel])
    results.fusion["a"] = facts_of_case(results, "a")
    of_rmr, of_gradient = fusion_verdicts(results).split("</p>")[:2]
    assert fusion_answer(results) == "No: in 1 of 1 test cases it is a copy of one scan."
    assert of_rmr.startswith('<p class="note">RMR: ') and of_rmr.endswith(f"<b>This is a copy of {channel}.</b>")
    assert of_gradient.startswith("<p>gradient: ") and of_gradient.endswith("This is no copy of one modality.")


def test_the_page_says_of_a_fusion_that_it_is_no_copy(results):
    write_fused(results, "clean", gradient_fusion(load_images(results, "clean", "a"), (2, 2, 2)))
    results.fusion["a"] = facts_of_case(results, "a")
    of_rmr, of_gradient = fusion_verdicts(results).split("</p>")[:2]
    assert fusion_answer(results).startswith("Yes: it is no copy of one scan")
    assert of_rmr.removeprefix("<p>RMR") == of_gradient.removeprefix("<p>gradient")
    assert "lesions " in of_rmr and results.fusion["a"]["RMR"]["own_edges"]["T1ce"] > 0.5


@pytest.mark.parametrize(("t1ce", "answer"), [(0.04, "Hardly"), (0.09, "In part"), (0.48, "In part"), (0.5, "Yes")])
def test_no_copy_is_not_yet_a_fusion(results, t1ce, answer):
    for case, value in (("a", t1ce), ("b", float("nan"))):  # too few edges in b
        own_edges = {"T1ce": value, "T2": 0.6, "FLAIR": float("nan")}
        results.fusion[case] = {"RMR": {"copy_of": None, "own_edges": own_edges}}
    assert fusion_answer(results) == (f"{answer}: it is no copy of one scan, and of the edges that each scan has alone "
                                      f"it shows T1ce {t1ce:.2f}, T2 0.60 (0.97 is all of them).")


def test_a_stable_but_wrong_image_is_not_called_restored(results):
    target = gradient_fusion(load_images(results, "clean", "a"), (2, 2, 2))
    inside = load_images(results, "clean", "a")["FLAIR"] > 0
    for condition in ("clean", "noise"):
        write_fused(results, condition, target + 20)
    expected = 20 * np.log10(np.subtract(*np.quantile(target[inside], (0.999, 0.001))) / 20)
    clean, noise = (psnr_of_case(results, condition, "a") for condition in ("clean", "noise"))
    assert clean == {"fused": pytest.approx(expected, abs=0.01), "gradient": np.inf}
    assert noise["fused"] == pytest.approx(expected, abs=0.01) and noise["gradient"] < np.inf


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
    assert sorted(p.name for p in out.iterdir()) == ["demo.html", "demo.log", "results.json"]
    assert "[8/8]" in done.stdout and "Epoch" not in done.stdout
    nnunet, rmr = json.loads(done.stdout.splitlines()[-1]).values()
    assert nnunet == rmr and len(set(nnunet["lesion"])) > 4, "both start alike and see the same patches"
    results = json.loads((out / "results.json").read_text())
    assert set(results["dice"]["nnUNetTrainerRMR"]) == {"clean", *DEGRADATIONS}
    assert set(results["psnr_db"]["noise"]) == {"phantom_005"}
    page = (out / "demo.html").read_text()
    for name in ("RMR", "gradient"):
        cases = [of_case[name] for of_case in results["fusion"].values()]
        assert escape(verdict(name, cases)) in re.sub("</?b>", "", page)
    assert page.index("Is the fused image a fusion?") < page.index('src="data:image/png;base64,') < page.index("Dice")
    assert page.count('src="data:image/png;base64,') == 3 and "one seed" in page
    assert "nnUNetv2_rmr_fuse -i imagesTs -o OUT" in page
    assert "http" not in page and "<script" not in page and "<link" not in page
