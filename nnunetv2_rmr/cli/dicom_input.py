"""`--series` of the commands that predict: folders of DICOM files become the folder of images that nnU-Net reads."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from nnunetv2_rmr.cli.import_dataset import IntoDict, name_and_text
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.settings import channel_names, distinct_names

SERIES = "--series"


def take_series() -> dict[str, str]:
    """Patterns by modality, taken out of sys.argv; empty without the option. Exits if they can not be used."""
    parser = argparse.ArgumentParser(Path(sys.argv[0]).name, add_help=False, allow_abbrev=False,
                                     usage="%(prog)s ... --series NAME=PATTERN ...")
    parser.add_argument(SERIES, type=name_and_text, nargs="+", action=IntoDict, default={})
    given, sys.argv[1:] = parser.parse_known_args(sys.argv[1:])
    if given.series:
        from nnunetv2_rmr.dicom.convert import refuse_without_extra

        try:
            refuse_without_extra()
        except BadCaseError as error:
            sys.exit(f"{parser.prog}: error: {error}")
    return given.series


def convert_input(studies: str, folder: Path, series: Mapping[str, str], dataset_json: dict,
                  allow_missing: bool) -> tuple[str, dict[str, str]]:
    """Images CASE_0000, CASE_0001 ... of every study in `folder`, which is returned, and the reasons of those of which
    there are none. Raises BadCaseError if the series are not the model's modalities, or no study can be converted.
    """
    from nnunetv2_rmr.dicom.convert import convert_studies

    patterns = _by_channel(series, distinct_names(channel_names(dataset_json)))
    return str(folder), convert_studies(Path(studies), patterns,
                                        lambda case, i: folder / f"{case}_{i:04d}{dataset_json['file_ending']}",
                                        allow_missing)


def _by_channel(series: Mapping[str, str], names: list[str]) -> dict[str, str]:
    """The patterns in the order of the model's modalities, which are `names`."""
    folded = {name.casefold(): pattern for name, pattern in series.items()}
    wanted = [name.casefold() for name in names]
    if len(folded) < len(series) or folded.keys() != set(wanted):
        raise BadCaseError(f"{SERIES} names {', '.join(series)}, but the modalities of the model are "
                           f"{', '.join(names)}: give each of them one pattern")
    return {name: folded[key] for name, key in zip(names, wanted)}
