"""Outputs that are complete: what every writer of ours asks before a file gets its name."""

from pathlib import Path
from zipfile import BadZipFile, ZipFile

import SimpleITK as sitk
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_rmr.files.atomic import replacing
from nnunetv2_rmr.files.nifti import check_nifti, is_nifti
from nnunetv2_rmr.files.refused import BadCaseError


def is_whole(file: Path) -> bool:
    """Whether an image, or nnU-Net's file of probabilities, is there from its first to its last byte."""
    if not file.is_file() or file.stat().st_size == 0:
        return False
    try:
        if file.suffix == ".npz":
            with ZipFile(file) as archive:
                return archive.testzip() is None
        if is_nifti(file):
            check_nifti(file)
        elif file.name.lower().endswith(tuple(SimpleITKIO.supported_file_endings)):
            sitk.ReadImage(str(file))
    except (BadCaseError, BadZipFile, OSError, RuntimeError):
        return False
    return True  # other formats' writers say if they can not write


def refuse_half(file: str | Path, name: str) -> None:
    """Raises OSError if `file`, which is going to be `name`, is not complete: SimpleITK says nothing of a full disk."""
    if not is_whole(Path(file)):
        raise OSError(f"{name} could not be written completely: is the disk full?")


def save_json_whole(content, file: str, **options) -> None:
    """nnU-Net's save_json; the file is there as a whole or not at all."""
    with replacing(file) as temporary:
        save_json(content, temporary, **options)
