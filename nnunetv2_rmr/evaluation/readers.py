"""Which of nnU-Net's readers a data set's images need."""

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json


def reader_writer_of(dataset_json: dict, example: str | None) -> type[BaseReaderWriter]:
    """nnU-Net's choice by its dataset.json and one of the images, which tells formats of one ending apart (2D and 3D
    .tif). Without one, or if it is the one broken file, by the ending alone. Raises RuntimeError if there is none.
    """
    try:
        return determine_reader_writer_from_dataset_json(dataset_json, example, verbose=False)
    except RuntimeError:
        return determine_reader_writer_from_dataset_json(dataset_json, None, verbose=False)
