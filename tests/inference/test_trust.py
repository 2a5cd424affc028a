"""A model of somebody else is data: what it holds is not run, and what it names is not called."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run import load_pretrained_weights
from plans import make_plans

from nnunetv2_rmr.inference.predictor import RMRPredictor
from nnunetv2_rmr.inference.trust import (
    ENVIRONMENT,
    ModelRefused,
    check_model_folder,
    load_data,
    reading_data_only,
    refuse_strange_callables,
)
from nnunetv2_rmr.training.degradations_only import nnUNetTrainer_RMRDegradations
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR
from nnunetv2_rmr.training.reads_data_only import ReadsDataOnly

DATASET_JSON = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "lesion": 1},
                "file_ending": ".nii.gz"}


class Command:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path):
        self.file = str(file)

    def __reduce__(self):
        return os.mkdir, (self.file,)


def checkpoint(**more) -> dict:
    return {"network_weights": {"w": torch.ones(2)}, "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "test", "fold": 0}, "inference_allowed_mirroring_axes": (0, 1, 2),
            "logging": {"ema_fg_dice": [np.float64(.5), np.float32(.25)], "epochs": np.int64(3)},
            "_best_ema": np.float64(.5), "device": torch.device("cpu"), **more}


def plans() -> dict:
    return json.loads(json.dumps(make_plans().plans))


def model_folder(folder: Path, plans: dict, content: dict) -> Path:
    (folder / "fold_0").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (folder / "plans.json").write_text(json.dumps(plans))
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def architecture(plans: dict) -> dict:
    return plans["configurations"]["test"]["architecture"]


def test_what_nnunet_keeps_in_checkpoints_is_read_as_ever(tmp_path):
    torch.save(checkpoint(), tmp_path / "c.pth")
    found = load_data(tmp_path / "c.pth", map_location="cpu", weights_only=False)
    assert found["logging"] == {"ema_fg_dice": [.5, .25], "epochs": 3} and found["_best_ema"] == .5
    assert isinstance(found["_best_ema"], np.float64)
    assert torch.equal(found["network_weights"]["w"], torch.ones(2))


def test_numpy_1_wrote_the_same_under_another_name(tmp_path):
    torch.save(checkpoint(), tmp_path / "new.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "new.pth").read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "old.pth").write_bytes(content)
    assert load_data(tmp_path / "old.pth")["logging"] == {"ema_fg_dice": [.5, .25], "epochs": 3}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_command_is_named_and_not_run(tmp_path, zipped):
    torch.save(checkpoint(more=Command(tmp_path / "run")), tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelRefused, match=rf"c\.pth: holds {os.mkdir.__module__}\.mkdir.*--trust_model"):
        load_data(tmp_path / "c.pth")
    assert not (tmp_path / "run").exists()


class Crafted:
    """NumPy's dtype of raw bytes that says they are pointers: reading it is harmless, freeing its array is not."""

    def __reduce__(self):
        state = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 1)
        return np.dtype, ("V8", False, True), state


@pytest.mark.parametrize("content", [Crafted(), np.array([1, "a"], object), np.array(["a"]), np.zeros(3)])
def test_numpys_types_are_numbers_only(tmp_path, content):
    torch.save(checkpoint(more=content), tmp_path / "c.pth")
    with pytest.raises(ModelRefused, match=r"c\.pth: holds numpy"):
        load_data(tmp_path / "c.pth")


