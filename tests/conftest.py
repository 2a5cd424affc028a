import os
from pathlib import Path

import pytest
import tiny

PLAIN, REGIONS = 901, 902


@pytest.fixture(scope="session")
def nnunet(tmp_path_factory) -> dict[str, str]:
    """Environment of an nnU-Net with two tiny data sets, preprocessed: 901 with labels, 902 with regions."""
    root = tmp_path_factory.mktemp("nnunet")
    env = tiny.nnunet_env(root)
    env["nnUNet_extTrainer"] += os.pathsep + str(Path(__file__).parent / "trainers")
    names = [tiny.write_dataset(root / "raw", PLAIN), tiny.write_dataset(root / "raw", REGIONS, regions=True)]
    # nnU-Net's planner does not run without data augmentation workers
    tiny.run("nnUNetv2_plan_and_preprocess", "-d", PLAIN, REGIONS, "-c", "3d_fullres", "-npfp", 1, "-np", 1,
             env=env | {"nnUNet_n_proc_DA": "1"})
    for name in names:
        tiny.tiny_architecture(root / "preprocessed" / name / "nnUNetPlans.json")
    return env


@pytest.fixture(scope="session")
def trained(nnunet) -> Path:
    """Model folder of a trained region model (two folds), by nnU-Net's own command."""
    for fold in (0, 1):
        tiny.run("nnUNetv2_train", REGIONS, tiny.CONFIGURATION, fold, "-tr", "nnUNetTrainerRMR_tiny", "-device", "cpu",
                 "--npz", env=nnunet | {"nnUNet_rmr_seed": "1"})
    return Path(nnunet["nnUNet_results"]) / f"Dataset{REGIONS}_Tiny" / \
        f"nnUNetTrainerRMR_tiny__nnUNetPlans__{tiny.CONFIGURATION}"
