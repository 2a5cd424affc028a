"""Training in several processes, on one machine or more, on GPUs or CPUs (PyTorch DDP).

nnU-Net's own DDP (-num_gpus N) is for the GPUs of one machine. Here the processes come from torchrun, which tells each
its place through the environment. All other things, also how a batch is split, are nnU-Net's.
"""

import os
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# rank 0 alone unpacks the data set and scores the validation; PyTorch's 10 minutes for NCCL can be too few
TIMEOUT = timedelta(hours=2)


def join_processes(device_type: str, backend: str | None = None) -> torch.device:
    """Join the process group that the environment describes. Returns this process's device.

    device_type: "cuda" (the GPU with the number LOCAL_RANK) or "cpu". backend: None takes nccl for cuda, gloo for cpu.
    Raises ValueError if torchrun did not start this process or if there is no such GPU, NotImplementedError for other
    devices.
    """
    missing = [name for name in ENVIRONMENT if name not in os.environ]
    if missing:
        raise ValueError(f"{', '.join(missing)} not in the environment: start this command with torchrun")
    if device_type not in ("cuda", "cpu"):
        raise NotImplementedError(f"distributed training runs on cuda or cpu, got -device {device_type}: nccl and "
                                  "gloo work on no other device")
    device = torch.device("cpu")
    if device_type == "cuda":
        local_rank, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= count:
            raise ValueError(f"process {local_rank} of this machine has no GPU, torch finds {count}: start at most "
                             "that many with --nproc_per_node, or train with -device cpu")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    dist.init_process_group(backend or ("nccl" if device_type == "cuda" else "gloo"), timeout=TIMEOUT)
    return device


def let_nnunet_train_on(device: torch.device) -> None:
    """Let nnU-Net's training commands, in this process, train on `device` and read pretrained weights to the CPU first.

    In a process group they take the GPU with the number of the process for granted, in all they do, which is wrong on a
    second machine and on CPUs.
    """
    from nnunetv2.run import load_pretrained_weights, run_training
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    make_trainer = run_training.get_trainer_from_args  # the commands look it up under this name
    run_training.get_trainer_from_args = lambda *args, **kwargs: _place(make_trainer(*args, **kwargs), device)
    device_ids = [device.index] if device.type == "cuda" else None
    load_pretrained_weights.dist = SimpleNamespace(is_initialized=lambda: False)
    load_pretrained_weights.torch = SimpleNamespace(load=partial(torch.load, map_location="cpu"))
    module.DDP = lambda network, **_: DistributedDataParallel(network, device_ids=device_ids)
    if device.type == "cpu":  # SyncBatchNorm runs on GPUs only
        torch.nn.SyncBatchNorm.convert_sync_batchnorm = classmethod(lambda cls, network, process_group=None: network)


def _place(trainer, device: torch.device):
    """Give a new trainer this process's device, let rank 0 alone write the split, and return the trainer.

    The trainers' `local_rank` stays the number among all processes, as nnU-Net uses it: to let one write files, and to
    share out validation cases.
    """
    trainer.device = device
    if device.type == "cpu":
        trainer.grad_scaler = None
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    if trainer.local_rank == 0:
        trainer.do_split()
    # nccl would guess the GPU of its first communication from the number among all processes
    dist.barrier(device_ids=[device.index] if dist.get_backend() == "nccl" else None)
    return trainer