def test_what_a_file_says_of_a_number_type_is_passed_over(tmp_path):
    class Sly:
        def __reduce__(self):
            return np.dtype, ("f8", False, True), (3, "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 1)

    torch.save({"a": Sly()}, tmp_path / "c.pth")
    with pytest.raises(ModelRefused, match="numpy"):
        load_data(tmp_path / "c.pth")


@pytest.mark.parametrize("trainer", [nnUNetTrainerRMR, nnUNetTrainer_RMRDegradations])
def test_our_trainers_read_data_only(trainer_of, tmp_path, monkeypatch, trainer):
    monkeypatch.setattr(load_pretrained_weights, "torch", torch)
    made = trainer_of(trainer)
    file = tmp_path / "c.pth"
    torch.save(checkpoint(more=Command(tmp_path / "run")), file)
    for load in (made.load_checkpoint, lambda f: load_pretrained_weights.load_pretrained_weights(made.network, f)):
        with pytest.raises(SystemExit, match="mkdir"):
            load(str(file))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("load", ["predictor", "pretrained", "reading_data_only"])
def test_no_way_of_loading_runs_it_unless_the_user_trusts_the_model(tmp_path, monkeypatch, load):
    folder = model_folder(tmp_path / "model", plans(), checkpoint(more=Command(tmp_path / "run")))
    file = str(folder / "fold_0" / "checkpoint_final.pth")

    def attempt() -> None:
        if load == "predictor":
            RMRPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(folder), (0,))
        elif load == "pretrained":
            ReadsDataOnly.read_weights(None, file)
        else:
            with reading_data_only():
                torch.load(file, weights_only=False)

    with pytest.raises(ModelRefused, match="mkdir"):
        attempt()
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv(ENVIRONMENT, "1")
    try:
        attempt()
    except ModelRefused as error:  # its weights are no network's
        assert "mkdir" not in str(error)
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half a file", pickle.dumps({"a": 1}), None])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    file = tmp_path / "c.pth"
    torch.save(checkpoint(), file)
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ModelRefused, match=r"c\.pth: can not be read, it is damaged"):
        load_data(file)


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.Popen", "torch.load", "torch.hub.load",
                                  "os", 7, "torch.nn.functional.relu", "torch.nn.init.torch.load",
                                  "monai.losses.PerceptualLoss", "nnunetv2.paths.os.system"])
@pytest.mark.parametrize("where", ["network", "argument"])
def test_plans_that_name_what_is_no_network_are_refused_before_it_is_called(tmp_path, name, where):
    hostile = plans()
    if where == "network":
        architecture(hostile)["network_class_name"] = name
    else:
        architecture(hostile)["arch_kwargs"]["nonlin"] = name
        architecture(hostile)["_kw_requires_import"] = ["nonlin"]
    folder = model_folder(tmp_path / "model", hostile, checkpoint())
    with pytest.raises(ModelRefused, match=r"plans\.json: names .* no torch\.nn\.Module"):
        check_model_folder(folder)


def test_modules_from_elsewhere_are_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'run')!r})")
    monkeypatch.syspath_prepend(str(tmp_path))
    hostile = plans()
    architecture(hostile)["network_class_name"] = "evil.Network"
    with pytest.raises(ModelRefused, match=r"evil\.Network"):
        refuse_strange_callables(hostile, DATASET_JSON)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("key", "name"), [
    ("preprocessor_name", "load_pickle"), ("preprocessor_name", "Pool"), ("resampling_fn_data", "partial"),
    ("resampling_fn_data", "zoom"), ("normalization_schemes", ["np"])])
def test_so_is_what_is_no_part_of_nnunets_preprocessing(key, name):
    hostile = plans()
    hostile["configurations"]["test"][key] = name
    try:
        refuse_strange_callables(hostile, DATASET_JSON)
    except ModelRefused:
        return
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
    place = Path(nnunetv2.__path__[0], "preprocessing")
    wanted = name if isinstance(name, str) else name[0]
    assert recursive_find_python_class(str(place), wanted, "nnunetv2.preprocessing") is None, "nnU-Net would find it"


def test_plans_of_nnunet_and_of_monais_networks_are_taken():
    harmless = plans()
    refuse_strange_callables(harmless, DATASET_JSON)
    architecture(harmless)["network_class_name"] = "dynamic_network_architectures.somewhere_else.PlainConvUNet"  # moved
    refuse_strange_callables(harmless, DATASET_JSON)
    pytest.importorskip("monai")
    architecture(harmless)["network_class_name"] = "nnunetv2_rmr.networks.monai_networks.SegResNet"
    refuse_strange_callables(harmless, DATASET_JSON)


