"""`nnUNetv2_rmr_doctor`: say what is wrong with this installation, and what to type."""

import argparse
import json
import os
import sys
from dataclasses import asdict

from nnunetv2_rmr import __version__
from nnunetv2_rmr.doctor import Check, run_checks


def format_check(check: Check) -> str:
    line = f"{check.status:<8}{check.name}: {check.message}"
    return line if check.fix is None else f"{line}\n{'':8}-> {check.fix}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_doctor",
        description="Checks versions, nnU-Net's paths, whether nnU-Net finds our trainers, and what this machine will "
                    "use. Says for each problem what to type. Exit status 1 if a check fails.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    arguments = parser.parse_args()

    checks: list[Check] = []
    try:
        for check in run_checks():
            checks.append(check)
            if not arguments.json:
                print(format_check(check), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `| head`: the reader has seen enough, and Python must not complain when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    failed = sum(check.status == "FAIL" for check in checks)
    if arguments.json:
        print(json.dumps({"version": __version__, "failed": failed, "checks": [asdict(check) for check in checks]},
                         indent=2))
    else:
        warned = sum(check.status == "warning" for check in checks)
        print(f"{len(checks)} checks: {failed} failed, {warned} warning{'' if warned == 1 else 's'}")
    sys.exit(1 if failed else 0)
