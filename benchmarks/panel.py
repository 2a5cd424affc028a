"""A picture of what the models of a comparison make of their test cases, clean and degraded.

    python benchmarks/panel.py --data sarcoma --root OUT/sarcoma --cross_validate -o OUT --seeds 0 1 2 --epochs 16 \\
        --iterations 800 --png FILE.png

Arguments as those of quick_compare.py, whose trained models in OUT it takes. One row per seed, its test case with most
lesion, the axial slice with most: the modalities (the reference modality is the copy that a fusion has to beat), their
gradient fusion, the fused image of the clean case and of one with noise in every modality, gradient fusion of that one,
and label (green) and prediction (orange) of the clean case over the reference modality.
"""

import argparse
import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import quick_compare
import torch
from real_dataset import CONFIGURATION, REAL_DATA, make

from nnunetv2_rmr.degradations.degrade import degrade_case
from nnunetv2_rmr.fusion.fused_image import fused_image
from nnunetv2_rmr.settings import channel_names

TRAINER = "nnUNetTrainerRMR"


def row_of(trainer, raw: Path) -> dict[str, np.ndarray]:
    """Title -> axial slice (H, W); "label" and "prediction" are boolean."""
    trainer.set_deep_supervision_enabled(False)
    cases = quick_compare.test_cases(trainer, raw, None)
    image, label = max(cases.values(), key=lambda case: (case[1] > 0).sum())
    names, spacing = channel_names(trainer.dataset_json), list(trainer.configuration_manager.spacing)
    seen = degrade_case(image, torch.from_numpy(label >= 0), spacing, seed=0, probabilities={"noise": 1.0})
    present = torch.ones(len(names), dtype=torch.bool)
    clean, noisy = (quick_compare.predict(trainer, x, present) for x in (image, seen))
    segmentation = np.asarray(trainer.label_manager.convert_logits_to_segmentation(clean["logits"]))
    z = int((label > 0).sum((1, 2)).argmax())
    volumes = {name: image[i] for i, name in enumerate(names)} | {
        "gradient": fused_image(image, image, spacing, trainer.reference), "fused": clean["fused"],
        f"{names[trainer.reference]}, noise": seen[trainer.reference],
        "gradient, noise": fused_image(seen, seen, spacing, trainer.reference), "fused, noise": noisy["fused"],
        "over": image[trainer.reference], "label": torch.from_numpy(label > 0), "prediction": torch.from_numpy(
            segmentation > 0)}
    return {title: volume[z].numpy() for title, volume in volumes.items()}


def draw(rows: list[dict[str, np.ndarray]], file: Path) -> None:
    masks = ("label", "prediction")
    titles = [title for title in rows[0] if title not in masks]
    size = 1.8 * len(titles), 2.0 * len(rows) + 0.3
    figure, axes = plt.subplots(len(rows), len(titles), figsize=size, squeeze=False)
    for of_row, row in zip(axes, rows):
        for ax, title in zip(of_row, titles):
            like = title.removesuffix(", noise")  # one window with the clean image
            low, high = np.percentile(row[like if like in row else "fused"], (1, 99.5))
            ax.imshow(row[title], cmap="gray", vmin=low, vmax=high, interpolation="bicubic")
            ax.axis("off")
            if of_row is axes[0]:
                ax.set_title("label, prediction" if title == "over" else title, fontsize=8)
        for mask, colour in zip(masks, ("#2ca02c", "#ff7f0e")):
            if row[mask].any():
                of_row[-1].contour(row[mask], levels=[0.5], colors=colour, linewidths=0.8)
    figure.subplots_adjust(wspace=0.03, hspace=0.03, left=0, right=1, bottom=0, top=1 - 0.3 / size[1])
    figure.savefig(file, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", dest="dataset")
    parser.add_argument("-c", dest="configuration", default=CONFIGURATION)
    parser.add_argument("--data", choices=REAL_DATA)
    parser.add_argument("--root", type=Path)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--cross_validate", action="store_true")
    parser.add_argument("--png", type=Path, required=True)
    args = parser.parse_args()
    if args.data:
        make(args.data, args.root or args.out / args.data)
        args.dataset = REAL_DATA[args.data].dataset
    os.environ |= {"COMPARE_EPOCHS": str(args.epochs), "COMPARE_ITERATIONS": str(args.iterations // args.epochs),
                   "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f"}
    preprocessed, rows = Path(os.environ["nnUNet_preprocessed"], args.dataset), []
    for seed in args.seeds:
        os.environ |= {"nnUNet_rmr_seed": str(seed), "nnUNet_results": str(args.out / f"models_{seed}")}
        plans = json.loads((preprocessed / "nnUNetPlans.json").read_text()) | {"continue_training": False}
        trainer = quick_compare.train(
            TRAINER, plans, args.configuration, seed % quick_compare.FOLDS if args.cross_validate else "all",
            json.loads((preprocessed / "dataset.json").read_text()), torch.device("cpu"), bf16=False)
        rows.append(row_of(trainer, Path(os.environ["nnUNet_raw"], args.dataset)))
    draw(rows, args.png)


if __name__ == "__main__":
    main()
