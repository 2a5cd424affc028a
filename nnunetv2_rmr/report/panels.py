"""Pictures of cases: the modalities, the label, and what every model made of it."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from nnunetv2_rmr.report.viewer import LABEL, LABEL_COLOURS, Study, busiest_voxel
from nnunetv2_rmr.report.volumes import body_box, grey_range


def panel(study: Study, windows: dict[str, tuple[float, float]], background: str) -> str:
    """PNG, in base64, of one axial slice: every image, then `background` with the outlines of every segmentation.

    windows: image -> grey window; filled in for images it does not have. The slice is the one with most of the expert
    label, else of any segmentation. On predictions the label's outline is dotted white.
    """
    box = body_box(list(study.images.values()))
    images = {name: v.array[box] for name, v in study.images.items()}
    masks = {name: np.rint(v.array[box]).astype(int) for name, v in study.segmentations.items()}
    label = masks.get(LABEL)
    candidates = [m for m in (label, *masks.values()) if m is not None and m.any()]
    z = busiest_voxel(candidates[0] > 0)[2] if candidates else study.first.array[box].shape[2] // 2
    plots = [(name, name, None) for name in images]
    plots += [(f"{background} + {name}", background, mask[:, :, z].T) for name, mask in masks.items()]
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(1.75 * len(plots), 2.5))
        for axes, (title, image, mask) in zip(figure.subplots(1, len(plots), squeeze=False)[0], plots):
            low, high = windows.setdefault(image, grey_range(images[image]))
            # rows downwards run to the back, columns to the patient's left: radiological convention
            axes.imshow(images[image][:, :, z].T, cmap="gray", vmin=low, vmax=high, interpolation="bicubic",
                        aspect=study.first.spacing[1] / study.first.spacing[0])
            if mask is not None:
                if title != f"{background} + {LABEL}" and label is not None and label[:, :, z].any():
                    axes.contour(label[:, :, z].T > 0, levels=[0.5], colors="white", linewidths=0.8, linestyles=":")
                for value in set(np.unique(mask)) - {0}:
                    axes.contour(mask == value, levels=[0.5], linewidths=1.2,
                                 colors=LABEL_COLOURS[(value - 1) % len(LABEL_COLOURS)])
            axes.set_title(title, fontsize=8, parse_math=False)  # `$x_{$` is a name here
            axes.axis("off")
        figure.subplots_adjust(0, 0, 1, 0.9, wspace=0.03)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", pad_inches=0.03)
    return b64encode(buffer.getvalue()).decode()
