"""A picture of the training: what goes in, what is restored, what is fused, what is segmented."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch

from nnunetv2_rmr.atomic import replacing
from nnunetv2_rmr.degradations.degrade import split_clean_degraded
from nnunetv2_rmr.settings import channel_names

if TYPE_CHECKING:
    from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


@plt.style.context("default")  # nnU-Net's own plots change the global font size
def save_panel(trainer: nnUNetTrainerRMR, batch: dict, filename: str) -> None:
    """One training patch, a degraded one if there is any, the slice with most foreground. Rows: modalities clean,
    degraded, reconstructed; then fused, label and prediction. Grey values: each modality between its 1st and 99th
    percentile, the same in all three rows."""
    target = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
    labels = trainer.label_manager
    if labels.has_ignore_label:  # unannotated is not foreground; regions have it as their last channel
        target = target[:, :-1] if labels.has_regions else torch.where(target == labels.ignore_label, 0, target)
    network = trainer.rmrnet
    foreground = (target > 0).any(1).flatten(1).sum(1)
    clean, degraded = split_clean_degraded(batch["data"], network.num_modalities)
    changed = (clean != degraded[:, :network.num_modalities]).flatten(2).any(2).cpu()  # (B, C)
    sample = int((foreground + changed.any(1) * target[0].numel()).argmax())
    clean, degraded = clean[sample:sample + 1], degraded[sample:sample + 1]
    was_training = network.training
    network.eval()
    with torch.no_grad():
        out = network(degraded.to(trainer.device), outputs=("logits", "fused", "reconstructions"))
    network.train(was_training)
    logits = out.logits[0] if isinstance(out.logits, (list, tuple)) else out.logits

    label = target[sample]
    where = _slice_with_most((label > 0).any(0))
    shown = [_labels(label, regions=labels.has_regions),
             _labels(logits[0].cpu().sigmoid() > 0.5, True) if labels.has_regions else logits[0].cpu().argmax(0)]
    names = channel_names(trainer.dataset_json)
    degraded = degraded[:, :len(names)]
    fig, axes = plt.subplots(4, max(3, len(names)), figsize=(3 * max(3, len(names)), 12), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for i, name in enumerate(names):
        low, high = np.percentile(clean[0, i], (1, 99))
        for row, (title, image) in enumerate((("clean", clean), ("degraded", degraded),
                                              ("reconstructed", out.reconstructions.cpu()))):
            axes[row, i].imshow(image[0, i][where].float(), cmap="gray", vmin=low, vmax=max(high, low + 1e-3))
            stayed = title == "degraded" and not changed[sample, i]
            axes[row, i].set_title(f"{name} {'stayed clean' if stayed else title}")
    untrained = " (not trained yet)" if trainer.stage == 1 else ""
    fused = out.fused[0, 0].float().cpu()[where]
    low, high = np.percentile(fused, (1, 99))
    axes[3, 0].imshow(fused, cmap="gray", vmin=low, vmax=max(high, low + 1e-3))
    axes[3, 0].set_title(f"fused{untrained or ' (from degraded)'}")
    for ax, title, drawn in zip(axes[3, 1:], ("label", f"prediction{untrained}"), shown):
        ax.imshow(drawn[where], cmap="viridis", vmin=0, vmax=max(1, int(shown[0].max())), interpolation="nearest")
        ax.set_title(title)
    fig.suptitle(f"epoch {trainer.current_epoch - 1}, stage {trainer.stage}")
    fig.tight_layout()
    with replacing(filename) as temporary:
        fig.savefig(temporary, dpi=80)
    plt.close(fig)


def _slice_with_most(mask: torch.Tensor) -> tuple:
    """Index of the first-axis slice with most True voxels, the middle one if there are none; () for 2D."""
    if mask.ndim == 2:
        return ()
    counts = mask.flatten(1).sum(1)
    return (int(counts.argmax()) if counts.any() else mask.shape[0] // 2,)


def _labels(target: torch.Tensor, regions: bool) -> torch.Tensor:
    """(channels, *spatial) -> (*spatial): the label map itself, or in how many regions a voxel lies."""
    return target.int().sum(0) if regions else target[0].int()
