import json
import os
from pathlib import Path

import pytest
import tiny
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from plans import DATASET_JSON, make_plans

PLAIN, REGIONS = 901, 902


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist's, which would run files of a single test last
    # The caller's switches. Not while importing: processes that tests start import this, too, and have switches set.
    for name in [name for name in os.environ if name.startswith(("nnUNet_rmr_", "nnUNet_wandb_", "TINY_"))]:
        del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # one test of minutes; two processes end together if it does not begin last
    items.sort(key=lambda item: item.path.name != "test_tutorial.py")


@pytest.fixture(scope="session")
def nnunet(tmp_path_factory) -> dict[str, str]:
    """Environment of an nnU-Net with two tiny data sets, preprocessed: 901 with labels, 902 with regions."""
    root = tmp_path_factory.mktemp("nnunet")
    tiny.prepare(root, PLAIN)
    env = tiny.prepare(root, REGIONS, regions=True)
    for plans in (root / "preprocessed").glob("*/nnUNetPlans.json"):
        masked = json.loads(plans.read_text())["configurations"]["3d_fullres"]["use_mask_for_norm"]
        assert masked == [True] * 3, "what trains on these data sets shows that normalisation within a mask works"
    return env


@pytest.fixture(scope="session")
def trained(nnunet) -> Path:
    """Model folder of a trained region model (two folds), by nnU-Net's own command."""
    for fold in (0, 1):
        tiny.run("nnUNetv2_train", REGIONS, tiny.CONFIGURATION, fold, "-tr", "nnUNetTrainerRMR_tiny", "-device",
                 tiny.DEVICE, "--npz", env=nnunet | {"nnUNet_rmr_seed": "1"})
    return Path(nnunet["nnUNet_results"]) / f"Dataset{REGIONS}_Tiny" / \
        f"nnUNetTrainerRMR_tiny__nnUNetPlans__{tiny.CONFIGURATION}"


@pytest.fixture
def least_transforms(monkeypatch) -> None:
    """Training transforms of nnU-Net's trainer that our degradations can be added to, and no others."""
    monkeypatch.setattr(nnUNetTrainer, "get_training_transforms",
                        staticmethod(lambda *_, **__: ComposeTransforms([RemoveLabelTransform(-1, 0)])))


@pytest.fixture
def trainer_of(tmp_path, monkeypatch):
    """Makes an initialised trainer in this process: two modalities, patches of 8^3, four epochs."""
    for name in ("results", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    data = tmp_path / "preprocessed" / "Dataset999_Test" / "x"
    data.mkdir(parents=True)
    (data / "case.npz").touch()  # nnU-Net looks which kind of files there are

    def make(cls: type, epochs: int = 4, architecture: dict | None = None, patch_size=(8, 8, 8),
             dataset_json: dict = DATASET_JSON, scheme: str = "ZScoreNormalization"):
        torch.manual_seed(0)
        plans = make_plans(patch_size=patch_size, settings=None, scheme=scheme).plans
        if architecture is not None:
            plans["configurations"]["test"]["architecture"] = architecture
        trainer = cls({**plans, "continue_training": False}, "test", 0, dataset_json, torch.device("cpu"))
        trainer.num_epochs = epochs
        if architecture is None:
            trainer.enable_deep_supervision = False
        trainer.initialize()
        return trainer

    return make