@pytest.mark.parametrize("name", ["dataset.json", "plans.json"])
@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"configurations": 3, "plans_name": 1}', "\x00"])
def test_files_that_are_none_of_nnunets_are_named(tmp_path, name, text):
    folder = model_folder(tmp_path / "model", plans(), checkpoint())
    (folder / name).write_text(text)
    with pytest.raises(ModelRefused, match=name.replace(".", r"\.")):
        check_model_folder(folder)


@pytest.mark.parametrize(("missing", "message"), [("trainer_name", "can not be loaded"),
                                                  ("init_args", "can not be loaded"),
                                                  ("network_weights", "holds no network_weights")])
def test_a_checkpoint_that_lacks_something_is_one_message(tmp_path, missing, message):
    content = checkpoint()
    del content[missing]
    folder = model_folder(tmp_path / "model", plans(), content)
    with pytest.raises(ModelRefused, match=message):
        RMRPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(folder), (0,))


@pytest.mark.parametrize("content", [[1, 2], {"network_weights": {"w": "text"}}, {"network_weights": [1]}])
def test_a_file_that_holds_something_else_than_weights_is_no_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(ModelRefused, match=r"c\.pth: is no checkpoint"):
        load_data(tmp_path / "c.pth")


@pytest.mark.parametrize(("key", "value"), [("patch_size", "large"), ("patch_size", [8, 8, 0]), ("spacing", [0, 0, 0]),
                                            ("spacing", [1, 1, float("nan")]), ("patch_size", [8, 8, 2.5])])
def test_patches_and_spacings_that_can_not_be_are_named(tmp_path, key, value):
    changed = plans()
    changed["configurations"]["test"][key] = value
    folder = model_folder(tmp_path / "model", changed, checkpoint())
    with pytest.raises(ModelRefused, match=rf"plans\.json: {key} of test"):
        check_model_folder(folder)


@pytest.mark.parametrize("key", ["image_reader_writer", "label_manager"])
def test_a_part_that_nnunet_does_not_have_is_named(tmp_path, key):
    folder = model_folder(tmp_path / "model", plans() | {key: "NotThere"}, checkpoint())
    with pytest.raises(ModelRefused, match="NotThere"):
        check_model_folder(folder)


@pytest.mark.parametrize("content", [{"trainer_name": 3}, {"trainer_name": ["a"]}, {"trainer_name": "os"},
                                     {"init_args": None}, {"init_args": {"configuration": ["test"]}}])
def test_a_checkpoint_of_other_content_is_one_message(tmp_path, content):
    folder = model_folder(tmp_path / "model", plans(), checkpoint(**content))
    with pytest.raises(ModelRefused, match="model: can not be loaded"):
        RMRPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(folder), (0,))


@pytest.mark.parametrize(("key", "value"), [("surplus", 1), ("n_stages", "x"), ("n_stages", 99), ("strides", None)])
def test_so_is_a_network_that_can_not_be_built(tmp_path, key, value):
    odd = plans()
    architecture(odd)["arch_kwargs"][key] = value
    folder = model_folder(tmp_path / "model", odd, checkpoint())
    with pytest.raises(ModelRefused, match="model: can not be loaded"):
        RMRPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(folder), (0,))


def test_so_are_labels_and_settings_that_are_none(tmp_path, trainer_of):
    content = checkpoint(network_weights=trainer_of(nnUNetTrainerRMR).network.state_dict(),
                         trainer_name="nnUNetTrainerRMR")
    for i, (odd, labels) in enumerate(((plans() | {"rmr": [1]}, DATASET_JSON["labels"]), (plans(), "x"))):
        folder = model_folder(tmp_path / str(i), odd, content)
        (folder / "dataset.json").write_text(json.dumps(DATASET_JSON | {"labels": labels}))
        with pytest.raises(ModelRefused, match=r"\d: can not be loaded"):
            RMRPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(folder), (0,))
