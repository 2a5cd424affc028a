"""Does a training need the GPU memory that the planners plan it to need?

    python benchmarks/planner_memory.py [--data brain prostate] [--configurations 3d_fullres 2d] [--json FILE]

Needs a GPU and no data: the planners, nnU-Net's as well as ours, plan from fingerprints like those of real data sets
(brain: BraTS, T1, T1ce, T2 and FLAIR at 1 mm; prostate: T2 and ADC, 3 x 0.6 x 0.6 mm), and the trainer that goes with
each plan does its own training steps on random patches.

estimated: the planner's estimate for the planned patch and batch, in the unit of its memory target. allocated: largest
sum of tensors over a step, in GiB. in use: what PyTorch's allocator took for them and the CUDA context, which is
measured first and needs a GPU without other processes: what nvidia-smi shows. nnUNet_compile=f leaves torch.compile
out.
"""

import argparse
import contextlib
import gc
import io
import itertools
import json
import os
import statistics
import tempfile
from pathlib import Path

import torch
from report import add_json_argument, print_machine, write_json
from training_step import make_batch, make_trainer, timed

FINGERPRINTS = {  # channels, spacing in mm, voxels after cropping
    "brain": (["T1", "T1ce", "T2", "FLAIR"], (1.0, 1.0, 1.0), (140, 171, 137)),
    "prostate": (["T2", "ADC"], (3.0, 0.6, 0.6), (20, 320, 320)),
}
CASES = 40
PLANNERS = {"default": ("ExperimentPlanner", "RMRPlanner"), "M": ("nnUNetPlannerResEncM", "RMRPlannerResEncM"),
            "L": ("nnUNetPlannerResEncL", "RMRPlannerResEncL"), "XL": ("nnUNetPlannerResEncXL", "RMRPlannerResEncXL")}
GIB = 2**30


def write_fingerprint(number: int, name: str) -> str:
    """What a planner reads of a data set. Returns DatasetXXX_Name."""
    channels, spacing, shape = FINGERPRINTS[name]
    dataset = f"Dataset{number:03d}_{name}"
    raw, preprocessed = (Path(os.environ[f"nnUNet_{kind}"], dataset) for kind in ("raw", "preprocessed"))
    cases = {f"case{i:02d}": {"images": [f"case{i:02d}_0000.nii.gz"], "label": f"case{i:02d}.nii.gz"}
             for i in range(CASES)}
    description = {"channel_names": dict(enumerate(channels)), "numTraining": CASES, "file_ending": ".nii.gz",
                   "labels": {"background": 0, "oedema": 1, "enhancing": 2, "necrosis": 3}, "dataset": cases,
                   "overwrite_image_reader_writer": "SimpleITKIO"}
    statistics_of = {"mean": 0, "std": 1, "min": 0, "max": 1, "median": 0, "percentile_00_5": 0, "percentile_99_5": 1}
    fingerprint = {"spacings": [spacing] * CASES, "shapes_after_crop": [shape] * CASES,
                   "median_relative_size_after_cropping": 0.3,
                   "foreground_intensity_properties_per_channel": {str(c): statistics_of for c in range(len(channels))}}
    for folder, file, content in ((raw, "dataset.json", description), (preprocessed, "dataset.json", description),
                                  (preprocessed, "dataset_fingerprint.json", fingerprint)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(content))
    return dataset


def plan(dataset: str, name: str) -> tuple[object, dict]:
    import nnunetv2
    from nnunetv2.experiment_planning.plan_and_preprocess_api import recursive_find_python_class

    from nnunetv2_rmr.planning.planners import let_nnunet_find_planners

    let_nnunet_find_planners()
    cls = recursive_find_python_class(str(Path(nnunetv2.__file__).parent / "experiment_planning"), name,
                                      "nnunetv2.experiment_planning")
    with contextlib.redirect_stdout(io.StringIO()):  # they print their plans
        planner = cls(dataset)
        planner.plan_experiment()
    return planner, json.loads(
        Path(os.environ["nnUNet_preprocessed"], dataset, f"{planner.plans_identifier}.json").read_text())


