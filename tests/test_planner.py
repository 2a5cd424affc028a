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
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from plans import DATASET_JSON, make_plans

from nnunetv2_rmr.networks.build import build_rmrnet
from nnunetv2_rmr.networks.from_plans import RMRNetFromPlans, rmr_architecture
from nnunetv2_rmr.networks.memory import kept_bytes
from nnunetv2_rmr.planning.planners import FIXED_GIB, GIB, PLANNERS, RMRPlanner, RMRPlannerResEncM
from nnunetv2_rmr.settings import RMRSettings

FRONT = RMRSettings().network_arguments()


# ---- the network that plans name ------------------------------------------------------------------------------------

def rmr_plans(modalities: int = 2, dim: int = 3, **front) -> PlansManager:
    """make_plans' plans with RMRNet as network."""
    plans = make_plans(patch_size=(16,) * dim, settings=None).plans
    configuration = plans["configurations"]["test"]
    configuration["architecture"] = rmr_architecture(configuration["architecture"], modalities, dim, FRONT | front)
    return PlansManager(json.loads(json.dumps(plans)))


def stock_network(plans: PlansManager, channels: int = 2, deep_supervision: bool = True) -> torch.nn.Module:
    configuration = plans.get_configuration("test")
    return get_network_from_plans(configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
                                  configuration.network_arch_init_kwargs_req_import, channels, 2,
                                  deep_supervision=deep_supervision)


@pytest.mark.parametrize("dim", [2, 3])
def test_nnunet_builds_rmrnet_from_the_plans_and_switches_deep_supervision(dim):
    plans = rmr_plans(dim=dim)
    network = stock_network(plans)
    assert isinstance(network, RMRNetFromPlans)
    x = torch.randn(2, 2, *[16] * dim)
    assert [tuple(o.shape) for o in network(x)] == [(2, 2, *[16] * dim)]  # two stages: one output
    network.decoder.deep_supervision = False
    assert network(x).shape == (2, 2, *[16] * dim)
    assert plans.get_configuration("test").pool_op_kernel_sizes == [[1] * dim, [2] * dim]


def test_our_trainer_and_nnunets_give_the_same_parameters_for_rmr_plans():
    plans = rmr_plans()
    with_settings = PlansManager(RMRSettings().into_plans(plans.plans))
    ours = build_rmrnet(with_settings, plans.get_configuration("test"), 2, 2, True)
    shapes = {name: p.shape for name, p in stock_network(plans).named_parameters()}
    assert {name: p.shape for name, p in ours.named_parameters()} == shapes
    wrapped = make_plans()
    wrapped = build_rmrnet(wrapped, wrapped.get_configuration("test"), 2, 2, True)
    assert {name: p.shape for name, p in wrapped.named_parameters()} == shapes


def test_nnunets_trainers_train_nothing_that_their_loss_does_not_reach():
    network = stock_network(rmr_plans())  # else their DDP would wait for ever
    network(torch.randn(1, 2, 16, 16, 16))[0].square().mean().backward()
    assert {n for n, p in network.named_parameters() if p.requires_grad} == {
        n for n, p in network.named_parameters() if p.grad is not None}


def test_nnunets_initialisation_is_for_the_segmentation_network_only():
    torch.manual_seed(0)
    network = stock_network(rmr_plans())
    # He's initialisation sets biases to zero, torch's own does not; encoders start close to the identity
    assert all((m.bias == 0).all() for m in network.segmentation.modules() if isinstance(m, torch.nn.Conv3d))
    assert network.encoders[0].layers[0][0].weight[:, 0, 1, 1, 1].mean() > 0.8


def test_extra_channels_of_a_cascade_by_pass_the_fusion():
    assert stock_network(rmr_plans(), channels=3)(torch.randn(1, 3, 16, 16, 16))[0].shape == (1, 2, 16, 16, 16)


def test_settings_that_contradict_the_planned_network_are_named():
    plans = RMRSettings(features=24).into_plans(rmr_plans().plans)
    with pytest.raises(ValueError, match=r"other RMR settings .* features 8 \(wanted: 24\)"):
        build_rmrnet(PlansManager(plans), rmr_plans().get_configuration("test"), 2, 2, True)


def test_contradicting_strides_and_missing_channels_are_refused():
    with pytest.raises(ValueError, match="num_modalities=3, the data only 2"):
        stock_network(rmr_plans(modalities=3))
    with pytest.raises(ValueError, match="two or more modalities"):
        stock_network(rmr_plans(modalities=1), channels=1)
    plans = rmr_plans()
    plans.plans["configurations"]["test"]["architecture"]["arch_kwargs"]["strides"] = [[1, 1, 1], [1, 2, 2]]
    with pytest.raises(ValueError, match="two different strides"):
        stock_network(plans)


# ---- the estimate ---------------------------------------------------------------------------------------------------

def estimate(modalities: int = 2, size=(32, 32, 32), **front) -> int:
    with torch.device("meta"):
        return stock_network(rmr_plans(modalities, **front), modalities).compute_conv_feature_map_size(size)


