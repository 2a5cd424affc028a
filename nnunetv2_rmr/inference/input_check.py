"""What has to be true of a case's images before they are worth predicting; every message names the file."""

import os
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO


_SITK_ENDINGS = (*SimpleITKIO.supported_file_endings, *NibabelIO.supported_file_endings)


class BadCaseError(ValueError):
    """The input of one case can not be used. The message names the file and says what to do."""


def check_grids(files: Sequence[str]) -> None:
    """All files are there, readable as far as their headers go, and on one grid. Raises BadCaseError."""
    for file in files:
        if not os.path.isfile(file):
            raise BadCaseError(f"{file} does not exist")
    grids = [_grid(f) for f in files]
    for file, grid in zip(files[1:], grids[1:]):
        for what in grid.keys() & grids[0].keys():
            if len(grid[what]) != len(grids[0][what]) or not np.allclose(grid[what], grids[0][what], atol=1e-3):
                raise BadCaseError(f"{file} has {what} {_short(grid[what])}, but {files[0]} has "
                                   f"{_short(grids[0][what])}: resample the modalities to one grid first")


def _short(numbers: Sequence[float]) -> str:
    return "(" + ", ".join(f"{n:g}" for n in numbers) + ")"


def _explain_channels(files: Sequence[str], names: Sequence[str], file_ending: str) -> str:
    """Which of the files CASE_0000, CASE_0001 ... are missing or too many."""
    folder = os.path.dirname(files[0])
    stem = os.path.basename(files[0])[:-(len(file_ending) + 5)]
    have = {os.path.basename(f) for f in files}
    expected = {f"{stem}_{i:04d}{file_ending}": name for i, name in enumerate(names)}
    missing = [f"{file} ({name})" for file, name in expected.items() if file not in have]
    if missing:
        return f"case {stem}: {', '.join(missing)} missing in {folder or '.'}; add what is missing"
    return f"case {stem}: remove {', '.join(sorted(have - set(expected)))}"


def _grid(file: str) -> dict[str, tuple]:
    """Size, spacing, origin and direction from a file's header; empty for formats without a grid (png, tiff)."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    if not file.endswith(_SITK_ENDINGS):
        return {}
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise BadCaseError(f"{file} can not be read: damaged or truncated? Copy or export it again") from None
    return {"size": reader.GetSize(), "spacing": reader.GetSpacing(), "origin": reader.GetOrigin(),
            "direction": reader.GetDirection()}


def check_array(data: np.ndarray, names: Sequence[str], files: Sequence[str] = (), file_ending: str = "") -> None:
    """All modalities there, finite, and with more than one value each.

    data: (C, D, H, W). names: the model's modalities. files, file_ending: where data came from, for the messages.
    Raises BadCaseError.
    """
    if len(data) != len(names):
        found = f"{len(data)} modalit{'y' if len(data) == 1 else 'ies'} given, the model needs {len(names)} " \
                f"({', '.join(names)})"
        raise BadCaseError(f"{_explain_channels(files, names, file_ending)} ({found})" if files else found)
    for i, (channel, name) in enumerate(zip(data, names)):
        source = files[i] if len(files) == len(names) else f"channel {i} ({name})"
        if not np.isfinite(channel).all():
            bad = int(channel.size - np.isfinite(channel).sum())
            raise BadCaseError(f"{source} holds NaN or infinite values in {bad} voxel(s): "
                               f"replace them in the image and run again")
        if channel.min() == channel.max():
            raise BadCaseError(f"{source} is constant (every voxel is {channel.min():g}): an empty image can not be "
                               f"normalised; export it again")
