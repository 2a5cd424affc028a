"""Does stage 1 restore degraded patches, and do degraded and clean input come to the same features?

    python benchmarks/stage1_restoration.py -d 102 -c 3d_fullres --patch 28 28 28 --crop 14 14 14 \\
        --iterations 8000 --lr 1e-3 -o OUT

Needs a preprocessed data set. Trains stage 1 with the trainer's own data, losses and optimiser on the training cases of
fold 0, and measures on patches of its validation cases, every modality degraded by one kind, as strongly as in
training. Small patches are many iterations in the time of one of the plans', and the network is the same for any size;
but degradations act on larger parts of them. So patches are degraded, then cropped.

For every kind, half way and at the end: PSNR of the degraded input and of its reconstruction against the clean patch,
inside the body, with a 95 % bootstrap interval of their difference over patches, and how many patches have gained; PSNR
of the squared error's mean over patches ("pooled": a mean of dB is ruled by patches that were hardly degraded); and the
distance of degraded from clean features before and after, in standard deviations of the clean ones and as it is (root
of the mean square, which is what the published loss sees). Writes OUT/stage1.json and the network's weights,
OUT/network.pth; `--start` goes on from such weights, with the learning rate falling once more. "Before" is the
untrained network all the same. `--settings '{"feature_loss_relative": true}'` changes settings of the trainer.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nnunetv2_rmr.degradations.degrade import DegradeTransform, drawn_by
from nnunetv2_rmr.settings import PLANS_KEY, RMRSettings
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR
from nnunetv2_rmr.training.paper import nnUNetTrainerRMR_paper

TRAINERS = {cls.__name__: cls for cls in (nnUNetTrainerRMR, nnUNetTrainerRMR_paper)}
EPOCHS = 20  # of the learning rate's schedule
KINDS = ("none", "noise", "blur", "fourier")


def validation_patches(trainer, count: int) -> list[torch.Tensor]:
    """Clean patches (C, D, H, W) with at least a fifth of them inside the body."""
    patches = []
    while len(patches) < count:
        for patch in next(trainer.dataloader_val)["data"]:
            if float((patch != 0).any(0).float().mean()) >= 0.2:
                patches.append(patch)
    return patches[:count]


@torch.no_grad()
def measure(trainer, patches: list[torch.Tensor]) -> dict[str, dict[str, list[float]]]:
    """kind -> PSNR of "input" and "reconstruction" in dB, "relative" and "absolute" distance of features, per patch."""
    net = trainer.rmrnet.eval()
    results = {}
    for kind in KINDS:
        # settings as in training, but all modalities get this kind
        transform = DegradeTransform(net.num_modalities, trainer.configuration_manager.spacing, p_clean=0.0,
                                     **drawn_by(trainer.settings, trainer.configuration_manager)
                                     | {"probabilities": {kind: 1.0}})
        np.random.seed(0)
        rows = {"input": [], "reconstruction": [], "relative": [], "absolute": []}
        for clean in patches:
            inside = (clean != 0).any(0)
            both = transform(image=clean, foreground=inside)["image"]
            pair = torch.stack((clean, both[net.num_modalities:])).to(trainer.device)
            out = net(pair, outputs=("features", "reconstructions"))
            span = clean[:, inside].amax() - clean[:, inside].amin()

            def psnr(image: torch.Tensor, clean=clean, inside=inside, span=span) -> float:
                mse = (image.cpu() - clean)[:, inside].square().mean()
                return float(10 * torch.log10(span ** 2 / mse.clamp_min(1e-12)))

            rows["input"].append(psnr(pair[1]))
            rows["reconstruction"].append(psnr(out.reconstructions[1]))
            distance = (out.features[1] - out.features[0]).square().mean().sqrt()
            rows["relative"].append(float(distance / out.features[0].std()))
            rows["absolute"].append(float(distance))
        results[kind] = rows
    net.train()
    return results


def interval(values: list[float]) -> list[float]:
    rng = np.random.default_rng(0)
    means = rng.choice(values, (10000, len(values))).mean(1)
    return np.percentile(means, [2.5, 97.5]).tolist()


def pooled(psnr: list[float]) -> float:
    return float(-10 * np.log10(np.mean(10 ** (-np.array(psnr) / 10))))


def report(before: dict, after: dict, iterations: int, args: argparse.Namespace) -> None:
    rows = {}
    print(f"\n{args.trainer}, {iterations} iterations\n\n"
          "| kind | input, dB | reconstruction, dB | difference | gained | "
          "input, pooled dB | reconstruction, pooled dB | "
          "features' distance, before | after | absolute, before | after |\n|" + "---|" * 11)
    for kind in KINDS:
        images = {name: after[kind][name] for name in ("input", "reconstruction")}
        gain = np.subtract(images["reconstruction"], images["input"])
        low, high = interval(gain)
        distances = {name: [np.mean(side[kind][name]) for side in (before, after)] for name in ("relative", "absolute")}
        means = {name: np.mean(values) for name, values in images.items()}
        of_pool = {name: pooled(values) for name, values in images.items()}
        rows[kind] = means | {"gain": gain.mean(), "gain_interval": [low, high], "gained": int((gain > 0).sum()),
                              "pooled": of_pool, "features_before_after": distances}
        print(f"| {kind} | {means['input']:.2f} | {means['reconstruction']:.2f} | {gain.mean():+.2f} ({low:+.2f} to "
              f"{high:+.2f}) | {rows[kind]['gained']} of {len(gain)} | {of_pool['input']:.2f} | "
              f"{of_pool['reconstruction']:.2f} | "
              + " | ".join(f"{value:.3f}" for both in distances.values() for value in both) + " |", flush=True)
    result = {"arguments": {k: str(v) for k, v in vars(args).items()}, "iterations": iterations, "rows": rows}
    (args.o / "stage1.json").write_text(json.dumps(result, indent=1))


def cropped(batch: dict, size: list[int], rng: np.random.Generator) -> dict:
    """A random part of the batch's images, clean and degraded. Stage 1 does not look at the segmentation."""
    data = batch["data"]
    starts = [rng.integers(n - s + 1) for n, s in zip(data.shape[2:], size)]
    return batch | {"data": data[(..., *(slice(start, start + s) for start, s in zip(starts, size)))]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True, type=int)
    parser.add_argument("-c", required=True, metavar="CONFIGURATION")
    parser.add_argument("--trainer", choices=TRAINERS, default="nnUNetTrainerRMR_paper")
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--patch", type=int, nargs=3, help="instead of the plans'")
    parser.add_argument("--crop", type=int, nargs=3, help="train on random parts of the patches, of this size")
    parser.add_argument("--patches", type=int, default=24, help="to measure on")
    parser.add_argument("--lr", type=float, help="instead of the trainer's")
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON", help="RMR settings to change")
    parser.add_argument("--start", type=Path, metavar="NETWORK.PTH", help="weights to go on from")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("-o", required=True, type=Path)
    args = parser.parse_args()
    args.o.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("nnUNet_rmr_seed", "0")
    folder = next(Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{args.d:03d}_*"))
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    configuration = plans["configurations"][args.c]
    plans["continue_training"] = False
    base = TRAINERS[args.trainer]

    settings = RMRSettings.from_plans({PLANS_KEY: args.settings}, base.settings)

    class Stage1(base):
        stage1_epochs = EPOCHS

    Stage1.settings = replace(settings, stage1_lr=args.lr or settings.stage1_lr)

    dataset_json = json.loads((folder / "dataset.json").read_text())
    plans["configurations"][args.c] = configuration | {"patch_size": args.patch or configuration["patch_size"]}
    trainer = Stage1(plans, args.c, 0, dataset_json, torch.device(args.device))
    trainer.num_epochs, trainer.num_iterations_per_epoch = EPOCHS + 1, args.iterations // EPOCHS
    trainer.on_train_start()
    crop, rng = args.crop or trainer.configuration_manager.patch_size, np.random.default_rng(0)
    patches = validation_patches(trainer, args.patches)
    before = measure(trainer, patches)
    if args.start:
        trainer.rmrnet.load_state_dict(torch.load(args.start, map_location=args.device, weights_only=True))
    start = time.time()
    for epoch in range(EPOCHS):
        trainer.current_epoch = epoch
        trainer.lr_scheduler.step(epoch)
        steps = [trainer.train_step(cropped(next(trainer.dataloader_train), crop, rng))
                 for _ in range(trainer.num_iterations_per_epoch)]
        loss = np.mean([step["loss"] for step in steps])
        print(f"epoch {epoch}: loss {loss:.4f}, {time.time() - start:.0f} s", flush=True)
        if epoch + 1 in (EPOCHS // 2, EPOCHS):
            report(before, measure(trainer, patches), (epoch + 1) * trainer.num_iterations_per_epoch, args)
            torch.save(trainer.rmrnet.state_dict(), args.o / "network.pth")


if __name__ == "__main__":
    main()
