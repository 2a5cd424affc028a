"""Models of others: their files are read as data, and of what their plans name only networks and nnU-Net's own parts
are called. See docs/security.md."""

from __future__ import annotations

import json
import os
import pickle
import pydoc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import dynamic_network_architectures
import nnunetv2
import numpy as np
import torch
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from nnunetv2_rmr.inference.model_folder import find_model

ENVIRONMENT = "nnUNet_rmr_trust_model"
ADVICE = f"if you trust who made this model, give --trust_model, or set {ENVIRONMENT}=1"
PACKAGES = ("torch.nn.", "dynamic_network_architectures.", "nnunetv2.", "nnunetv2_rmr.networks.")
_load = torch.load


class ModelRefused(ValueError):
    """A model's files are damaged, or would run code. The message names the file."""


def trusted() -> bool:
    """Whether the user has said that the models come from someone who may run code here."""
    return os.environ.get(ENVIRONMENT) == "1"


def trust() -> None:
    """From now on, in this process and those that it starts, as --trust_model asks for."""
    os.environ[ENVIRONMENT] = "1"


# ---- checkpoints ----------------------------------------------------------------------------------------------------

@contextmanager
def reading_data_only() -> Iterator[None]:
    """Within it torch.load, as nnU-Net calls it, takes what can not run code, and raises ModelRefused for the rest."""
    if trusted():
        yield
        return
    with patch.object(torch, "load", load_data):
        yield


