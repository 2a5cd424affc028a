"""Pictures of a training, beside nnU-Net's progress.png: of a patch and what is made of it, and of every loss term."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from nnunetv2.training.logging.nnunet_logger import MetaLogger, WandbLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_rmr.files.atomic import replacing
from nnunetv2_rmr.fusion.fused_image import fused_image
from nnunetv2_rmr.networks.fusing import unwrapped
from nnunetv2_rmr.settings import channel_names


@plt.style.context("default")  # nnU-Net's own plots change the global font size
def save_panel(trainer: nnUNetTrainer, batch: dict, filename: str) -> None:
    """One training patch, a degraded one if there is any, the slice with most foreground. Rows: modalities clean,
    degraded and, if the network restores them, restored; then fused, label and prediction. Grey values: each modality
    between its 1st and 99th percentile, the same in all rows."""
    target = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
    labels = trainer.label_manager
    if labels.has_ignore_label:  # unannotated is not foreground; regions have it as their last channel
        target = target[:, :-1] if labels.has_regions else torch.where(target == labels.ignore_label, 0, target)
    network = unwrapped(trainer.network)
    foreground = (target > 0).any(1).flatten(1).sum(1)
    clean, degraded = batch["data"].tensor_split([network.num_modalities], dim=1)  # see DegradeTransform
    changed = (clean != degraded[:, :network.num_modalities]).flatten(2).any(2).cpu()  # (B, C)
    sample = int((foreground + changed.any(1) * target[0].numel()).argmax())
    clean, degraded = clean[sample:sample + 1], degraded[sample:sample + 1]
    was_training = network.training
    network.eval()
    with torch.no_grad():
        logits, images = network(degraded.to(trainer.device), images=True)
    network.train(was_training)
    logits = logits[0] if isinstance(logits, (list, tuple)) else logits
    images = images[0].float().cpu()

    label = target[sample]
    where = _slice_with_most((label > 0).any(0))
    shown = [_labels(label, regions=labels.has_regions),
             _labels(logits[0].cpu().sigmoid() > 0.5, True) if labels.has_regions else logits[0].cpu().argmax(0)]
    names = [name.replace("$", r"\$") for name in channel_names(trainer.dataset_json)]  # no formulas, as titles are
    degraded = degraded[:, :len(names)]
    rows = {"clean": clean[0], "degraded": degraded[0]} | ({"restored": images} if network.num_images > 1 else {})
    shape = len(rows) + 1, max(3, len(names))
    fig, axes = plt.subplots(*shape, figsize=(3 * shape[1], 3 * shape[0]), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for i, name in enumerate(names):
        low, high = np.percentile(clean[0, i], (1, 99))
        for row, (title, image) in enumerate(rows.items()):
            axes[row, i].imshow(image[i][where].float(), cmap="gray", vmin=low, vmax=max(high, low + 1e-3))
            stayed = title == "degraded" and not changed[sample, i]
            axes[row, i].set_title(f"{name} {'stayed clean' if stayed else title}")
    spacing = trainer.configuration_manager.spacing
    fused = fused_image(images, degraded[0], spacing, trainer.reference)[where]
    low, high = np.percentile(fused, (1, 99))
    axes[-1, 0].imshow(fused, cmap="gray", vmin=low, vmax=max(high, low + 1e-3))
    axes[-1, 0].set_title("fused (from degraded)")
    for ax, title, drawn in zip(axes[-1, 1:], ("label", "prediction"), shown):
        ax.imshow(drawn[where], cmap="viridis", vmin=0, vmax=max(1, int(shown[0].max())), interpolation="nearest")
        ax.set_title(title)
    fig.suptitle(f"epoch {trainer.current_epoch}")
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


@plt.style.context("default")  # nnU-Net's own plots change the global font size
def plot_loss_terms(logged: dict[str, list], names: Sequence[str], filename: str) -> None:
    """logged: one value per epoch and key "loss_<term>"; NaN where a stage does not have the term."""
    terms = [term for term in names if not np.isnan(np.asarray(logged[f"loss_{term}"], dtype=float)).all()] or names
    fig, axes = plt.subplots(len(terms), 1, figsize=(10, 3 * len(terms)), sharex=True, squeeze=False)
    for ax, term in zip(axes[:, 0], terms):
        values = np.asarray(logged[f"loss_{term}"], dtype=float)
        ax.plot(values, marker="." if len(values) < 50 else None)
        ax.set_ylabel(term.replace("_", " "))
        ax.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("epoch")
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_title("unweighted loss terms (training)")
    fig.tight_layout()
    with replacing(filename) as temporary:
        fig.savefig(temporary)
    plt.close(fig)


def track_picture(logger: MetaLogger, name: str, file: str, epoch: int) -> None:
    """Send a picture to Weights & Biases if nnU-Net's switch nnUNet_wandb_enabled is on, else do nothing. (Numbers
    reach it through nnU-Net's own logger.)"""
    for tracker in logger.loggers:
        if isinstance(tracker, WandbLogger):
            import wandb  # installed, since nnU-Net could make its tracker

            tracker.log(name, wandb.Image(file), epoch)
