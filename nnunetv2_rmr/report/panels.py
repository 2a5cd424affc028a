"""Pictures of cases: the modalities, the label, and what every model made of it."""

from __future__ import annotations

from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from nnunetv2_rmr.report.viewer import LABEL_COLOURS, LoadedStudy, busiest_voxel
from nnunetv2_rmr.report.volumes import body_box, grey_range


def panel(loaded: LoadedStudy, windows: dict[str, tuple[float, float]], background: str, label: str | None) -> bytes:
    """PNG of one axial slice: every image, then `background` with the outlines of every segmentation.

    windows: image -> grey window; filled in for images it does not have. The slice is the one with most of `label`,
    else of any segmentation. On predictions the label's outline is dotted white.
    """
    box = body_box(list(loaded.images.values()))
    images = {name: v.array[box] for name, v in loaded.images.items()}
    masks = {name: np.rint(v.array[box]).astype(int) for name, v in loaded.segmentations.items()}
    chosen = masks.get(label)
    candidates = [m for m in (chosen, *masks.values()) if m is not None and m.any()]
    z = busiest_voxel(candidates[0] > 0)[2] if candidates else next(iter(images.values())).shape[2] // 2
    spacing = next(iter(loaded.images.values())).spacing
    plots = [(name, name, {}) for name in images]
    plots += [(f"{background} + {name}", background, {name: mask}) for name, mask in masks.items()]
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(1.75 * len(plots), 2.5))
        for axes, (title, image, shown) in zip(figure.subplots(1, len(plots), squeeze=False)[0], plots):
            low, high = windows.setdefault(image, grey_range(images[image]))
            # rows downwards run to the back, columns to the patient's left: radiological convention
            axes.imshow(images[image][:, :, z].T, cmap="gray", vmin=low, vmax=high, interpolation="bicubic",
                        aspect=spacing[1] / spacing[0])
            for name, mask in shown.items():
                if name != label and chosen is not None and chosen[:, :, z].any():
                    axes.contour(chosen[:, :, z].T > 0, levels=[0.5], colors="white", linewidths=0.8, linestyles=":")
                for value in set(np.unique(mask[:, :, z])) - {0}:
                    axes.contour((mask == value)[:, :, z].T, levels=[0.5], linewidths=1.2,
                                 colors=LABEL_COLOURS[(value - 1) % len(LABEL_COLOURS)])
            axes.set_title(title, fontsize=8, parse_math=False)  # `$x_{$` is a name here
            axes.axis("off")
        figure.subplots_adjust(0, 0, 1, 0.9, wspace=0.03)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", pad_inches=0.03)
    return buffer.getvalue()
