"""Time, peak memory and multiply-adds of one training step, RMR against vanilla nnU-Net, alternated in one process.

    python benchmarks/training_step.py [--trainer nnUNetTrainerRMR] [--network PlainConvUNet] [--device cpu]

All sides run their trainer's own `train_step`, as in its last epoch, on the same random batch, with the same plans: six
stages as nnU-Net's planner gives brain MRI at 1 mm (fewer for small patches). Needs no data. Prints a table of medians
and their ratio to vanilla. Peak memory is that of tensors: on CUDA as PyTorch's allocator counts it, on the CPU from
its profiler, in a step of its own. Weights and optimiser state are in it. Multiply-adds are those of the forward pass,
per voxel: products of matrices and convolutions (torch.utils.flop_counter), which is nearly all.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from report import add_json_argument, print_machine, write_json
from torch.utils.flop_counter import FlopCounterMode


def architecture(network: str, patch: list[int]) -> dict:
    """As nnU-Net's planners choose it: a stage more while all edges stay at 4 voxels or above, six at most; or the
    published SwinUNETR."""
    if network == "SwinUNETR":
        return {"network_class_name": "nnunetv2_rmr.networks.monai_networks.SwinUNETR",
                "arch_kwargs": {"feature_size": 48}, "_kw_requires_import": []}
    stages = 1
    while stages < 6 and min(patch) // 2**stages >= 4:
        stages += 1
    kwargs = {
        "n_stages": stages, "features_per_stage": [min(32 * 2**i, 320) for i in range(stages)],
        "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1), "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True, "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}}
    if network == "PlainConvUNet":
        kwargs["n_conv_per_stage"] = [2] * stages
    else:
        kwargs |= {"n_blocks_per_stage": [1, 3, 4, 6, 6, 6][:stages], "n_conv_per_stage_decoder": [1] * (stages - 1)}
    return {"network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
            "arch_kwargs": kwargs, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}


def make_plans(network: str, patch: list[int], batch_size: int, modalities: int, spacing: float = 1) -> dict:
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset999_Step", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
        "continue_training": False,
        "foreground_intensity_properties_per_channel": {str(i): {} for i in range(modalities)},  # z-scores need none
        "configurations": {"3d_fullres": {
            "data_identifier": "data", "preprocessor_name": "DefaultPreprocessor", "batch_size": batch_size,
            "patch_size": patch, "spacing": [spacing] * 3, "batch_dice": False,
            "normalization_schemes": ["ZScoreNormalization"] * modalities, "use_mask_for_norm": [True] * modalities,
            **{f"resampling_fn_{kind}": "resample_data_or_seg_to_shape" for kind in ("data", "seg", "probabilities")},
            **{f"resampling_fn_{kind}_kwargs": resampling for kind in ("data", "seg", "probabilities")},
            "architecture": architecture(network, patch)}}}


def make_dataset_json(modalities: int) -> dict:
    names = ["T1", "FLAIR", "T2", "T1ce"] + [f"M{i}" for i in range(4, modalities)]
    return {"channel_names": {str(i): n for i, n in enumerate(names[:modalities])}, "file_ending": ".nii.gz",
            "labels": {"background": 0, "oedema": 1, "enhancing": 2, "necrosis": 3}, "numTraining": 1}


def make_trainer(trainer_class: type, plans: dict, modalities: int, device: torch.device):
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # as nnUNetv2_train does
    trainer = trainer_class(json.loads(json.dumps(plans)), "3d_fullres", "all", make_dataset_json(modalities), device)
    trainer.print_to_log_file = lambda *args, **kwargs: None
    trainer.current_epoch = trainer.num_epochs - 1  # of the published form the second stage, which needs more
    trainer.initialize()
    trainer.network.train()
    return trainer


def make_batch(trainer, patch: list[int], batch_size: int, modalities: int) -> dict:
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(batch_size, modalities, *patch, generator=generator)
    rmr = hasattr(trainer, "reference")  # of the trainers of this package
    data = torch.cat((clean, clean + 0.3 * torch.randn(clean.shape, generator=generator)), 1) if rmr else clean
    scales = trainer._get_deep_supervision_scales()
    target = [torch.randint(0, 4, (batch_size, 1, *[round(n * s) for n, s in zip(patch, scale)]), generator=generator)
              .float() for scale in scales or [[1.0] * len(patch)]]
    if trainer.device.type == "cuda":  # as nnU-Net's data loaders do
        data, target = data.pin_memory(), [t.pin_memory() for t in target]
    return {"data": data, "target": target if scales else target[0]}


def multiply_adds(network: torch.nn.Module, x: torch.Tensor, **options) -> float:
    """Of a forward pass, per voxel."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, **options)
    return counter.get_total_flops() / 2 / (len(x) * math.prod(x.shape[2:]))


