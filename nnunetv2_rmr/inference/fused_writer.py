"""Write a float image with the geometry of a case, for every reader/writer of nnU-Net whose format can hold floats."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunetv2_rmr.files.atomic import temporary_folder
from nnunetv2_rmr.files.nifti import misnamed_output
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.whole_files import refuse_half

# of which the tests show that they write floats as they are; others may round
_READER_WRITERS = (SimpleITKIO, NibabelIOWithReorient, NibabelIO, Tiff3DIO, NaturalImage2DIO)
_INTEGER_ENDINGS = (".png", ".bmp")


class _StaysFloat(np.ndarray):
    """nnU-Net writes segmentations only, which it casts to integers on the way."""

    def astype(self, *args, **kwargs) -> np.ndarray:
        return self


def check_can_write(reader_writer: type[BaseReaderWriter], file_ending: str) -> None:
    """Raises NotImplementedError if the data set's format can not hold a float image: before hours of prediction."""
    if file_ending.lower() in _INTEGER_ENDINGS:
        raise NotImplementedError(f"fused images are float32, but {file_ending} files hold integers only: use a data "
                                  "set of .tif, .nii.gz, .nrrd or .mha files, or predict without fused images")
    if not issubclass(reader_writer, _READER_WRITERS):
        raise NotImplementedError(f"fused images can not be written with the reader/writer {reader_writer.__name__}: "
                                  "supported are " + ", ".join(cls.__name__ for cls in _READER_WRITERS))


def write_image(image: np.ndarray, filename: str, reader_writer: type[BaseReaderWriter], file_ending: str,
                properties: dict) -> None:
    """Write a float image (D, H, W), (1, H, W) for 2D files, in the axis order of the reader, as float32.

    properties: what the reader returned for the case's images; origin, spacing and direction are restored from it.
    The file appears under its name only when it is complete. Raises OSError if the disk is full,
    BadCaseError if the case's name ends like a NIfTI file.
    """
    check_can_write(reader_writer, file_ending)
    if problem := misnamed_output(os.path.basename(filename)[:-len(file_ending)], file_ending):
        raise BadCaseError(problem)
    with appearing_whole(filename) as temporary:
        array = np.ascontiguousarray(image, dtype=np.float32).view(_StaysFloat)
        reader_writer().write_seg(array, temporary, properties)


@contextmanager
def appearing_whole(filename: str) -> Iterator[str]:
    """Name of this file in a temporary folder. What the body writes there is moved beside `filename`, this file last,
    when all of it is complete. Raises OSError if it is not: the disk is full, say."""
    path = Path(filename)
    with temporary_folder(path) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        yield str(folder / path.name)
        for file in folder.iterdir():
            refuse_half(file, filename)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
            os.replace(file, path.with_name(file.name))
