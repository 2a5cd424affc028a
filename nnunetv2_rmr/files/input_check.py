"""What has to be true of a case's images and labels before they are worth a prediction; messages name the file."""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_rmr.files import volumes
from nnunetv2_rmr.files.endings import case_name
from nnunetv2_rmr.files.nifti import check_forms, check_nifti, is_nifti
from nnunetv2_rmr.files.refused import BadCaseError, some_of


def images_in(folder: str | Path, file_ending: str) -> list[re.Match]:
    """Of every file named like CASE_0000.nii.gz the name (group 0), the case (1) and the modality's number (2).

    Only of what can be read like a file: reading a pipe would wait for ever.
    """
    pattern = re.compile(rf"([^.].*)_(\d{{4}}){re.escape(file_ending)}")
    return [match for file in os.listdir(folder)
            if (match := pattern.fullmatch(file)) and os.path.isfile(os.path.join(folder, file))]


def surplus_images(images: Sequence[re.Match], number: int) -> str:
    """Names of those of `images_in` whose numbers are not 0000 to number - 1, the first five; "" if there are none."""
    return some_of(sorted(image[0] for image in images if int(image[2]) >= number))


def files_of_cases(folder: str, names: Sequence[str], file_ending: str) -> list[list[str]]:
    """Of every case of a folder its files; both sorted, as nnU-Net has them, which takes any file for a case's.

    Other files of this ending are named and passed over. names: the model's modalities. Raises ValueError if no file
    has a case's name.
    """
    images = sorted(images_in(folder, file_ending), key=lambda image: image.group(1, 2))
    if not images:
        wanted = ", ".join(f"CASE_{i:04d}{file_ending} ({name})" for i, name in enumerate(names))
        raise ValueError(f"no case in {folder}: the files of one have to be named {wanted}; or, of DICOM "
                         "files, give --series")
    others = {file for file in os.listdir(folder) if file.endswith(file_ending) and not file.startswith(".")}
    if others := others.difference(image[0] for image in images):
        print(f"passed over, since not named like CASE_0000{file_ending}: {', '.join(sorted(others))}")
    cases: dict[str, list[str]] = {}
    for image in images:
        cases.setdefault(image[1], []).append(os.path.join(folder, image[0]))
    return list(cases.values())


def check_files(files: Sequence[str], made_of_them: Sequence[str] = ()) -> None:
    """All files are there, complete, and on one grid, whoever reads them. Raises BadCaseError.

    Readers do not tell: SimpleITK fills a truncated NIfTI file with zeros, and nnU-Net only warns of other origins.
    made_of_them: more files, written by a program that has read the others; they lie where it took these to lie.
    """
    originals, files = files, [*files, *made_of_them]
    for file in files:
        if not os.path.isfile(file):
            raise BadCaseError(f"{file} does not exist")
        check_nifti(Path(file))
    first = _grid(files[0])
    for file in files[1:]:
        grid = _grid(file)
        if grid is None or first is None:
            continue
        # nnU-Net's reader refuses other spacings, however close, without a word
        if not grid.is_close(first) or not np.allclose(grid.spacing, first.spacing):
            raise BadCaseError(f"{file} does not lie on the grid of {files[0]} ({grid.difference(first)}): resample "
                               "the modalities to one grid first, as --resample_to NAME does in prediction")
    if warning := check_forms(originals, volumes.GRID_TOLERANCE):
        print(f"WARNING: {warning}")


def _grid(file: str) -> volumes.Grid | None:
    """The grid by the file's header; None for formats that have none. Raises BadCaseError."""
    if not file.lower().endswith((*SimpleITKIO.supported_file_endings, *NibabelIO.supported_file_endings)):
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        if is_nifti(file):  # sheared axes, which nnU-Net reads with nibabel then
            image = nibabel.load(file)
            return volumes.Grid.of_affine(image.shape[:3], volumes.RAS @ image.affine)
        raise BadCaseError(f"{file}: can not be read; copy or export it again") from None
    # complex numbers have two components, or are a type of their own
    if reader.GetNumberOfComponents() > 1 or reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise BadCaseError(f"{file}: holds several values per voxel (colour, a vector, complex numbers), one real "
                           "value is needed (of complex numbers the magnitude, say)")
    return volumes.Grid.of(reader)


