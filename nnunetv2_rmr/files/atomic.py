"""Files that are either there and whole, or not there."""

import json
import math
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

_HOST = blake2b(socket.gethostname().encode(), digest_size=3).hexdigest()  # a process has its number on one machine
_TEMPORARY = re.compile(r"\.([0-9a-f]{6})-(\d+)\.tmp\..*")


def temporary_beside(filename: str | os.PathLike) -> Path:
    """Hidden name beside `filename`, of the same ending, that says which process will write it."""
    path = Path(filename)
    return path.with_name(f".{_HOST}-{os.getpid()}.tmp.{path.name}")


@contextmanager
def replacing(filename: str | os.PathLike) -> Iterator[str]:
    """Name of a temporary file beside `filename` (same ending, for writers that go by it), renamed to it on success.

    If the body fails the temporary file is removed and what stood under `filename` before is untouched.
    """
    path = Path(filename)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield str(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Name of a hidden folder beside `path`, for whoever makes it; removed at the end, if it is there."""
    folder = temporary_beside(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folders: Iterable[str | os.PathLike]) -> None:
    """Temporary files and folders of processes that were killed here: nnU-Net would take them for images."""
    for folder in map(Path, folders):
        for entry in folder.iterdir() if folder.is_dir() else ():
            match = _TEMPORARY.fullmatch(entry.name)
            if match and match[1] == _HOST and not _is_running(int(match[2])):
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # asking would send it Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


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
