"""Learning from scans without labels: imagesUn/."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from plans import DATASET_JSON, make_plans
from small_networks import M, rmrnet, teach, unet

from nnunetv2_rmr.datasets import unlabelled as scans
from nnunetv2_rmr.losses.consistency import consistency, ramp
from nnunetv2_rmr.losses.restoration import RMRLoss
from nnunetv2_rmr.networks.fusing import unwrapped
from nnunetv2_rmr.networks.mean_teacher import DECAY, MeanTeacher, RunningAverage
from nnunetv2_rmr.networks.rmrnet import TrainingOutputs
from nnunetv2_rmr.published.nnUNetTrainerRMR_paper import nnUNetTrainerRMR_paper
from nnunetv2_rmr.training import unlabelled
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR
from nnunetv2_rmr.training.unlabelled import PartlyLabelledLoader, number_in_batch, partly_unlabelled_batches

# --------------------------------------------------------------------------------------------------------- the network


def mean_teacher() -> MeanTeacher:
    network = MeanTeacher(teach(rmrnet()))
    network.num_unlabelled = 1
    return network.train()


def learn(network: MeanTeacher) -> None:
    with torch.no_grad():
        for parameter in network.student.parameters():
            parameter += 0.1


def test_the_teacher_is_the_average_of_what_the_student_was():
    network, x = mean_teacher(), torch.randn(2, 2 * M, 16, 16, 16)
    expected = [p.clone() for p in network.student.parameters()]
    for step in range(1, 4):
        network(x)
        share = max(1 / step, 1 - DECAY)  # at first all of the student, of which there is no average yet
        expected = [a + share * (p - a) for a, p in zip(expected, network.student.parameters())]
        for a, b in zip(expected, network.teacher.parameters()):
            torch.testing.assert_close(a, b)
        learn(network)


def test_the_teacher_has_no_dropout_and_the_statistics_of_the_students_batch_norms():
    assert not any(module.training for module in mean_teacher().teacher.modules())
    student = torch.nn.BatchNorm1d(2)
    average = RunningAverage(student)
    student(torch.randn(8, 2) + 3)
    average.follow(student)
    assert torch.equal(average.network.running_mean, student.running_mean)


def test_the_teacher_sees_unlabelled_patches_clean_and_learns_from_no_gradient():
    network, x = mean_teacher(), torch.randn(2, 2 * M, 16, 16, 16)
    found = network(x)
    with torch.no_grad():
        assert torch.equal(found.taught, network.teacher(x[1:, :M]))
        assert torch.equal(found.logits, network.student(x).logits)
    assert not found.taught.requires_grad and not any(p.requires_grad for p in network.teacher.parameters())


def test_the_teacher_predicts():
    network, x = mean_teacher(), torch.randn(1, M, 16, 16, 16)
    network(torch.randn(2, 2 * M, 16, 16, 16))
    learn(network)
    network.eval()
    logits, restored = network(x, images=True)
    of_teacher = network.teacher(x, images=True)
    assert torch.equal(logits, of_teacher[0]) and torch.equal(restored, of_teacher[1])
    assert not torch.equal(logits, network.student(x))


def test_deep_supervision_of_the_teacher_is_the_students():
    network = MeanTeacher(rmrnet(deep_supervision=True)).eval()
    for wanted in (True, False):
        network.decoder.deep_supervision = wanted
        assert isinstance(network(torch.randn(1, M, 16, 16, 16)), list) == wanted


def test_weights_of_nnunet_are_the_students_and_those_of_the_teacher_are_passed_over_by_its_loader():
    network, vanilla = mean_teacher(), unet().state_dict()
    names = network.state_dict().keys()
    assert vanilla.keys() <= names
    assert all(".seg_layers." in name for name in names - vanilla.keys())
    other = mean_teacher()
    learn(other)
    other.load_state_dict(network.state_dict())
    for a, b in zip(network.parameters(), other.parameters()):
        assert torch.equal(a, b)


def test_folds_with_and_without_teacher_predict_with_each_others_network():
    with_teacher, without, x = mean_teacher(), rmrnet(), torch.randn(1, M, 16, 16, 16)
    with torch.no_grad():
        for parameter in with_teacher.teacher.parameters():
            parameter.add_(torch.randn_like(parameter))
    other = mean_teacher()
    other.load_state_dict(without.state_dict())
    assert torch.equal(other.eval()(x), without.eval()(x))
    without.load_state_dict(with_teacher.state_dict())
    assert torch.equal(without(x), with_teacher.eval()(x))


# ------------------------------------------------------------------------------------------------------------- the loss

def outputs_of(logits: torch.Tensor, taught: torch.Tensor | None) -> TrainingOutputs:
    images = torch.zeros(len(logits), M, *logits.shape[2:])
    return TrainingOutputs([logits, logits[..., ::2]], images, images, taught)


def test_labels_of_unlabelled_samples_teach_nothing():
    logits = torch.randn(3, 2, 4, 4, requires_grad=True)
    loss = RMRLoss(lambda outputs, target: sum((o - t).square().mean() for o, t in zip(outputs, target)), 1.0, 0.0)
    target = [torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 2)]
    loss(outputs_of(logits, torch.randn(1, 2, 4, 4)), target).backward()
    assert (logits.grad[:2] != 0).all() and (logits.grad[2] == 0).all()
    assert set(loss.take()) == {"segmentation", "restoration", "consistency"}


@pytest.mark.parametrize("regions", [False, True])
def test_unlabelled_samples_learn_what_the_teacher_says(regions):
    logits = torch.zeros(3, 2, 4, 4, requires_grad=True)
    taught = torch.full((1, 2, 4, 4), -20.0)
    taught[:, 1] = 20
    loss = RMRLoss(lambda outputs, target: 0 * outputs[0].sum(), 1.0, 2.0, regions)
    loss.progress = 1.0
    found = loss(outputs_of(logits, taught), [torch.zeros(3, 2, 4, 4)] * 2)
    dice = [2 * 8 / (4 + 16)] + [0] * regions  # of the class, or of both regions, one of which the teacher sees nowhere
    assert float(found) == pytest.approx(2.0 * (1 - np.mean(dice) + np.log(2)), abs=1e-4)
    loss.progress = 0.0
    at_first = loss(outputs_of(logits, taught), [torch.zeros(3, 2, 4, 4)] * 2)
    assert float(at_first) == pytest.approx(ramp(0) * float(found))
    found.backward()
    assert (logits.grad[:2] == 0).all() and (logits.grad[2, 0] > 0).all() and (logits.grad[2, 1] < 0).all()


def test_what_the_teacher_is_unsure_of_the_student_is_to_be_as_unsure_of():
    unsure = torch.tensor([[[0.2], [0.0]]])
    probabilities = unsure.softmax(1)
    entropy = -(probabilities * probabilities.log()).sum()
    assert float(consistency(unsure, unsure, regions=False)) == pytest.approx(float(entropy), abs=1e-4)


def test_regions_have_probabilities_of_their_own():
    logits, taught = torch.tensor([[[2.0], [2.0]]]), torch.tensor([[[-2.0], [-2.0]]])
    assert consistency(logits, taught, regions=False) == consistency(taught, taught, regions=False)  # one half each
    assert consistency(logits, taught, regions=True) > 1 + consistency(taught, taught, regions=True)


def test_at_first_the_teacher_has_little_to_say():
    assert ramp(0) < 0.01 < ramp(0.1) < ramp(0.3) < ramp(0.4) == ramp(1) == 1


# ---------------------------------------------------------------------------------------------------------- the batches

class Dataset:
    """Cases that hold one value each; properties as nnU-Net's preprocessing leaves them."""

    def __init__(self, values: dict[str, float], class_locations: dict):
        self.identifiers, self.values, self.class_locations = list(values), values, class_locations

    def load_case(self, case: str):
        shape = (1, 8, 8, 8)
        return (np.full(shape, self.values[case], np.float32), np.ones(shape, np.int16), None,
                {"class_locations": self.class_locations})


