"""Are the models' fused images fusions? Facts of one clean case for the records, and of all cases for the summary."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from nnunetv2_rmr.evaluation.fusion_baselines import COPY
from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse
from nnunetv2_rmr.evaluation.fusion_metrics.contrast import LesionContrast, relative_contrast
from nnunetv2_rmr.evaluation.fusion_metrics.edges import EdgePreservation, copied_source
from nnunetv2_rmr.evaluation.fusion_metrics.information import pearson
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import bounding_box, mean, smallest, to_unit_range
from nnunetv2_rmr.evaluation.fusion_metrics.verdict import Facts, copy_sentence, facts, mean_own_edges, verdict


class CaseFusion:
    """One clean case, for the fused images of any number of models.

    images: (C, Z, Y, X), any units, at least two channels; Z is 1 for 2D files. body, labelled: boolean (Z, Y, X), as
    each of the regions; lesions are looked for in what is labelled only. spacing: mm, Z, Y, X. Raises ValueError for an
    empty body and for images without contrast in it.
    """

    def __init__(self, images: np.ndarray, channels: Sequence[str], body: np.ndarray, labelled: np.ndarray,
                 regions: Mapping[str, np.ndarray], spacing: Sequence[float]):
        flat = body.shape[0] == 1
        box = bounding_box(body[0] if flat else body)
        self._cut = (0, *box) if flat else box
        self._body, self._spacing = body[self._cut], tuple(spacing[1:] if flat else spacing)
        self._images = {name: to_unit_range(image[self._cut], self._body) for name, image in zip(channels, images)}
        self._contrast = LesionContrast({name: region[self._cut] for name, region in regions.items()},
                                        self._body & labelled[self._cut], self._spacing)
        self._contrast_of_images = {name: self._contrast(image) for name, image in self._images.items()}
        self._baselines: dict[int, dict[str, Facts]] = {}
        self._values = [image[self._body] for image in self._images.values()]
        self._metric = EdgePreservation(self._body)
        self._edges = [self._metric.describe(image) for image in self._images.values()]
        self._own = [self._metric.own(e, [other for other in self._edges if other is not e]) for e in self._edges]

    def facts(self, fused: np.ndarray) -> Facts:
        """fused: (Z, Y, X), any units. Raises ValueError if it has no contrast."""
        return self._facts(fused[self._cut])

    def baselines(self, reference: int) -> dict[str, Facts]:
        """Of gradient fusion and of a copy of the reference modality, by name; made once. reference: its number."""
        if reference not in self._baselines:
            self._baselines[reference] = {
                name: self._facts(fuse(method, list(self._images.values()), self._body, self._spacing, reference))
                for name, method in (("gradient", "gradient"), (COPY + list(self._images)[reference], "copy"))}
        return self._baselines[reference]

    def _facts(self, fused: np.ndarray) -> Facts:
        fused, names = to_unit_range(fused, self._body), list(self._images)
        edges = self._metric.describe(fused)
        own = {name: self._metric.compare_own(voxels, edges, source)
               for name, voxels, source in zip(names, self._own, self._edges)}
        copied = copied_source(self._metric, edges, self._edges,
                               [pearson(fused[self._body], values) for values in self._values])
        relative = relative_contrast(self._contrast(fused), list(self._contrast_of_images.values()))
        return facts(own, None if copied is None else names[copied], relative, self._contrast_of_images)


def summarise_fusion(records: Sequence[dict], fusing: Sequence[str]) -> dict[str, dict]:
    """"models" and "baselines", each name -> what its images of the clean cases are, see _row; in the order given.

    records: of finished predictions. fusing: models that have fused images; those of which nothing was measured have
    "cases" 0. Means are over the cases that were measured for every other one.
    """
    of_models: dict[str, dict[str, Facts]] = {model: {} for model in fusing}
    of_baselines: dict[str, dict[str, Facts]] = {}
    problems: dict[str, list[str]] = {model: [] for model in fusing}
    for r in records:
        if r["corruption"] != "clean" or r["model"] not in of_models:
            continue
        if r.get("fusion") is not None:  # an older version has none
            of_models[r["model"]][r["case"]] = r["fusion"]
            for name, baseline in r["fusion_baselines"].items():
                of_baselines.setdefault(name, {}).setdefault(r["case"], baseline)
        elif "fusion_error" in r:
            problems[r["model"]].append(f"{r['case']}: {r['fusion_error']}")
    measured = [set(cases) for cases in of_models.values() if cases]
    common = set.intersection(*measured) if measured else set()

    def row(name: str, cases: Mapping[str, Facts]) -> dict:
        return _row(name, [of_case for case, of_case in cases.items() if case in common])

    return {"models": {name: row(name, cases) | {"problems": problems[name]} for name, cases in of_models.items()},
            "baselines": {name: row(name, cases) for name, cases in of_baselines.items() if common & set(cases)}}


def _row(name: str, cases: Sequence[Facts]) -> dict:
    """verdict: in words, None without cases. copy: the end of it that calls the image a copy, else None. copy_of:
    modality -> in how many of the cases. own_edges: modality -> mean. smallest_contrast: mean of every case's smallest
    relative contrast of a region.
    """
    copies = Counter(case["copy_of"] for case in cases if case["copy_of"] is not None)
    contrasts = [smallest(entry["relative"] for entry in case["contrast"].values()) for case in cases]
    return {"cases": len(cases), "verdict": verdict(name, cases) if cases else None,
            "copy": copy_sentence(cases) if copies else None, "copy_of": dict(copies.most_common()),
            "own_edges": mean_own_edges(cases), "smallest_contrast": mean(contrasts)}
