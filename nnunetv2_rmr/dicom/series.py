"""The series in a folder of DICOM files, and which of them is which modality. Reads headers only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from typing import Any

from nnunetv2_rmr.dicom.geometry import STORED, Slice, in_order, slices_of, volume_grid
from nnunetv2_rmr.files.refused import BadCaseError, some_of
from nnunetv2_rmr.files.volumes import Grid

ENDINGS = (".dcm", ".ima")  # of files that have to be DICOM; others are looked into
TAGS = ["SOPClassUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Rows", "Columns", "NumberOfFrames",
        "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence", *STORED]


@dataclass(frozen=True)
class Series:
    """The images of one SeriesInstanceUID."""

    uid: str
    number: int | None  # SeriesNumber
    description: str  # SeriesDescription, "" without
    slices: Sequence[Slice]  # along their normal; as the files are sorted if they do not say where they lie

    def grid(self) -> Grid:
        """Raises BadCaseError if the slices do not make one volume."""
        try:
            return volume_grid(self.slices)
        except BadCaseError as error:
            raise BadCaseError(f"series {self}: {error}") from error

    @property
    def files(self) -> list[Path]:
        """In the order of the slices; the one file of an enhanced (multi-frame) object."""
        return list(dict.fromkeys(s.file for s in self.slices))

    def matches(self, pattern: str) -> bool:
        """A whole number is a SeriesNumber; else a shell pattern for SeriesDescription, in small or capital letters."""
        if pattern.isdecimal():
            return self.number == int(pattern)
        return fnmatchcase(self.description.casefold(), pattern.casefold())

    def __str__(self) -> str:
        return f'{self.number} "{self.description}" ({len(self.slices)} images)'


def find_series(folder: Path) -> list[Series]:
    """Every series of images in `folder` and the folders in it, by number; hidden files, and what is no DICOM image
    (reports, contours, segmentations), are passed over. Raises BadCaseError for a damaged file."""
    images: dict[str, dict] = {}
    for name in sorted(glob("**/*", root_dir=folder, recursive=True)):
        if (folder / name).is_file() and (header := _image_header(folder / name)):
            images.setdefault(header.SeriesInstanceUID, {})[folder / name] = header
    return sorted(map(series_of, images.values()), key=lambda s: (s.number is None, s.number or 0, s.uid))


def matched_series(study: Path, patterns: Mapping[str, str], allow_missing: bool = False) -> dict[str, Series]:
    """The series of every modality, in the order of the patterns (see `Series.matches`).

    patterns: by modality. allow_missing: a modality may have none, as long as one has. Raises BadCaseError if one has
    several or, else, none, if two have the same, or if the slices of one do not make a volume.
    """
    found = find_series(study)
    if not found:
        raise BadCaseError(f"{study}: there is no DICOM image in it")
    matching = {name: [s for s in found if s.matches(pattern)] for name, pattern in patterns.items()}
    problems = [f"{name}={patterns[name]}: {_said(series)}" for name, series in matching.items()
                if len(series) > 1 or not (series or allow_missing)]
    chosen = {name: series[0] for name, series in matching.items() if series}
    if problems or not chosen:
        raise BadCaseError(f"{study}: {'; '.join(problems) or 'no pattern matches a series'} (there are "
                           f"{some_of([str(s) for s in found], 20)}); a pattern has to match exactly one, by "
                           "description or number")
    if len({s.uid for s in chosen.values()}) < len(chosen):
        raise BadCaseError(f"{study}: one series is two modalities: "
                           + ", ".join(f"{name}={patterns[name]}: {s}" for name, s in chosen.items()))
    for series in chosen.values():
        series.grid()
    return chosen


def _said(series: Sequence[Series]) -> str:
    return f"{len(series)} series match, {', '.join(map(str, series))}" if series else "no series matches"


def _image_header(file: Path):
    """What the header says of TAGS; None if the file is no DICOM image. Raises BadCaseError if it is damaged."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import UID

    certain = file.name.lower().endswith(ENDINGS)
    try:
        header = dcmread(file, stop_before_pixels=True, force=certain, specific_tags=TAGS)
        list(header)  # pydicom reads a value when it is asked for it
        of_file = header.file_meta.get("MediaStorageSOPClassUID", "")
        kind = UID(header.get("SOPClassUID") or of_file)
    except InvalidDicomError:
        return None
    except OSError:
        raise
    except Exception as error:  # whatever pydicom meets in a damaged header
        raise _damaged(file, error) from error
    # the maker's own class, as Siemens' CSA; not what is left of a longer one
    of_scanner = kind.is_valid and kind.is_private and kind == (of_file or kind) and "Rows" not in header
    if certain and not kind.keyword and not of_scanner:
        raise _damaged(file, "it does not say what it is")
    if not kind.keyword.endswith("ImageStorage"):
        return None
    if missing := [name for name in ("SeriesInstanceUID", "Rows", "Columns") if name not in header]:
        raise _damaged(file, f"without {', '.join(missing)}")
    return header


def series_of(headers: Mapping[Path, Any]) -> Series:
    """headers: as pydicom reads them, of its images, by file. Raises BadCaseError for a damaged one."""
    slices: list[Slice] = []
    for file, header in headers.items():
        try:
            slices += slices_of(header, file)
            number = None if header.get("SeriesNumber") is None else int(header.SeriesNumber)
        except Exception as error:  # text in the place of numbers, and what else pydicom meets
            raise _damaged(file, error) from error
    return Series(str(header.SeriesInstanceUID), number, header.get("SeriesDescription") or "", in_order(slices))


def refuse_unreadable_voxels(file: Path) -> None:
    """Raises BadCaseError if they are said to be of a kind that voxels can not be: dcm2niix reads them all the same."""
    from pydicom import dcmread

    element = dcmread(file, force=True, specific_tags=["PixelData"], defer_size=64).get_item("PixelData",
                                                                                              keep_deferred=True)
    if element is not None and not element.is_implicit_VR and element.VR not in ("OB", "OW"):
        raise _damaged(file, f"its voxels are of the kind {element.VR}")


def _damaged(file: Path, why: object) -> BadCaseError:
    return BadCaseError(f"{file}: damaged, can not be read ({why}); copy or export it again")