class Labels:
    all_labels, has_ignore_label = [0, 1, 2], True  # that asks for annotated voxels; unlabelled cases have none


LABELLED = Dataset({"a": 1.0, "b": 2.0}, {1: np.array([[0, 0, 0, 0]]), (-1, 0, 1, 2): np.array([[0, 7, 7, 7]])})
UNLABELLED = Dataset({"c": 3.0}, {})


def loader(cls=nnUNetDataLoader, **options) -> nnUNetDataLoader:
    return cls(LABELLED, 4, (4, 4, 4), (4, 4, 4), Labels, oversample_foreground_percent=0.33,
               sampling_probabilities=None, pad_sides=None, transforms=None,
               probabilistic_oversampling=False, **options)


def test_the_last_samples_of_a_batch_are_unlabelled():
    ours = loader(PartlyLabelledLoader, unlabelled=UNLABELLED, num_unlabelled=3)
    for _ in range(10):
        batch = next(ours)
        assert set(batch["keys"][:1]) <= {"a", "b"} and list(batch["keys"][1:]) == ["c"] * 3
        assert (batch["data"][0] < 3).all() and (batch["data"][1:] == 3).all()
        assert batch["data"].shape == (4, 1, 4, 4, 4) and batch["target"].shape == (4, 1, 4, 4, 4)


