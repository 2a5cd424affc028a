"""nnU-Net's description of a data set, dataset.json: where it is, and whether it is one."""

import json
from collections.abc import Iterable
from pathlib import Path

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.settings import channel_names


def find_dataset_json(folders: Iterable[Path]) -> Path | None:
    """The first that there is in the folders."""
    return next((file for folder in folders if (file := folder / "dataset.json").is_file()), None)


def read_dataset_json(dataset_json: Path | None) -> dict:
    """Its content; {} for None. Raises BadCaseError if nnU-Net would not know channels and file ending by it."""
    if dataset_json is None:
        return {}
    try:
        description = json.loads(dataset_json.read_text(encoding="utf-8"))
        channel_names(description), description["file_ending"]
    except OSError as error:
        raise BadCaseError(f"{dataset_json}: can not be read ({error.strerror})") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise BadCaseError(f"{dataset_json}: is no dataset.json of nnU-Net (channel_names and file_ending are needed)"
                            ) from None
    return description
