"""What bad days do: damaged files, hostile models, kills, full disks, very many cases.

    cd tests && python -m campaign -o FOLDER                  # more than an hour on two cores
    cd tests && python -m campaign -o FOLDER --only kills disks

Prints a row of a table for every part, and every finding to standard error. Exit status 1 if there is one. Full disks
need Linux and root.
"""

import argparse
import sys
from pathlib import Path

from campaign.commands import Ground
from campaign.damaged_folders import damaged_folders
from campaign.damaged_series import damaged_series
from campaign.disks import disks
from campaign.fuzz import fuzz
from campaign.hostile import hostile
from campaign.kills import kills
from campaign.many_cases import many_cases

PARTS = ("damaged", "hostile", "cases", "kills", "disks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", dest="out", type=Path, required=True, help="for files; those of a model stay there")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--commands", nargs="+", help="of kills and disks: how their names begin")
    parser.add_argument("--files", type=int, default=10000, help="damaged (a tenth of them through whole commands)")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=50, help="of every command")
    parser.add_argument("--disks", type=int, default=20, help="sizes for every command")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    ground, trial = Ground(args.out.resolve() / "ground"), args.out.resolve() / "trial"
    commands = [c for c in ground.commands() if not args.commands or c.name.startswith(tuple(args.commands))]
    parts = {"damaged": [lambda: [fuzz(trial, args.files, args.seed)],
                         lambda: [damaged_series(trial, args.files // 5, args.seed)],
                         lambda: damaged_folders(ground, args.files // 10, trial, args.seed)],
             "hostile": [lambda: [hostile(ground, trial)]],
             "cases": [lambda: [many_cases(ground, args.cases, trial)]],
             "kills": [lambda c=c: [kills(ground, c, args.kills, trial, args.seed)] for c in commands],
             "disks": [lambda c=c: [disks(ground, c, args.disks, trial)] for c in commands]}
    found = 0
    print("| what | tries | fine | refused with a message | findings |\n|---|---|---|---|---|")
    for part in args.only:
        for make in parts[part]:
            for outcome in make():
                print(outcome.row, flush=True)
                print(*outcome.findings, sep="\n", end="\n" * bool(outcome.findings), file=sys.stderr, flush=True)
                found += len(outcome.findings)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
