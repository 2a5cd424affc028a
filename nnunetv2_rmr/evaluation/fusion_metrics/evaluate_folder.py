"""Evaluate a folder of fused images, several cases at a time."""

import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nnunetv2_rmr.evaluation.fusion_baselines.wavelet import load_pywavelets
from nnunetv2_rmr.evaluation.fusion_metrics.case_files import BODY, CaseFiles, find_case_files
from nnunetv2_rmr.evaluation.fusion_metrics.evaluate_case import MODES, Request, evaluate_case
from nnunetv2_rmr.evaluation.fusion_metrics.rules import rules
from nnunetv2_rmr.evaluation.fusion_metrics.summary import summarise
from nnunetv2_rmr.files.input_check import BadCaseError
from nnunetv2_rmr.files.workers import WorkerDied, in_order


def evaluate_folder(fused_folder: Path, images_folder: Path, mask: str = BODY, mode: str = "3d",
                    baselines: Sequence[str] = (), dataset_json: Path | None = None, num_processes: int = 1,
                    labels_folder: Path | None = None, progress: bool = False) -> dict:
    """Summary (see summarise) of all fused images; bad cases are in its "failed_cases" and do not stop the others.

    mode: "3d" or "compat", 2D axial slices. baselines: names of METHODS, fused and scored by the same rules ("copy": a
    copy of every modality). labels_folder: for the contrast of lesions. The other arguments are find_case_files's.
    Raises FolderError, PyWaveletsMissing; ValueError for another mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if "wavelet" in baselines:
        load_pywavelets()
    found = find_case_files(fused_folder, images_folder, mask, dataset_json, labels_folder)
    processes = min(num_processes, len(found.cases))
    request = Request(found.channels, found.file_ending, found.reader, mode, tuple(dict.fromkeys(baselines)),
                      found.regions, found.ignore_label, threads=max(1, (os.cpu_count() or 1) // processes))
    results, failed = {}, {}
    ready = enumerate(in_order(_evaluate_or_say_why, [(files, request) for files in found.cases], num_processes))
    for i, outcome in tqdm(ready, total=len(found.cases), desc="evaluating", unit="case", disable=not progress):
        case = found.cases[i].case
        if isinstance(outcome, str | WorkerDied):
            failed[case] = str(outcome)
        else:
            results[case] = outcome
    stated = {**rules(mode, mask, found.channels, list(request.baselines), labels_folder is not None),
              "dataset_json": found.dataset_json, "images_without_fused_image": found.not_fused}
    return summarise([results[case] for case in sorted(results)], dict(sorted(failed.items())),
                     request.methods, stated)


def _evaluate_or_say_why(files: CaseFiles, request: Request) -> dict | str:
    try:
        return evaluate_case(files, request)
    except BadCaseError as error:
        return str(error)
    except Exception as error:  # whatever it is, the other cases are not to blame
        return f"case {files.case}: {type(error).__name__}: {error}"