def estimated_gb(planner, configuration: dict, channels: int, classes: int) -> float:
    """Of the planned patch and batch; the planner's target and its reference values have this unit."""
    from nnunetv2_rmr.planning.planners import FIXED_GIB, PlansRMRNet

    architecture, dim = configuration["architecture"], len(configuration["patch_size"])
    of_sample = planner.static_estimate_VRAM_usage(
        configuration["patch_size"], channels, classes, architecture["network_class_name"],
        architecture["arch_kwargs"], architecture["_kw_requires_import"])
    if isinstance(planner, PlansRMRNet):
        return FIXED_GIB + of_sample * configuration["batch_size"] / GIB
    reference = getattr(planner, f"UNet_reference_val_{dim}d")
    batch = configuration["batch_size"] / getattr(planner, f"UNet_reference_val_corresp_bs_{dim}d")
    return of_sample * batch / reference * planner.UNet_reference_val_corresp_GB


def context_bytes() -> int:
    """GPU memory in use before there is a network, after a first multiplication has loaded the libraries."""
    x = torch.ones(64, 64, device="cuda")
    (x @ x).sum().item()
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()


def measure(trainer_class: type, plans: dict, configuration: str, channels: list[str], context: int,
            steps: int) -> dict:
    planned = plans["configurations"][configuration]
    single = plans | {"continue_training": False, "configurations": {"3d_fullres": planned}}  # make_trainer's name
    folder = Path(os.environ["nnUNet_preprocessed"], plans["dataset_name"], planned["data_identifier"])
    folder.mkdir(exist_ok=True)
    (folder / "case.npz").touch()  # nnU-Net looks which kind of files there are
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer = make_trainer(trainer_class, single, len(channels), torch.device("cuda"))
    batch = make_batch(trainer, planned["patch_size"], planned["batch_size"], len(channels))
    seconds = [timed(trainer, batch) for _ in range(steps)]
    return {"allocated_gib": torch.cuda.max_memory_allocated() / GIB,
            "in_use_gib": (torch.cuda.max_memory_reserved() + context) / GIB,
            "seconds": statistics.median(seconds[steps // 2:])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=FINGERPRINTS, default=list(FINGERPRINTS))
    parser.add_argument("--configurations", nargs="+", default=["3d_fullres", "2d"])
    parser.add_argument("--planners", nargs="+", choices=PLANNERS, default=list(PLANNERS))
    parser.add_argument("--stock_plans", action="store_true", help="also RMR with the plans of nnU-Net's planners")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="cpu: the estimates only")
    add_json_argument(parser)
    args = parser.parse_args()
    print_machine(args)

    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

    context = context_bytes() if args.device == "cuda" else 0
    datasets = {name: write_fingerprint(number, name) for number, name in enumerate(args.data, start=990)}
    rows, lines = [], []
    for name, size in itertools.product(args.data, args.planners):
        stock, ours = PLANNERS[size]
        planned_by = {planner_name: plan(datasets[name], planner_name) for planner_name in (stock, ours)}
        sides = [(stock, nnUNetTrainer), (ours, nnUNetTrainerRMR)]
        if args.stock_plans:
            sides.append((stock, nnUNetTrainerRMR))
        for configuration, (planner_name, trainer_class) in itertools.product(args.configurations, sides):
            planner, plans = planned_by[planner_name]
            channels, planned = FINGERPRINTS[name][0], plans["configurations"][configuration]
            row = {"data": name, "configuration": configuration, "planner": planner_name,
                   "trainer": trainer_class.__name__, "patch": planned["patch_size"], "batch": planned["batch_size"],
                   "target_gb": planner.UNet_vram_target_GB,
                   "estimated_gb": estimated_gb(planner, planned, len(channels), 4)}
            if args.device == "cuda":
                try:
                    row |= measure(trainer_class, plans, configuration, channels, context, args.steps)
                except torch.OutOfMemoryError as error:
                    print(f"out of memory: {error}")
                gc.collect()  # of the trainer that has just gone
            rows.append(row)
            print(row, flush=True)
            numbers = " | ".join(f"{row.get(key, float('nan')):.2f}" for key in (
                "estimated_gb", "allocated_gib", "in_use_gib", "seconds"))
            lines.append(f"| {name}, {configuration} | {planner_name} | {trainer_class.__name__} | "
                         f"{' x '.join(map(str, row['patch']))} | {row['batch']} | {row['target_gb']} | {numbers} |")
    print("\n| data | planner | trainer | patch | batch | target, GB | estimated, GB | allocated, GiB | "
          "in use, GiB | s per step |\n|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))
    write_json(args, rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        for variable in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{variable}"] = f"{root}/{variable}"
        main()