def test_estimate_grows_with_modalities_features_and_patch():
    by_modalities = [estimate(modalities) for modalities in (2, 3, 4)]
    assert by_modalities == sorted(set(by_modalities))
    assert estimate(features=24) > estimate(features=16)
    assert estimate(fusion_growth=16) > estimate(fusion_growth=8)
    assert estimate(decoder_hidden=16) > estimate(decoder_hidden=8)
    assert estimate(decoder_layers=2) > estimate(decoder_layers=1)
    assert estimate(encoder="swin") > estimate(encoder="conv")
    # nearly proportional to voxels: only borders are cropped
    assert estimate(size=(32, 32, 64)) == pytest.approx(2 * estimate(), rel=0.05)


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
def test_plans_fit_where_nnunets_own_fit(dataset, planner):
    name = dataset()
    vanilla, rmr = plan(planner.__mro__[2], name), plan(planner, name)
    assert rmr["plans_name"] == vanilla["plans_name"].replace("nnUNet", "nnUNetRMR", 1)
    for configuration in ("2d", "3d_fullres"):
        a, b = (p["configurations"][configuration] for p in (vanilla, rmr))
        assert all(i <= j for i, j in zip(b["patch_size"], a["patch_size"]))
        assert voxels(b) * b["batch_size"] < voxels(a) * a["batch_size"]
        assert b["architecture"]["arch_kwargs"]["segmentation"]["network_class_name"] == \
            a["architecture"]["network_class_name"]
        assert b["spacing"].tolist() == a["spacing"].tolist() if hasattr(a["spacing"], "tolist") \
            else b["spacing"] == a["spacing"]


@pytest.mark.parametrize(("planner", "target"), [*((planner, 9.5) for planner in PLANNERS), (RMRPlanner, 6)])
def test_the_planned_batch_fits_into_the_target_and_one_sample_more_does_not(dataset, planner, target):
    planned = plan(planner, dataset(cases=10**4), gpu_memory_target_in_gb=target)
    for configuration in ("2d", "3d_fullres"):
        configuration = PlansManager(json.loads(json.dumps(planned))).get_configuration(configuration)
        with torch.device("meta"):
            network = get_network_from_plans(configuration.network_arch_class_name,
                                             configuration.network_arch_init_kwargs,
                                             configuration.network_arch_init_kwargs_req_import, 2, 2)
        of_sample = network.compute_conv_feature_map_size(configuration.patch_size) / GIB
        assert FIXED_GIB + configuration.batch_size * of_sample <= target
        assert FIXED_GIB + (configuration.batch_size + 1) * of_sample > target


@pytest.mark.parametrize(("planner", "patch", "batch", "recorded"), [  # rows of a table in benchmarks/README.md
    (RMRPlanner, (192, 160), 58, 6.72), (RMRPlanner, (96, 128, 96), 2, 7.32),
    (RMRPlannerResEncM, (96, 128, 96), 2, 7.86)])
def test_the_estimate_is_still_the_one_that_was_compared_with_gpus(dataset, planner, patch, batch, recorded):
    planned = plan(planner, dataset(channels=4, shape=(140, 171, 137), cases=40))
    configuration = PlansManager(json.loads(json.dumps(planned))).get_configuration("2d" if len(patch) == 2 else
                                                                                    "3d_fullres")
    with torch.device("meta"):
        network = get_network_from_plans(configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
                                         configuration.network_arch_init_kwargs_req_import, 4, 4)
    estimate = FIXED_GIB + batch * network.compute_conv_feature_map_size(patch) / GIB
    assert estimate == pytest.approx(recorded, abs=0.006), "measure again: benchmarks/planner_memory.py"


def test_a_target_that_is_gone_before_the_first_sample_is_refused(dataset):
    with pytest.raises(ValueError, match="memory target of 1 GB is too small"):
        RMRPlanner(dataset(), gpu_memory_target_in_gb=1)


def test_more_memory_gives_larger_patches_and_more_modalities_smaller_ones(dataset):
    two, eight = (dataset(channels, shape=(160, 192, 176)) for channels in (2, 8))
    sizes = [voxels(plan(RMRPlanner, name, gpu_memory_target_in_gb=target)["configurations"]["3d_fullres"])
             for name, target in ((eight, 8), (two, 8), (two, 16))]
    assert sizes[0] < sizes[1] < sizes[2]


def test_plans_file_holds_2d_lowres_and_cascade_and_builds(dataset, tmp_path):
    name = dataset(shape=(250, 250, 250))
    plan(RMRPlanner, name)
    manager = PlansManager(str(tmp_path / "preprocessed" / name / "nnUNetRMRPlans.json"))
    assert set(manager.available_configurations) == {"2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"}
    for configuration in manager.available_configurations:
        configuration = manager.get_configuration(configuration)
        with torch.device("meta"):
            network = get_network_from_plans(configuration.network_arch_class_name,
                                             configuration.network_arch_init_kwargs,
                                             configuration.network_arch_init_kwargs_req_import, 2, 2)
            logits = network(torch.empty(1, 2, *configuration.patch_size))
        assert logits.shape == (1, 2, *configuration.patch_size)
        # the images are nnUNetPlans', preprocessed once; low resolution depends on the patch
        owner = "nnUNetRMRPlans" if configuration.configuration.get("next_stage") else "nnUNetPlans"
        assert configuration.data_identifier.startswith(owner + "_")


