"""Types for argparse that more than one command needs."""

import argparse
from collections.abc import Callable


def whole_number(lowest: int) -> Callable[[str], int]:
    """For whole numbers from `lowest` (0 or more); what it gives raises ArgumentTypeError for anything else."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {lowest}")
        return int(text)

    return parse
