"""`nnUNetv2_rmr_predict` and `nnUNetv2_rmr_predict_from_modelfolder`: nnU-Net's commands with our predictor.

nnU-Net's own entry points run, so every option of theirs is there and means what it means for nnU-Net. Options of ours
are taken out of the command line before nnU-Net reads it.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import wraps
from inspect import signature
from pathlib import Path

from nnunetv2_rmr.cli.argument_types import errors_in_one_line, output_folder
from nnunetv2_rmr.cli.dicom_cases import Studies, check_grid, model_folder
from nnunetv2_rmr.cli.import_dataset import IntoDict, name_and_text
from nnunetv2_rmr.cli.nnunet_arguments import check_arguments, wrong_dataset_in_one_line
from nnunetv2_rmr.cli.predict_demo import DEMO, demo
from nnunetv2_rmr.dicom.installed import refuse_without_extra
from nnunetv2_rmr.ext_trainer import add_to_ext_trainer
from nnunetv2_rmr.files.atomic import temporary_folder
from nnunetv2_rmr.files.refused import BadCaseError


def parser() -> argparse.ArgumentParser:
    """Of the options that nnU-Net's commands do not have."""
    p = argparse.ArgumentParser(Path(sys.argv[0]).name, usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False,
                                epilog="-npp and -nps are 0, no worker processes, by default on machines with fewer "
                                       "than four cores.")
    g = p.add_argument_group("options of nnunetv2-rmr", "Beside the segmentations, -o gets the fused images, "
                             "fused/CASE, of a model that has them to give.")
    g.add_argument(DEMO, action="store_true",
                   help="without nnU-Net's options: a small model predicts a simulated case, both come with the "
                        "package")
    g.add_argument("--missing", action="store_true",
                   help="predict cases of which modalities (CASE_000X) are missing, too, instead of reporting them as "
                        "bad cases. The model should be trained with modality_dropout, see docs/missing.md")
    g.add_argument("--series", type=name_and_text, nargs="+", action=IntoDict, default={}, metavar="NAME=PATTERN",
                   help="-i holds a folder of DICOM files for each case; the pattern is of the description (or number) "
                        "of a modality's series, e.g. \"T1=*T1*\" \"FLAIR=*FLAIR*\", see docs/dicom.md")
    g.add_argument("--dicom", action="store_true",
                   help="of such cases the outputs once more as DICOM, OUT/dicom/CASE")
    grid = g.add_mutually_exclusive_group()
    grid.add_argument("--resample_to", metavar="NAME",
                      help="modalities of a case may lie on different grids: bring them to that of modality NAME, on "
                           "which the outputs lie, too")
    grid.add_argument("--register_to", metavar="NAME",
                      help="instead of --resample_to: the same, after a rigid registration to NAME, see "
                           "docs/registration.md")
    g.add_argument("--trust_model", action="store_true",
                   help="also load a model whose files could run code, see docs/security.md")
    return p