def test_as_large_a_share_of_the_labelled_samples_shows_foreground_as_nnunet_wants(monkeypatch):
    ours = loader(PartlyLabelledLoader, unlabelled=UNLABELLED, num_unlabelled=3)
    forced = [ours.get_do_oversample(0) for _ in range(2000)]
    assert np.mean(forced) == pytest.approx(0.25, abs=0.05)  # of 4 samples nnU-Net centres round(4 * .33) = 1
    assert not any(ours.others.get_do_oversample(j) for j in range(3))


def test_only_the_loader_of_training_cases_gets_them():
    with partly_unlabelled_batches(UNLABELLED, 1):
        training, validation = (loader(unlabelled.stock.nnUNetDataLoader) for _ in range(2))
    assert isinstance(training, PartlyLabelledLoader) and type(validation) is nnUNetDataLoader
    assert unlabelled.stock.nnUNetDataLoader is nnUNetDataLoader


@pytest.mark.parametrize(("fraction", "batch", "number"), [(0.5, 2, 1), (0.5, 5, 2), (0.01, 4, 1), (1.0, 4, 3)])
def test_a_batch_always_has_both_kinds(fraction, batch, number):
    assert number_in_batch(fraction, batch) == number


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match=r"a batch of one sample .* unlabelled_fraction to 0"):
        number_in_batch(0.5, 1)


@pytest.mark.parametrize("regions", [False, True])
def test_weight_regions_and_number_of_unlabelled_samples_reach_loss_and_network(trainer_of, monkeypatch, regions):
    class Learning(nnUNetTrainerRMR):
        settings = replace(nnUNetTrainerRMR.settings, unlabelled_fraction=0.5, consistency_weight=3.0)

    monkeypatch.setattr("nnunetv2_rmr.training.nnUNetTrainerRMR.unlabelled_dataset", lambda *_: UNLABELLED)
    monkeypatch.setattr(nnUNetTrainer, "get_dataloaders", lambda self: None)
    labels = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]} if regions else {}
    trainer = trainer_of(Learning, dataset_json=DATASET_JSON | labels)
    trainer.get_dataloaders()
    assert (trainer.loss.consistency_weight, trainer.loss.regions) == (3.0, regions)
    assert unwrapped(trainer.network).num_unlabelled == 1


def test_the_published_form_learns_from_labelled_scans_only(trainer_of, monkeypatch):
    monkeypatch.setattr("nnunetv2_rmr.training.nnUNetTrainerRMR.unlabelled_dataset", lambda *_: UNLABELLED)

    def made(base: type):
        asked = replace(base.settings, unlabelled_fraction=0.5)
        return trainer_of(type(base.__name__, (base,), {"settings": asked}), patch_size=(16, 16, 16))

    assert made(nnUNetTrainerRMR).unlabelled is UNLABELLED
    assert made(nnUNetTrainerRMR_paper).unlabelled is None


# ------------------------------------------------------------------------------------------------ by nnU-Net's commands

NUMBER = 903
TRAINER = "nnUNetTrainerRMR_tiny"


