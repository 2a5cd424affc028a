"""Planning needs no images, only what nnU-Net's fingerprint says about them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import PLAIN
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from plans import DATASET_JSON, make_plans

from nnunetv2_rmr.networks.planned import planned_network
from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.planning.planners import FIXED_GIB, GIB, PEAK, PLANNERS, RMRPlanner, kept_bytes, training_bytes

# ---- the estimate ---------------------------------------------------------------------------------------------------

def estimate(configuration: ConfigurationManager, modalities: int = 2, classes: int = 2, size=None) -> int:
    size = configuration.patch_size if size is None else size
    with torch.device("meta"):
        network = planned_network(configuration, modalities, classes, False)
        return training_bytes(RMRNet(network, modalities, modalities, size), size)


def test_estimate_grows_with_modalities_and_patch():
    configuration = make_plans().get_configuration("test")
    by_modalities = [estimate(configuration, modalities) for modalities in (2, 3, 4)]
    assert by_modalities == sorted(set(by_modalities))
    # nearly proportional to voxels
    assert estimate(configuration, size=(32, 32, 64)) == pytest.approx(2 * estimate(configuration, size=(32, 32, 32)),
                                                                       rel=0.05)


def test_estimate_is_of_what_network_head_and_losses_keep_counted_by_hand():
    network = RMRNet(torch.nn.Sequential(torch.nn.Identity(), torch.nn.Conv3d(2, 3, 1)), 2, 2, (10, 10, 10))
    # float16: the whole input, of which clean, seen and what the logits are made of are views; seen modalities and
    # features side by side; the head's first convolution. float32: what its PReLU makes of that, the body, the softmax
    # of three classes, and the difference of two images
    kept = 2 * (4 + (2 + 2) + 16) + 4 * (16 + 1 + 3 + 2)
    assert training_bytes(network, (10, 10, 10)) == pytest.approx(PEAK * kept * 1000, rel=0.003)


def test_kept_bytes_are_those_of_a_computation_done_by_hand():
    weight = torch.nn.Parameter(torch.empty(8, 4, 3, 3, 3, device="meta"))
    x = torch.empty(1, 4, 10, 10, 10, device="meta")

    def compute():  # keeps x for the convolution, its output for the square; the weight is not counted
        return torch.nn.functional.conv3d(x, weight, padding=1).square()

    assert kept_bytes(compute, [weight]) == 4 * (4 + 8) * 1000


# ---- planners -------------------------------------------------------------------------------------------------------

@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """write(channels, shape) makes a data set that can be planned: a description and a fingerprint."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")

    def write(channels: int = 2, shape=(96, 128, 112), cases: int = 100) -> str:
        name = f"Dataset9{channels:02d}_Planned"
        raw, preprocessed = tmp_path / "raw" / name, tmp_path / "preprocessed" / name
        raw.mkdir(parents=True)
        preprocessed.mkdir(parents=True)
        description = DATASET_JSON | {
            "channel_names": {str(i): f"M{i}" for i in range(channels)}, "numTraining": cases,
            "overwrite_image_reader_writer": "SimpleITKIO",
            "dataset": {f"case{i}": {"images": ["x.nii.gz"] * channels, "label": "y.nii.gz"} for i in range(2)}}
        (raw / "dataset.json").write_text(json.dumps(description))
        (preprocessed / "dataset_fingerprint.json").write_text(json.dumps({
            "spacings": [[1.0, 1.0, 1.0]] * 2, "shapes_after_crop": [list(shape)] * 2,
            "median_relative_size_after_cropping": 1.0, "foreground_intensity_properties_per_channel": {}}))
        return name

    return write


def plan(planner, name: str, **kwargs) -> dict:
    with torch.device("meta"):
        return planner(name, **kwargs).plan_experiment()


def voxels(configuration: dict) -> int:
    return int(np.prod(configuration["patch_size"]))


@pytest.mark.parametrize("planner", PLANNERS)
def test_plans_name_nnunets_own_networks_spacing_and_data(dataset, planner):
    name = dataset()
    vanilla, rmr = plan(planner.__mro__[2], name), plan(planner, name)
    assert rmr["plans_name"] == vanilla["plans_name"].replace("nnUNet", "nnUNetRMR", 1)
    for configuration in ("2d", "3d_fullres"):
        a, b = (p["configurations"][configuration] for p in (vanilla, rmr))
        assert b["architecture"]["network_class_name"] == a["architecture"]["network_class_name"]
        assert b["spacing"].tolist() == a["spacing"].tolist() if hasattr(a["spacing"], "tolist") \
            else b["spacing"] == a["spacing"]


@pytest.mark.parametrize(("planner", "target"), [*((planner, 9.5) for planner in PLANNERS), (RMRPlanner, 6)])
def test_the_planned_batch_fits_into_the_target_and_one_sample_more_does_not(dataset, planner, target):
    planned = plan(planner, dataset(cases=10**4), gpu_memory_target_in_gb=target)
    for configuration in ("2d", "3d_fullres"):
        configuration = PlansManager(json.loads(json.dumps(planned))).get_configuration(configuration)
        of_sample = estimate(configuration) / GIB
        assert FIXED_GIB + configuration.batch_size * of_sample <= target
        assert FIXED_GIB + (configuration.batch_size + 1) * of_sample > target


