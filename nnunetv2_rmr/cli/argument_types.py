"""Types and arguments for argparse that more than one command needs."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path


def whole_number(lowest: int) -> Callable[[str], int]:
    """For whole numbers from `lowest` (0 or more); what it gives raises ArgumentTypeError for anything else."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {lowest}")
        return int(text)

    return parse


def add_arguments_of_image_folders(p: argparse.ArgumentParser) -> None:
    """-djfile, --overwrite and -np, of commands that make something of every case of a folder."""
    p.add_argument("-djfile", type=Path, metavar="FILE",
                   help="dataset.json of the images (default: the one in IMAGES or beside it, if any)")
    p.add_argument("--overwrite", action="store_true", help="replace files of an earlier run")
    p.add_argument("-np", dest="num_processes", type=whole_number(1), default=min(4, os.cpu_count() or 1), metavar="N",
                   help="cases worked on at once (default %(default)s)")
