"""The 3-plane viewer as a piece of a page: what its script (viewer.js) needs to know, and the volumes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunetv2_rmr.report.html import Markup, tag
from nnunetv2_rmr.report.volumes import (
    Store,
    Volume,
    as_bytes,
    body_box,
    file_indices,
    grey_range,
    label_bytes,
    load,
)

# of label values 1, 2, ...: bright on grey; the filled overlay and the outline have the same
LABEL_COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#00C08B", "#FF7FBF", "#FF6A3D", "#B39DFF", "#FFFFFF")


@dataclass
class Study:
    """What is shown together: images and segmentations on one grid. Names -> files."""

    title: str
    case: str  # studies of one case share the grey range of their windows
    images: dict[str, Path]
    segmentations: dict[str, Path] = field(default_factory=dict)
    caption: str = ""


@dataclass
class LoadedStudy:
    study: Study
    images: dict[str, Volume]
    segmentations: dict[str, Volume]


def load_study(study: Study) -> LoadedStudy:
    """Read all files. Raises BadCaseError naming the one that can not be used."""
    images: dict[str, Volume] = {}
    for name, path in study.images.items():
        images[name] = load(path, on=next(iter(images.values()), None))
    first = next(iter(images.values()))
    return LoadedStudy(study, images, {n: load(path, on=first) for n, path in study.segmentations.items()})


def viewer(studies: list[LoadedStudy], label_names: dict[int, str] | None = None) -> Markup:
    """HTML of a viewer of these studies, with their volumes."""
    store, described, windows = Store(), [], {}
    for loaded in studies:
        box = body_box([v for s in studies if s.study.case == loaded.study.case
                        for v in s.images.values() if v.grid == loaded_grid(loaded)])
        described.append(_describe(loaded, box, store, windows))
    values = sorted({int(v) for s in studies for volume in s.segmentations.values() for v in np.unique(volume.array)}
                    - {0})
    names = {str(v): (label_names or {}).get(v, f"label {v}") for v in values}
    colours = {str(v): LABEL_COLOURS[(v - 1) % len(LABEL_COLOURS)] for v in values}
    facts = json.dumps({"studies": described, "labels": names, "colours": colours})
    inert = Markup('<script type="application/json" class="facts">' + facts.replace("<", "\\u003c") + "</script>")
    packed = Markup("".join(f'<script type="application/octet-stream" id="{name}">{text}</script>\n'
                            for name, text in store.packed.items()))
    waiting = tag("p", "The viewer needs JavaScript.", class_="status")
    return Markup(tag("div", waiting, inert, class_="viewer") + packed)


def loaded_grid(loaded: LoadedStudy):
    return next(iter(loaded.images.values())).grid


def _describe(loaded: LoadedStudy, box: tuple[slice, ...], store: Store, windows: dict) -> dict:
    first = next(iter(loaded.images.values()))
    offset = np.eye(4)
    offset[:3, 3] = [s.start for s in box]
    images = []
    for name, volume in loaded.images.items():
        values = volume.array[box]
        low, high = grey_range(values)
        window = windows.setdefault((loaded.study.case, name), (low, high))  # the first study's, for all of a case
        images.append({"name": name, "data": store.add(as_bytes(values, low, high)), "low": low, "high": high,
                       "window": window})
    segmentations, start = [], None
    for name, volume in loaded.segmentations.items():
        labels = label_bytes(volume)[box]
        segmentations.append({"name": name, "data": store.add(labels)})
        if start is None and labels.any():
            start = busiest_voxel(labels > 0)
    size = [s.stop - s.start for s in box]
    return {"title": loaded.study.title, "caption": loaded.study.caption, "case": loaded.study.case, "size": size,
            "spacing": list(first.spacing), "to_mm": (first.to_mm @ offset).tolist(),
            "to_file": (file_indices(first) @ offset).tolist(), "start": start or [n // 2 for n in size],
            "images": images, "segmentations": segmentations}


def busiest_voxel(mask: np.ndarray) -> list[int]:
    """The index of the three planes, across the axes, that hold most of the mask."""
    return [int(mask.sum(tuple(a for a in range(3) if a != axis)).argmax()) for axis in range(3)]
