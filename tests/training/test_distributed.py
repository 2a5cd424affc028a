"""Two processes that share a batch learn what one process learns."""

import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import PLAIN
from nnunetv2.run import run_training
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from torch import distributed as dist
from torch import multiprocessing as mp

from nnunetv2_rmr.cli import train_ddp
from nnunetv2_rmr.training.distributed import join_processes, let_nnunet_train_on

TRAINER = "nnUNetTrainerRMR_fixed"
# as the installed script does it, also where it is not installed yet
MODULE = ("-m", "nnunetv2_rmr.cli.train_ddp")
COMMAND = ("torchrun", "--standalone", "--nproc_per_node", "2", *MODULE)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def num_gpus(rank: int, *arguments) -> None:
    """What nnUNetv2_train -num_gpus starts on every GPU, with CPUs and gloo in the place of GPUs and nccl."""
    run_training.setup_ddp = lambda rank, world_size: dist.init_process_group("gloo", rank=rank, world_size=world_size)
    torch.cuda.set_device = lambda device: None
    let_nnunet_train_on(torch.device("cpu"))
    run_training.run_ddp(rank, *arguments)


def pretrained(rank: int, port: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "1", "MASTER_ADDR": "localhost",
                   "MASTER_PORT": str(port)}
    let_nnunet_train_on(join_processes("cpu"))
    network = torch.nn.Linear(2, 2)
    load_pretrained_weights(network, f"{folder}/pretrained.pth")
    torch.save(network.weight, f"{folder}/loaded")
    dist.destroy_process_group()


def test_pretrained_weights_are_read_on_machines_without_a_gpu_too(tmp_path):
    weights = {"weight": torch.randn(2, 2), "bias": torch.zeros(2)}
    torch.save({"network_weights": weights}, tmp_path / "pretrained.pth")
    mp.spawn(pretrained, args=(free_port(), str(tmp_path)), nprocs=1)
    assert torch.equal(torch.load(tmp_path / "loaded"), weights["weight"])


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not in the environment: start this command with"),
    (["-num_gpus", "2"], "-num_gpus 2: torchrun sets the number of processes"),
])
def test_wrong_start_is_refused(monkeypatch, arguments, message):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("nnUNet_extTrainer", "")  # the command adds to it
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_rmr_train_ddp", "901", "3d_tiny", "0", *arguments])
    with pytest.raises(SystemExit, match=message):
        train_ddp.main()


def test_unknown_devices_are_refused(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(NotImplementedError, match="cuda or cpu, got -device mps"):
        join_processes("mps")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="process 0 of this machine has no GPU, torch finds 0"):
        join_processes("cuda")


def on_two_machines(*arguments: str, env: dict[str, str]) -> list[str]:
    """Output of two torchruns of one process each, which find each other as those of two machines do."""
    meeting = ("--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d", "--rdzv_id", "tiny",
               "--rdzv_endpoint", f"localhost:{free_port()}")
    with ThreadPoolExecutor(2) as machines:
        runs = [machines.submit(tiny.run, "torchrun", *meeting, *MODULE, *arguments, env=env) for _ in range(2)]
        return [run.result().stdout for run in runs]


