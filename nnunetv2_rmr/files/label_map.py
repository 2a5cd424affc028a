"""Reading segmentations that somebody else has made."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_rmr.files.input_check import BadCaseError
from nnunetv2_rmr.files.refused import ImportRefused
from nnunetv2_rmr.files.volumes import label_counts, refuse_unusable_values


def read_label_map(file: str, reader: BaseReaderWriter, declared: Collection[int] | None = None) -> np.ndarray:
    """Labels (D, H, W) as the importer takes them: whole numbers, but for rounding errors of a scaled file.

    declared: values there may be; None: any. Raises BadCaseError, and whatever the reader raises.
    """
    array = reader.read_seg(file)[0][0]
    try:
        refuse_unusable_values(Path(file), array)
        found = label_counts(array)
    except ImportRefused as error:
        raise BadCaseError(str(error) if file in str(error) else
                           f"{file}: can not be a label map: {error}") from None
    if declared is not None and (others := sorted(set(found) - set(declared))):
        raise BadCaseError(f"{file}: label values that dataset.json does not declare: "
                           + ", ".join(f"{value} ({found[value]} voxels)" for value in others[:10]))
    return np.rint(array).astype(np.int32)
