"""Files that are either there and whole, or not there."""

import json
import math
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


def write_json(content: dict | list, filename: str | os.PathLike) -> None:
    """The file as a whole or not at all; null for NaN and infinity, which JSON does not have."""
    with replacing(filename) as temporary:
        Path(temporary).write_text(json.dumps(_finite(content), indent=1, allow_nan=False), encoding="utf-8")


def _finite(content):
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
