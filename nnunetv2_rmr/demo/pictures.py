"""The demo's pictures, as PNG files in memory."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.figure import Figure

LINES = {"label": "solid", "nnUNetTrainer": "solid", "nnUNetTrainerRMR": "dashed"}  # drawn over each other
COLOURS = {"label": "#2ca02c", "nnUNetTrainer": "#1f77b4", "nnUNetTrainerRMR": "#ff7f0e"}


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=80, bbox_inches="tight", pad_inches=0.03)
    return buffer.getvalue()


def window(image: np.ndarray) -> tuple[float, float]:
    """Grey window of an image with background 0: from black to the 99.5 percentile of the brain, with some headroom."""
    return 0.0, 1.1 * float(np.percentile(image[image > 0], 99.5))


def image_row(images: Mapping[str, tuple[np.ndarray, tuple[float, float]]],
              contours: Mapping[str, tuple[np.ndarray, tuple[float, float], Mapping[str, np.ndarray]]],
              inches: float = 2.1) -> bytes:
    """Slices (X, Y) side by side, front up.

    images: title -> (slice, grey window). contours: title -> (slice, grey window, {name in COLOURS: mask}). inches:
    width of a slice.
    """
    panels = [(title, *panel, {}) for title, panel in images.items()]
    panels += [(title, *panel) for title, panel in contours.items()]
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(inches * len(panels), 1.3 * inches))
        for axes, (title, image, (low, high), masks) in zip(figure.subplots(1, len(panels)), panels):
            axes.imshow(image.T, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="bicubic")
            for name, mask in masks.items():
                if mask.any():
                    axes.contour(mask.T, levels=[0.5], colors=COLOURS[name], linestyles=LINES[name], linewidths=1.2)
            axes.set_title(title, fontsize=9)
            axes.axis("off")
        figure.subplots_adjust(wspace=0.03)
        return _png(figure)


def curves(panels: Mapping[str, Mapping[str, Sequence[float]]], names: Mapping[str, str]) -> bytes:
    """Values per epoch: title -> trainer -> values; names: trainer -> how the legend calls it."""
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(4.2 * len(panels), 2.8))
        for axes, (title, lines) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items()):
            for trainer, values in lines.items():
                axes.plot(range(1, len(values) + 1), values, "o-", ms=3, color=COLOURS[trainer], label=names[trainer])
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("epoch")
            axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        figure.subplots_adjust(wspace=0.25)
        return _png(figure)
