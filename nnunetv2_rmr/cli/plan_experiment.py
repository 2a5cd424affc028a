"""`nnUNetv2_rmr_plan_experiment` and `nnUNetv2_rmr_plan_and_preprocess`: nnU-Net's commands with our planners.

nnU-Net's own entry points run, so every option of theirs is there; only the planner is RMRPlanner unless -pl names
another one.
"""

import sys
from collections.abc import Callable

from nnunetv2_rmr.cli.nnunet_arguments import check_arguments


def _run(entry_point: str) -> None:
    check_arguments("experiment_planning/plan_and_preprocess_entrypoints.py", entry_point)

    from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints

    from nnunetv2_rmr.planning.planners import RMRPlanner, let_nnunet_find_planners

    let_nnunet_find_planners()
    if not any(argument.startswith("-pl") for argument in sys.argv):
        sys.argv += ["-pl", RMRPlanner.__name__]
    run: Callable[[], None] = getattr(plan_and_preprocess_entrypoints, entry_point)
    try:
        run()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"nnUNetv2_rmr: error: {error}")


def main() -> None:
    _run("plan_experiment_entry")


def main_and_preprocess() -> None:
    _run("plan_and_preprocess_entry")
