"""The command, on files."""

import csv
import json
import math
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny

from nnunetv2_rmr.cli.evaluate_fusion import main
from nnunetv2_rmr.evaluation.fusion_metrics.evaluate_folder import evaluate_folder
from nnunetv2_rmr.evaluation.fusion_metrics.scores import METRICS, OF_SOURCE

SHAPE = (14, 18, 16)
BRATS = tiny.ROOT.parent / "shared" / "data" / "brats2021"


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Fused and images of the cases a, b, c: two sources with zeros around, and their sum as fused image."""
    fused, images = tmp_path / "fused", tmp_path / "images"
    for folder in (fused, images):
        folder.mkdir()
    for seed, case in enumerate("abc"):
        sources = np.random.default_rng(seed).uniform(10, 100, (2, *SHAPE)).astype(np.float32)
        sources[:, :2] = sources[:, :, -3:] = 0
        for i, source in enumerate(sources):
            tiny.write_image(source, images / f"{case}_{i:04d}.nii.gz")
        tiny.write_image(sources.sum(0), fused / f"{case}.nii.gz")
    return fused, images


def test_modalities_of_one_name_are_told_apart(folders):
    (folders[1] / "dataset.json").write_text(json.dumps({"channel_names": {"0": "zscore", "1": "zscore"},
                                                         "labels": {"background": 0}, "file_ending": ".nii.gz"}))
    case = evaluate_folder(*folders, baselines=["copy"])["metric_per_case"][0]
    assert list(case["sources"]["fused"]) == ["zscore (0000)", "zscore (0001)"]
    assert list(case["metrics"]) == ["fused", "copy of zscore (0000)", "copy of zscore (0001)"]


def test_modalities_called_like_a_way_of_fusing_are_told_apart_from_it(folders):
    labels, json_file = label_lesions(folders), folders[1] / "dataset.json"
    found = []
    for names in (("T1", "FLAIR"), ("average", "gradient")):
        json_file.write_text(json.dumps({"channel_names": dict(enumerate(names)), "labels": {"background": 0},
                                         "file_ending": ".nii.gz"}))
        case = evaluate_folder(*folders, baselines=["average", "gradient"], labels_folder=labels)["metric_per_case"][0]
        found.append([list(of.values()) for of in case["contrast"].values()])
    assert found[0] == found[1] and len(found[0]) == 5


def run(*arguments) -> None:
    main([str(a) for a in arguments])


def read(file: Path) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")
    return json.loads(file.read_text(), parse_constant=refuse)


def test_all_cases_and_baselines_are_scored_and_the_rules_are_stated(folders, capsys):
    fused, images = folders
    run("-fused", fused, "-i", images, "--baselines", "average", "wavelet", "-np", 1)
    summary = read(fused / "fusion_metrics.json")
    assert [case["case"] for case in summary["metric_per_case"]] == ["a", "b", "c"]
    assert summary["metric_per_case"][0]["n_voxels"] == 12 * 15 * 16
    assert list(summary["mean"]) == ["fused", "average", "wavelet"]
    assert summary["n"]["fused"] == dict.fromkeys(METRICS, 3)
    assert list(summary["metric_per_case"][0]["sources"]["average"]) == ["0000", "0001"]
    values = [case["metrics"]["fused"]["SSIM"] for case in summary["metric_per_case"]]
    assert summary["mean"]["fused"]["SSIM"] == pytest.approx(np.mean(values))
    assert summary["std"]["fused"]["SSIM"] == pytest.approx(np.std(values, ddof=1))
    assert tuple(summary["rules"]["metrics"]) == METRICS
    assert set(summary["rules"]["baselines"]) == {"average", "wavelet"}
    printed = capsys.readouterr().out
    assert "Mean over 3 cases" in printed and "wavelet" in printed and "Q_NCIE" in printed


def test_the_average_as_fused_image_scores_like_the_baseline_average(folders):
    # the sum differs from the average of the mapped sources by gain and offset, nearly: both sources are uniform
    scores = evaluate_folder(*folders, baselines=["average"])["mean"]
    assert scores["fused"] == pytest.approx(scores["average"], rel=0.02)


def test_the_csv_file_holds_every_value(folders, tmp_path):
    run("-fused", folders[0], "-i", folders[1], "-o", tmp_path / "out" / "x.json", "--baselines", "-np", 1)
    with open(tmp_path / "out" / "x.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    summary = read(tmp_path / "out" / "x.json")
    assert len(rows) == 3 * (len(METRICS) + 2 * len(OF_SOURCE))
    assert list(rows[0]) == ["case", "method", "metric", "of", "value"]
    cases = {case["case"]: case for case in summary["metric_per_case"]}
    for row in rows:
        case = cases[row["case"]]
        scores = case["sources"][row["method"]][row["of"]] if row["of"] else case["metrics"][row["method"]]
        assert float(row["value"]) == scores[row["metric"]]


def label_lesions(folders: tuple[Path, Path]) -> Path:
    """Labels 1 and 3, 3 inside 1; the second source alone is bright in 1, and darker again in 3."""
    labels = folders[0].parent / "labels"
    labels.mkdir()
    label = np.zeros(SHAPE, np.uint8)
    label[5:10, 3:9, 4:10], label[6:8, 5:7, 6:8] = 1, 3
    for case in "abc":
        file = folders[1] / f"{case}_0001.nii.gz"
        image = tiny.sitk.GetArrayFromImage(tiny.sitk.ReadImage(str(file)))
        tiny.write_image(image + 200 * (label == 1).astype(np.float32), file)
        tiny.write_image(label, labels / f"{case}.nii.gz")
    return labels


def test_contrast_of_lesions_is_scored_by_the_regions_of_dataset_json_or_by_label(folders, capsys):
    labels = label_lesions(folders)
    options = ("-fused", folders[0], "-i", folders[1], "-l", labels, "-np", 1)
    run(*options)
    (case, *_) = read(folders[0] / "fusion_metrics.json")["metric_per_case"]
    assert list(case["relative_contrast"]["fused"]) == ["label 1", "label 3"]
    content = {"channel_names": {"0": "T1", "1": "FLAIR"}, "file_ending": ".nii.gz",
               "labels": {"background": 0, "whole": [1, 3], "core": 3}, "regions_class_order": [1, 3]}
    (folders[1] / "dataset.json").write_text(json.dumps(content))
    run(*options)
    summary = read(folders[0] / "fusion_metrics.json")
    (case, *_) = summary["metric_per_case"]
    assert case["relative_contrast"]["copy of FLAIR"]["whole"] == pytest.approx(1)
    assert case["contrast"]["FLAIR"]["whole"] == case["contrast"]["copy of FLAIR"]["whole"] > 1
    assert case["contrast"]["FLAIR"]["core"] < 0  # darker than what is around it
    scores = case["relative_contrast"]["fused"]
    assert case["metrics"]["fused"]["lesion contrast"] == min(scores.values())
    assert next(iter(summary["mean"]["fused"])) == "lesion contrast"
    assert "lesion contrast" in summary["rules"]["metrics"]
    printed = capsys.readouterr().out
    assert "in proportion to the modality that shows each best: whole " in printed


def test_labels_that_are_no_label_maps_are_a_bad_case(folders):
    labels = label_lesions(folders)
    tiny.write_image(np.full(SHAPE, 0.5, np.float32), labels / "b.nii.gz")
    summary = evaluate_folder(*folders, labels_folder=labels)
    assert "labels/b.nii.gz: can not be a label map: 4032 voxels have no integer value" in summary["failed_cases"]["b"]
    assert list(summary["failed_cases"]) == ["b"]


def test_labels_that_dataset_json_does_not_name_are_a_bad_case(folders):
    labels = label_lesions(folders)
    content = {"channel_names": {"0": "T1", "1": "FLAIR"}, "file_ending": ".nii.gz",
               "labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    (folders[1] / "dataset.json").write_text(json.dumps(content))
    failed = evaluate_folder(*folders, labels_folder=labels)["failed_cases"]
    assert list(failed) == ["a", "b", "c"]
    assert "labels/a.nii.gz: label values that are not declared: 3 " in failed["a"]


def test_what_is_ignored_is_neither_lesion_nor_body(folders):
    labels = label_lesions(folders)
    content = {"channel_names": {"0": "T1", "1": "FLAIR"}, "file_ending": ".nii.gz",
               "labels": {"background": 0, "lesion": 1, "ignore": 3}}
    (folders[1] / "dataset.json").write_text(json.dumps(content))
    before = evaluate_folder(*folders, labels_folder=labels)["metric_per_case"][0]["contrast"]["FLAIR"]
    assert list(before) == ["lesion"]
    file = folders[1] / "a_0001.nii.gz"
    image = tiny.sitk.GetArrayFromImage(tiny.sitk.ReadImage(str(file)))
    image[6:8, 5:7, 6:8] = 150.0  # the ignored voxels
    tiny.write_image(image, file)
    after = evaluate_folder(*folders, labels_folder=labels)["metric_per_case"][0]["contrast"]["FLAIR"]
    assert after["lesion"] == pytest.approx(before["lesion"], rel=1e-5)


def test_by_default_every_modality_is_a_baseline_and_a_copy_is_named(folders, capsys):
    fused, images = folders
    for case in "abc":
        (fused / f"{case}.nii.gz").unlink()
        (fused / f"{case}.nii.gz").symlink_to(images / f"{case}_0001.nii.gz")
    run("-fused", fused, "-i", images, "-np", 1)
    summary = read(fused / "fusion_metrics.json")
    assert list(summary["mean"]) == ["fused", "copy of 0000", "copy of 0001", "gradient", "average", "maximum"]
    assert [case["copy_of"]["fused"] for case in summary["metric_per_case"]] == ["0001"] * 3
    assert summary["metric_per_case"][0]["copy_of"]["copy of 0000"] == "0000"
    printed = capsys.readouterr().out
    assert "This is a copy of 0001." in printed
    assert re.search(r"copy of +0001 +0000 +0001 +– +– +–", printed)


def test_worker_processes_give_the_same_numbers(folders):
    alone, together = (evaluate_folder(*folders, num_processes=n) for n in (1, 2))
    assert together["metric_per_case"] == alone["metric_per_case"]


def test_bad_cases_are_named_and_do_not_stop_the_others(folders, tmp_path):
    fused, images = folders
    (images / "a_0001.nii.gz").unlink()
    broken = (fused / "b.nii.gz").read_bytes()
    (fused / "b.nii.gz").write_bytes(broken[:len(broken) // 2])
    tiny.write_image(np.ones(SHAPE, np.float32), fused / "d.nii.gz")  # no images at all
    with pytest.raises(SystemExit) as left:
        run("-fused", fused, "-i", images, "-o", tmp_path / "x.json", "-np", 1)
    assert "3 case(s) could not be evaluated" in str(left.value.code)  # a text: exit status 1
    summary = read(tmp_path / "x.json")
    assert [case["case"] for case in summary["metric_per_case"]] == ["c"]
    assert "a_0001.nii.gz (0001) missing" in summary["failed_cases"]["a"]
    assert "b.nii.gz" in summary["failed_cases"]["b"]
    assert "d_0000.nii.gz does not exist" in summary["failed_cases"]["d"]
    assert all(reason in str(left.value.code) for reason in summary["failed_cases"].values())


@pytest.mark.parametrize(("change", "message"), [
    (lambda image: np.full_like(image, 7), "constant"),
    (lambda image: np.where(image > 90, np.nan, image), "NaN or infinite"),
    (lambda image: image[1:], "does not lie on the grid"),
    (lambda image: np.where(image > 0, 7, 0).astype(np.float32), "without contrast"),
])
def test_a_fused_image_that_can_not_be_scored_is_a_bad_case(folders, change, message):
    fused, images = folders
    image = np.random.default_rng(5).uniform(1, 99, SHAPE).astype(np.float32)
    image[:, -3:] = 0
    tiny.write_image(change(image), fused / "a.nii.gz")
    summary = evaluate_folder(fused, images)
    assert list(summary["failed_cases"]) == ["a"] and len(summary["metric_per_case"]) == 2
    assert message in summary["failed_cases"]["a"] and "a.nii.gz" in summary["failed_cases"]["a"]


def test_cases_without_fused_image_are_mentioned_but_no_error(folders, capsys):
    fused, images = folders
    (fused / "b.nii.gz").unlink()
    run("-fused", fused, "-i", images, "-np", 1)
    assert "1 case of" in (printed := capsys.readouterr().out) and "without fused image: b" in printed


def test_a_folder_of_masks_decides_what_counts(folders, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:8, 5:12, 3:9] = 2
    for case in "ab":
        tiny.write_image(mask, masks / f"{case}.nii.gz")
    summary = evaluate_folder(*folders, mask=str(masks))
    assert [case["n_voxels"] for case in summary["metric_per_case"]] == [4 * 7 * 6] * 2
    assert "c.nii.gz does not exist" in summary["failed_cases"]["c"]
    everything = evaluate_folder(*folders, mask="none")
    assert everything["metric_per_case"][0]["n_voxels"] == math.prod(SHAPE)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN"), (0.5, "no integer value")])
def test_a_mask_that_is_no_label_map_is_a_bad_case(folders, tmp_path, value, message):
    masks = tmp_path / "masks"
    masks.mkdir()
    for case in "abc":
        mask = np.ones(SHAPE, np.float32)
        mask[:, :3] = value if case == "b" else 0
        tiny.write_image(mask, masks / f"{case}.nii.gz")
    failed = evaluate_folder(*folders, mask=str(masks))["failed_cases"]
    assert list(failed) == ["b"] and "masks/b.nii.gz" in failed["b"] and message in failed["b"]


def test_where_nothing_can_be_written_it_is_said_before_anything_is_evaluated(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("nnunetv2_rmr.evaluation.fusion_metrics.evaluate_folder.evaluate_case", None)
    (tmp_path / "x.csv").mkdir()
    long = "x" * 250 + ".json"  # with what a temporary name adds, no file system takes it
    for output, message in ((tmp_path / "x.json", r"x\.csv"), (tmp_path / long, "too long")):
        with pytest.raises(SystemExit, match=message):
            run("-fused", folders[0], "-i", folders[1], "-o", output)


def test_an_empty_mask_is_a_bad_case(folders, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for case, value in zip("abc", (0, 1, 1)):
        tiny.write_image(np.full(SHAPE, value, np.uint8), masks / f"{case}.nii.gz")
    summary = evaluate_folder(*folders, mask=str(masks))
    assert "mask is empty" in summary["failed_cases"]["a"] and len(summary["metric_per_case"]) == 2


def test_compat_mode_takes_axial_slices_whatever_axis_they_lie_along(folders):
    fused, images = folders
    axial = evaluate_folder(fused, images, mode="compat")
    assert axial["metric_per_case"][0]["n_slices"] == 12  # of 14, two are empty
    for file in [*fused.iterdir(), *images.iterdir()]:  # the same voxels at the same place, stored in another order
        array = tiny.sitk.GetArrayFromImage(tiny.sitk.ReadImage(str(file)))
        tiny.write_image(np.ascontiguousarray(array.transpose(2, 1, 0)), file, direction=(0, 0, 1, 0, 1, 0, 1, 0, 0))
    transposed = evaluate_folder(fused, images, mode="compat")
    assert transposed["metric_per_case"][0]["n_slices"] == 12
    assert transposed["mean"]["fused"] == pytest.approx(axial["mean"]["fused"], rel=1e-4, nan_ok=True)
    assert evaluate_folder(fused, images)["mean"]["fused"]["MI"] < axial["mean"]["fused"]["MI"]


@pytest.mark.parametrize("where", ["fused/dataset.json", "dataset.json", "images/dataset.json", "other.json"])
def test_names_and_file_ending_come_from_dataset_json(folders, tmp_path, where):
    fused, images = folders
    for file in [*fused.iterdir(), *images.iterdir()]:
        tiny.sitk.WriteImage(tiny.sitk.ReadImage(str(file)), str(file).replace(".nii.gz", ".mha"))
        file.unlink()
    content = {"channel_names": {"0": "T1", "1": "FLAIR"}, "file_ending": ".mha", "labels": {"background": 0}}
    (tmp_path / where).write_text(json.dumps(content))
    given = tmp_path / where if where == "other.json" else None
    summary = evaluate_folder(fused, images, dataset_json=given)
    assert summary["rules"]["sources"] == ["T1", "FLAIR"] and len(summary["metric_per_case"]) == 3


def write_flat_images(folder, ending, draw):
    """A fused image and two modalities of a case, in 2D. draw: their values, by a shape."""
    for name in ("fused/a", "images/a_0000", "images/a_0001"):
        (folder / name).parent.mkdir(exist_ok=True)
        tiny.sitk.WriteImage(tiny.sitk.GetImageFromArray(draw((30, 40))), str(folder / f"{name}{ending}"))


def test_2d_images_are_scored(tmp_path):
    rng = np.random.default_rng(0)
    write_flat_images(tmp_path, ".nii.gz", lambda shape: rng.uniform(1, 9, shape).astype(np.float32))
    for mode in ("3d", "compat"):
        summary = evaluate_folder(tmp_path / "fused", tmp_path / "images", mode=mode)
        assert summary["failed_cases"] == {} and summary["n"]["fused"] == dict.fromkeys(METRICS, 1)


def test_images_of_whole_numbers_are_scored(tmp_path):
    rng = np.random.default_rng(0)
    write_flat_images(tmp_path, ".png", lambda shape: rng.integers(1, 256, shape).astype(np.uint8))
    content = {"channel_names": {"0": "T1", "1": "FLAIR"}, "file_ending": ".png"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    summary = evaluate_folder(tmp_path / "fused", tmp_path / "images")
    assert summary["failed_cases"] == {} and len(summary["metric_per_case"]) == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (["-fused", "nowhere"], "-fused nowhere: there is no such folder"),
    (["--mask", "nowhere"], "--mask nowhere: there is no such folder"),
    (["-d", "nowhere.json"], "nowhere.json: can not be read"),
])
def test_a_wrong_folder_is_named(folders, arguments, message):
    with pytest.raises(SystemExit) as left:
        run("-fused", folders[0], "-i", folders[1], *arguments)
    assert message in str(left.value.code)
    assert not (folders[0] / "fusion_metrics.json").exists()


def test_segmentations_are_not_taken_for_fused_images(folders):
    fused, images = folders
    predictions = fused.parent / "predictions"
    predictions.mkdir()
    tiny.write_image((np.arange(np.prod(SHAPE)) % 4).reshape(SHAPE).astype(np.uint8), predictions / "a.nii.gz")
    fused.rename(predictions / "fused")
    with pytest.raises(SystemExit, match=r"a.nii.gz: holds whole numbers from 0 to 3 only: a segmentation.*"
                                         r"did you mean -fused .*predictions/fused\?"):
        run("-fused", predictions, "-i", images, "-np", 1)


@pytest.mark.parametrize("arguments", [["-np", "0"], ["-o", "x.txt"], ["--baselines", "median"], ["--mode", "2d"]])
def test_a_wrong_option_is_a_usage_error(folders, arguments, capsys):
    with pytest.raises(SystemExit) as left:
        run("-fused", folders[0], "-i", folders[1], *arguments)
    assert left.value.code == 2 and arguments[0] in capsys.readouterr().err


def test_without_pywavelets_nothing_is_started(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(SystemExit) as left:
        run("-fused", folders[0], "-i", folders[1], "--baselines", "wavelet")
    assert "nnunetv2-rmr[benchmark]" in str(left.value.code)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not BRATS.is_dir(), reason="no BraTS cases")
def test_on_a_brats_case_a_fused_image_equal_to_a_source_is_recognised(tmp_path):
    source_folder = sorted(BRATS.iterdir())[0]
    fused, images = tmp_path / "fused", tmp_path / "images"
    fused.mkdir()
    images.mkdir()
    for i, name in enumerate(("t1", "t1ce", "t2", "flair")):
        (images / f"case_{i:04d}.nii.gz").symlink_to(source_folder / f"{name}.nii.gz")
    (fused / "case.nii.gz").symlink_to(source_folder / "flair.nii.gz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = evaluate_folder(fused, images, baselines=["average"])
    (case,) = summary["metric_per_case"]
    assert case["metrics"]["fused"]["PSNR"] == math.inf  # one of the sources
    assert 0.25 < case["metrics"]["fused"]["SSIM"] < 1 and case["metrics"]["fused"]["CC"] > 0.25
