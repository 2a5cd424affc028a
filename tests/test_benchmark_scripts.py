"""The scripts in benchmarks/ start, and report machine, versions and arguments beside their numbers."""

import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import to_unit_range
from nnunetv2_rmr.evaluation.fusion_metrics.scores import fusion_scores
from nnunetv2_rmr.evaluation.restoration import restoration_scores
from nnunetv2_rmr.networks.start import modality_of_feature

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(file.name for file in FOLDER.glob("*.py") if "__main__" in file.read_text())


@pytest.fixture
def quick_compare(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import quick_compare

    return quick_compare


def run(monkeypatch, script: str, *arguments: object, env: dict[str, str] | None = None) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER / "short_trainers"))
    for name in ("raw", "preprocessed", "results"):  # some scripts set these for themselves
        monkeypatch.setenv(f"nnUNet_{name}", (env or {}).get(f"nnUNet_{name}", ""))
    threads, environment = torch.get_num_threads(), dict(os.environ)
    try:
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(environment)


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


def clean_case(quick_compare, target, spacing=(2.0, 1.0, 1.0)):
    """What the script makes of a case of three modalities, each with waves in a part of the body where the others are
    nearly flat, and with a lesion."""
    rng, shape = np.random.default_rng(0), (30, 32, 34)
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    body, distance = sum(g ** 2 for g in grid) < 0.9, sum(g ** 2 for g in grid) ** 0.5
    part = np.digitize(grid[0], (-0.3, 0.3))
    images = [factor * (np.sin(12 * grid[1]) * (part == i) + 0.05 * rng.normal(size=shape) + lesion * (distance < 0.25))
              for i, (factor, lesion) in enumerate(((1, -0.5), (-3, -1), (2, 1)))]
    images = torch.tensor(np.array(images) * body, dtype=torch.float32)
    lesions = {"whole": distance < 0.25, "core": distance < 0.15, "absent": distance < 0}
    return quick_compare.CleanCase(images, torch.from_numpy(body), lesions, spacing, tiny.CHANNELS, 2, target)


def noisy(images: torch.Tensor) -> torch.Tensor:
    return images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def test_restoration_is_the_distance_to_the_target_of_all_modalities(quick_compare):
    case = clean_case(quick_compare, target=lambda images: images.mean(0))
    aim, seen = case.images.mean(0), noisy(case.images)
    found = case.score_restoration(noisy(aim), seen)
    for name, image in (("restored", noisy(aim)), ("input", seen.mean(0))):
        for metric, value in restoration_scores(image, aim, case.body).items():
            assert found[f"{name} {metric}"] == value
    assert case.score_restoration(aim, case.images) == {"restored PSNR": float("inf"), "restored SSIM": 1}


def test_without_a_target_there_is_no_restoration(quick_compare):
    case = clean_case(quick_compare, target=None)
    assert case.score_restoration(case.images[0], case.images) == {}


def test_a_missing_reference_modality_is_no_input_to_compare_with(quick_compare):
    case = clean_case(quick_compare, target=lambda images: images[2])
    seen = case.images * torch.tensor([1, 1, 0]).reshape(3, 1, 1, 1)
    assert set(case.score_restoration(case.images[0], seen)) == {"restored PSNR", "restored SSIM"}


def test_all_images_are_scored_over_their_whole_range(quick_compare):
    case = clean_case(quick_compare, target=None)
    seen, present = noisy(case.images), torch.ones(3, dtype=torch.bool)
    found = case.score_fusion(5 * case.images.mean(0) - 1, seen, present)
    mask = case.body.numpy()
    sources, shown = ([to_unit_range(image, mask) for image in images.numpy()] for images in (case.images, seen))
    raw = {name: fuse(name, shown, mask, case.spacing, 2) for name in ("average", "guided", "gradient")}
    raw["fused"] = 5 * case.images.mean(0).numpy() - 1
    images = {"copy of FLAIR": shown[2], **{name: to_unit_range(image, mask) for name, image in raw.items()}}
    expected = fusion_scores(images, sources, mask)
    for name, scores in expected.items():
        for metric in ("smallest own edges", "smallest Qabf", "smallest VIF"):
            assert found[f"{name} {metric}"] == pytest.approx(scores.metrics[metric])
        for channel, of_source in zip(tiny.CHANNELS, scores.sources):
            assert found[f"{name} own edges {channel}"] == pytest.approx(of_source["own edges"])
    assert {name.split(" smallest")[0] for name in found if name.endswith("smallest VIF")} == set(images)
    unmapped = fusion_scores({"average": raw["average"]}, sources, mask)["average"].metrics["smallest Qabf"]
    assert found["average smallest Qabf"] > unmapped + 0.01