@pytest.fixture(scope="module")
def env(tmp_path_factory) -> dict[str, str]:
    """A tiny data set with regions and an ignore label, three scans without labels, and one that is broken."""
    root = tmp_path_factory.mktemp("unlabelled")
    env = tiny.nnunet_env(root, nnUNet_rmr_seed="5", TINY_ONLY_TRAINS="1")
    name = tiny.write_dataset(root / "raw", NUMBER, regions=True)
    raw = root / "raw" / name
    description = json.loads((raw / "dataset.json").read_text())
    description["labels"]["ignore"] = 3
    (raw / "dataset.json").write_text(json.dumps(description))
    rng = np.random.default_rng(1)
    for case in ("un0", "un1", "un2", "half"):
        for c, image in enumerate(tiny.tiny_case(rng)[0]):
            tiny.write_image(image, raw / "imagesUn" / f"{case}_{c:04d}.nii.gz")
    (raw / "imagesUn" / "half_0001.nii.gz").unlink()
    tiny.run("nnUNetv2_plan_and_preprocess", "-d", NUMBER, "-c", "3d_fullres", "-npfp", 1, "-np", 1,
             env=env | {"nnUNet_n_proc_DA": "1"})
    plans = root / "preprocessed" / name / "nnUNetPlans.json"
    tiny.tiny_architecture(plans)
    plans.write_text(json.dumps(json.loads(plans.read_text()) | {"rmr": {"unlabelled_fraction": 0.5}}))
    return env


def preprocess(env: dict[str, str]):
    return tiny.run("nnUNetv2_rmr_preprocess_unlabelled", "-d", NUMBER, "-c", tiny.CONFIGURATION, "-np", 1, env=env,
                    check=False)


@pytest.fixture(scope="module")
def preprocessed(env) -> str:
    """What the command said."""
    result = preprocess(env)
    assert result.returncode == 1
    return result.stdout


def train(env: dict[str, str], *options: str, check: bool = True):
    return tiny.run("nnUNetv2_train", NUMBER, tiny.CONFIGURATION, 0, "-tr", TRAINER, "-device", tiny.DEVICE, *options,
                    env=env, check=check)


def model(env: dict[str, str]) -> Path:
    return Path(env["nnUNet_results"], f"Dataset{NUMBER}_Tiny", f"{TRAINER}__nnUNetPlans__{tiny.CONFIGURATION}")


def final(env: dict[str, str]) -> dict:
    return torch.load(model(env) / "fold_0" / "checkpoint_final.pth", map_location="cpu", weights_only=False)


@pytest.fixture(scope="module")
def trained(env, preprocessed):
    return train(env).stdout


def cases(env: dict[str, str]) -> set[str]:
    folder = Path(env["nnUNet_preprocessed"], f"Dataset{NUMBER}_Tiny", "nnUNetPlans_3d_fullres_unlabelled")
    return {file.name.removesuffix(".pkl") for file in folder.glob("*.pkl")}


@pytest.mark.slow
def test_a_bad_scan_is_named_and_the_others_are_preprocessed(env, preprocessed):
    assert "1 case(s) could not be used" in preprocessed and "half_0001.nii.gz (T2) missing" in preprocessed
    assert cases(env) == {"un0", "un1", "un2"}


@pytest.mark.parametrize(("name", "told"), [("nnUNetPlans.json", "are no plans of nnU-Net"),
                                            ("dataset.json", "is no dataset.json of nnU-Net")])
@pytest.mark.parametrize("content", ["{}", "no json", "[1]"])
def test_files_that_are_none_of_nnunets_are_named(tmp_path, monkeypatch, name, told, content):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        (tmp_path / variable / "Dataset007_X").mkdir(parents=True)
    monkeypatch.setattr(scans, "maybe_convert_to_dataset_name", lambda dataset: "Dataset007_X")
    for c, image in enumerate(tiny.tiny_case(np.random.default_rng(0))[0][:2]):
        tiny.write_image(image, tmp_path / "nnUNet_raw" / "Dataset007_X" / "imagesUn" / f"a_000{c}.nii.gz")
    folder = tmp_path / "nnUNet_preprocessed" / "Dataset007_X"
    (folder / "nnUNetPlans.json").write_text(json.dumps(make_plans().plans))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}: {told}"):
        scans.preprocess_unlabelled(7, "nnUNetPlans", "test", 1)


@pytest.mark.slow
def test_scans_that_are_gone_are_removed(env, preprocessed, tmp_path):
    other = env | {"nnUNet_raw": str(tmp_path / "raw"), "nnUNet_preprocessed": str(tmp_path / "preprocessed")}
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(env[name], other[name])
    for file in Path(other["nnUNet_raw"], f"Dataset{NUMBER}_Tiny", "imagesUn").glob("un1_*"):
        file.unlink()
    preprocess(other)
    assert cases(other) == {"un0", "un2"}


