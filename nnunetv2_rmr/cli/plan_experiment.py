"""`nnUNetv2_rmr_plan_experiment` and `nnUNetv2_rmr_plan_and_preprocess`: nnU-Net's commands with our planners.

nnU-Net's own entry points run, so every option of theirs is there; only the planner is RMRPlanner unless -pl names
another one.
"""

import sys
from pathlib import Path

from nnunetv2_rmr.cli.nnunet_arguments import check_arguments, wrong_dataset_in_one_line

HELP = """
nnunetv2-rmr: the default of -pl is RMRPlanner. It and RMRPlannerResEncM, RMRPlannerResEncL and RMRPlannerResEncXL count
RMR's own parts into -gpu_memory_target; nnU-Net's planners do not."""


def _run(entry_point: str) -> None:
    check_arguments("experiment_planning/plan_and_preprocess_entrypoints.py", entry_point, HELP)

    from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints

    from nnunetv2_rmr.planning.planners import RMRPlanner, let_nnunet_find_planners

    let_nnunet_find_planners()
    if not any(argument.startswith("-pl") for argument in sys.argv):
        sys.argv += ["-pl", RMRPlanner.__name__]
    try:
        with wrong_dataset_in_one_line():
            getattr(plan_and_preprocess_entrypoints, entry_point)()
    except (ValueError, NotImplementedError, FileNotFoundError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: error: {error}")


def main() -> None:
    _run("plan_experiment_entry")


def main_and_preprocess() -> None:
    _run("plan_and_preprocess_entry")
