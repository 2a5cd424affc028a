"""The outputs of a case once more as DICOM, for the archive that the scans come from."""

import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom.config import disable_value_validation

from nnunetv2_rmr.dicom.fused_series import fused_slices
from nnunetv2_rmr.dicom.reference_series import read_reference_series
from nnunetv2_rmr.dicom.segmentation import segmentation_of
from nnunetv2_rmr.files.atomic import remove_leftovers, temporary_folder


def write_dicom(case: str, output: str | os.PathLike, series_files: Sequence[str | os.PathLike], dataset_json: dict,
                model: str, modalities: Sequence[str]) -> Path:
    """Writes `output`/dicom/CASE from `output`/CASE and, where there is one, `output`/fused/CASE; returns the folder.

    segmentation.dcm is a DICOM SEG, fused/0001.dcm ... a derived series. The folder appears when it is whole, in the
    place of an older one. series_files: of the series whose grid and units the outputs have. dataset_json: of the
    model. model: its name, TRAINER__PLANS__CONFIGURATION. modalities: names of those that the case has. Raises
    BadCaseError if the series is not usable or the outputs lie elsewhere.
    """
    file = Path(output, case + dataset_json["file_ending"])
    fused = file.parent / "fused" / file.name
    # The scanner's attributes are handed on as they are, also those that break a rule; libraries warn of each.
    with (disable_value_validation(), warnings.catch_warnings(),
          _replacing_folder(Path(output, "dicom", case)) as folder):
        warnings.simplefilter("ignore")
        series = read_reference_series(series_files)
        segmentation = segmentation_of(file, series, dataset_json["labels"], model)
        segmentation.save_as(folder / "segmentation.dcm")
        if fused.is_file():
            (folder / "fused").mkdir()
            for number, image in enumerate(fused_slices(fused, series, modalities, model), 1):
                image.save_as(folder / "fused" / f"{number:04d}.dcm", enforce_file_format=True)
    return Path(output, "dicom", case)


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder, which becomes `folder` when the body succeeds; else what stood there stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers([folder.parent])
    with temporary_folder(folder) as temporary:
        temporary.mkdir()
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
