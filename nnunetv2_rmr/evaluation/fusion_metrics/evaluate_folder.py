"""Evaluate a folder of fused images, several cases at a time."""

import os
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_rmr.evaluation.fusion_baselines.fuse import pywavelets
from nnunetv2_rmr.evaluation.fusion_metrics.case_files import BODY, Folders
from nnunetv2_rmr.evaluation.fusion_metrics.evaluate_case import MODES, Request, evaluate_case
from nnunetv2_rmr.evaluation.fusion_metrics.rules import rules
from nnunetv2_rmr.evaluation.fusion_metrics.summary import summarise
from nnunetv2_rmr.files.workers import over_cases


def evaluate_folder(fused_folder: Path, images_folder: Path, mask: str = BODY, mode: str = "3d",
                    baselines: Sequence[str] = (), dataset_json: Path | None = None, num_processes: int = 1,
                    labels_folder: Path | None = None) -> dict:
    """Summary (see summarise) of all fused images; bad cases are in its "failed_cases" and do not stop the others.

    mode: "3d" or "compat", 2D axial slices. baselines: names of METHODS, fused and scored by the same rules ("copy": a
    copy of every modality). labels_folder: for the contrast of lesions. The other arguments are those of Folders.find.
    Raises BadCaseError, ImportError (see pywavelets); ValueError for another mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if "wavelet" in baselines:
        pywavelets()
    folders = Folders.find(fused_folder, images_folder, mask, dataset_json, labels_folder)
    processes = min(num_processes, len(folders.cases))
    request = Request(folders, mode, tuple(dict.fromkeys(baselines)), max(1, (os.cpu_count() or 1) // processes))
    results, failed = over_cases(evaluate_case, {case: (case, request) for case in folders.cases}, num_processes,
                                 "evaluating")
    return summarise(list(results.values()), failed, request.methods, rules(request))
