"""nnUNetv2_rmr_benchmark end to end: the numbers are nnU-Net's, and stopping, parts and failures do not change them."""

import json
import re
import shutil
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
import tiny
from conftest import REGIONS
from killed import killed_while_writing

from nnunetv2_rmr.evaluation.benchmark import examples
from nnunetv2_rmr.evaluation.benchmark.job import keep_settings
from nnunetv2_rmr.evaluation.benchmark.model import check_comparable
from nnunetv2_rmr.evaluation.scan_degradations.conditions import CLEAN, Condition, conditions
from nnunetv2_rmr.files.refused import BadCaseError

pytestmark = pytest.mark.slow

OPTIONS = ("--corruptions", "noise", "gamma", "missing", "--severities", 1, 5, "-device", tiny.DEVICE, "--disable_tta",
           "--bootstrap", 200)
MEASURED = ["seconds", "peak_memory_gb"]


@pytest.fixture(scope="module")
def data(nnunet) -> Path:
    return Path(nnunet["nnUNet_raw"]) / f"Dataset{REGIONS}_Tiny"


@pytest.fixture(scope="module")
def vanilla(nnunet) -> Path:
    tiny.run("nnUNetv2_train", REGIONS, tiny.CONFIGURATION, 0, "-tr", "nnUNetTrainer_tiny", "-device", tiny.DEVICE,
             env=nnunet)
    return Path(nnunet["nnUNet_results"]) / data_name() / f"nnUNetTrainer_tiny__nnUNetPlans__{tiny.CONFIGURATION}"


def data_name() -> str:
    return f"Dataset{REGIONS}_Tiny"


@pytest.fixture(scope="module")
def benchmark(nnunet, data, vanilla, trained):
    """Runs the command on given images; further arguments are added."""
    def run(out: Path, *arguments, images: Path = data / "imagesTs", **kwargs):
        return tiny.run("nnUNetv2_rmr_benchmark", "-i", images, "-l", data / "labelsTs", "-m", f"vanilla={vanilla}",
                        "-m", f"rmr={trained}", "-o", out, *OPTIONS, *arguments, env=nnunet, **kwargs)
    return run


