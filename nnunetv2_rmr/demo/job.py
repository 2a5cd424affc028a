"""The steps of a nnU-Net job, by nnU-Net's own functions and all in this process."""

import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

DATASET_ID, DATASET_NAME = 999, "Phantom"
DATASET = f"Dataset{DATASET_ID}_{DATASET_NAME}"
CONFIGURATION = "3d_small"
TRAINERS = ("nnUNetTrainer", "nnUNetTrainerRMR")
FOLD = 0


@dataclass(frozen=True)
class DemoOptions:
    """out: folder of all results. cases: for training and validation together, 5 or more (nnU-Net makes five folds).

    iterations, validation_iterations: per epoch. spacing_mm: edge of the voxels. patch_size: in voxels, axes Z, Y, X.
    features: of the first of the network's `stages` stages. keep: leave data and models in `out`.
    """

    out: Path
    cases: int = 12
    test_cases: int = 4
    epochs: int = 16
    iterations: int = 25
    validation_iterations: int = 4
    spacing_mm: float = 2.5
    patch_size: tuple[int, int, int] = (32, 40, 32)
    features: int = 12
    stages: int = 4
    device: str = "cpu"
    seed: int = 0
    keep: bool = False
    overwrite: bool = False


def set_environment(folder: Path) -> None:
    """nnU-Net's paths, below `folder`; to be called before nnU-Net is imported."""
    from nnunetv2_rmr.ext_trainer import add_to_ext_trainer

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder / name)
    # also the limit of prediction's CPU threads, hence not 1; processes are not started, see threads_for_processes
    os.environ["nnUNet_def_n_proc"] = str(os.cpu_count())
    os.environ["nnUNet_compile"] = "f"  # takes longer than this training
    add_to_ext_trainer()


@contextmanager
def threads_for_processes() -> Iterator[None]:
    """nnU-Net's process pools become threads: a spawned worker would first import everything again, for ten seconds."""
    from nnunetv2.evaluation import evaluate_predictions
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
    from nnunetv2.preprocessing.preprocessors import default_preprocessor

    threads = SimpleNamespace(get_context=lambda method: SimpleNamespace(Pool=ThreadPool))
    with (patch.object(evaluate_predictions, "multiprocessing", threads),
          patch.object(fingerprint_extractor, "multiprocessing", threads),
          patch.object(default_preprocessor, "multiprocessing", threads)):
        yield


def plan_and_preprocess(options: DemoOptions) -> None:
    """nnU-Net's fingerprint, plans and preprocessing, and a configuration that trains in minutes on a CPU: nnU-Net's
    3d_fullres with another patch size and with the first stages of its network.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset, preprocess_dataset

    os.environ["nnUNet_n_proc_DA"] = "1"  # the planner can not do with 0
    with threads_for_processes():
        extractor = DatasetFingerprintExtractor(DATASET_ID, num_processes=2)
        extractor.show_progress_bar = False
        extractor.num_foreground_voxels_for_intensitystats = 1e5  # of 1e8: lesions here have some thousand voxels
        extractor.run(overwrite_existing=True)
        _, name = plan_experiment_dataset(DATASET_ID)
        preprocess_dataset(DATASET_ID, name, ["3d_fullres"], [2], show_progress_bar=False)
    file = Path(os.environ["nnUNet_preprocessed"], DATASET, name + ".json")
    plans = json.loads(file.read_text())
    architecture = deepcopy(plans["configurations"]["3d_fullres"]["architecture"])
    arguments = architecture["arch_kwargs"]
    stages = min(options.stages, arguments["n_stages"])
    arguments |= {"n_stages": stages, "features_per_stage": [options.features * 2 ** i for i in range(stages)],
                  "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"][:stages - 1]}
    for key in ("kernel_sizes", "strides", "n_conv_per_stage"):
        arguments[key] = arguments[key][:stages]
    plans["rmr"] = {"panel_every": 0, "validation_fusion": False}  # the report has pictures of its own
    plans["configurations"][CONFIGURATION] = {"inherits_from": "3d_fullres", "patch_size": options.patch_size,
                                              "batch_size": 2, "architecture": architecture}
    file.write_text(json.dumps(plans, indent=4))


def train(trainer_name: str, options: DemoOptions, tick: Callable[[], None]) -> Path:
    """Train fold 0 of the small configuration; calls tick after every training iteration. Returns the model's folder.

    All trainers start with the same segmentation network and draw the same patches. Mirroring comes after what RMR's
    pipeline adds, so it is drawn differently.
    """
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR
    from nnunetv2_rmr.training.reproducible import seed_everything

    os.environ["nnUNet_n_proc_DA"] = "0"  # augment in this process
    os.environ["nnUNet_rmr_seed"] = str(options.seed)
    random.seed(options.seed)
    seed_everything(options.seed)
    trainer = get_trainer_from_args(DATASET, CONFIGURATION, FOLD, trainer_name, device=torch.device(options.device))
    trainer.num_epochs, trainer.num_iterations_per_epoch = options.epochs, options.iterations
    trainer.num_val_iterations_per_epoch = options.validation_iterations
    # every patch has a lesion, instead of every second one: so few iterations do not get far without
    trainer.oversample_foreground_percent = 1.0
    trainer.logger.plot_progress_png = lambda folder: None  # 30 x 54 inches, two seconds an epoch
    if not isinstance(trainer, nnUNetTrainerRMR):
        _seed_patches(trainer, options.seed)
    train_step = trainer.train_step

    def step_and_tick(batch: dict) -> dict:
        result = train_step(batch)
        tick()
        return result

    trainer.train_step = step_and_tick
    trainer.run_training()
    return Path(trainer.output_folder_base)


def _seed_patches(trainer, seed: int) -> None:
    """As nnUNetTrainerRMR seeds its own."""
    from nnunetv2_rmr.training.reproducible import SeedNextSample

    def seeding(make: Callable, stream: int) -> Callable:
        def make_seeded(*args, **kwargs):
            transforms = make(*args, **kwargs)
            transforms.transforms.append(SeedNextSample(seed, stream, 0))
            return transforms

        return make_seeded

    trainer.get_training_transforms = seeding(trainer.get_training_transforms, 0)
    trainer.get_validation_transforms = seeding(trainer.get_validation_transforms, 1)
