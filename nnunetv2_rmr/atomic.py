"""Files that are either there and whole, or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(filename: str | os.PathLike) -> Iterator[str]:
    """Name of a temporary file beside `filename` (same ending, for writers that go by it), renamed to it on success.

    If the body fails the temporary file is removed and what stood under `filename` before is untouched.
    """
    path = Path(filename)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        yield str(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
