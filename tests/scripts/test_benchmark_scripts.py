"""The scripts in benchmarks/ start, and report machine, versions and arguments beside their numbers."""

import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import tiny
import torch
from conftest import REGIONS
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import to_unit_range
from nnunetv2_rmr.evaluation.fusion_metrics.scores import fusion_scores
from nnunetv2_rmr.evaluation.fusion_metrics.similarity import restoration_scores
from nnunetv2_rmr.fusion.fused_image import fused_image
from nnunetv2_rmr.networks.rmrnet import RMRNet, TrainingOutputs

FOLDER = tiny.ROOT / "benchmarks"
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
    ("degradation_cost.py", ("--patch", 16, 16, 16, "--samples", 2)),
    ("backbone_cost.py", ("--network", "PlainConvUNet", "--patch", 16, 16, 16)),
    ("training_step.py", ("--patch", 16, 16, 16, "--repeats", 1)),
    ("prediction_time.py", ("--patch", 16, 16, 16, "--spacing", 8, "--repeats", 1)),
])
def test_numbers_come_with_machine_versions_and_arguments(script, arguments, monkeypatch, tmp_path):
    run(monkeypatch, script, *arguments, "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["rows"]
    assert {"device", "threads", "python", "torch", "nnunetv2", "nnunetv2-rmr"} == set(found["machine"])
    assert str(arguments[1]) in str(found["arguments"])


@pytest.fixture
def short_trainer(nnunet, monkeypatch):
    """Makes an initialised NAME_short of the tiny data set: two epochs of two iterations."""
    monkeypatch.syspath_prepend(str(FOLDER / "short_trainers"))
    import short_trainers

    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", nnunet[f"nnUNet_{name}"])
    for name, value in (("COMPARE_EPOCHS", 2), ("COMPARE_ITERATIONS", 2), ("nnUNet_rmr_seed", 3),
                        ("nnUNet_n_proc_DA", 0), ("nnUNet_compile", "f")):
        monkeypatch.setenv(name, str(value))
    folder = Path(nnunet["nnUNet_preprocessed"], f"Dataset{REGIONS}_Tiny")
    plans, dataset_json = (json.loads((folder / f"{name}.json").read_text()) for name in ("nnUNetPlans", "dataset"))

    def make(name: str):
        trainer = getattr(short_trainers, f"{name}_short")(
            plans | {"continue_training": False}, tiny.CONFIGURATION, 0, dataset_json, torch.device("cpu"))
        trainer.disable_checkpointing = True
        trainer.initialize()
        return trainer

    return make


def start_of(trainer) -> dict[str, torch.Tensor]:
    return getattr(trainer.network, "segmentation", trainer.network).state_dict()


@pytest.mark.parametrize("name", ["nnUNetTrainerDA5", "nnUNetTrainer_RMRDegradations", "nnUNetTrainerRMR",
                                  "nnUNetTrainerRMR_paper"])
def test_short_trainings_start_with_the_same_network(short_trainer, name):
    vanilla, other = start_of(short_trainer("nnUNetTrainer")), start_of(short_trainer(name))
    assert vanilla.keys() == other.keys()
    first = {name for name, weight in vanilla.items() if weight.shape != other[name].shape}
    assert len(first) == (4 if name == "nnUNetTrainerRMR_paper" else 0)  # names of one convolution
    assert all(torch.equal(weight, other[name]) for name, weight in vanilla.items() if name not in first)


def seen_by(trainer) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images without the clean ones before them, and labels, of every training batch."""
    seen = []

    def train_step(batch: dict) -> dict:
        target = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
        seen.append((batch["data"][:, -len(tiny.CHANNELS):], target))
        return {"loss": np.float32(0)}

    trainer.train_step = train_step
    trainer.on_epoch_end = lambda: setattr(trainer, "current_epoch", trainer.current_epoch + 1)
    trainer.on_train_end = lambda: None
    trainer.run_training()
    assert len(seen) == trainer.num_epochs * trainer.num_iterations_per_epoch
    return seen


def test_short_trainings_see_the_same_patches_in_every_epoch(short_trainer):
    rmr, rival, vanilla = (seen_by(short_trainer(name)) for name in (
        "nnUNetTrainerRMR", "nnUNetTrainer_RMRDegradations", "nnUNetTrainer"))
    for (ours, label), (theirs, their_label), (_, plain_label) in zip(rmr, rival, vanilla):
        assert torch.equal(ours, theirs) and torch.equal(label, their_label)
        assert torch.equal(label.sum((1, 2, 3, 4)), plain_label.sum((1, 2, 3, 4)))  # they are mirrored otherwise


def test_the_wider_nnunet_computes_as_much_as_rmr_in_training(short_trainer):
    def multiply_adds(network: torch.nn.Module, **options) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, len(tiny.CHANNELS), 16, 16, 16), **options)
        return counter.get_total_flops()

    rmr, vanilla, wide = (short_trainer(name).network for name in (
        "nnUNetTrainerRMR", "nnUNetTrainer", "nnUNetTrainerWide"))
    wanted, cheapest = multiply_adds(rmr, images=True), multiply_adds(vanilla)
    assert cheapest < wanted <= multiply_adds(wide) < 1.4 * wanted  # six features are wide steps


def clean_case(quick_compare, spacing=(2.0, 1.0, 1.0), num_images=3):
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
    return quick_compare.CleanCase(images, torch.from_numpy(body), lesions, spacing, tiny.CHANNELS, 2, num_images)


def noisy(images: torch.Tensor) -> torch.Tensor:
    return images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def test_restoration_is_the_distance_to_the_fusion_of_the_clean_modalities(quick_compare):
    case = clean_case(quick_compare)
    seen = noisy(case.images)
    aim, given = (fused_image(images, images, case.spacing, 2) for images in (case.images, seen))
    found = case.score_restoration(noisy(aim), seen)
    for name, image in (("restored", noisy(aim)), ("input", given)):
        for metric, value in restoration_scores(image, aim, case.body).items():
            assert found[f"{name} {metric}"] == value
    assert case.score_restoration(aim, case.images) == {"restored PSNR": float("inf"), "restored SSIM": 1}


def test_the_published_form_is_to_restore_the_reference_modality(quick_compare):
    case = clean_case(quick_compare, num_images=1)
    seen = noisy(case.images)
    found = case.score_restoration(noisy(case.images[2]), seen)
    expected = restoration_scores(seen[2], case.images[2], case.body)
    assert found["input PSNR"] == expected["PSNR"]
    assert found["restored PSNR"] == restoration_scores(noisy(case.images[2]), case.images[2], case.body)["PSNR"]


def test_the_input_without_a_modality_is_the_fusion_of_the_others(quick_compare):
    case = clean_case(quick_compare)
    seen = case.images * torch.tensor([1, 0, 1]).reshape(3, 1, 1, 1)
    given = fused_image(seen[[0, 2]], seen[[0, 2]], case.spacing, 1)
    found = case.score_restoration(case.images[0], seen)
    assert found["input PSNR"] == restoration_scores(given, case.target, case.body)["PSNR"]


def test_the_published_form_has_no_input_to_compare_with_without_the_reference_modality(quick_compare):
    case = clean_case(quick_compare, num_images=1)
    seen = case.images * torch.tensor([1, 1, 0]).reshape(3, 1, 1, 1)
    assert set(case.score_restoration(case.images[0], seen)) == {"restored PSNR", "restored SSIM"}


def test_all_images_are_scored_over_their_whole_range(quick_compare):
    case = clean_case(quick_compare)
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
    case = clean_case(quick_compare)
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
    case = clean_case(quick_compare)
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


def test_what_the_input_is_worth_is_said_of_each_trainer_where_their_aims_differ(quick_compare, capsys):
    rows = [{"trainer": trainer, "seed": 0, "condition": "noise", "case": "x", "training_seconds": 1,
             "restored PSNR": 30, "input PSNR": given} for trainer, given in (("a", 20), ("b", 20), ("paper", 25))]
    quick_compare.report(pd.DataFrame(rows[:2]), ["a", "b"], [0])
    assert "| noise | *input* | 20.00 |" in capsys.readouterr().out
    quick_compare.report(pd.DataFrame(rows), ["a", "b", "paper"], [0])
    assert "| noise | *input of paper* | 25.00 |" in capsys.readouterr().out


def test_patients_of_a_fold_are_units_of_their_own_and_seeds_are_means_over_theirs(quick_compare, capsys):
    found = pd.DataFrame([{"trainer": trainer, "seed": seed, "condition": "clean", "case": f"{seed}{i}",
                           "training_seconds": 1, "Dice": value}
                          for trainer, gain in (("a", 0), ("b", .1)) for seed in (0, 1)
                          for i, value in enumerate((.2 + gain, .4 - gain))])
    quick_compare.report(found, ["a", "b"], [0, 1], cross_validated=True)
    assert "(n = 4)" in capsys.readouterr().out
    quick_compare.report(found, ["a", "b"], [0, 1])
    assert "| clean | b | 0.300 | 0.300 0.300 | +0.000 ± 0.000 (n = 2) |" in capsys.readouterr().out


def test_stored_tables_can_be_printed_and_gone_on_from(quick_compare, tmp_path):
    (tmp_path / "cases.csv").write_text("trainer,seed,condition,case,training_seconds,Dice\na,13,clean,7,1,.5\n"
                                        "b,2,clean,x,1,.1\n")
    (tmp_path / "b_2.json").write_text(json.dumps({"seconds_training": 1, "scores": {"clean": {"x": {"Dice": .7}}}}))
    found = quick_compare.every_case(tmp_path)
    assert found[["trainer", "seed", "case", "Dice"]].values.tolist() == [["b", 2, "x", .7], ["a", 13, "7", .5]]


def test_a_head_that_restores_nothing_gives_the_fusion_of_what_is_there(quick_compare):
    case, patch = clean_case(quick_compare), (16, 16, 16)
    network = RMRNet(torch.nn.Sequential(torch.nn.Conv3d(3, 4, 1), torch.nn.Conv3d(4, 2, 1)), 3, 3, patch)
    trainer = SimpleNamespace(network=network, device=torch.device("cpu"), reference=2,
                              configuration_manager=SimpleNamespace(patch_size=patch, spacing=case.spacing))
    for kept in ([True, True, True], [True, False, True], [True, True, False]):
        present = torch.tensor(kept)
        seen = case.images * present.reshape(3, 1, 1, 1)
        found = quick_compare.predict(trainer, seen, present)
        expected = fused_image(seen, seen, case.spacing, 2, present)
        torch.testing.assert_close(found["fused"], expected, atol=1e-4, rtol=1e-4)
        assert found["logits"].shape == (2, *seen.shape[1:])
    trainer.network = network.segmentation
    assert set(quick_compare.predict(trainer, seen, present)) == {"logits"}


def test_bfloat16_changes_rounding_only(quick_compare):
    torch.manual_seed(0)
    segmentation = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3, padding=1), torch.nn.ReLU(),
                                       torch.nn.Conv3d(4, 2, 1))
    network, x = RMRNet(segmentation, 3, 3, (8, 8, 8)), torch.randn(2, 6, 8, 8, 8)
    exact = network(x), network(x[:, 3:])
    quick_compare.in_bfloat16(network)
    training, logits = network(x), network(x[:, 3:])
    assert isinstance(training, TrainingOutputs)
    assert logits.dtype == torch.float32 and not torch.equal(logits, exact[1])
    assert training.taught is None
    for found, wanted in zip((*training[:-1], logits), (*exact[0][:-1], exact[1]), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.02)


def write_sarcomas(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    for i in range(number):
        images, label = tiny.tiny_case(rng)
        for name, image in zip(("CT", "PET", "MR_T1"), images):
            tiny.write_image(image, folder / f"STS_{i}" / f"{name}.nii.gz", spacing=(3, 3, 5))
        tiny.write_image((label > 0).astype(np.uint8), folder / f"STS_{i}" / "gtv.nii.gz", (3, 3, 5))


def test_real_scans_become_a_data_set_with_folds_of_patients(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    import real_dataset

    write_sarcomas(tmp_path / "scans", 7)
    (tmp_path / "scans" / "STS_6" / "PET.nii.gz").unlink()
    environment = dict(os.environ)
    try:
        real_dataset.make("sarcoma", tmp_path / "root", tmp_path / "scans")
        assert os.environ["nnUNet_preprocessed"] == str(tmp_path / "root" / "nnUNet_preprocessed")
    finally:
        os.environ.clear()
        os.environ.update(environment)
    assert "not for training: STS_6: modality PET missing" in capsys.readouterr().out
    raw = tmp_path / "root" / "nnUNet_raw" / "Dataset997_Sarcoma"
    lacking = [sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "imagesTs" / f"STS_6_000{i}.nii.gz"))) for i in range(3)]
    assert [image.any() for image in lacking] == [True, False, True]
    assert [file.name for file in (raw / "labelsTs").iterdir()] == ["STS_6.nii.gz"]
    folder = tmp_path / "root" / "nnUNet_preprocessed" / "Dataset997_Sarcoma"
    splits = json.loads((folder / "splits_final.json").read_text())
    assert [split["val"] for split in splits] == [["STS_0", "STS_5"], ["STS_1"], ["STS_2"], ["STS_3"], ["STS_4"]]
    assert all(set(split["train"]) | set(split["val"]) == {f"STS_{i}" for i in range(6)} and
               not set(split["train"]) & set(split["val"]) for split in splits)
    small = json.loads((folder / "nnUNetPlans.json").read_text())["configurations"]["3d_small"]
    assert small["spacing"] == [5, 4, 4] and small["patch_size"] == [24, 24, 24]
    assert len(list((folder / small["data_identifier"]).glob("STS_?.b2nd"))) == 6


@pytest.mark.slow
def test_a_protocol_on_real_scans_leaves_cases_and_tables_and_does_nothing_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    import real_dataset

    write_sarcomas(tmp_path / "scans", 8)
    environment = dict(os.environ)
    try:
        real_dataset.make("sarcoma", tmp_path / "out" / "data", tmp_path / "scans")
    finally:
        os.environ.clear()
        os.environ.update(environment)
    command = ("sarcoma", "-o", tmp_path / "out", "--only", "labels_4", "--folds", 0, "--epochs", 2, "--iterations", 2)

    run(monkeypatch, "real_data.py", *command)
    assert f"labels_4: {tmp_path / 'out' / 'labels_4' / 'tables.md'}" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "out" / "labels_4" / "cases.csv")
    alone, with_others = "nnUNetTrainerRMR_4labels", "nnUNetTrainerRMR_4labels_others"
    assert set(found.trainer) == {alone, with_others} and set(found.case) == {"STS_0", "STS_5"}
    assert f"| clean | {with_others} |" in (tmp_path / "out" / "labels_4" / "tables.md").read_text()
    logs = {trainer: "".join(file.read_text() for file in (tmp_path / "out" / "labels_4").rglob("training_log*.txt")
                             if f"{trainer}_short" in str(file)) for trainer in (alone, with_others)}
    assert "Learning from 2 scans without labels" in logs[with_others] and "Learning from" not in logs[alone]

    times = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("checkpoint*.pth")}
    run(monkeypatch, "real_data.py", *command)
    assert times and times == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("checkpoint*.pth")}


@pytest.mark.parametrize(("arguments", "told"), [(("--folds", 7), "those of sarcoma are 0 1 2 3 4"),
                                                 (("--only", "sites"), "comparison, labels_4, labels_16")])
def test_a_protocol_that_is_not_there_is_refused_before_data_are_made(arguments, told, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "real_data.py", "sarcoma", "-o", tmp_path / "out", *arguments)
    assert told in capsys.readouterr().err and not (tmp_path / "out" / "data").exists()


def test_a_gpu_plan_that_is_cut_off_keeps_what_is_done_and_goes_on_with_the_rest(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu_plan

    counting, hanging, failing = tmp_path / "counting.py", tmp_path / "hanging.py", tmp_path / "failing.py"
    counting.write_text(f"open({str(tmp_path / 'counted')!r}, 'a').write('x')")
    hanging.write_text("import time; time.sleep(60)")
    failing.write_text("import sys; sys.exit(3)")
    beside = {"quick": ({}, [str(counting)]), "slow": ({}, [str(hanging)]), "broken": ({}, [str(failing)])}
    monkeypatch.setattr(gpu_plan, "steps", lambda *args: [beside, {"later": ({}, [str(counting)])}])
    arguments = ["gpu_plan.py", "--data", "DATA", "-o", str(tmp_path / "out"), "--minutes"]

    monkeypatch.setattr(sys, "argv", [*arguments, "0.05"])
    gpu_plan.main()
    done = {file.name for file in (tmp_path / "out").glob("*.done")}
    assert done == {"quick.done"} and (tmp_path / "counted").read_text() == "x"
    assert "slow: stopped" in capsys.readouterr().out

    hanging.write_text("")
    monkeypatch.setattr(sys, "argv", [*arguments, "1"])
    gpu_plan.main()
    assert {file.name for file in (tmp_path / "out").glob("*.done")} == {"quick.done", "slow.done", "later.done"}
    assert (tmp_path / "counted").read_text() == "xx"  # `quick` not again
    assert "broken: 3" in capsys.readouterr().out
