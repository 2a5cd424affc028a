"""What more than one command needs: types and arguments for argparse, and how failed cases are told."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nnunetv2_rmr.files.refused import BadCaseError


def whole_number(lowest: int, highest: float = float("inf")) -> Callable[[str], int]:
    """For whole numbers from `lowest` (0 or more); what it gives raises ArgumentTypeError for anything else."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {lowest}"
                                             + (f" to {highest}" if highest < float("inf") else ""))
        return int(text)

    return parse


def output_folder(text: str) -> Path:
    """Raises ArgumentTypeError if there can be no folder of this name, since it, or what it would lie in, is a file."""
    folder = Path(text)
    # of os.path, since Path's ask for what may not be looked at with an OSError, which argparse would not catch
    if file := next((part for part in (folder, *folder.parents) if os.path.exists(part) and not os.path.isdir(part)),
                    None):
        raise argparse.ArgumentTypeError(f"'{text}': a folder is needed, but {file} is a file")
    return folder


def output_file(text: str) -> Path:
    """Raises ArgumentTypeError if it is a folder, or would lie in a file."""
    if os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"'{text}': is a folder, the name of a file is needed")
    return output_folder(str(Path(text).parent)) / Path(text).name


def add_num_processes(p: argparse._ActionsContainer) -> None:
    p.add_argument("-np", dest="num_processes", type=whole_number(1), default=min(4, os.cpu_count() or 1), metavar="N",
                   help="cases worked on at once (default %(default)s)")


def add_arguments_of_image_folders(p: argparse.ArgumentParser) -> None:
    """-djfile, --overwrite and -np, of commands that make something of every case of a folder."""
    p.add_argument("-djfile", type=Path, metavar="FILE",
                   help="dataset.json of the images (default: the one in IMAGES or beside it, if any)")
    p.add_argument("--overwrite", action="store_true", help="replace files of an earlier run")
    add_num_processes(p)


@contextmanager
def errors_in_one_line(command: str, stopped: str = "the files that are there are complete") -> Iterator[None]:
    """Exits with the message of what is known to happen: input that can not be used, an extra that is not installed, a
    full disk; and at Ctrl-C, saying what there is then."""
    try:
        yield
    except (BadCaseError, ImportError, OSError) as error:
        sys.exit(f"{command}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{command}: stopped; {stopped}")


def exit_if_failed(command: str, failures: Mapping[str, str], what: str) -> None:
    """Exits with the cases that could not be `what`, and why, if there are any."""
    if failures:
        sys.exit(f"{command}: error: {len(failures)} case(s) could not be {what}:\n"
                 + "\n".join(f"  {case}: {reason}" for case, reason in failures.items()))
