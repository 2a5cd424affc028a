"""`nnUNetv2_rmr_predict` and `nnUNetv2_rmr_predict_from_modelfolder`: nnU-Net's commands with our predictor.

nnU-Net's own entry points run, so every option of theirs is there and means what it means for nnU-Net. Options of ours
are taken out of the command line before nnU-Net reads it.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from inspect import signature
from pathlib import Path

from nnunetv2_rmr.cli.dicom_cases import SERIES, Studies, check_grid, model_folder, take_series
from nnunetv2_rmr.cli.nnunet_arguments import check_arguments, wrong_dataset_in_one_line
from nnunetv2_rmr.cli.predict_demo import DEMO, demo
from nnunetv2_rmr.ext_trainer import add_to_ext_trainer
from nnunetv2_rmr.files.atomic import temporary_beside, temporary_folder

MISSING, TRUST_OPTION = "--missing", "--trust_model"
RESAMPLE_TO, REGISTER_TO, DICOM = "--resample_to", "--register_to", "--dicom"
HELP = f"""
nnunetv2-rmr: beside the segmentations, -o gets the fused images, fused/CASE, of a model that has them to give.
Options beyond nnU-Net's:
  {DEMO}                Without any other options: a small model predicts a simulated case, both come with the package.
  {MISSING}             Predict cases of which modalities (CASE_000X) are missing, too, instead of reporting them as bad
                        cases. The model should be trained with modality_dropout, see docs/missing.md.
  --series NAME=PATTERN ...
                        -i holds a folder of DICOM files for each case; the pattern is of the description (or number) of
                        a modality's series, e.g. "T1=*T1*" "FLAIR=*FLAIR*", see docs/dicom.md.
  {DICOM}               Of such cases the outputs once more as DICOM, OUT/dicom/CASE.
  {RESAMPLE_TO} NAME    Modalities of a case may lie on different grids: bring them to that of modality NAME, on which
                        the outputs lie, too.
  {REGISTER_TO} NAME    The same, after a rigid registration to NAME, see docs/registration.md.
  {TRUST_OPTION}         Also load a model whose files could run code, see docs/security.md.
  -npp, -nps            Default on machines with fewer than four cores: 0, no worker processes."""


def _run(entry_point: str) -> None:
    flags = (MISSING, TRUST_OPTION, DICOM)
    missing, trusting, dicom = (flag in sys.argv for flag in flags)
    sys.argv = [argument for argument in sys.argv if argument not in flags]
    series = take_series()
    if dicom and not series:
        sys.exit(f"{Path(sys.argv[0]).name}: error: {DICOM}: needs DICOM as input, give {SERIES}")
    resample_to, register_to = _take_value(RESAMPLE_TO), _take_value(REGISTER_TO)
    if resample_to and register_to and resample_to != register_to:
        sys.exit(f"{Path(sys.argv[0]).name}: error: {RESAMPLE_TO} {resample_to}: cannot differ from {REGISTER_TO} "
                 f"{register_to}, to whose grid registered modalities are brought; give one of them")
    given = check_arguments("inference/predict_from_raw_data.py", entry_point, HELP)
    command = Path(sys.argv[0]).name
    if given is not None and not Path(given.i).is_dir():
        sys.exit(f"{command}: error: -i {given.i}: there is no such folder")
    # with -npp 0 -nps 0 nnU-Net's entry points do not hand on which part is asked for
    part = {name: getattr(given, name) for name in ("part_id", "num_parts") if hasattr(given, name)}

    add_to_ext_trainer()
    studies = None
    if series and given is not None:  # what is wrong with them is told before anything is loaded
        with _errors_in_one_line():
            studies = Studies.find(Path(given.i), model_folder(given), series, missing)
    import torch
    from nnunetv2.inference import predict_from_raw_data

    from nnunetv2_rmr.files.workers import Failure
    from nnunetv2_rmr.inference.predictor import FailedCasesError, RMRPredictor
    from nnunetv2_rmr.inference.trust import trust
    from nnunetv2_rmr.registration.folder import on_one_grid

    if trusting:
        trust()

    class Predictor(RMRPredictor):
        _refused: Mapping[str, str] = {}  # cases that could not be converted, and why

        def __init__(self, *args, **kwargs):
            super().__init__(*args, allow_missing=missing, **kwargs)
            if self.device.type == "cuda" and not torch.cuda.is_available():
                raise ValueError("-device cuda: torch finds no CUDA device; try -device cpu")

        def initialize_from_trained_model_folder(self, folder, *args, **kwargs):
            self.model_folder = Path(folder)
            super().initialize_from_trained_model_folder(folder, *args, **kwargs)

        @wraps(RMRPredictor.predict_from_files)  # nnU-Net records the call by its signature
        def predict_from_files(self, images, output, *args, **kwargs):
            call = signature(super().predict_from_files).bind(images, output, *args, **kwargs).arguments
            call |= part | _without_workers(sys.argv)
            grid = register_to or resample_to
            with temporary_folder(Path(output, "dicom_input")) as converted, ExitStack() as placed:
                if dicom:
                    check_grid(grid, self.dataset_json, self.reference)
                if series:
                    cases = (studies or Studies.find(Path(images), self.model_folder, series, missing)).part(**part)
                    call |= dict(zip(part, (0, 1)))  # they are shared out already
                    placed.enter_context(cases.in_messages(converted, temporary_beside(Path(output, "images"))))
                    images, self._refused = cases.convert(converted, lambda case: not call["overwrite"] and
                                                          self.is_predicted(os.path.join(output, case),
                                                                            call["save_probabilities"]))
                if grid and (not series or any(converted.glob("*"))):
                    images = placed.enter_context(on_one_grid(str(converted) if series else images, output,
                                                              self.dataset_json, grid, bool(register_to), missing))
                try:
                    results = super().predict_from_files(**call | {"list_of_lists_or_source_folder": images})
                finally:
                    if dicom:
                        cases.write_dicom(Path(output), self.model_folder.resolve().name, self.reference, self.fuses)
            if self._failures:  # of the input, and there was nothing else to do
                raise FailedCasesError("\n  ".join(["no new case could be predicted:",
                                                    *(failure.message for failure in self._failures)]))
            print(f"Segmentations: {output}" + (f"; fused images: {Path(output, 'fused')}" if self.fuses else ""))
            return results

        def _manage_input_and_output_lists(self, images, *args, **kwargs):
            for case, reason in self._refused.items():
                self._note(Failure(f"case {case}: {reason}"))
            return super()._manage_input_and_output_lists(images, *args, **kwargs)

    predict_from_raw_data.nnUNetPredictor = Predictor  # the entry points look it up under this name
    with _errors_in_one_line(FailedCasesError):
        getattr(predict_from_raw_data, entry_point)()


@contextmanager
def _errors_in_one_line(*more: type[Exception]) -> Iterator[None]:
    command = Path(sys.argv[0]).name
    try:
        with wrong_dataset_in_one_line():
            yield
    except FileNotFoundError as error:
        sys.exit(f"{command}: error: {_explain(error)}")
    except (*more, NotImplementedError, ValueError, OSError) as error:  # OSError: of -o; a full disk
        sys.exit(f"{command}: error: {error}")


def _take_value(option: str) -> str | None:
    """What sys.argv says after `option` (or option=), which it then holds no longer; None if it does not hold it."""
    value, rest = None, []
    arguments = iter(sys.argv)
    for argument in arguments:
        if argument.split("=")[0] != option:
            rest.append(argument)
        elif not (value := argument.partition("=")[2] or next(arguments, "")) or value.startswith("-"):
            sys.exit(f"{Path(sys.argv[0]).name}: error: argument {option}: the name of a modality is expected")
    sys.argv = rest
    return value


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


def _explain(error: FileNotFoundError) -> str:
    """For a model or a checkpoint that is not there: which ones are, for the same data set or model."""
    file = Path(error.filename or "")
    if file.parent.name.startswith("fold_"):
        from nnunetv2_rmr.inference.trust import list_checkpoints

        return (f"no {file.parent.name}/{file.name} in {file.parent.parent}; there are (options -f and -chk): "
                + list_checkpoints(file.parent.parent))
    if file.name not in ("dataset.json", "plans.json"):
        return str(error)
    trained = sorted(folder.parent.name for folder in file.parent.parent.glob("*__*__*/dataset.json"))
    return (f"no trained model in {file.parent} (of -d, -tr, -p and -c); trained models in {file.parent.parent}: "
            + (", ".join(trained) or "none"))


def main() -> None:
    if DEMO in sys.argv:
        demo(_run)
    else:
        _run("predict_entry_point")


def main_modelfolder() -> None:
    _run("predict_entry_point_modelfolder")