def test_a_copy_is_called_one_and_its_lesions_are_as_bright_as_in_the_modality(quick_compare):
    case = clean_case(quick_compare, target=None)
    found = case.score_fusion(2 * case.images[1] + 3, case.images, torch.ones(3, dtype=torch.bool))
    assert [found[f"{name} is a copy"] for name in ("fused", "copy of T1", "copy of FLAIR", "average")] == [1, 1, 1, 0]
    assert found["fused smallest contrast"] == pytest.approx(found["copy of T2 smallest contrast"], abs=1e-4)
    assert found["fused smallest own edges"] == min(found[f"fused own edges {c}"] for c in ("T1", "FLAIR"))
    for channel in tiny.CHANNELS:
        edges = [found[f"copy of {other} own edges {channel}"] for other in tiny.CHANNELS]
        assert edges == pytest.approx([0.975 * (other == channel) for other in tiny.CHANNELS], abs=0.03)
        assert found[f"average own edges {channel}"] > 0.1
    turned = case.score_fusion(-case.images[1], case.images, torch.ones(3, dtype=torch.bool))
    assert turned["fused smallest contrast"] < 0 < found["fused smallest contrast"]


def test_fusions_of_what_the_network_saw_know_nothing_of_a_missing_modality(quick_compare):
    case = clean_case(quick_compare, target=None)
    present = torch.tensor([True, True, False])
    seen = case.images * present.reshape(3, 1, 1, 1)
    found = case.score_fusion(case.images[0], seen, present)
    mask = case.body.numpy()
    sources = [to_unit_range(image, mask) for image in case.images.numpy()]
    average = to_unit_range(fuse("average", sources[:2], mask), mask)
    assert found["average smallest Qabf"] == pytest.approx(
        fusion_scores({"average": average}, sources, mask)["average"].metrics["smallest Qabf"])
    assert "copy of T1 is a copy" in found and "copy of FLAIR is a copy" not in found


def test_a_comparison_keeps_every_case_and_goes_on_from_what_it_has(nnunet, tmp_path, monkeypatch, capsys):
    def compare() -> str:
        run(monkeypatch, "quick_compare.py", "-d", "Dataset902_Tiny", "-c", tiny.CONFIGURATION, "-o", tmp_path,
            "--cross_validate", "--seeds", 0, 11, "--epochs", 2, "--iterations", 2, "--trainers", "nnUNetTrainer",
            "nnUNetTrainerRMR", env=nnunet)
        return capsys.readouterr().out.split("\nDice\n")[1]

    printed = compare()
    cases = pd.read_csv(tmp_path / "cases.csv")
    assert set(cases.seed) == {0, 11} and cases.case.nunique() == 2  # one case in each of the two folds
    assert not cases.duplicated(["trainer", "seed", "condition", "case"]).any()
    clean = cases[(cases.trainer == "nnUNetTrainerRMR") & (cases.condition == "clean")]
    own = clean[[f"fused own edges {channel}" for channel in tiny.CHANNELS]]
    assert clean["fused smallest own edges"].tolist() == pytest.approx(own.min(axis=1).tolist(), nan_ok=True)
    assert (clean["copy of T1 is a copy"] == 1).all() and (clean["average is a copy"] == 0).all()
    assert clean["restored PSNR"].notna().all() and clean["input PSNR"].isna().all()
    assert cases[cases.trainer == "nnUNetTrainer"]["fused is a copy"].isna().all()
    assert "| *average* |" in printed and "(n = 2)" in printed

    (tmp_path / "cases.csv").unlink()
    (tmp_path / "nnUNetTrainerRMR_0.json").unlink()  # its training has ended and is tested again
    assert compare() == printed
    for file in tmp_path.iterdir():
        if file.name != "cases.csv":
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    again = compare()
    assert [file.name for file in tmp_path.iterdir()] == ["cases.csv"]
    assert again.count("\n") == printed.count("\n") and again.split("|")[:12] == printed.split("|")[:12]


