"""How the failed cases of a batch are told at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_rmr.files.atomic import replacing
from nnunetv2_rmr.files.workers import Failure


class FailedCasesError(RuntimeError):
    """Some cases of a batch could not be predicted; all others were. The message lists them.

    results: of a batch without output files, what it would have returned; of failed cases a Failure.
    """

    results: Sequence[Any] = ()


def report(failures: Sequence[Failure], folder: str | None, results: Sequence[Any]) -> None:
    """Raises FailedCasesError, with the results, if there are failures. Their tracebacks go to a log in the folder;
    None: to the terminal."""
    if not failures:
        return
    unexpected = "\n".join(f"{failure.message}\n{failure.traceback}" for failure in failures if failure.traceback)
    where = ""
    if unexpected and folder is not None:
        log = Path(folder, "failed_cases.log")
        try:
            with replacing(log) as temporary:
                Path(temporary).write_text(unexpected, encoding="utf-8")
            where = f"\ntracebacks: {log}"
        except OSError:  # a full disk may be why they failed
            print(unexpected)
    elif unexpected:
        print(unexpected)
    error = FailedCasesError(f"{len(failures)} case(s) could not be predicted (the others are done):\n  "
                             + "\n  ".join(failure.message for failure in failures) + where)
    error.results = results
    raise error
