"""`nnUNetv2_rmr_predict` and `nnUNetv2_rmr_predict_from_modelfolder`: nnU-Net's commands with our predictor.

nnU-Net's own entry points run, so every option of theirs is there and means what it means for nnU-Net. Options of ours
are taken out of the command line before nnU-Net reads it.
"""

import sys
from collections.abc import Callable

from nnunetv2_rmr.ext_trainer import add_to_ext_trainer

MISSING = "--missing"
HELP = f"""
options of nnunetv2-rmr:
  {MISSING}             Predict cases of which modalities (CASE_000X) are missing, too, instead of reporting them as bad
                        cases. The model should be trained with modality_dropout, see docs/missing.md."""


def _run(entry_point: str) -> None:
    add_to_ext_trainer()
    from nnunetv2.inference import predict_from_raw_data

    from nnunetv2_rmr.inference.input_check import BadCaseError
    from nnunetv2_rmr.inference.predictor import FailedCasesError, RMRPredictor

    missing = MISSING in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != MISSING]

    class Predictor(RMRPredictor):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, allow_missing=missing, **kwargs)

    predict_from_raw_data.nnUNetPredictor = Predictor  # the entry points look it up under this name
    run: Callable[[], None] = getattr(predict_from_raw_data, entry_point)
    try:
        run()
    except (FailedCasesError, BadCaseError, ValueError, FileNotFoundError) as error:
        sys.exit(f"nnUNetv2_rmr: error: {error}")
    finally:
        if {"-h", "--help"} & set(sys.argv):
            print(HELP)


def main() -> None:
    _run("predict_entry_point")


def main_modelfolder() -> None:
    _run("predict_entry_point_modelfolder")
