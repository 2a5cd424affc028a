"""What a command has written: whether every file is whole, and what is in it that has to be the same every time."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pydicom
import SimpleITK as sitk
import torch

from nnunetv2_rmr.files.nifti import check_nifti

MEASURED = ["seconds", "peak_memory_gb"]
TOLD = ("training_log_", "failed_cases.log", ".jsonl")  # grow line by line, the last one may be half
LEFT = ".tmp."  # in the name of what a killed process was writing


def _hash(*arrays) -> str:
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _tensors(content) -> str:
    return _hash(*(tensor.float().numpy() for tensor in content["network_weights"].values()))


def _image(file: Path) -> str:
    check_nifti(file)
    image = sitk.ReadImage(str(file))
    return _hash(sitk.GetArrayFromImage(image), image.GetOrigin(), image.GetSpacing(), image.GetDirection())


def _dicom(file: Path) -> str:
    """Identifiers and times are new each time."""
    dataset = pydicom.dcmread(file)
    return _hash(dataset.pixel_array, dataset.get("ImagePositionPatient", ()))


def _npz(file: Path) -> str:
    with np.load(file) as arrays:
        return _hash(*(arrays[name] for name in arrays))


def _table(file: Path) -> str:
    table = pd.read_csv(file)
    return table.drop(columns=[name for name in MEASURED if name in table]).to_csv(index=False, float_format="%.5g")


def _page(file: Path) -> None:
    if not file.read_text().rstrip().endswith("</html>"):
        raise ValueError("no end")


def _json(file: Path):
    """Scores are compared; what says where and when something was done is not."""
    content = json.loads(file.read_text())
    return json.dumps(content, sort_keys=True) if file.name == "restoration.json" else None


READERS = {".nii.gz": _image, ".dcm": _dicom, ".npz": _npz, ".json": _json, ".csv": _table, ".html": _page,
           ".png": lambda file: matplotlib.image.imread(file) is None,
           ".pkl": lambda file: pickle.loads(file.read_bytes()) is None,
           ".pth": lambda file: _tensors(torch.load(file, map_location="cpu", weights_only=False))}


def leavings(folder: Path) -> tuple[dict[str, object], list[str]]:
    """Content by name of every file that is whole, and a line for each that is not."""
    found, broken = {}, []
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if not file.is_file() or LEFT in name or name.endswith("checkpoint.tmp") or any(t in name for t in TOLD):
            continue
        read = next((reader for ending, reader in READERS.items() if name.endswith(ending)), None)
        try:
            found[name] = read(file) if read else None
        except Exception as error:
            broken.append(f"{name} is half a file ({type(error).__name__}: {str(error)[:80]})")
    return found, broken


def left_behind(folder: Path) -> list[str]:
    """Names of temporary files."""
    return [str(file.relative_to(folder)) for file in folder.rglob("*") if LEFT in file.name]


def differences(found: dict[str, object], wanted: dict[str, object]) -> list[str]:
    return ([f"{name} is missing" for name in wanted.keys() - found.keys()]
            + [f"{name} is new" for name in found.keys() - wanted.keys()]
            + [f"{name} is another one" for name in wanted.keys() & found.keys() if wanted[name] != found[name]])