def test_several_trainings_of_a_patient_count_as_one_with_their_mean(quick_compare, capsys):
    dice = {("a", 0): .5, ("a", 10): .7, ("a", 1): .4, ("a", 11): .6, ("b", 0): .7, ("b", 10): .9, ("b", 1): .6,
            ("b", 11): .4}
    found = pd.DataFrame([{"trainer": trainer, "seed": seed, "condition": "clean", "case": f"{seed % 10}",
                           "training_seconds": 1, "Dice": value} for (trainer, seed), value in dice.items()])
    quick_compare.report(found, ["a", "b"], [0, 10, 1, 11], cross_validated=True)
    printed = capsys.readouterr().out
    assert "| clean | a | 0.550 | 0.600 0.500 |" in printed
    assert "| clean | b | 0.650 | 0.800 0.500 | +0.100 ± 1.271 (n = 2) |" in printed  # two patients, .2 and 0
    quick_compare.report(found, ["a", "b"], [0, 10, 1, 11])
    assert "(n = 4)" in capsys.readouterr().out  # of seeds


def test_patients_of_a_fold_are_units_of_their_own_and_seeds_are_means_over_theirs(quick_compare, capsys):
    found = pd.DataFrame([{"trainer": trainer, "seed": seed, "condition": "clean", "case": f"{seed}{i}",
                           "training_seconds": 1, "Dice": value}
                          for trainer, gain in (("a", 0), ("b", .1)) for seed in (0, 1)
                          for i, value in enumerate((.2 + gain, .4 - gain))])
    quick_compare.report(found, ["a", "b"], [0, 1], cross_validated=True)
    assert "(n = 4)" in capsys.readouterr().out
    quick_compare.report(found, ["a", "b"], [0, 1])
    assert "| clean | b | 0.300 | 0.300 0.300 | +0.000 ± 0.000 (n = 2) |" in capsys.readouterr().out


def test_tables_without_single_cases_can_be_printed_and_gone_on_from(quick_compare, tmp_path):
    (tmp_path / "means.csv").write_text("trainer,seed,condition,cases,training_seconds,Dice\na,13,clean,6,1,.5\n")
    (tmp_path / "b_2.json").write_text(json.dumps({"seconds_training": 1, "scores": {"clean": {"x": {"Dice": .7}}}}))
    found = quick_compare.every_case(tmp_path)
    assert found[["trainer", "seed", "case", "Dice"]].values.tolist() == [["b", 2, "x", .7], ["a", 13, "fold 3", .5]]


def test_bfloat16_changes_rounding_only(quick_compare):
    torch.manual_seed(0)
    network, x = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.ReLU()), torch.randn(2, 3, 8, 8, 8)
    exact = network(x)
    quick_compare.in_bfloat16(network)
    found = network(x)
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, atol=0.02, rtol=0.02)


def test_real_scans_become_a_data_set_with_folds_of_patients(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    import real_dataset

    environment = dict(os.environ)
    rng = np.random.default_rng(0)
    for i in range(7):
        images, label = tiny.tiny_case(rng)
        for name, image in zip(("CT", "PET", "MR_T1"), images):
            if (i, name) != (6, "PET"):
                tiny.write_image(image, tmp_path / "scans" / f"STS_{i}" / f"{name}.nii.gz", spacing=(3, 3, 5))
        tiny.write_image((label > 0).astype(np.uint8), tmp_path / "scans" / f"STS_{i}" / "gtv.nii.gz", (3, 3, 5))
    try:
        real_dataset.make("sarcoma", tmp_path / "root", tmp_path / "scans")
        assert os.environ["nnUNet_preprocessed"] == str(tmp_path / "root" / "nnUNet_preprocessed")
    finally:
        os.environ.clear()
        os.environ.update(environment)
    assert "left out: STS_6: modality PET missing" in capsys.readouterr().out
    folder = tmp_path / "root" / "nnUNet_preprocessed" / "Dataset997_Sarcoma"
    splits = json.loads((folder / "splits_final.json").read_text())
    assert [split["val"] for split in splits] == [["STS_0", "STS_5"], ["STS_1"], ["STS_2"], ["STS_3"], ["STS_4"]]
    assert all(set(split["train"]) | set(split["val"]) == {f"STS_{i}" for i in range(6)} and
               not set(split["train"]) & set(split["val"]) for split in splits)
    small = json.loads((folder / "nnUNetPlans.json").read_text())["configurations"]["3d_small"]
    assert small["spacing"] == [5, 4, 4] and small["patch_size"] == [24, 24, 24]
    assert len(list((folder / small["data_identifier"]).glob("STS_?.b2nd"))) == 6
