"""What is told beside a prediction: how far from clean the scans are, how sure the segmentation is."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch.nn.functional import logsigmoid

from nnunetv2_rmr.inference.passes import labels_in

UNCHANGED = 100.0  # dB, of a modality that restoration leaves as it is


def confidence_filename(output_file_truncated: str) -> str:
    """folder/CASE -> folder/confidence/CASE.json: a file per case, so that parts and continued predictions, which write
    into one folder, lose nothing of each other."""
    folder, case = os.path.split(output_file_truncated)
    return str(Path(folder, "confidence", case + ".json"))


def restoration_db(images: torch.Tensor, data: torch.Tensor, body: np.ndarray) -> list[float | None]:
    """How little restoration has changed every modality, dB: 10 log10 of its variance over the mean squared change,
    both inside the body, at most 100. None for a modality that is not there.

    images: (M, D, H, W), restored; data: (M, D, H, W), what the network saw; body: boolean (D, H, W).
    """
    found: list[float | None] = []
    for restored, seen in zip(images.cpu().numpy(), data.cpu().numpy()):
        inside = seen[body]
        variance = float(inside.var(dtype=np.float64)) if inside.any() else 0.0
        if variance == 0:
            found.append(None)
            continue
        change = float(np.square(restored[body] - inside).mean(dtype=np.float64))
        found.append(min(UNCHANGED, 10 * math.log10(variance / max(change, 1e-30))))
    return found


def label_names(labels: dict[str, int | Sequence[int]], manager: LabelManager) -> list[str]:
    """Labels but the background, or regions, in the order of `labels_in`. labels: of dataset.json."""
    names = [name for name in labels if name not in ("background", "ignore")]
    return names if manager.has_regions else [name for _, name in sorted((labels[name], name) for name in names)]


def label_confidence(logits: torch.Tensor, sizes: torch.Tensor, names: Sequence[str], ml: float,
                     regions: bool) -> dict[str, dict]:
    """By label: its volume; the interval of that, as far around it in proportion as the smallest and the largest pass
    are from the passes' mean (None for a single pass, or if no pass has it); and its mean entropy, 0 (sure) to 1 (every
    class is as likely), None for a label that is not there.

    logits: (heads, D, H, W), means over the passes. sizes: (passes, labels), in voxels, see `LabelSizes`. They are not
    taken for volumes themselves: averaged logits are often found to be smaller than every pass. ml: of a voxel. All on
    the network's grid.
    """
    voxels, entropies = (torch.zeros(len(names), dtype=torch.float64) for _ in range(2))
    for plane in logits.unbind(1):  # one at a time, for the sake of memory
        there = labels_in(plane, regions)
        anywhere = there.any(0)
        there = there[:, anywhere]
        voxels += there.sum(1)
        entropies += (entropy(plane[:, anywhere].float(), regions) * there).sum(1)
    return {name: {"volume_ml": ml * size, "interval_ml": _interval(ml * size, of_passes.tolist()),
                   "entropy": total / size if size else None}
            for name, size, total, of_passes in zip(names, voxels.tolist(), entropies.tolist(), sizes.T)}


def _interval(volume: float, of_passes: list[int]) -> list[float] | None:
    mean = sum(of_passes) / len(of_passes)
    return [volume * n / mean for n in (min(of_passes), max(of_passes))] if len(of_passes) > 1 and mean else None


def entropy(logits: torch.Tensor, regions: bool) -> torch.Tensor:
    """Of logits (heads, N), in units of the highest there can be: of all classes, (1, N); of every region and what is
    not in it, (heads, N)."""
    if regions:
        inside, outside = (-x.sigmoid() * logsigmoid(x) for x in (logits, -logits))
        return (inside + outside) / math.log(2)
    log_p = logits.log_softmax(0)
    return -(log_p.exp() * log_p).sum(0, keepdim=True) / math.log(len(logits))


def in_words(case: str, record: dict) -> str:
    """A line for the terminal."""
    changes = [f"{name} {db:.0f}" for name, db in record.get("restoration_db", {}).items() if db is not None]
    words = [f"dB to its restoration: {', '.join(changes)}"] if changes else []
    for name, label in record["labels"].items():
        if label["entropy"] is None:
            words.append(f"no {name}")
            continue
        span = label["interval_ml"]
        words.append(f"{name} {label['volume_ml']:.1f} ml"
                     + (f" ({span[0]:.1f} to {span[1]:.1f})" if span else "")
                     + f", entropy {label['entropy']:.2f}")
    return f"{case}: " + "; ".join(words)
