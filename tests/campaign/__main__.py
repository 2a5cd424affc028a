"""What bad days do: thousands of damaged files through the checks that every command makes.

    cd tests && python -m campaign -o FOLDER

Prints a row of a table for every part, and every finding. Exit status 1 if there is one.
"""

import argparse
import sys
from pathlib import Path

from campaign.fuzz import fuzz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", dest="out", type=Path, required=True, help="for files, which are removed again")
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    outcomes = [fuzz(args.out / "damaged", args.files, args.seed)]
    print("| what | tries | fine | refused with a message | findings |\n|---|---|---|---|---|")
    for outcome in outcomes:
        print(outcome.row)
        print(*outcome.findings, sep="\n", end="\n" * bool(outcome.findings))
    sys.exit(any(outcome.findings for outcome in outcomes))


if __name__ == "__main__":
    main()
