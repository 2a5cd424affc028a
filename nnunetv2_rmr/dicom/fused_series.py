"""A fused image as a series derived from the reference series: the same slices of the same patient, other voxels."""

import copy
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

from nnunetv2_rmr.dicom.product import FUSED_SERIES, MANUFACTURER, VERSION, dicom_text
from nnunetv2_rmr.dicom.reference_series import CLASSES, ReferenceSeries

# Of what describes voxels and their display (group 0028) this is also true of other voxels in the same place. Images
# made of lossily compressed ones have to say so, too (DICOM PS3.3 C.7.6.1.1.5).
KEPT = ("Rows", "Columns", "PixelSpacing", "RescaleType", "CorrectedImage", "BurnedInAnnotation",
        "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
NO_LONGER_TRUE = ("RealWorldValueMappingSequence", "IconImageSequence", "PresentationLUTShape",
                  "DerivationCodeSequence", "ReferencedImageSequence", "DigitalSignaturesSequence",
                  "MACParametersSequence", "OriginalAttributesSequence", "DeviceSerialNumber", "DeviceUID")


def fused_slices(file: Path, series: ReferenceSeries, modalities: Sequence[str], model: str) -> list[Dataset]:
    """One DICOM image per slice of the series, of a fused image on its grid, in the units of the image.

    modalities: names of those fused. model: name of what fused them. Raises BadCaseError.
    """
    array = series.voxels_of(file).astype(float)
    stored, slope = stored_values(array)
    centre, width = window(array)
    names, now, uid = "+".join(modalities), datetime.now(), generate_uid()
    for_all = {
        "SeriesInstanceUID": uid, "SeriesNumber": FUSED_SERIES, "SeriesDescription": dicom_text(f"RMR fused {names}"),
        "DerivationDescription": dicom_text(f"{names} fused by {model}", 1024),
        "Manufacturer": MANUFACTURER, "ManufacturerModelName": dicom_text(model), "SoftwareVersions": VERSION,
        "InstanceCreationDate": f"{now:%Y%m%d}", "InstanceCreationTime": f"{now:%H%M%S}",
        "ContentDate": f"{now:%Y%m%d}", "ContentTime": f"{now:%H%M%S}",
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
        "HighBit": 15, "PixelRepresentation": int(stored.dtype.kind == "i"), "RescaleIntercept": 0,
        "RescaleSlope": format_number_as_ds(slope), "WindowCenter": format_number_as_ds(centre),
        "WindowWidth": format_number_as_ds(width)}
    if width < 1:  # smaller than DICOM's usual function takes
        for_all["VOILUTFunction"] = "LINEAR_EXACT"
    slices = [_derived(source) for source in series.slices]
    for number, (image, plane) in enumerate(zip(slices, stored), 1):
        for name, value in for_all.items():
            setattr(image, name, value)
        image.InstanceNumber = number
        image.add_new("PixelData", "OW", plane.astype(plane.dtype.newbyteorder("<")).tobytes())
    return slices


def stored_values(array: np.ndarray) -> tuple[np.ndarray, float]:
    """16-bit integers, and the slope that gives the values of the array, to half a slope, without anything to add.

    Zero stays zero, and PET series must have no intercept. The slope is one that a DICOM decimal holds exactly.
    """
    kind = np.int16 if array.min() < 0 else np.uint16
    peak = float(np.abs(array).max())
    slope = float(format_number_as_ds(peak / np.iinfo(kind).max)) if peak else 1.0
    return np.clip(np.rint(array / slope), np.iinfo(kind).min, np.iinfo(kind).max).astype(kind), slope


def window(array: np.ndarray) -> tuple[float, float]:
    """Centre and width of what a viewer shows first: from the 1st to the 99th percentile of the voxels that are not
    0."""
    low, high = np.percentile(array[array != 0], [1, 99]) if array.any() else (0.0, 1.0)
    return float(low + high) / 2, float(high - low) or 1.0


def _derived(source: Dataset) -> Dataset:
    """A new image of the source's place, patient and study, still without voxels."""
    image = copy.deepcopy(source)
    image.remove_private_tags()  # scanners keep scalings of the voxels there
    for element in [*image]:
        overlay_or_curve = element.tag.group & 0xFF00 in (0x5000, 0x6000)
        of_voxels = element.tag.group == 0x0028 and element.keyword not in KEPT
        if overlay_or_curve or of_voxels or element.keyword in NO_LONGER_TRUE:
            del image[element.tag]
    kind = CLASSES[source.SOPClassUID]
    # PET images are PRIMARY by definition (DICOM PS3.3 C.8.9.4)
    image.ImageType = {"CT": ["DERIVED", "SECONDARY", "AXIAL"], "MR": ["DERIVED", "SECONDARY", "OTHER"],
                       "PET": ["DERIVED", "PRIMARY"]}[kind]
    image.SourceImageSequence = [_reference_to(source)]
    image.SOPInstanceUID = generate_uid()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def _reference_to(source: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [
        CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)]
    return reference