def timed(trainer, batch: dict) -> float:
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    trainer.train_step(batch)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(trainer, batch: dict, others: int) -> int:
    """Bytes of tensors at the worst moment of a step; `others`: what was allocated beforehand, on the CPU."""
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        trainer.train_step(batch)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        trainer.train_step(batch)
    total = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()
            peak = max(peak, total)
    return peak + others


def state_bytes(trainer) -> int:
    """Of weights and optimiser."""
    tensors = list(trainer.network.parameters())
    tensors += [v for state in trainer.optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    return sum(t.numel() * t.element_size() for t in tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", nargs="+", default=["nnUNetTrainerRMR"], help="one or more of our trainers")
    parser.add_argument("--network", choices=("PlainConvUNet", "ResidualEncoderUNet", "SwinUNETR"),
                        default="PlainConvUNet")
    parser.add_argument("--modalities", type=int, nargs="+", default=[2])
    parser.add_argument("--patch", type=int, nargs=3, default=[64, 64, 64], help="edges in voxels")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=None, help="of the CPU")
    parser.add_argument("--profile", action="store_true", help="print the dearest operations of each side")
    add_json_argument(parser)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    print_machine(args)

    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    import nnunetv2_rmr
    from nnunetv2_rmr.networks.fusing import unwrapped

    def find(name: str) -> type:
        for folder in ("training", "published"):
            if cls := recursive_find_python_class(str(Path(nnunetv2_rmr.__file__).parent / folder), name,
                                                  f"nnunetv2_rmr.{folder}"):
                return cls
        parser.error(f"--trainer {name}: no such trainer")

    rows = []
    print("| modalities | trainer | s per step | x vanilla | spread | peak memory, GB | x vanilla | "
          "thousand multiply-adds per voxel, forward | x vanilla |")
    print("|---|---|---|---|---|---|---|---|---|")
    for modalities in args.modalities:
        plans = make_plans(args.network, args.patch, args.batch_size, modalities)
        sides = {"nnUNetTrainer": make_trainer(nnUNetTrainer, plans, modalities, device)}
        sides |= {name: make_trainer(find(name), plans, modalities, device) for name in args.trainer}
        batches = {name: make_batch(t, args.patch, args.batch_size, modalities) for name, t in sides.items()}
        for _ in range(2 if args.device == "cpu" else 10):
            for name, trainer in sides.items():
                timed(trainer, batches[name])
        seconds = {name: [] for name in sides}
        for _ in range(args.repeats):
            for name, trainer in sides.items():
                seconds[name].append(timed(trainer, batches[name]))
        adds = {name: multiply_adds(unwrapped(trainer.network), batches[name]["data"].to(device))
                for name, trainer in sides.items()}
        peaks = {}
        for name, trainer in sides.items():
            if device.type == "cuda":  # the others' weights must not count
                for other in sides.values():
                    other.network.to("cpu" if other is not trainer else device)
            peaks[name] = peak_memory(trainer, batches[name], state_bytes(trainer))
        for name in sides:
            ratios = [s / v for s, v in zip(seconds[name], seconds["nnUNetTrainer"])]
            row = {"modalities": modalities, "side": name, "seconds": statistics.median(seconds[name]),
                   "ratio": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)],
                   "peak_bytes": peaks[name], "peak_ratio": peaks[name] / peaks["nnUNetTrainer"],
                   "multiply_adds": adds[name], "multiply_adds_ratio": adds[name] / adds["nnUNetTrainer"]}
            rows.append(row)
            print(f"| {modalities} | {name} | {row['seconds']:.3f} | {row['ratio']:.2f} | {min(ratios):.2f}-"
                  f"{max(ratios):.2f} | {row['peak_bytes'] / 1e9:.2f} | {row['peak_ratio']:.2f} | "
                  f"{adds[name] / 1e3:.0f} | {row['multiply_adds_ratio']:.2f} |", flush=True)
        if args.profile:
            for name, trainer in sides.items():
                with torch.profiler.profile(with_stack=False) as profile:
                    timed(trainer, batches[name])
                print(name, profile.key_averages().table(sort_by=f"self_{args.device}_time_total", row_limit=18,
                                                         max_name_column_width=60), sep="\n")
    write_json(args, rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for variable in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{variable}"] = folder
        # nnU-Net looks which kind of files there are
        data = Path(folder, "Dataset999_Step", "data")
        data.mkdir(parents=True)
        Path(data, "case.npz").touch()
        main()
