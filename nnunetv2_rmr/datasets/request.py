"""What is to be imported, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_rmr.datasets.cases import LABEL
from nnunetv2_rmr.datasets.labels import labels_for_dataset_json, values_of


@dataclass(frozen=True)
class ImportRequest:
    """What the user asks for; names and defaults follow the options of `nnUNetv2_rmr_import`."""

    input_folder: Path
    modalities: Mapping[str, str]  # pattern by name, in channel order; of files, or of DICOM series
    label: str  # pattern
    dataset_id: int
    name: str
    output_folder: Path  # nnUNet_raw
    labels: Mapping[str, int] | None = None
    regions: Mapping[str, Sequence[int]] | None = None
    regions_class_order: Sequence[int] | None = None
    ignore_label: int | None = None
    label_map: Mapping[int, int] = field(default_factory=dict)
    layout: str = "auto"
    test_cases: Sequence[str] = ()
    unlabelled_as_test: bool = False
    unlabelled: Path | None = None  # folder
    resample_to: str | None = None
    register_to: str | None = None  # if given, the same as resample_to
    interpolation: str = "linear"
    link: str = "copy"
    skip_bad_cases: bool = False
    overwrite: bool = False
    num_processes: int = 1
    dicom: bool = False  # the modalities are DICOM series
    refused: Mapping[str, Sequence[str]] = field(default_factory=dict)  # problems of cases not even in the folder
    words: Mapping[str, str] = field(default_factory=dict)  # for files of converted DICOM, see `in_words`

    @property
    def patterns(self) -> dict[str, str]:
        """Of the modalities, in channel order, and of the label."""
        return {**self.modalities, LABEL: self.label}

    @property
    def reference(self) -> str:
        """The modality whose grid is the case's."""
        return self.resample_to or next(iter(self.modalities))

    @property
    def dataset_folder(self) -> Path:
        return self.output_folder / f"Dataset{self.dataset_id:03d}_{self.name}"

    def declared(self) -> list[int] | None:
        """Label values that there may be after the map, None: any. Raises BadCaseError if nnU-Net can not use them."""
        if not self.labels and not self.regions:
            return None
        return values_of(labels_for_dataset_json(self.labels, self.regions, self.ignore_label))