ARGUMENTS = (str(PLAIN), tiny.CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu")


@pytest.fixture(scope="module")
def seeded(nnunet) -> dict[str, str]:
    return nnunet | {"nnUNet_rmr_seed": "3", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def one(seeded, tmp_path_factory) -> dict:
    """Final checkpoint of a training in one process."""
    results = tmp_path_factory.mktemp("one")
    tiny.run("nnUNetv2_train", *ARGUMENTS, env=seeded | {"nnUNet_results": str(results), "TINY_ONLY_TRAINS": "1"})
    return final(results)


@pytest.mark.slow
def test_two_processes_train_and_resume_as_one_process_would(one, seeded, tmp_path):
    env = seeded | {"nnUNet_results": str(tmp_path)}
    # both processes die in the third of four epochs; then they go on
    assert tiny.run(*COMMAND, *ARGUMENTS, env=env | {"TINY_KILLED_AT": "iteration 15"}, check=False).returncode != 0
    on_two_machines(*ARGUMENTS, "--c", "-backend", "gloo", env=env)
    assert_trained_like(one, tmp_path)


@pytest.mark.slow
def test_processes_that_nnunet_starts_train_as_one_process_would(one, seeded, tmp_path, monkeypatch):
    for name, value in seeded.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    no = False  # checkpointing is not disabled, nothing to continue, validation not only
    mp.spawn(num_gpus, args=(str(PLAIN), tiny.CONFIGURATION, 0, TRAINER, "nnUNetPlans", no, no, no, None, no, no, 2),
             nprocs=2)
    assert_trained_like(one, tmp_path)


def assert_trained_like(a: dict, results: Path) -> None:
    b = final(results)
    assert a["current_epoch"] == b["current_epoch"] == 4
    for key in ("train_losses", "val_losses", "loss_segmentation", "loss_restoration"):
        # sums in another order differ in the last digit, and every step of the training lets that grow
        np.testing.assert_allclose(b["logging"][key], a["logging"][key], rtol=5e-3, atol=5e-3, err_msg=key)
    np.testing.assert_allclose(b["logging"]["train_losses"][0], a["logging"]["train_losses"][0], rtol=1e-6)
    for name, weight in a["network_weights"].items():
        torch.testing.assert_close(b["network_weights"][name], weight, rtol=2e-2, atol=2e-2, msg=name)
    folder = model(results)
    assert (folder / "validation" / "summary.json").is_file()
    assert (folder / "validation" / "fused" / "restoration.json").is_file()
    assert not list(folder.glob("*.tmp"))


@pytest.mark.slow
def test_processes_do_not_wait_for_gradients_that_no_loss_term_gives(nnunet, tmp_path):
    trainer, epochs = "nnUNetTrainerRMR_paper_tiny", 2  # of which one stage each has no gradients for a part
    env = nnunet | {"nnUNet_results": str(tmp_path), "OMP_NUM_THREADS": "1", "TINY_ONLY_TRAINS": "1"}
    tiny.run(*COMMAND, PLAIN, tiny.CONFIGURATION, "0", "-tr", trainer, "-device", "cpu", env=env)
    fold = tmp_path / f"Dataset{PLAIN}_Tiny" / f"{trainer}__nnUNetPlans__{tiny.CONFIGURATION}" / "fold_0"
    logged = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)["logging"]
    assert len(logged["train_losses"]) == epochs and np.isfinite(logged["train_losses"]).all()
    log, = fold.glob("training_log_*.txt")  # of one process alone
    assert log.read_text().count("Epoch 1") == 1


@pytest.mark.slow
def test_a_network_with_batch_normalisation_trains_and_validates_in_two_processes(nnunet, tmp_path):
    folder, name = Path(nnunet["nnUNet_preprocessed"]) / f"Dataset{PLAIN}_Tiny", "nnUNetBatchNormPlans"
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"plans_name": name}
    plans["configurations"][tiny.CONFIGURATION]["architecture"]["arch_kwargs"]["norm_op"] = "torch.nn.BatchNorm3d"
    (folder / f"{name}.json").write_text(json.dumps(plans))
    env, trainer = nnunet | {"nnUNet_results": str(tmp_path), "OMP_NUM_THREADS": "1"}, "nnUNetTrainerRMR_1epoch_tiny"
    tiny.run(*COMMAND, PLAIN, tiny.CONFIGURATION, "0", "-tr", trainer, "-p", name, "-device", "cpu", env=env)
    fold = tmp_path / f"Dataset{PLAIN}_Tiny" / f"{trainer}__{name}__{tiny.CONFIGURATION}" / "fold_0"
    scores = json.loads((fold / "validation" / "summary.json").read_text())["metric_per_case"]
    assert len(scores) == 1, "one process has nothing to predict"
    state = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)["network_weights"]
    assert any("running_mean" in name for name in state)


def model(results: Path) -> Path:
    return results / f"Dataset{PLAIN}_Tiny" / f"{TRAINER}__nnUNetPlans__{tiny.CONFIGURATION}" / "fold_0"


def final(results: Path) -> dict:
    return torch.load(model(results) / "checkpoint_final.pth", map_location="cpu", weights_only=False)
