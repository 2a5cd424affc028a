"""Write a float image with the geometry of a case, for every reader/writer of nnU-Net whose format can hold floats."""

from os.path import basename

import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunetv2_rmr.files.atomic import replacing
from nnunetv2_rmr.files.nifti import misnamed_output
from nnunetv2_rmr.files.whole_files import refuse_half, save_json_whole


def _write_sitk(image: np.ndarray, filename: str, properties: dict) -> None:
    geometry = properties["sitk_stuff"]
    if len(geometry["spacing"]) == 2:
        image = image[0]
    itk_image = sitk.GetImageFromArray(image)
    itk_image.SetSpacing(geometry["spacing"])
    itk_image.SetOrigin(geometry["origin"])
    itk_image.SetDirection(geometry["direction"])
    if "original_orientation" in geometry:  # SimpleITKIOWithReorient
        itk_image = sitk.DICOMOrient(itk_image, geometry["original_orientation"])
    sitk.WriteImage(itk_image, filename, True)


def _write_nibabel(image: np.ndarray, filename: str, properties: dict) -> None:
    affine = properties["nibabel_stuff"]["original_affine"]
    nibabel.save(nibabel.Nifti1Image(image.transpose(2, 1, 0), affine), filename)


def _write_nibabel_reoriented(image: np.ndarray, filename: str, properties: dict) -> None:
    affines = properties["nibabel_stuff"]
    canonical = nibabel.Nifti1Image(image.transpose(2, 1, 0), affines["reoriented_affine"])
    to_original = ornt_transform(axcodes2ornt("RAS"), io_orientation(affines["original_affine"]))
    nibabel.save(canonical.as_reoriented(to_original), filename)


def _write_tiff(image: np.ndarray, filename: str, properties: dict) -> None:
    tifffile.imwrite(filename, image, compression="zlib")


def _write_tiff_2d(image: np.ndarray, filename: str, properties: dict) -> None:
    tifffile.imwrite(filename, image[0])


# first match counts: the re-orienting classes are related to the plain ones
_WRITERS = ((SimpleITKIO, _write_sitk), (NibabelIOWithReorient, _write_nibabel_reoriented), (NibabelIO, _write_nibabel),
            (Tiff3DIO, _write_tiff), (NaturalImage2DIO, _write_tiff_2d))
_INTEGER_ENDINGS = (".png", ".bmp")


def _writer(reader_writer: type[BaseReaderWriter], file_ending: str):
    if file_ending.lower() in _INTEGER_ENDINGS:
        raise NotImplementedError(f"fused images are float32, but {file_ending} files hold integers only: "
                                  "use a data set of .tif, .nii.gz, .nrrd or .mha files, or predict without fused "
                                  "images")
    for cls, write in _WRITERS:
        if issubclass(reader_writer, cls):
            return write
    raise NotImplementedError(f"fused images can not be written with the reader/writer {reader_writer.__name__}: "
                              "supported are " + ", ".join(cls.__name__ for cls, _ in _WRITERS))


def check_can_write(reader_writer: type[BaseReaderWriter], file_ending: str) -> None:
    """Raises NotImplementedError if the data set's format can not hold a float image: before hours of prediction."""
    _writer(reader_writer, file_ending)


def write_image(image: np.ndarray, filename: str, reader_writer: type[BaseReaderWriter], file_ending: str,
                properties: dict) -> None:
    """Write a float image (D, H, W), (1, H, W) for 2D files, in the axis order of the reader, as float32.

    properties: what the reader returned for the case's images; origin, spacing and direction are restored from it.
    The file appears under its name only when it is complete. Raises OSError if the disk is full, ValueError
    if the case's name ends like a NIfTI file.
    """
    write = _writer(reader_writer, file_ending)
    if problem := misnamed_output(basename(filename)[:-len(file_ending)], file_ending):
        raise ValueError(problem)
    with replacing(filename) as temporary:
        write(np.ascontiguousarray(image, dtype=np.float32), temporary, properties)
        refuse_half(temporary, filename)
    if issubclass(reader_writer, Tiff3DIO):  # nnU-Net keeps a tiff's spacing in a file beside it
        stem = basename(filename)[:-len(file_ending)]
        save_json_whole({"spacing": list(properties["spacing"])}, filename[:-len(basename(filename))] + stem + ".json")