def absent_channels(files: Sequence[str], names: Sequence[str], file_ending: str) -> list[int]:
    """Indices of the modalities of which a case has no file; by the files' names, CASE_0000, CASE_0001 ...

    A list of as many files as modalities may have other names (from Python). Raises BadCaseError if a file belongs to
    none of the modalities.
    """
    case, given = case_name(files[0], file_ending), {*map(os.path.basename, files)}
    numbered = re.compile(rf"{re.escape(case)}_\d{{4}}{re.escape(file_ending)}")
    if len(files) == len(names) and not all(map(numbered.fullmatch, given)):
        return []
    expected = [f"{case}_{i:04d}{file_ending}" for i in range(len(names))]
    absent = [i for i, file in enumerate(expected) if file not in given]
    if surplus := given.difference(expected):
        missing = "".join(f"{expected[i]} ({names[i]}) missing; " for i in absent)
        raise BadCaseError(f"case {case}: {missing}remove {', '.join(sorted(surplus))} (the modalities are "
                           + ", ".join(f"{i:04d}={name}" for i, name in enumerate(names)) + ")")
    return absent


def check_numbers(files: Sequence[str], names: Sequence[str], file_ending: str, advice: str = "") -> None:
    """A case has a file of every modality and no other. files: those that are there. Raises BadCaseError, with advice
    if one is missing."""
    stem = files[0][:-(len(file_ending) + 5)]
    if missing := [f"{os.path.basename(stem)}_{i:04d}{file_ending} ({names[i]})"
                   for i in absent_channels(files, names, file_ending)]:
        raise BadCaseError(f"case {os.path.basename(stem)}: {', '.join(missing)} missing in "
                           f"{os.path.dirname(stem) or '.'}{advice}")


def check_array(data: np.ndarray, names: Sequence[str], files: Sequence[str] = (), file_ending: str = "",
                absent: Sequence[int] = ()) -> None:
    """All modalities there, finite, and with more than one value each.

    data: (C, D, H, W). names: the model's modalities. files, file_ending: where data came from, for the messages.
    absent: indices of modalities that are allowed to be missing and not looked at. Raises BadCaseError.
    """
    number = len(names)
    # as many files as modalities may still be other ones: CASE_0000, CASE_0002, CASE_0003
    if files and (len(data) != number or (len(files) == number and not absent)):
        check_numbers(files, names, file_ending, "; add it, or give --missing to predict without it")
    if len(data) != number:
        raise BadCaseError(f"{len(data)} modalities given, the model needs {number} ({', '.join(names)})")
    given = [i for i in range(number) if i not in absent]
    if not given:
        raise BadCaseError(f"{', '.join(files) or 'the image'}: zero in every voxel of every modality")
    with_file = range(number) if len(files) == number else given
    sources = dict(zip(with_file, files)) if len(files) == len(with_file) else {}
    for i in given:
        channel, source = data[i], sources.get(i, f"channel {i} ({names[i]})")
        volumes.refuse_unusable_values(Path(source), channel)
        if channel.min() == channel.max():
            raise BadCaseError(f"{source} is constant (every voxel is {channel.min():g}): an empty image can not be "
                               "normalised; export it again"
                               + (", or give --missing to predict without it" if channel.min() == 0 else ""))


def read_label_map(file: str, reader: BaseReaderWriter, declared: Collection[int] | None = None) -> np.ndarray:
    """Labels (D, H, W) as the importer takes them: whole numbers, but for rounding errors of a scaled file.

    declared: values there may be; None: any. Raises BadCaseError.
    """
    with reading(file):
        array = reader.read_seg(file)[0][0]
    return label_map(array, Path(file), declared)


def label_map(array: np.ndarray, source: Path, declared: Collection[int] | None) -> np.ndarray:
    """Of what was read from `source`: see `read_label_map`."""
    volumes.refuse_undeclared(source, volumes.label_counts(source, array), declared)
    return np.rint(array).astype(np.int32)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Whatever a reader raises within it becomes a BadCaseError; but memory that does not suffice is no fault of files.
    """
    try:
        yield
    except (BadCaseError, MemoryError):
        raise
    except Exception as error:
        raise BadCaseError(f"can not read {what}: {str(error).strip() or type(error).__name__}") from error
