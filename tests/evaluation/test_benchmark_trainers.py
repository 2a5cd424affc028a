"""The trainers that time an epoch. They ask for a GPU, so here one is pretended."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import PLAIN
from nnunetv2.run.run_training import get_trainer_from_args

from nnunetv2_rmr.losses.restoration import TERMS
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

pytestmark = pytest.mark.slow


@pytest.fixture
def trainer_named(nnunet, tmp_path, monkeypatch):
    """Makes a trainer as nnUNetv2_train does, for the CPU, with two iterations an epoch."""
    for name, value in nnunet.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "pretended GPU")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 0)

    def make(name: str) -> nnUNetTrainerRMR:
        trainer = get_trainer_from_args(str(PLAIN), tiny.CONFIGURATION, 0, name, device=torch.device("cpu"))
        trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 2
        return trainer

    return make


@pytest.mark.parametrize("name", ["nnUNetTrainerRMRBenchmark_5epochs",
                                  "nnUNetTrainerRMRBenchmark_5epochs_noDataLoading"])
def test_five_epochs_leave_nnunets_result_and_no_checkpoint(trainer_named, name):
    trainer = trainer_named(name)
    trainer.run_training()
    logged = trainer.logger.local_logger.my_fantastic_logging
    for term in TERMS:
        assert len(logged[f"loss_{term}"]) == 5 and np.isfinite(logged[f"loss_{term}"]).all()
    folder = Path(trainer.output_folder)
    result, = json.loads((folder / "benchmark_result.json").read_text()).values()
    assert result["fastest_epoch"] > 0 and result["gpu_name"] == "pretended GPU"
    assert not list(folder.glob("*.pth"))
