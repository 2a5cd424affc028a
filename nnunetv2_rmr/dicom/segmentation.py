"""A segmentation as DICOM SEG: one binary segment for every label, or region, of dataset.json."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from nnunetv2_rmr.dicom.product import MANUFACTURER, SEGMENTATION_SERIES, VERSION, dicom_text
from nnunetv2_rmr.dicom.reference_series import ReferenceSeries
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import label_counts, refuse_undeclared

# Colours that colour-blind people can tell apart, too (M. Okabe, K. Ito, Color Universal Design, 2002), RGB.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def segments_of(labels: Mapping[str, int | list[int]]) -> dict[str, list[int]]:
    """Of every label or region of dataset.json the values that its voxels have in a segmentation of nnU-Net."""
    values = {name: [v] if isinstance(v, int) else list(v) for name, v in labels.items() if name != "ignore"}
    return {name: v for name, v in values.items() if v != [0]}


def segmentation_of(file: Path, series: ReferenceSeries, labels: Mapping[str, int | list[int]],
                    model: str) -> Segmentation:
    """DICOM SEG of a segmentation on the grid of the series; of one without any label voxel all frames, empty.

    labels: the entry of dataset.json. model: name of what made it. Raises BadCaseError.
    """
    array, segments = series.voxels_of(file), segments_of(labels)
    refuse_undeclared(file, label_counts(file, array), {0, *(v for values in segments.values() for v in values)})
    if not array.any():
        print(f"{file}: nothing was segmented; the frames of its DICOM SEG are empty")
    try:
        made = Segmentation(
            series.slices, _numbered(np.rint(array).astype(np.uint16), segments), "BINARY",
            [_describe(number, name, model) for number, name in enumerate(segments, 1)],
            series_instance_uid=generate_uid(), series_number=SEGMENTATION_SERIES, sop_instance_uid=generate_uid(),
            instance_number=1, manufacturer=MANUFACTURER, manufacturer_model_name=dicom_text(model),
            software_versions=VERSION, device_serial_number="none", series_description="RMR segmentation",
            content_label="SEGMENTATION", omit_empty_frames=bool(array.any()), specific_character_set=None)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # highdicom's, of the series' other attributes
        raise BadCaseError(f"series {series.name}: no DICOM SEG can refer to it ({error})") from error
    if "SpecificCharacterSet" in series.slices[0]:  # highdicom knows fewer than there are
        made.SpecificCharacterSet = series.slices[0].SpecificCharacterSet
    return made


def _numbered(array: np.ndarray, segments: Mapping[str, list[int]]) -> np.ndarray:
    """uint8 masks (slices, rows, columns, segments) of regions, which overlap; of labels, of which there may be many,
    the segments' numbers (slices, rows, columns)."""
    if any(len(values) > 1 for values in segments.values()):
        return np.stack([np.isin(array, values) for values in segments.values()], -1).astype(np.uint8)
    number = np.zeros(max(value for value, in segments.values()) + 1, np.uint16)
    for i, (value,) in enumerate(segments.values(), 1):
        number[value] = i
    return number[array]


def _describe(number: int, name: str, model: str) -> SegmentDescription:
    algorithm = AlgorithmIdentificationSequence(dicom_text(model), codes.cid7162.ArtificialIntelligence, VERSION,
                                                source=MANUFACTURER)
    # What a label means nobody tells us but by its name. "Tissue" is true of organs and of lesions.
    return SegmentDescription(number, dicom_text(name), codes.SCT.Tissue, codes.SCT.Tissue, "AUTOMATIC", algorithm,
                              display_color=CIELabColor.from_rgb(*PALETTE[(number - 1) % len(PALETTE)]))
