"""A data set so small that nnU-Net's real command line trains on it in seconds: three modalities of a head."""

import atexit
import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[1]  # of the repository
CHANNELS = ("T1", "T2", "FLAIR")
CONFIGURATION = "3d_tiny"
# What commands in tests train and predict on: RMR_TEST_DEVICE=cuda tries the same things on a GPU.
DEVICE = os.environ.get("RMR_TEST_DEVICE", "cpu")
bit_by_bit = pytest.mark.skipif(DEVICE != "cpu", reason="on a GPU nnU-Net has cuDNN choose among its algorithms by "
                                                        "timing them, so that no two runs are the same bit by bit")


def tiny_case(rng: np.random.Generator, shape=(24, 28, 26)) -> tuple[list[np.ndarray], np.ndarray]:
    """Modalities (float32, background exactly zero) and label (1 oedema, 2 core) of one case, each (D, H, W)."""
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = np.sqrt(sum(g ** 2 for g in grid))
    brain = radius < 0.9
    centre = rng.uniform(-0.35, 0.35, 3)
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre)))
    label = (distance < 0.4).astype(np.uint8) + (distance < 0.22)
    label[~brain] = 0
    white = (radius < 0.6).astype(float)
    levels = (100 + 60 * white - 25 * (label > 0), 120 - 30 * white + 40 * (label > 0) + 60 * (label > 1),
              90 + 10 * white + 90 * (label > 0) - 40 * (label > 1))
    images = [np.where(brain, level + rng.normal(0, 4, shape), 0).astype(np.float32) for level in levels]
    return images, label


def write_image(array: np.ndarray, path: Path, spacing=(1.0, 1.0, 1.0), origin=(0, 0, 0), direction=None) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def write_dataset(raw: Path, number: int, *, regions: bool = False, train: int = 5, test: int = 2,
                  channels=CHANNELS) -> str:
    """A raw data set; returns its name DatasetXXX_Tiny."""
    rng = np.random.default_rng(number)
    name = f"Dataset{number:03d}_Tiny"
    for split, count in (("Tr", train), ("Ts", test)):
        for i in range(count):
            images, label = tiny_case(rng)
            case = f"case{split}{i:02d}"
            for c in range(len(channels)):
                write_image(images[c], raw / name / f"images{split}" / f"{case}_{c:04d}.nii.gz")
            write_image(label, raw / name / f"labels{split}" / f"{case}.nii.gz")
    labels = {"background": 0, "whole": [1, 2], "core": 2} if regions else {"background": 0, "oedema": 1, "core": 2}
    description = {"channel_names": {str(i): c for i, c in enumerate(channels)}, "labels": labels,
                   "numTraining": train, "file_ending": ".nii.gz"}
    if regions:
        description["regions_class_order"] = [1, 2]
    (raw / name / "dataset.json").write_text(json.dumps(description))
    return name


def tiny_architecture(plans_file: Path) -> None:
    """Adds the configuration 3d_tiny, which uses 3d_fullres' preprocessed data: small patches, small U-Net."""
    plans = json.loads(plans_file.read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    kwargs = architecture["arch_kwargs"] | {
        "n_stages": 3, "features_per_stage": [6, 8, 8], "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1]}
    plans["configurations"][CONFIGURATION] = {"inherits_from": "3d_fullres", "patch_size": [16, 16, 16],
                                              "batch_size": 2, "architecture": architecture | {"arch_kwargs": kwargs}}
    plans_file.write_text(json.dumps(plans))


# Commands start as copies of a process that has imported what takes longest, instead of importing it again each, for up
# to ten seconds. All else is as if the installed script ran. It is a process without threads, so a copy is safe.
_copies = multiprocessing.get_context("forkserver")
_copies.set_forkserver_preload(["nnunetv2.run.run_training", "nnunetv2_rmr.training.nnUNetTrainerRMR",
                                "nnunetv2_rmr.inference.predictor"])
ENV = {"nnUNet_def_n_proc": "1", "MPLBACKEND": "agg"}  # read while importing
os.environ.update(ENV)


def _installed(command: str) -> importlib.metadata.EntryPoint | None:
    return next(iter(importlib.metadata.entry_points(group="console_scripts", name=command)), None)


def _become(command: list[str], env: dict[str, str], output: str) -> None:
    """In a copy: what the installed script does."""
    os.setsid()
    with open(output, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    multiprocessing.set_start_method(None, force=True)  # of its own workers; a copy would inherit ours
    os.environ.clear()
    os.environ.update(env)
    import torch
    torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    sys.argv = [str(Path(sys.executable).parent / command[0]), *command[1:]]
    try:
        sys.exit(_installed(command[0]).load()())
    finally:
        atexit._run_exitfuncs()  # which a copy would leave out


def start(*command: object, env: dict[str, str], output: Path):
    """The process of an installed command, in a group of its own; what it prints goes to the file `output`."""
    process = _copies.Process(target=_become, args=([str(word) for word in command], env, str(output)))
    process.start()
    return process


def run(*command: object, env: dict[str, str], check: bool = True, timeout: int = 900) -> subprocess.CompletedProcess:
    """Run an installed command as a user would; the output comes with a failure.

    Output goes to a file and what is left of the command's processes is killed at its end: workers of a killed training
    outlive it, and would hold a pipe open for ever.
    """
    command = [str(word) for word in command]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        process = start(*command, env=env, output=output)
        try:
            process.join(timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if process.exitcode is None:
            raise subprocess.TimeoutExpired(command, timeout)
        result = subprocess.CompletedProcess(command, process.exitcode, output.read_text())
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(command)} exited with {result.returncode}:\n{result.stdout[-4000:]}")
    return result


def prepare(root: Path, number: int, **options) -> dict[str, str]:
    """A data set below root, planned and preprocessed for 3d_tiny; nnU-Net's environment. options: of write_dataset."""
    env = nnunet_env(root)
    name = write_dataset(root / "raw", number, **options)
    # nnU-Net's planner does not run without data augmentation workers
    run("nnUNetv2_plan_and_preprocess", "-d", number, "-c", "3d_fullres", "-npfp", 1, "-np", 1,
        env=env | {"nnUNet_n_proc_DA": "1"})
    tiny_architecture(root / "preprocessed" / name / "nnUNetPlans.json")
    return env


def nnunet_env(root: Path, **extra: str) -> dict[str, str]:
    """Environment with nnU-Net's paths below root, our trainers and those of this folder, and few workers."""
    from nnunetv2_rmr.ext_trainer import trainers_folder

    trainers = os.pathsep.join((str(trainers_folder()), str(Path(__file__).parent / "trainers")))
    env = dict(os.environ, nnUNet_extTrainer=trainers, nnUNet_n_proc_DA="0", OMP_NUM_THREADS="2", **ENV)
    env.setdefault("nnUNet_compile", "f")  # on a GPU it would take longer than the training
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir(parents=True, exist_ok=True)
        env[f"nnUNet_{name}"] = str(root / name)
    return env | extra