@pytest.mark.slow
def test_training_learns_from_them_and_says_so(env, trained):
    assert "Learning from 3 scans without labels, too: 1 of the 2 samples of every batch" in trained
    assert "WARNING: 1 of 4 scans in imagesUn are not in" in trained
    logged = final(env)["logging"]
    assert len(logged["loss_consistency"]) == 4 and np.isfinite(logged["loss_consistency"]).all()
    assert json.loads((model(env) / "plans.json").read_text())["rmr"]["unlabelled_cases"] == 3


@pytest.mark.slow
@tiny.bit_by_bit
def test_killed_training_goes_on_bit_by_bit_teacher_included(env, trained, tmp_path):
    other = env | {"nnUNet_results": str(tmp_path)}
    assert train(other | {"TINY_KILLED_AT": "iteration 15"}, check=False).returncode == -signal.SIGKILL
    train(other, "--c")
    a, b = final(env)["network_weights"], final(other)["network_weights"]
    assert a.keys() == b.keys() and any(name.startswith("averaged.") for name in a)
    for name, weight in a.items():
        assert torch.equal(weight, b[name]), name


@pytest.mark.slow
def test_the_trained_model_predicts_with_nnunets_command_and_ours(env, trained, tmp_path):
    images = Path(env["nnUNet_raw"], f"Dataset{NUMBER}_Tiny", "imagesTs")
    for command in ("nnUNetv2_predict", "nnUNetv2_rmr_predict"):
        tiny.run(command, "-i", images, "-o", tmp_path / command, "-d", NUMBER, "-c", tiny.CONFIGURATION, "-tr",
                 TRAINER, "-f", 0, "-device", tiny.DEVICE, env=env)
    names = sorted(file.name for file in (tmp_path / "nnUNetv2_predict").glob("*.nii.gz"))
    assert names == ["caseTs00.nii.gz", "caseTs01.nii.gz"]
    for name in names:
        assert (tmp_path / "nnUNetv2_predict" / name).read_bytes() == \
            (tmp_path / "nnUNetv2_rmr_predict" / name).read_bytes()
        assert (tmp_path / "nnUNetv2_rmr_predict" / "fused" / name).is_file()


@pytest.mark.slow
def test_two_processes_learn_from_them(env, preprocessed, tmp_path):
    other = env | {"nnUNet_results": str(tmp_path / "results"), "nnUNet_preprocessed": str(tmp_path / "preprocessed"),
                   "OMP_NUM_THREADS": "1"}
    shutil.copytree(env["nnUNet_preprocessed"], other["nnUNet_preprocessed"])
    file = Path(other["nnUNet_preprocessed"], f"Dataset{NUMBER}_Tiny", "nnUNetPlans.json")
    plans = json.loads(file.read_text())
    plans["configurations"][tiny.CONFIGURATION]["batch_size"] = 4
    file.write_text(json.dumps(plans))
    said = tiny.run("torchrun", "--standalone", "--nproc_per_node", "2", "-m", "nnunetv2_rmr.cli.train_ddp", NUMBER,
                    tiny.CONFIGURATION, 0, "-tr", TRAINER, "-device", "cpu", env=other).stdout
    assert "1 of the 2 samples of every batch" in said
    assert np.isfinite(final(other)["logging"]["loss_consistency"]).all()


@pytest.mark.slow
def test_unless_asked_for_nothing_changes(env, preprocessed, tmp_path):
    other = env | {"nnUNet_results": str(tmp_path / "results"), "nnUNet_preprocessed": str(tmp_path / "preprocessed")}
    shutil.copytree(env["nnUNet_preprocessed"], other["nnUNet_preprocessed"])
    file = Path(other["nnUNet_preprocessed"], f"Dataset{NUMBER}_Tiny", "nnUNetPlans.json")
    plans = json.loads(file.read_text())
    del plans["rmr"]
    file.write_text(json.dumps(plans))
    said = train(other).stdout
    assert "Learning from" not in said and "the 4 scans in imagesUn are not learned from" in said
    stored = final(other)
    assert not any(name.startswith("averaged.") for name in stored["network_weights"])
    assert "loss_consistency" not in stored["logging"]
