"""Seconds of a whole training epoch with data loading, RMR against vanilla nnU-Net, alternated in one process.

    python benchmarks/epoch_time.py -d 102 -c 3d_fullres --iterations 250 --device cuda

Needs a preprocessed data set; trains on all its cases. An epoch is nnU-Net's: training steps and a fifth as many steps
of online validation, without the checkpoint and the pictures at its end, which do not grow with the number of
iterations. Every epoch has data loaders of its own, whose start is not timed, so that neither side draws on batches
that were prepared while the other one trained. nnUNet_n_proc_DA is the number of processes that augment.
"""

import argparse
import json
import os
import tempfile
from copy import deepcopy
from pathlib import Path

import torch
from alternate import seconds, summary, table
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from report import add_json_argument, print_machine, write_json

from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

SIDES = {cls.__name__: cls for cls in (nnUNetTrainer, nnUNetTrainerRMR)}


def make_trainer(cls: type, plans: dict, configuration: str, dataset_json: dict, device: torch.device, iterations: int):
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # as nnUNetv2_train does
    trainer = cls(deepcopy(plans), configuration, "all", dataset_json, device)
    trainer.num_iterations_per_epoch = iterations
    trainer.num_val_iterations_per_epoch = max(1, iterations // 5)
    trainer.print_to_log_file = lambda *args, **kwargs: None
    trainer.initialize()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    return trainer


def epoch(trainer) -> None:
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train))
                                for _ in range(trainer.num_iterations_per_epoch)])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))
                                         for _ in range(trainer.num_val_iterations_per_epoch)])
    trainer.current_epoch += 1


def timed_epoch(trainer) -> float:
    loaders = trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    try:
        return seconds(lambda: epoch(trainer))
    finally:
        for loader in loaders:
            if hasattr(loader, "_finish"):  # without background processes there is none
                loader._finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True, type=int)
    parser.add_argument("-c", required=True, metavar="CONFIGURATION")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS")
    parser.add_argument("--patch", type=int, nargs=3, help="instead of the plans'")
    parser.add_argument("--iterations", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    add_json_argument(parser)
    args = parser.parse_args()
    print_machine(args)
    folder = next(Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{args.d:03d}_*"))
    plans = json.loads((folder / f"{args.p}.json").read_text()) | {"continue_training": False}
    if args.patch:
        plans["configurations"][args.c]["patch_size"] = args.patch
    dataset_json = json.loads((folder / "dataset.json").read_text())
    trainers = {name: make_trainer(cls, plans, args.c, dataset_json, torch.device(args.device), args.iterations)
                for name, cls in SIDES.items()}
    if args.device == "cuda":  # compilation and the choice of algorithms
        for trainer in trainers.values():
            timed_epoch(trainer)
    taken = {name: [] for name in SIDES}
    for _ in range(args.repeats):
        for name, trainer in trainers.items():
            taken[name].append(timed_epoch(trainer))
            print(f"{name}: {taken[name][-1]:.1f} s", flush=True)
    print(f"\npatch {trainers['nnUNetTrainer'].configuration_manager.patch_size}, nnUNet_n_proc_DA "
          f"{os.environ.get('nnUNet_n_proc_DA', 'by cores')}\n")
    rows = summary(taken, "nnUNetTrainer")
    print(table(rows))
    write_json(args, rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results
        main()
