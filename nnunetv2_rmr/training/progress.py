"""progress_rmr.png: every loss term over the epochs, beside nnU-Net's progress.png."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from nnunetv2_rmr.files.atomic import replacing


@plt.style.context("default")  # nnU-Net's own plots change the global font size
def plot_loss_terms(logged: dict[str, list], names: Sequence[str], filename: str) -> None:
    """logged: one value per epoch and key "loss_<term>"; NaN where a stage does not have the term."""
    terms = [term for term in names if not np.isnan(np.asarray(logged[f"loss_{term}"], dtype=float)).all()] or names
    fig, axes = plt.subplots(len(terms), 1, figsize=(10, 3 * len(terms)), sharex=True, squeeze=False)
    axes = axes[:, 0]
    for ax, term in zip(axes, terms):
        values = np.asarray(logged[f"loss_{term}"], dtype=float)
        ax.plot(values, marker="." if len(values) < 50 else None)
        ax.set_ylabel(term.replace("_", " "))
        ax.grid(alpha=0.3)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_title("unweighted loss terms (training)")
    fig.tight_layout()
    with replacing(filename) as temporary:
        fig.savefig(temporary)
    plt.close(fig)
