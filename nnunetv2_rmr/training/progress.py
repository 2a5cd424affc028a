"""What a training shows of itself beside nnU-Net's progress.png: every loss term, and pictures in its tracker."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator
from nnunetv2.training.logging.nnunet_logger import MetaLogger, WandbLogger

from nnunetv2_rmr.files.atomic import replacing


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
