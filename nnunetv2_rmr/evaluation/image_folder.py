"""A folder of images in nnU-Net's format, CASE_0000.nii.gz ..., with or without the dataset.json it belongs to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_rmr.files.dataset_json import find_dataset_json, read_dataset_json
from nnunetv2_rmr.files.input_check import check_array, check_files, check_numbers, images_in, reading
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.inference.fused_writer import check_can_write
from nnunetv2_rmr.settings import channel_names, distinct_names


@dataclass(frozen=True)
class ImageFolder:
    """folder: where the images are. names: of the modalities, in the order of the files' numbers, each another (see
    distinct_names); the numbers themselves without a dataset.json. cases: sorted identifiers."""

    folder: Path
    file_ending: str
    names: tuple[str, ...]
    cases: tuple[str, ...]
    reader_writer: type[BaseReaderWriter]

    @classmethod
    def open(cls, folder: Path, dataset_json: Path | None = None, only_read: bool = False) -> "ImageFolder":
        """dataset_json: None looks for it in the folder and beside it; without one, SimpleITK reads the images.

        Raises BadCaseError if there is no such folder, no image in it, or, unless they are only read, if its format can
        not hold what is made of the images.
        """
        if not folder.is_dir():
            raise BadCaseError(f"-i {folder}: there is no such folder")
        if dataset_json is None:
            dataset_json = find_dataset_json([folder, folder.absolute().parent])
        description = read_dataset_json(dataset_json)
        ending = description.get("file_ending") or _only_ending(folder)
        found = images_in(folder, ending)
        if not found:
            raise BadCaseError(f"-i {folder}: no file there is named like CASE_0000{ending}")
        if description:
            names = tuple(distinct_names(channel_names(description)))
            example = min(m[0] for m in found)
            try:
                reader_writer = reader_writer_of(description, str(folder / example))
            except RuntimeError:
                raise BadCaseError(f"-i {folder}: nnU-Net has no reader for {ending} files") from None
        else:
            names = tuple(f"{i:04d}" for i in range(1 + max(int(m[2]) for m in found)))
            reader_writer = SimpleITKIO
        if not only_read:
            try:
                check_can_write(reader_writer, ending)
            except NotImplementedError:
                raise BadCaseError(f"-i {folder}: what is made of the images is float32, and {ending} files read with "
                                   f"{reader_writer.__name__} can not be written as such: convert the images to "
                                   ".nii.gz or .tif") from None
        return cls(folder, ending, names, tuple(sorted({m[1] for m in found})), reader_writer)

    def file(self, case: str, channel: int, folder: Path | None = None) -> Path:
        """Where a modality of a case is, or would be in another folder."""
        return (folder or self.folder) / f"{case}_{channel:04d}{self.file_ending}"

    def files(self, case: str) -> list[str]:
        """One for every modality."""
        return [str(self.file(case, channel)) for channel in range(len(self.names))]

    def read(self, case: str, made_of_them: Sequence[str] = (), beside: Sequence[str] = (),
             zeros: bool = False) -> tuple[np.ndarray, dict]:
        """(C, Z, Y, X) float32 and nnU-Net's properties. made_of_them: see check_files. beside: more files that have to
        lie on the grid. zeros: whether a modality may be zero everywhere. Raises BadCaseError naming the file."""
        if case not in self.cases:
            raise BadCaseError(f"{self.file(case, 0)} does not exist")
        there = self.folder.glob(f"{escape(case)}_[0-9][0-9][0-9][0-9]{self.file_ending}")
        check_numbers(sorted(map(str, there)), self.names, self.file_ending)
        files = self.files(case)
        check_files([*files, *beside], made_of_them)
        with reading(", ".join(files)):
            images, properties = self.reader_writer().read_images(files)
        absent = [i for i, image in enumerate(images) if not image.any()] if zeros else ()
        check_array(images, self.names, files, self.file_ending, absent)
        return images.astype(np.float32, copy=False), properties


def reader_writer_of(dataset_json: dict, example: str | None) -> type[BaseReaderWriter]:
    """nnU-Net's choice by its dataset.json and one of the images, which tells formats of one ending apart (2D and 3D
    .tif). Without one, or if it is the one broken file, by the ending alone. Raises RuntimeError if there is none.
    """
    try:
        return determine_reader_writer_from_dataset_json(dataset_json, example, verbose=False)
    except RuntimeError:
        return determine_reader_writer_from_dataset_json(dataset_json, None, verbose=False)


def _only_ending(folder: Path) -> str:
    found = {m[1] for f in folder.iterdir() if (m := re.fullmatch(r"[^.].*_\d{4}(\.[A-Za-z]+(?:\.gz)?)", f.name))}
    if len(found) != 1:
        what = f"images of several formats ({', '.join(sorted(found))})" if found else "no file like CASE_0000.nii.gz"
        raise BadCaseError(f"-i {folder}: holds {what}, and there is no dataset.json that says more (-djfile)")
    return found.pop()