@pytest.fixture(scope="module")
def done(benchmark, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("benchmark")
    benchmark(out)
    return out


def table(out: Path, name: str = "results.csv") -> pd.DataFrame:
    frame = pd.read_csv(out / name)
    keys = [c for c in ("model", "corruption", "severity", "modality", "case", "label") if c in frame]
    return frame.drop(columns=[c for c in MEASURED if c in frame]).sort_values(keys).reset_index(drop=True)


def same_numbers(a: Path, b: Path) -> None:
    for name in ("results.csv", "cases.csv"):
        pd.testing.assert_frame_equal(table(a, name), table(b, name))


def test_clean_dice_is_that_of_nnunets_evaluation(done, nnunet, data, trained, vanilla, tmp_path):
    summary = json.loads((done / "summary.json").read_text())
    for name, model in (("rmr", trained), ("vanilla", vanilla)):
        folds = [f.name.removeprefix("fold_") for f in sorted(model.glob("fold_*"))]
        tiny.run("nnUNetv2_predict_from_modelfolder", "-i", data / "imagesTs", "-o", tmp_path / name, "-m", model,
                 "-f", *folds, "-device", tiny.DEVICE, "--disable_tta", "-npp", 1, "-nps", 1, env=nnunet)
        tiny.run("nnUNetv2_evaluate_folder", data / "labelsTs", tmp_path / name, "-djfile", model / "dataset.json",
                 "-pfile", model / "plans.json", "-np", 1, env=nnunet)
        expected = json.loads((tmp_path / name / "summary.json").read_text())
        scores = {s["label"]: s["mean"] for s in summary["scores"]
                  if (s["model"], s["corruption"], s["metric"]) == (name, "clean", "Dice")}
        assert scores["mean"] == pytest.approx(expected["foreground_mean"]["Dice"], abs=1e-6)
        assert scores["whole"] == pytest.approx(expected["mean"]["(1, 2)"]["Dice"], abs=1e-6)
        assert scores["core"] == pytest.approx(expected["mean"]["2"]["Dice"], abs=1e-6)
        assert 0 < scores["mean"] < 1


def test_every_condition_has_its_row_and_its_cost(done):
    cases = pd.read_csv(done / "cases.csv")
    conditions = {("clean", 0, "all"), ("noise", 1, "all"), ("noise", 5, "all"), ("gamma", 1, "all"),
                  ("gamma", 5, "all"), *(("missing", 1, m) for m in tiny.CHANNELS)}
    for _, rows in cases.groupby(["model", "case"]):
        assert set(zip(rows.corruption, rows.severity, rows.modality)) == conditions
    assert (cases.seconds > 0).all() and (cases.peak_memory_gb > 0).all()
    noise = cases[cases.corruption == "noise"]
    assert (noise[noise.severity == 5].image_difference.min() > noise[noise.severity == 1].image_difference.max())


def test_fused_images_are_compared_with_the_clean_target_where_there_are_some(done):
    cases = pd.read_csv(done / "cases.csv")
    assert cases[cases.model == "vanilla"].fused_PSNR.isna().all()
    of_rmr = cases[(cases.model == "rmr") & (cases.corruption != "missing")]
    assert of_rmr.fused_PSNR.notna().all()
    assert (of_rmr.degraded_PSNR.isna() == (of_rmr.corruption == "clean")).all()


def test_the_report_says_what_is_in_the_fused_images(done):
    found = json.loads((done / "summary.json").read_text())["fusion"]
    assert list(found["models"]) == ["rmr"] and list(found["baselines"]) == ["gradient", "copy of FLAIR"]
    assert found["models"]["rmr"]["cases"] == 2
    text = unescape(re.sub("<[^>]*>", "", (done / "report.html").read_text()))
    assert found["models"]["rmr"]["verdict"] in text


def test_the_report_and_its_examples_are_there(done):
    assert (done / "report.html").stat().st_size > 10000
    for entry in json.loads((done / "examples" / "INDEX.json").read_text()):
        files = [*entry["images"].values(), entry["label"], *entry["predictions"].values(), *entry["fused"].values()]
        assert set(entry["predictions"]) == {"vanilla", "rmr"} and set(entry["fused"]) == {"rmr"}
        assert all((done / "examples" / file).is_file() for file in files)


def test_killed_and_started_again_it_gives_the_same_numbers(done, benchmark, tmp_path):
    out = tmp_path / "resumed"
    shutil.copytree(done, out)
    for name in ("results.csv", "summary.json", "report.html"):
        (out / name).unlink()
    first, second = sorted((out / "records").iterdir())
    lines = first.read_text().splitlines()
    kept, failed = json.loads(lines[0]), json.loads(lines[1])
    lines[0] = json.dumps(kept | {"seconds": 12345.0})  # to be seen again, if it is not predicted again
    lines[1] = json.dumps({k: v for k, v in failed.items() if k != "scores"} | {"error": "to be tried again"})
    first.write_text("\n".join(lines[:5]) + "\n" + lines[5][:40])  # killed while it wrote
    second.unlink()
    killed_while_writing(out / "cases.csv")
    benchmark(out)
    assert not [file for file in out.rglob("*") if ".tmp." in file.name]
    same_numbers(out, done)
    assert (pd.read_csv(out / "cases.csv").seconds == 12345).sum() == 1


def test_parts_give_the_same_numbers_and_the_last_one_writes_them(done, benchmark, tmp_path):
    output = benchmark(tmp_path, "-num_parts", 2, "-part_id", 1).stdout
    assert "other parts are not there yet" in output and not (tmp_path / "results.csv").exists()
    benchmark(tmp_path, "-num_parts", 2, "-part_id", 0)
    same_numbers(tmp_path, done)


def test_results_of_another_seed_or_model_are_not_mixed_in(done, benchmark):
    before = {f: f.read_bytes() for f in done.rglob("*") if f.is_file()}
    result = benchmark(done, "--seed", 7, check=False)
    assert result.returncode == 2 and "was begun with seed 0, not 7" in result.stdout
    result = benchmark(done, "-f", 0, check=False)
    assert result.returncode == 2 and "-m rmr: another model" in result.stdout
    assert before == {f: f.read_bytes() for f in done.rglob("*") if f.is_file()}


def test_a_missing_checkpoint_is_answered_with_those_that_are_there(benchmark, tmp_path):
    result = benchmark(tmp_path, "-chk", "checkpoint_latest.pth", check=False)
    assert result.returncode == 2
    assert "no checkpoint_latest.pth in" in result.stdout
    assert "; there are (options -f and -chk): fold_0/checkpoint_best.pth" in result.stdout


def test_a_model_left_out_in_between_is_still_known(tmp_path):
    common = {"seed": 0, "tolerance_mm": 2.0, "images": "/i", "label_folder": "/l"}

    def begin(**models):
        keep_settings(tmp_path, common | {"models": models})

    begin(a={"checkpoints": ["1"]}, b={"checkpoints": ["2"]})
    begin(a={"checkpoints": ["1"]}, c={"checkpoints": ["3"]})
    with pytest.raises(BadCaseError, match=r"-m b: another model .* checkpoints differ"):
        begin(b={"checkpoints": ["4"]})
    begin(a={"checkpoints": ["1"], "folder": "the same model elsewhere"})


@pytest.mark.parametrize(("what", "other"), [("channels", ["FLAIR", "T1"]), ("labels", {"background": 0, "edema": 2}),
                                             ("file_ending", ".mha")])
def test_models_of_other_modalities_labels_or_formats_are_refused(what, other):
    def model(name: str, **changed) -> SimpleNamespace:
        facts = {"labels": {"background": 0, "edema": 1}, "file_ending": ".nii.gz", "channels": ["T1", "FLAIR"]}
        facts |= changed
        return SimpleNamespace(name=name, channels=facts["channels"], dataset_json=facts)

    check_comparable([model("a"), model("b")])
    with pytest.raises(BadCaseError, match=f"-m b: its {what} are"):
        check_comparable([model("a"), model("b", **{what: other})])


def test_what_is_asked_for_twice_is_tested_once():
    planned = conditions(("noise", "noise", "missing"), (1, 1), ("all", "all"), ("T1",))
    assert planned == [CLEAN, Condition("noise", 1), Condition("missing", 1, "T1")]


def test_a_case_that_can_not_be_read_is_named_and_the_others_are_done(done, benchmark, data, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(data / "imagesTs", images)
    bad = images / "caseTs01_0001.nii.gz"
    bad.write_bytes(b"no image")
    shutil.copytree(data / "labelsTs", tmp_path / "labels")
    label = nibabel.load(data / "labelsTs" / "caseTs00.nii.gz")
    for case, factor in (("caseTs00", .9999), ("caseTs02", .5)):  # saved by a program that scales; soft labels
        nibabel.save(nibabel.Nifti1Image(label.get_fdata().astype(np.float32) * np.float32(factor), label.affine),
                     tmp_path / "labels" / f"{case}.nii.gz")
        for i in range(3):
            shutil.copy(images / f"caseTs00_{i:04d}.nii.gz", images / f"caseTs02_{i:04d}.nii.gz")
    out = tmp_path / "out"
    result = benchmark(out, "-l", tmp_path / "labels", images=images, check=False)
    assert result.returncode == 1
    assert "caseTs01_0001.nii.gz" in result.stdout and "Traceback" not in result.stdout
    assert re.search(r"caseTs02\.nii\.gz: .* no integer value", result.stdout)
    expected, got = table(done), table(out)
    expected = expected[expected.case == "caseTs00"].reset_index(drop=True)
    pd.testing.assert_frame_equal(got, expected)
    failed = json.loads((out / "summary.json").read_text())["failed"]
    assert len(failed) == len(table(done, "cases.csv")) and {f["case"] for f in failed} == {"caseTs01", "caseTs02"}
    assert "Failed predictions: " in (out / "report.html").read_text()


@pytest.mark.parametrize("arguments, message", [
    (("-m", "rmr"), "NAME=MODELFOLDER"),
    (("--reference", "nobody"), "--reference nobody"),
    (("--corruptions", "snow"), "--corruptions snow"),
    (("--modalities", "PET"), "--modalities PET"),
    (("-f", 3), "fold_3"),
    (("-m", "expert label=x"), "the report calls the reference segmentations so"),
    (("-o", "/proc/nothing"), "error: [Errno"),
])
def test_what_can_not_work_is_said_at_once(benchmark, arguments, message, tmp_path):
    result = benchmark(tmp_path / "out", *arguments, check=False)
    assert result.returncode == 2 and message in result.stdout and "Traceback" not in result.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [OSError("no space left"), ValueError("no floats in this format")])
def test_pictures_that_can_not_be_made_are_told_and_a_full_disk_ends_it(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(examples, "_write_example", fail)
    arguments = (tmp_path, [("a", CLEAN)], None, [])
    if isinstance(error, OSError):
        with pytest.raises(OSError, match="no space left"):
            examples.write_examples(*arguments)
    else:
        assert examples.write_examples(*arguments) == ["no pictures of a_clean_0_all: no floats in this format"]
