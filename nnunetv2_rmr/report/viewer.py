"""The 3-plane viewer as a piece of a page: what its script (viewer.js) needs to know, and the volumes.

The script is our own: viewers for browsers (NiiVue) are several MB of code that each page would carry, as it has to
work without network, and draw by WebGL, which a computer for reading reports may lack.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_rmr.report.volumes import Volume, as_bytes, body_box, grey_range, label_bytes, load, packed

LABEL = "expert label"
# of label values 1, 2, ...: bright on grey; the filled overlay and the outline have the same
LABEL_COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#00C08B", "#FF7FBF", "#FF6A3D", "#B39DFF", "#FFFFFF")


@dataclass
class Study:
    """What is shown together: images and segmentations on one grid, by name."""

    title: str
    case: str  # studies of one case share the grey range of their windows
    images: dict[str, Volume]
    segmentations: dict[str, Volume]
    caption: str = ""

    @property
    def first(self) -> Volume:
        return next(iter(self.images.values()))


def load_study(title: str, case: str, images: dict[str, Path], segmentations: dict[str, Path],
               caption: str = "") -> Study:
    """Read all files. Raises BadCaseError naming the one that can not be used."""
    study = Study(title, case, {}, {}, caption)
    for name, path in images.items():
        study.images[name] = load(path, on=study.first if study.images else None)
    study.segmentations = {name: load(path, on=study.first) for name, path in segmentations.items()}
    return study


def viewer(studies: list[Study], label_names: dict[int, str]) -> dict[str, dict]:
    """facts: for the script, as JSON. volumes: packed bytes -> their name in the facts, each once."""
    described, volumes, windows = [], {}, {}
    for study in studies:
        box = body_box([v for s in studies if s.case == study.case
                        for v in s.images.values() if v.grid == study.first.grid])
        described.append(_describe(study, box, volumes, windows))
    values = sorted({int(v) for s in studies for volume in s.segmentations.values() for v in np.unique(volume.array)}
                    - {0})
    return {"facts": {"studies": described, "labels": {v: label_names.get(v, f"label {v}") for v in values},
                      "colours": {v: LABEL_COLOURS[(v - 1) % len(LABEL_COLOURS)] for v in values}},
            "volumes": volumes}


def _describe(study: Study, box: tuple[slice, ...], volumes: dict[str, str], windows: dict) -> dict:
    def stored(voxels: np.ndarray) -> str:
        return volumes.setdefault(packed(voxels), f"v{len(volumes)}")

    images = []
    for name, volume in study.images.items():
        low, high = grey_range(volume.array[box])
        window = windows.setdefault((study.case, name), (low, high))  # the first study's, for all of a case
        images.append({"name": name, "data": stored(as_bytes(volume.array[box], low, high)), "low": low, "high": high,
                       "window": window})
    labels = {name: label_bytes(volume)[box] for name, volume in study.segmentations.items()}
    size = [s.stop - s.start for s in box]
    start = next((busiest_voxel(mask > 0) for mask in labels.values() if mask.any()), [n // 2 for n in size])
    offset = np.eye(4)
    offset[:3, 3] = [s.start for s in box]
    return {"title": study.title, "caption": study.caption, "case": study.case, "size": size, "start": start,
            "spacing": list(study.first.spacing), "to_mm": (study.first.to_mm @ offset).tolist(),
            "to_file": (study.first.to_file @ offset).tolist(), "images": images,
            "segmentations": [{"name": name, "data": stored(mask)} for name, mask in labels.items()]}


def busiest_voxel(mask: np.ndarray) -> list[int]:
    """The index of the three planes, across the axes, that hold most of the mask."""
    return [int(mask.sum(tuple(a for a in range(3) if a != axis)).argmax()) for axis in range(3)]