def _run(entry_point: str) -> None:
    if DEMO in sys.argv:
        demo(_run)
        return
    p = parser()
    ours, sys.argv[1:] = p.parse_known_args()
    studies = None
    add_to_ext_trainer()
    with errors_in_one_line(p.prog):
        if ours.series:
            refuse_without_extra("--series")
        elif ours.dicom:
            raise BadCaseError("--dicom: needs DICOM as input, give --series")
        given = check_arguments("inference/predict_from_raw_data.py", entry_point, "\n" + p.format_help())
        if given is not None:
            if not Path(given.i).is_dir():
                raise BadCaseError(f"-i {given.i}: there is no such folder")
            try:
                output_folder(given.o)
            except argparse.ArgumentTypeError as error:
                raise BadCaseError(f"-o {error}") from None
            if ours.series:  # what is wrong with them is told before anything is loaded
                with wrong_dataset_in_one_line():
                    studies = Studies.find(Path(given.i), model_folder(given), ours.series, ours.missing)
    # with -npp 0 -nps 0 nnU-Net's entry points do not hand on which part is asked for
    part = {name: getattr(given, name) for name in ("part_id", "num_parts") if hasattr(given, name)}

    import torch
    from nnunetv2.inference import predict_from_raw_data

    from nnunetv2_rmr.files.workers import Failure
    from nnunetv2_rmr.inference.failed_cases import FailedCasesError
    from nnunetv2_rmr.inference.predictor import RMRPredictor
    from nnunetv2_rmr.inference.trust import trust
    from nnunetv2_rmr.registration.folder import place_cases

    if ours.trust_model:
        trust()

    class Predictor(RMRPredictor):
        _refused: Mapping[str, str] = {}  # cases that could not be converted or placed, and why

        def __init__(self, *args, **kwargs):
            super().__init__(*args, allow_missing=ours.missing, **kwargs)
            if self.device.type == "cuda" and not torch.cuda.is_available():
                raise ValueError("-device cuda: torch finds no CUDA device; try -device cpu")

        def initialize_from_trained_model_folder(self, folder, *args, **kwargs):
            self.model_folder = Path(folder)
            super().initialize_from_trained_model_folder(folder, *args, **kwargs)

        @wraps(RMRPredictor.predict_from_files)  # nnU-Net records the call by its signature
        def predict_from_files(self, images, output, *args, **kwargs):
            call = signature(super().predict_from_files).bind(images, output, *args, **kwargs).arguments
            call |= part | _without_workers(sys.argv)
            grid, unplaced = ours.register_to or ours.resample_to, {}
            with temporary_folder(Path(output, "input")) as made, ExitStack() as told:
                converted, placed = made / "converted", made / "placed"
                if ours.dicom:
                    check_grid(grid, self.dataset_json, self.reference)
                if ours.series:
                    cases = studies or Studies.find(Path(images), self.model_folder, ours.series, ours.missing)
                    cases = cases.part(**part)
                    call |= dict(zip(part, (0, 1)))  # they are shared out already
                    told.enter_context(cases.in_messages(converted, placed))
                    images, self._refused = cases.convert(converted, lambda case: not call["overwrite"] and
                                                          self.is_predicted(os.path.join(output, case),
                                                                            call["save_probabilities"]))
                if grid and (not ours.series or any(converted.glob("*"))):
                    images, unplaced = place_cases(str(converted) if ours.series else images, placed,
                                                   self.dataset_json, grid, bool(ours.register_to), ours.missing)
                self._refused = {**self._refused, **unplaced}
                try:
                    results = super().predict_from_files(**call | {"list_of_lists_or_source_folder": images})
                finally:
                    unwritten = ours.dicom and cases.write_dicom(Path(output), self.model_folder.resolve().name,
                                                                 self.reference, self.fuses)
            if unwritten:
                raise FailedCasesError(f"{len(unwritten)} case(s) could not be written as DICOM: "
                                       + ", ".join(unwritten))
            print(f"Segmentations: {output}" + (f"; fused images: {Path(output, 'fused')}" if self.fuses else ""))
            return results

        def _manage_input_and_output_lists(self, images, *args, **kwargs):
            for case, reason in self._refused.items():
                self._note(Failure(f"case {case}: {reason}"))
            return super()._manage_input_and_output_lists(images, *args, **kwargs)

    predict_from_raw_data.nnUNetPredictor = Predictor  # the entry points look it up under this name
    try:
        with wrong_dataset_in_one_line():
            getattr(predict_from_raw_data, entry_point)()
    except (FailedCasesError, NotImplementedError, ValueError, OSError) as error:  # OSError: of -o; a full disk
        sys.exit(f"{p.prog}: error: {error}")


def _without_workers(arguments: list[str]) -> dict[str, int]:
    """Arguments of predict_from_files that start no processes, where that is better.

    nnU-Net starts three for preprocessing and three for export. With fewer than four cores they would only take turns
    with the network, and importing torch in each is most of a small job: none, unless the user asks for some.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores >= 4:
        return {}
    return {name: 0 for name, option in (("num_processes_preprocessing", "-npp"),
                                         ("num_processes_segmentation_export", "-nps"))
            if not any(a.split("=")[0] == option for a in arguments) and f"nnUNet_{option[1:]}" not in os.environ}


def main() -> None:
    _run("predict_entry_point")


def main_modelfolder() -> None:
    _run("predict_entry_point_modelfolder")
