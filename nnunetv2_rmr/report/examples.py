"""The benchmark's chosen cases: loaded, with their scores and pictures, most improved first."""

import math
from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.report.data import ALL, Benchmark
from nnunetv2_rmr.report.verdict import number, signed
from nnunetv2_rmr.report.viewer import LABEL, LABEL_COLOURS, Study, busiest_voxel, load_study
from nnunetv2_rmr.report.volumes import body_box, grey_range
from nnunetv2_rmr.settings import reference_channel


@dataclass
class Example:
    study: Study
    severity: int
    gain: float  # mean Dice of the best model over the reference's, under this condition; NaN if there is none
    heading: str
    png: str = ""  # a row of slices, base64


def load_examples(benchmark: Benchmark) -> tuple[list[Example], list[str]]:
    """Examples by gain, the largest first, and a message for each that could not be read."""
    examples, problems = [], []
    for entry in benchmark.examples:
        try:
            examples.append(_load(benchmark, entry))
        except KeyError as error:
            problems.append(f"{benchmark.folder / 'examples' / 'INDEX.json'}: an example has no entry {error}")
        except BadCaseError as error:
            problems.append(f"example left out: {error}")
    windows: dict[str, dict] = {}
    for example in sorted(examples, key=lambda e: e.severity):  # windows of the clean images, where there are some
        study = example.study
        modalities = [m for m in benchmark.channels if m in study.images] or list(study.images)
        background = modalities[reference_channel(None, modalities)]
        example.png = panel(study, windows.setdefault(study.case, {}), background)
    return sorted(examples, key=lambda e: -e.gain if not math.isnan(e.gain) else math.inf), problems


def _load(benchmark: Benchmark, entry: dict) -> Example:
    folder = benchmark.folder / "examples"
    images = {name: folder / file for name, file in entry["images"].items()}
    images |= {f"fused, {model}": folder / file for model, file in (entry.get("fused") or {}).items()}
    segmentations = {LABEL: folder / entry["label"]} if entry.get("label") else {}
    segmentations |= {model: folder / file for model, file in entry["predictions"].items()}
    rows = benchmark.results
    for key in ("case", "corruption", "severity", "modality"):
        rows = rows[rows[key] == entry[key]]
    dice = dict.fromkeys(benchmark.models, math.nan) | rows.groupby("model")["Dice"].mean().to_dict()
    gains = {m: dice[m] - dice[benchmark.reference] for m in benchmark.others}
    gain = max((g for g in gains.values() if not math.isnan(g)), default=math.nan)
    caption = "mean Dice: " + ", ".join(f"{m} {number(dice[m])}" + (f" ({signed(gains[m])})" if m in gains else "")
                                        for m in benchmark.models)
    study = load_study(f"{entry['case']}: {condition(entry)}", entry["case"], images, segmentations, caption)
    return Example(study, int(entry["severity"]), gain, _heading(benchmark, gain))


def condition(entry: dict) -> str:
    """'clean', 'noise, severity 3', 'missing, T1'."""
    if entry["corruption"] == "clean":
        return "clean"
    severity = "" if entry["corruption"] == "missing" else f", severity {entry['severity']}"
    where = "" if entry["modality"] == ALL else f", {entry['modality']}"
    return f"{entry['corruption']}{severity}{where}"


def _heading(benchmark: Benchmark, gain: float) -> str:
    if math.isnan(gain):
        return "Not comparable" if benchmark.others else "Examples"
    better = benchmark.others[0] if len(benchmark.others) == 1 else "the best other model"
    improved, what = ("Improved", "is above") if gain > 0 else ("Not improved", "is not above")
    return f"{improved}: {better} {what} {benchmark.reference}"


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