def load_data(file: str | os.PathLike, map_location=None, weights_only: bool = True) -> dict:
    """torch.load of tensors and what else nnU-Net keeps in its checkpoints. Raises ModelRefused.

    weights_only: for nnU-Net, which says False; it has no effect.
    """
    try:
        with torch.serialization.safe_globals(_PLAIN_TYPES):
            found = _load(file, map_location, weights_only=True)
    except (FileNotFoundError, PermissionError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if not isinstance(error, pickle.UnpicklingError):
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelRefused(f"{file}: can not be read, it is damaged or no checkpoint ({reason})") from None
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ModelRefused(f"{file}: holds {named[1]}, which is more than data and could run code; {ADVICE}"
                               ) from None
        raise ModelRefused(f"{file}: can not be read, it is damaged or no checkpoint") from None
    weights = found.get("network_weights") if isinstance(found, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise ModelRefused(f"{file}: is no checkpoint of nnU-Net's, it holds no network_weights")
    return found


class _NumberType:
    """Stands for numpy.dtype in files: of numbers only, and whatever else a file says of it is passed over, since NumPy
    would believe it, that raw bytes are pointers, say."""

    def __init__(self, code: str, *_):
        if not re.fullmatch(r"[<>=|]?[?biuf]\d{0,2}", code):
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype.{code}")
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">") and self.code[0] not in "<>":
            self.code = state[1] + self.code.lstrip("=|")


def _number(kind: _NumberType, data: bytes) -> np.generic:
    """Stands for the function that makes NumPy's numbers in files."""
    return np.frombuffer(data, kind.code)[0]


# What nnU-Net's checkpoints hold beside tensors and Python's own types; NumPy 1 and 2 have other names for it.
_PLAIN_TYPES: list[Callable | tuple[Callable, str]] = [
    torch.device, (_NumberType, "numpy.dtype"), (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar")]


# ---- plans ----------------------------------------------------------------------------------------------------------

def check_model_folder(folder: str | os.PathLike) -> None:
    """Raises ModelRefused if its plans.json or dataset.json can not be used, or if the plans name what is neither a
    torch.nn.Module nor a part of nnU-Net's; FileNotFoundError if one is not there."""
    find_model(folder)
    dataset_json = _read_json(Path(folder, "dataset.json"), "labels", "file_ending")
    if not {"channel_names", "modality"} & set(dataset_json):
        raise ModelRefused(f"{Path(folder, 'dataset.json')}: channel_names missing")
    file = Path(folder, "plans.json")
    plans = _read_json(file, "configurations", "plans_name")
    try:
        _refuse_strange_sizes(plans["configurations"])
        if not trusted():
            refuse_strange_callables(plans, dataset_json)
    except ModelRefused as error:
        raise ModelRefused(f"{file}: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelRefused(f"{file}: is not as nnU-Net makes it ({type(error).__name__}: {error})") from None


def _read_json(file: Path, *needed: str) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        lacking = [key for key in needed if key not in content]
    except (OSError, ValueError, TypeError) as error:
        raise ModelRefused(f"{file}: can not be read ({error})") from None
    if lacking:
        raise ModelRefused(f"{file}: is none of nnU-Net's, {' and '.join(lacking)} missing")
    return content


def _refuse_strange_sizes(configurations: dict) -> None:
    for name, configuration in configurations.items():
        for key, kinds in (("patch_size", (int,)), ("spacing", (int, float))):
            values = configuration.get(key, ())
            if not isinstance(values, (list, tuple)) or not all(type(n) in kinds and 0 < n < 1e6 for n in values):
                raise ModelRefused(f"{key} of {name} is {values!r}, not numbers above 0")


def refuse_strange_callables(plans: dict, dataset_json: dict) -> None:
    """Raises ModelRefused for the first name in them that stands for something else than it should."""
    for reader in (plans.get("image_reader_writer"), dataset_json.get("overwrite_image_reader_writer")):
        _refuse_unless(reader if reader != "None" else None, "imageio", BaseReaderWriter)
    _refuse_unless(plans.get("label_manager"), "utilities.label_handling", LabelManager)
    for configuration in plans["configurations"].values():
        _refuse_unless(configuration.get("preprocessor_name"), "preprocessing", DefaultPreprocessor)
        for scheme in configuration.get("normalization_schemes") or ():
            _refuse_unless(scheme, "preprocessing.normalization", ImageNormalization)
        for key in ("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities"):
            _refuse_unless(configuration.get(key), "preprocessing.resampling", None)
        architecture = configuration.get("architecture") or {}
        arguments = architecture.get("arch_kwargs") or {}
        for name in (architecture.get("network_class_name"),
                     *(arguments.get(key) for key in architecture.get("_kw_requires_import") or ())):
            if name is not None and not _is_module_class(name):
                raise ModelRefused(f"names {name!r}, which is no torch.nn.Module of PyTorch's or nnU-Net's and could "
                                   f"run code; {ADVICE}")


def _is_module_class(name: object) -> bool:
    # not even imported from elsewhere: that would run what is in the module
    if not isinstance(name, str) or not name.startswith(PACKAGES):
        return False
    try:
        found = pydoc.locate(name)
    except pydoc.ErrorDuringImport:
        return True  # MONAI is not there, say; whoever builds this network will hear of it
    if found is None:  # where nnU-Net looks for networks that have moved
        found = recursive_find_python_class(os.path.join(dynamic_network_architectures.__path__[0], "architectures"),
                                            name.split(".")[-1], "dynamic_network_architectures.architectures")
    # None: nnU-Net will say that there is none
    return found is None or (isinstance(found, type) and issubclass(found, nn.Module))


def _refuse_unless(name: object, package: str, base: type | None) -> None:
    """base: what the class of that name, in a package of nnU-Net's, is derived from; None: it is a function there."""
    if name is None:
        return
    folder = os.path.join(nnunetv2.__path__[0], *package.split("."))
    found = recursive_find_python_class(folder, str(name), f"nnunetv2.{package}")
    right = (isinstance(found, type) and issubclass(found, base) if base else
             callable(found) and getattr(found, "__module__", "").startswith("nnunetv2."))
    if not right:
        raise ModelRefused(f"names {name!r}, which is no {base.__name__ if base else 'resampling function'} of "
                           f"nnU-Net's; {ADVICE}")
