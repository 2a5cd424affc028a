"""A picture of what the models of a comparison make of their test cases, clean and degraded.

    python benchmarks/panel.py --data sarcoma --root OUT/sarcoma --cross_validate -o OUT --seeds 0 1 2 --epochs 16 \\
        --iterations 800 --png FILE.png

Arguments as those of quick_compare.py, whose trained models in OUT it takes. One row per seed, its test case with most
lesion, the axial slice with most: the modalities (the reference modality is the copy that a fusion has to beat), their
gradient fusion, the fused image of the clean case and of one with noise in every modality, gradient fusion of that one,
and label (green) and prediction (orange) of the clean case over the reference modality.
"""

import argparse
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import quick_compare
import torch

from nnunetv2_rmr.degradations.degrade import degrade_case
from nnunetv2_rmr.fusion.body import body_of_preprocessed
from nnunetv2_rmr.fusion.fused_image import fused_image
from nnunetv2_rmr.settings import channel_names

TRAINER = "nnUNetTrainerRMR"
BODY = "body"  # outside of it all is black


def row_of(trainer, raw: Path) -> dict[str, np.ndarray]:
    """Title -> axial slice (H, W); "label", "prediction" and BODY are boolean."""
    trainer.set_deep_supervision_enabled(False)
    cases = quick_compare.held_out_cases(trainer, raw, None)
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
            segmentation > 0), BODY: torch.from_numpy(body_of_preprocessed(image.numpy()))}
    return {title: volume[z].numpy() for title, volume in volumes.items()}


@plt.style.context("default")  # nnU-Net's own plots change fonts and colours
def draw(rows: list[dict[str, np.ndarray]], file: Path) -> None:
    masks = ("label", "prediction")
    titles = [title for title in rows[0] if title not in (*masks, BODY)]
    size = 1.8 * len(titles), 2.0 * len(rows) + 0.3
    figure, axes = plt.subplots(len(rows), len(titles), figsize=size, squeeze=False)
    for number, (of_row, row) in enumerate(zip(axes, rows)):
        for ax, title in zip(of_row, titles):
            like = title.removesuffix(", noise")  # one window with the clean image
            low, high = np.percentile(row[like if like in row else "fused"][row[BODY]], (1, 99.5))
            ax.imshow(np.where(row[BODY], row[title], low), cmap="gray", vmin=low, vmax=high, interpolation="bicubic")
            ax.axis("off")
            if number == 0:
                ax.set_title("label, prediction" if title == "over" else title, fontsize=8)
        for mask, colour in zip(masks, ("#2ca02c", "#ff7f0e")):
            if row[mask].any():
                of_row[-1].contour(row[mask], levels=[0.5], colors=colour, linewidths=0.8)
    figure.subplots_adjust(wspace=0.03, hspace=0.03, left=0, right=1, bottom=0, top=1 - 0.3 / size[1])
    figure.savefig(file, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quick_compare.add_training_arguments(parser)
    parser.add_argument("--png", type=Path, required=True)
    args = quick_compare.parse(parser)
    rows = [row_of(quick_compare.trained(TRAINER, seed, args), Path(os.environ["nnUNet_raw"], args.dataset))
            for seed in args.seeds]
    draw(rows, args.png)


if __name__ == "__main__":
    main()