def test_settings_in_the_plans_file_are_planned_for_and_kept(dataset, tmp_path):
    name = dataset()
    before = plan(RMRPlanner, name)["configurations"]["3d_fullres"]
    file = tmp_path / "preprocessed" / name / "nnUNetRMRPlans.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rmr": {"features": 32, "intensity_weight": 2.0}}))
    after = plan(RMRPlanner, name)["configurations"]["3d_fullres"]
    assert after["architecture"]["arch_kwargs"]["front"]["features"] == 32
    assert voxels(after) < voxels(before)
    assert json.loads(file.read_text())["rmr"] == {"features": 32, "intensity_weight": 2.0}


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
def test_nnunets_own_trainer_and_ours_train_the_same_network_with_rmr_plans_but_only_ours_to_fuse(nnunet, tmp_path):
    preprocessed = Path(nnunet["nnUNet_preprocessed"]) / f"Dataset{PLAIN}_Tiny"
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            dim = len(configuration["patch_size"])
            configuration["architecture"] = rmr_architecture(configuration["architecture"], 3, dim, FRONT)
    plans["plans_name"] = "nnUNetRMRPlans"
    (preprocessed / "nnUNetRMRPlans.json").write_text(json.dumps(plans))
    env = {k: v for k, v in nnunet.items() if k != "nnUNet_extTrainer"} | {"nnUNet_results": str(tmp_path)}
    ours = nnunet | {"nnUNet_results": str(tmp_path), "TINY_ONLY_TRAINS": "1"}
    options = [str(PLAIN), tiny.CONFIGURATION, "0", "-p", "nnUNetRMRPlans", "-device", tiny.DEVICE]
    tiny.run("nnUNetv2_train", *options, "-tr", "nnUNetTrainer_1epoch_tiny",
             env=env | {"nnUNet_extTrainer": str(Path(__file__).parent / "trainers")})
    tiny.run("nnUNetv2_train", *options, "-tr", "nnUNetTrainerRMR_tiny", env=ours)
    weights = [torch.load(tmp_path / f"Dataset{PLAIN}_Tiny" / f"{trainer}__nnUNetRMRPlans__{tiny.CONFIGURATION}" /
                          "fold_0" / "checkpoint_final.pth", map_location="cpu", weights_only=False)["network_weights"]
               for trainer in ("nnUNetTrainer_1epoch_tiny", "nnUNetTrainerRMR_tiny")]
    assert {k: v.shape for k, v in weights[0].items()} == {k: v.shape for k, v in weights[1].items()}

    images = Path(nnunet["nnUNet_raw"]) / f"Dataset{PLAIN}_Tiny" / "imagesTs"
    model = ("-d", PLAIN, "-c", tiny.CONFIGURATION, "-p", "nnUNetRMRPlans", "-tr", "nnUNetTrainer_1epoch_tiny", "-f", 0,
             "-device", tiny.DEVICE, "--disable_tta")
    result = tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", tmp_path / "ours", *model, env=ours)
    assert "has no fused image to give" in result.stdout and not (tmp_path / "ours" / "fused").exists()
    tiny.run("nnUNetv2_predict", "-i", images, "-o", tmp_path / "stock", *model, env=ours)
    for file in (tmp_path / "stock").glob("*.nii.gz"):
        assert (tmp_path / "ours" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_planned_and_preprocessed_by_command_a_data_set_trains_and_predicts(nnunet, tmp_path):
    env = nnunet | {f"nnUNet_{folder}": str(tmp_path / folder) for folder in ("preprocessed", "results")}
    for folder in ("preprocessed", "results"):
        (tmp_path / folder).mkdir()
    tiny.run("nnUNetv2_rmr_plan_and_preprocess", "-d", PLAIN, "-c", "3d_fullres", "-npfp", 1, "-np", 1,
             "--verify_dataset_integrity", env=env | {"nnUNet_n_proc_DA": "1"})
    plans = json.loads((tmp_path / "preprocessed" / f"Dataset{PLAIN}_Tiny" / "nnUNetRMRPlans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"].endswith("RMRNetFromPlans")
    model = ("-tr", "nnUNetTrainerRMR_tiny", "-p", "nnUNetRMRPlans", "-device", tiny.DEVICE)
    tiny.run("nnUNetv2_train", PLAIN, "3d_fullres", "all", *model, env=env | {"TINY_ONLY_TRAINS": "1"})
    images = Path(nnunet["nnUNet_raw"]) / f"Dataset{PLAIN}_Tiny" / "imagesTs"
    tiny.run("nnUNetv2_rmr_predict", "-i", images, "-o", tmp_path / "out", "-d", PLAIN, "-c", "3d_fullres", "-f", "all",
             *model, "--disable_tta", env=env)
    for folder in (tmp_path / "out", tmp_path / "out" / "fused"):
        assert {f.name for f in folder.glob("*.nii.gz")} == {"caseTs00.nii.gz", "caseTs01.nii.gz"}
