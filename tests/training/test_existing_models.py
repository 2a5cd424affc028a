"""Models that exist: a fused image for one of nnU-Net's, and nnU-Net's half of one of RMR's."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
import torch
from conftest import PLAIN, REGIONS
from nnunetv2.run import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from small_networks import teach

from nnunetv2_rmr.cli.predict_demo import MODEL
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.inference.export_vanilla import export_vanilla
from nnunetv2_rmr.training.fusion_only import nnUNetTrainerRMR_fusionOnly
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


@pytest.fixture(autouse=True)
def afterwards_nnunets_own(monkeypatch):
    monkeypatch.setattr(load_pretrained_weights, "torch", torch)


@pytest.fixture
def vanilla(trainer_of, tmp_path) -> Path:
    """Checkpoint of an nnU-Net model with weights unlike those of a start, which mirrors along one axis."""
    trainer = trainer_of(nnUNetTrainer)
    for parameter in trainer.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    trainer.inference_allowed_mirroring_axes = (1,)
    trainer.save_checkpoint(str(tmp_path / "vanilla.pth"))
    return tmp_path / "vanilla.pth"


def content(checkpoint: Path) -> dict:
    return torch.load(checkpoint, weights_only=False)


def change(checkpoint: Path, where: tuple[str, ...], value) -> None:
    found = content(checkpoint)
    place = found
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    torch.save(found, checkpoint)


def given(trainer, checkpoint: Path):
    """The trainer after what nnU-Net does for -pretrained_weights."""
    load_pretrained_weights.load_pretrained_weights(trainer.network, str(checkpoint))
    return trainer


def batch() -> dict:
    return {"data": torch.randn(2, 4, 8, 8, 8), "target": (torch.randn(2, 1, 8, 8, 8) > 0).float()}


def test_all_weights_are_the_models_the_last_layers_too_and_stay_so_while_the_head_learns(trainer_of, vanilla):
    trainer = given(trainer_of(nnUNetTrainerRMR_fusionOnly), vanilla)
    teach(trainer.network)
    head = [weight.clone() for weight in trainer.network.image_decoder.parameters()]
    trainer.on_train_epoch_start()
    assert not trainer.network.segmentation.training  # no dropout
    for _ in range(3):
        trainer.train_step(batch())
    state = trainer.network.state_dict()
    for name, weight in content(vanilla)["network_weights"].items():
        assert torch.equal(state[name], weight), name
    assert not any(map(torch.equal, head, trainer.network.image_decoder.parameters()))
    assert not any(weight.requires_grad for weight in trainer.network.segmentation.parameters())


def test_predictions_are_mirrored_as_the_models_are_also_after_a_resumed_training(trainer_of, vanilla, tmp_path):
    trainer = given(trainer_of(nnUNetTrainerRMR_fusionOnly), vanilla)
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()  # on the start of a training
    assert trainer.inference_allowed_mirroring_axes == (1,)
    trainer.save_checkpoint(str(tmp_path / "ours.pth"))
    resumed = trainer_of(nnUNetTrainerRMR_fusionOnly)
    resumed.load_checkpoint(str(tmp_path / "ours.pth"))
    resumed.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert resumed.inference_allowed_mirroring_axes == (1,)


@pytest.mark.parametrize(("where", "value", "told"), [
    (("init_args", "fold"), 1, "other: fold"),
    (("init_args", "dataset_json", "labels"), {"lesion": 0, "background": 1}, "other: labels"),
    (("init_args", "plans", "configurations", "test", "spacing"), [1, 1, 2], "other: spacing"),
    (("init_args", "plans", "configurations", "test", "patch_size"), [8, 8, 16], "other: patch_size"),
    (("init_args", "plans", "transpose_forward"), [2, 1, 0], "other: transpose_forward"),
    (("init_args",), None, "other: configuration, fold, "),
    (("network_weights", "more"), torch.zeros(1), "has trained another network than the plans name"),
])
def test_a_model_of_another_training_would_not_segment_as_before_and_is_refused(trainer_of, vanilla, where, value,
                                                                                told):
    change(vanilla, where, value)
    trainer = trainer_of(nnUNetTrainerRMR_fusionOnly)
    with pytest.raises(SystemExit, match=rf"-pretrained_weights .*vanilla\.pth: .*{told}"):
        given(trainer, vanilla)
    with pytest.raises(SystemExit, match="give its checkpoint"):
        trainer.on_train_start()


def test_batch_size_and_our_settings_are_free(trainer_of, vanilla):
    change(vanilla, ("init_args", "plans", "configurations", "test", "batch_size"), 7)
    change(vanilla, ("init_args", "plans", "rmr"), {"p_clean": .5})
    given(trainer_of(nnUNetTrainerRMR_fusionOnly), vanilla)


def test_without_a_model_there_is_nothing_to_add_a_fused_image_to_and_nothing_is_left(trainer_of, tmp_path):
    trainer = trainer_of(nnUNetTrainerRMR_fusionOnly)
    (tmp_path / "results" / "Dataset999_Test" / "other").mkdir()
    with pytest.raises(SystemExit, match=r"error: .*give its checkpoint with -pretrained_weights"):
        trainer.on_train_start()
    assert [path.name for path in (tmp_path / "results").rglob("*")] == ["Dataset999_Test", "other"]
    with pytest.raises(SystemExit, match=r"No such file or directory: '.*nowhere\.pth'"):
        given(trainer, tmp_path / "nowhere.pth")


def test_what_an_earlier_training_has_left_stays(trainer_of, vanilla):
    trainer = trainer_of(nnUNetTrainerRMR_fusionOnly)
    earlier = Path(trainer.output_folder) / "checkpoint_latest.pth"
    earlier.write_text("damaged")
    with pytest.raises(SystemExit, match=r"checkpoint_latest\.pth: can not be read"):
        trainer.load_checkpoint(str(earlier))
    assert list(Path(trainer.output_folder).iterdir()) == [earlier]


def test_the_log_of_a_training_that_is_done_stays_where_its_best_checkpoint_can_not_be_read(trainer_of):
    trainer = trainer_of(nnUNetTrainerRMR_fusionOnly)
    trainer.current_epoch = trainer.num_epochs
    Path(trainer.log_file).write_text("all epochs")
    best = Path(trainer.output_folder) / "checkpoint_best.pth"
    best.write_text("damaged")
    with pytest.raises(SystemExit, match=r"checkpoint_best\.pth: can not be read"):
        trainer.load_checkpoint(str(best))
    assert Path(trainer.log_file).read_text() == "all epochs"


def test_the_last_epoch_is_the_best_as_dice_says_nothing_of_fused_images(trainer_of, vanilla, monkeypatch):
    trainer = given(trainer_of(nnUNetTrainerRMR_fusionOnly), vanilla)
    monkeypatch.setattr(trainer.logger, "plot_progress_png", lambda folder: None)
    for dice in (.9, .2):
        trainer.on_epoch_start()
        trainer.on_train_epoch_end([{"loss": 1.0}])
        for name, value in (("mean_fg_dice", dice), ("dice_per_class_or_region", [dice]), ("val_losses", 1.0)):
            trainer.logger.log(name, value, trainer.current_epoch)
        nnUNetTrainer.on_epoch_end(trainer)
    assert content(Path(trainer.output_folder) / "checkpoint_best.pth")["current_epoch"] == 2


def test_the_exported_half_of_our_model_is_one_to_add_a_fused_image_to(trainer_of, tmp_path):
    ours = trainer_of(nnUNetTrainerRMR)
    model, out = Path(ours.output_folder_base), tmp_path / "exported"
    ours.inference_allowed_mirroring_axes = (1,)
    ours.save_checkpoint(str(model / "fold_0" / "checkpoint_final.pth"))
    for name, found in (("plans", ours.plans_manager.plans), ("dataset", ours.dataset_json)):
        (model / f"{name}.json").write_text(json.dumps(found))
    export_vanilla(model, out, None, "checkpoint_final.pth")
    exported = out / "fold_0" / "checkpoint_final.pth"
    assert "rmr" not in content(exported)["init_args"]["plans"]
    assert content(exported)["trainer_name"] == "nnUNetTrainer"
    trainer = given(trainer_of(nnUNetTrainerRMR_fusionOnly), exported)
    state = trainer.network.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in content(exported)["network_weights"].items())


def images(nnunet, dataset: int) -> Path:
    return Path(nnunet["nnUNet_raw"]) / f"Dataset{dataset}_Tiny" / "imagesTs"


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.nii.gz")}


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [PLAIN, REGIONS])
def test_by_the_commands_a_models_segmentations_stay_byte_for_byte_and_fused_images_come_beside(nnunet, tmp_path,
                                                                                                  dataset):
    env = nnunet | {"nnUNet_results": str(tmp_path / "results")}
    train = ("nnUNetv2_train", dataset, tiny.CONFIGURATION, 0, "-device", tiny.DEVICE, "-tr")
    predict = ("-i", images(nnunet, dataset), "-d", dataset, "-c", tiny.CONFIGURATION, "-f", 0, "-device", tiny.DEVICE,
               "-npp", 0, "-nps", 0, "-tr")
    tiny.run(*train, "nnUNetTrainer_tiny", env=env)
    checkpoint, = (tmp_path / "results").glob("*/nnUNetTrainer_tiny__*/fold_0/checkpoint_final.pth")
    refused = tiny.run(*train, "nnUNetTrainerRMR_fusionOnly_tiny", env=env, check=False)
    assert refused.returncode and "give its checkpoint with -pretrained_weights" in refused.stdout.splitlines()[-1]
    assert not list((tmp_path / "results").glob("*/*fusionOnly*"))
    killed = tiny.run(*train, "nnUNetTrainerRMR_fusionOnly_tiny", "-pretrained_weights", checkpoint, check=False,
                      env=env | {"TINY_KILLED_AT": "iteration 20"})
    assert killed.returncode
    tiny.run(*train, "nnUNetTrainerRMR_fusionOnly_tiny", "--c", env=env)
    tiny.run("nnUNetv2_predict", *predict, "nnUNetTrainer_tiny", "-o", tmp_path / "vanilla", env=env)
    tiny.run("nnUNetv2_rmr_predict", *predict, "nnUNetTrainerRMR_fusionOnly_tiny", "-o", tmp_path / "ours", env=env)
    assert len(files(tmp_path / "vanilla")) == 2 and files(tmp_path / "ours") == files(tmp_path / "vanilla")
    for name in files(tmp_path / "ours"):
        assert np.ptp(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "ours" / "fused" / name)))) > 0


@pytest.mark.slow
def test_the_exported_half_predicts_the_same_bytes_where_this_package_is_not_installed(trained, nnunet, tmp_path):
    tiny.run("nnUNetv2_rmr_export_vanilla", "-m", trained, "-o", tmp_path / "model", env=nnunet)
    assert {file.name for file in (tmp_path / "model").iterdir()} == {"plans.json", "dataset.json", "fold_0", "fold_1"}
    assert not any(file.name.startswith(".") for file in tmp_path.iterdir())
    script = ("import sys; sys.modules['nnunetv2_rmr'] = None\n"
              "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder\n"
              "predict_entry_point_modelfolder()")
    where = ("-i", images(nnunet, REGIONS), "-f", "0", "1", "-device", "cpu", "-npp", "1", "-nps", "1")
    env = {name: value for name, value in nnunet.items() if name != "nnUNet_extTrainer"}
    command = [sys.executable, "-c", script, *where, "-m", tmp_path / "model", "-o", tmp_path / "vanilla"]
    subprocess.run(command, env=env, check=True)
    tiny.run("nnUNetv2_rmr_predict_from_modelfolder", *where, "-m", trained, "-o", tmp_path / "ours", env=nnunet)
    assert len(files(tmp_path / "ours")) == 2 and files(tmp_path / "vanilla") == files(tmp_path / "ours")


def test_what_can_not_be_exported_is_refused_and_leaves_nothing(tmp_path):
    out, final = tmp_path / "model", "checkpoint_final.pth"
    for model, folds, checkpoint, told in (
            (MODEL, ["3"], final, r"no fold_3/checkpoint_final\.pth in .*model; there are .*fold_0/checkpoint_final"),
            (MODEL, None, "best.pth", r"no best\.pth in .*fold_0/checkpoint_final\.pth"),
            (MODEL / "fold_0", None, final, r"fold_0: is the folder of a fold; give the model's, .*model, and "),
            (tmp_path, None, final, "no trained model in")):
        with pytest.raises(FileNotFoundError, match=told):
            export_vanilla(model, out, folds, checkpoint)
    shutil.copytree(MODEL, tmp_path / "other")
    change(tmp_path / "other" / "fold_0" / final, ("network_weights", "fusion.weight"), torch.zeros(1))
    with pytest.raises(BadCaseError, match=r"fold_0/checkpoint_final\.pth: nnU-Net alone can not build the network"):
        export_vanilla(tmp_path / "other", out, None, final)
    assert {file.name for file in tmp_path.iterdir()} == {"other"}
    out.mkdir()
    with pytest.raises(BadCaseError, match=r"-o .*model: is there already"):
        export_vanilla(MODEL, out, None, final)
