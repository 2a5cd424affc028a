"""`--series` and `--dicom` of the commands that predict: folders of DICOM files become the images that nnU-Net reads,
and outputs become DICOM."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2_rmr.files.refused import BadCaseError, in_words
from nnunetv2_rmr.settings import channel_names, distinct_names


def model_folder(given: argparse.Namespace) -> Path:
    """Of the model that nnU-Net's entry point is going to load. Raises its RuntimeError for a wrong -d."""
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    return Path(given.m if "m" in given else get_output_folder(given.d, given.tr, given.p, given.c))


@dataclass(frozen=True)
class Studies:
    """The cases in a folder of studies, and which series are their modalities."""

    folder: Path
    dataset_json: dict  # the model's
    names: list[str]  # of its modalities
    series: Mapping[str, Mapping[str, Any]]  # by case, by modality
    refused: Mapping[str, str]  # by case, why it has none

    @classmethod
    def find(cls, folder: Path, model: Path, patterns: Mapping[str, str], allow_missing: bool) -> "Studies":
        """Reads the headers. Raises BadCaseError if the patterns are not of the model's modalities, or no study has
        series that match them; FileNotFoundError if there is no model."""
        from nnunetv2_rmr.dicom.convert import match_studies
        from nnunetv2_rmr.inference.model_folder import find_model

        find_model(model)
        file = model / "dataset.json"
        try:
            dataset_json = json.loads(file.read_text(encoding="utf-8"))
            names = distinct_names(channel_names(dataset_json))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadCaseError(f"{file}: is none of nnU-Net's ({type(error).__name__}: {error})") from error
        return cls(folder, dataset_json, names, *match_studies(folder, _by_channel(patterns, names), allow_missing))

    def part(self, part_id: int = 0, num_parts: int = 1) -> "Studies":
        """Every num_parts-th case, as nnU-Net shares them out."""
        cases = sorted([*self.series, *self.refused])[part_id::num_parts]
        return replace(self, series={case: self.series[case] for case in cases if case in self.series},
                       refused={case: self.refused[case] for case in cases if case in self.refused})

    def convert(self, folder: Path, done: Callable[[str], bool]) -> tuple[list[list[str]], dict[str, str]]:
        """Images CASE_0000, CASE_0001 ... of every case in `folder`, as nnU-Net lists them, and the reasons of those of
        which there are none. Images of cases that are `done` are listed only."""
        from nnunetv2_rmr.dicom.convert import convert_studies

        file = self._files_in(folder)
        failures = convert_studies({case: of_case for case, of_case in self.series.items() if not done(case)}, file)
        return [[str(file(case, name)) for name in of_case] for case, of_case in self.series.items()
                if case not in failures], {**self.refused, **failures}

    def _files_in(self, folder: Path) -> Callable[[str, str], Path]:
        """Of a case and a modality."""
        ending = self.dataset_json["file_ending"]
        return lambda case, name: folder / f"{case}_{self.names.index(name):04d}{ending}"

    @contextmanager
    def in_messages(self, *folders: Path) -> Iterator[None]:
        """What is printed and raised meanwhile names study, modality and series in the place of files in `folders`."""
        from nnunetv2_rmr.dicom.convert import words_for_files

        words = {file: said for folder in folders for file, said in
                 words_for_files(self.folder, self.series, self._files_in(folder)).items()}
        try:
            with redirect_stdout(_Worded(words)):
                yield
        except (RuntimeError, ValueError) as error:
            error.args = (in_words(str(error), words),)
            raise

    def write_dicom(self, output: Path, model: str, reference: int, fuses: bool) -> dict[str, str]:
        """For every case whose outputs are whole and newer than those it has as DICOM; returns, and prints, why some
        could not be written."""
        from nnunetv2_rmr.files.whole_files import is_whole
        from nnunetv2_rmr.files.workers import over_cases

        ending, jobs = self.dataset_json["file_ending"], {}
        for case, series in self.series.items():
            files = [output / f"{case}{ending}"] + [output / "fused" / f"{case}{ending}"] * fuses
            made = output / "dicom" / case
            if all(map(is_whole, files)) and not (
                    made.is_dir() and made.stat().st_mtime > max(file.stat().st_mtime for file in files)):
                jobs[case] = (case, output, series, self.dataset_json, model, self.names[reference])
        _, failures = over_cases(_write_one, jobs, 1, "writing DICOM")
        print(f"DICOM: {output / 'dicom'}",
              *(f"ERROR: case {case}: no DICOM ({why})" for case, why in failures.items()), sep="\n")
        return failures


class _Worded:
    """sys.stdout, in which words take the place of files."""

    def __init__(self, words: Mapping[str, str]):
        self.words, self.stdout = words, sys.stdout

    def write(self, text: str) -> int:
        return self.stdout.write(in_words(text, self.words))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stdout, name)


def _by_channel(series: Mapping[str, str], names: list[str]) -> dict[str, str]:
    """The patterns in the order of the model's modalities, which are `names`."""
    folded = {name.casefold(): pattern for name, pattern in series.items()}
    wanted = [name.casefold() for name in names]
    if len(folded) < len(series) or folded.keys() != set(wanted):
        raise BadCaseError(f"--series names {', '.join(series)}, but the modalities of the model are "
                           f"{', '.join(names)}: give each of them one pattern")
    return {name: folded[key] for name, key in zip(names, wanted)}


def check_grid(name: str | None, dataset_json: dict, reference: int) -> None:
    """Raises BadCaseError if outputs on the grid of modality `name` can not be series of the reference modality."""
    wanted = distinct_names(channel_names(dataset_json))[reference]
    if name not in (None, wanted):
        raise BadCaseError(f"--dicom: outputs are made a series of {wanted}, whose units the fused image has, so they "
                           f"have to lie on its grid, not on that of {name}")


def _write_one(case: str, output: Path, series: Mapping[str, Any], dataset_json: dict, model: str,
               reference: str) -> None:
    from nnunetv2_rmr.dicom.write import write_dicom

    if reference not in series:
        raise BadCaseError(f"without {reference} there is no series that the outputs could belong to")
    write_dicom(case, output, series[reference].files, dataset_json, model, list(series))
