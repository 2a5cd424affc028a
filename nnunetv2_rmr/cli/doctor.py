"""`nnUNetv2_rmr_doctor`: say what is wrong with this installation, and what to type."""

import argparse
import json
import sys

from nnunetv2_rmr import __version__
from nnunetv2_rmr.doctor import run_checks


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_doctor",
        description="Checks versions, nnU-Net's folders and what lies in them, whether nnU-Net finds our trainers, and "
                    "what this machine will use. Says for each problem what to type. Exit status 1 if a check fails.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    as_json = parser.parse_args().json

    checks = []
    for check in run_checks():
        checks.append(check)
        if not as_json:
            advice = f"\n{'':8}-> {check.fix}" if check.fix else ""
            print(f"{check.status:<8}{check.name}: {check.message}{advice}", flush=True)
    failed, warned = (sum(check.status == status for check in checks) for status in ("FAIL", "warning"))
    if as_json:
        found = [check._asdict() for check in checks]
        print(json.dumps({"version": __version__, "failed": failed, "checks": found}, indent=2))
    else:
        print(f"{len(checks)} checks: {failed} failed, {warned} warning{'s' * (warned != 1)}")
    sys.exit(1 if failed else 0)