def test_a_target_that_is_gone_before_the_first_sample_is_refused(dataset):
    with pytest.raises(ValueError, match="memory target of 1 GB is too small"):
        RMRPlanner(dataset(), gpu_memory_target_in_gb=1)


def test_more_memory_gives_larger_patches_and_more_modalities_smaller_ones(dataset):
    two, eight = (dataset(channels, shape=(160, 192, 176)) for channels in (2, 8))
    sizes = [voxels(plan(RMRPlanner, name, gpu_memory_target_in_gb=target)["configurations"]["3d_fullres"])
             for name, target in ((eight, 8), (two, 8), (two, 16))]
    assert sizes[0] < sizes[1] < sizes[2]


def test_plans_file_holds_2d_lowres_and_cascade_and_builds(dataset, tmp_path):
    name = dataset(shape=(320, 320, 320))
    plan(RMRPlanner, name)
    manager = PlansManager(str(tmp_path / "preprocessed" / name / "nnUNetRMRPlans.json"))
    assert set(manager.available_configurations) == {"2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"}
    for configuration in manager.available_configurations:
        configuration = manager.get_configuration(configuration)
        with torch.device("meta"):
            logits = planned_network(configuration, 2, 2, False)(torch.empty(1, 2, *configuration.patch_size))
        assert logits.shape == (1, 2, *configuration.patch_size)
        # the images are nnUNetPlans', preprocessed once; low resolution depends on the patch
        owner = "nnUNetRMRPlans" if configuration.configuration.get("next_stage") else "nnUNetPlans"
        assert configuration.data_identifier.startswith(owner + "_")


def test_settings_in_the_plans_file_are_kept(dataset, tmp_path):
    name = dataset()
    plan(RMRPlanner, name)
    file = tmp_path / "preprocessed" / name / "nnUNetRMRPlans.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rmr": {"p_clean": 0.5}}))
    plan(RMRPlanner, name)
    assert json.loads(file.read_text())["rmr"] == {"p_clean": 0.5}


def test_one_modality_can_not_be_planned(dataset):
    with pytest.raises(NotImplementedError,
                       match="two or more modalities, but the data set Dataset901_Planned has one"):
        RMRPlanner(dataset(channels=1))


def command(*arguments: str) -> subprocess.CompletedProcess:
    # as the installed script does it, also where it is not installed yet
    code = f"import sys; sys.argv = {list(arguments)!r}; from nnunetv2_rmr.cli.plan_experiment import main; main()"
    return subprocess.run([sys.executable, "-c", code], env=dict(os.environ), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=900)


def test_command_finds_a_planner_by_its_name_and_takes_nnunets_options(dataset, tmp_path):
    name = dataset(shape=(96, 96, 96))
    batch_sizes = []
    for target in (6, 12):
        result = command("nnUNetv2_rmr_plan_experiment", "-d", "902", "-pl", "RMRPlannerResEncM",
                         "-gpu_memory_target", str(target), "-overwrite_plans_name", f"mine{target}")
        assert result.returncode == 0, result.stdout
        plans = json.loads((tmp_path / "preprocessed" / name / f"mine{target}.json").read_text())
        assert plans["experiment_planner_used"] == "RMRPlannerResEncM"
        batch_sizes.append(plans["configurations"]["2d"]["batch_size"])
    assert batch_sizes[0] < batch_sizes[1]


def test_command_plans_with_rmrplanner_and_names_what_is_wrong(dataset):
    dataset(channels=1, shape=(32, 32, 32))
    for number, what in (("901", "RMRPlanner plans for two or more modalities"),
                         ("998", "Could not find a dataset with the ID 998")):
        result = command("nnUNetv2_rmr_plan_experiment", "-d", number)
        assert result.returncode == 1
        assert f"nnUNetv2_rmr_plan_experiment: error: {what}" in result.stdout
        assert "Traceback" not in result.stdout


@pytest.mark.slow
def test_planned_and_preprocessed_by_command_a_data_set_trains_and_predicts(nnunet, tmp_path):
    env = nnunet | {f"nnUNet_{folder}": str(tmp_path / folder) for folder in ("preprocessed", "results")}
    for folder in ("preprocessed", "results"):
        (tmp_path / folder).mkdir()
    tiny.run("nnUNetv2_rmr_plan_and_preprocess", "-d", PLAIN, "-c", "3d_fullres", "-npfp", 1, "-np", 1,
             "--verify_dataset_integrity", env=env | {"nnUNet_n_proc_DA": "1"})
    plans = json.loads((tmp_path / "preprocessed" / f"Dataset{PLAIN}_Tiny" / "nnUNetRMRPlans.json").read_text())
    assert plans["experiment_planner_used"] == "RMRPlanner"
    model = ("-tr", "nnUNetTrainerRMR_tiny", "-p", "nnUNetRMRPlans", "-device", tiny.DEVICE)
    tiny.run("nnUNetv2_train", PLAIN, "3d_fullres", "all", *model, env=env | {"TINY_ONLY_TRAINS": "1"})
    images = Path(nnunet["nnUNet_raw"]) / f"Dataset{PLAIN}_Tiny" / "imagesTs"
    tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", tmp_path / "out", "-d", PLAIN, "-c", "3d_fullres", "-f", "all",
             *model, "--disable_tta", env=env)
    for folder in (tmp_path / "out", tmp_path / "out" / "fused"):
        assert {f.name for f in folder.glob("*.nii.gz")} == {"caseTs00.nii.gz", "caseTs01.nii.gz"}
