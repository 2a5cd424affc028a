"""Which files belong to which case: patterns, the two folder layouts, case ids."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from nnunetv2_rmr.files.endings import ENDS_LIKE_NIFTI, file_ending
from nnunetv2_rmr.files.refused import BadCaseError, some_of

LAYOUTS = ("auto", "folders", "flat")
LABEL = ""  # takes the place of a modality's name
# Room for "_0000.nii.gz" within the 255 bytes file systems allow.
LONGEST_CASE_ID = 200


@dataclass
class Case:
    """One patient or visit, and the files that were found for it."""

    id: str  # safe for nnU-Net's file names
    source: str  # as found: the folder's name, or what the * matched
    files: dict[str, list[Path]]  # by modality, and LABEL; one file each if all is well
    kind: str = "Tr"  # Tr: training, Ts: test, Un: unlabelled


def safe_case_id(source: str) -> str:
    """`source` with everything replaced that nnU-Net or a file system can not handle; may be empty.

    Letters, digits, '.', '_' and '-' stay. A trailing '_seg' becomes '-seg': nnU-Net stores the preprocessed
    segmentation of case X as X_seg and would overlook a case of that name. A trailing '.nii' becomes '-nii', and so on:
    of c.nii.nii.gz SimpleITK would make c.nii.gz, another case's file.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", source).lstrip(".")
    safe = ENDS_LIKE_NIFTI.sub(lambda ending: ending[0].replace(".", "-"), safe)
    return safe[:-4] + "-seg" if safe.endswith("_seg") else safe


def find_cases(folder: Path, patterns: Mapping[str, str], layout: str = "auto",
               option: str = "-i") -> tuple[list[Case], list[str]]:
    """Sort the files of `folder` into cases, ordered by id; and its folders without any matching file.

    folders: every subfolder with a matching file is a case of that name; patterns apply inside it.
    flat: patterns apply to `folder` itself, and the case id is what their one `*` matched. If one of them has several,
    it is what stands in the place of the folders with a `*`, joined by `_` (sub-01_ses-02 for sub-*/ses-*/anat/*.nii).
    auto: whichever of the two finds files.
    A `*` stands for any characters but '/', a '?' for one; patterns may contain '/'. Hidden files are skipped. A file
    that several patterns match belongs to the one with the most literal characters (*_t1ce* rather than *_t1*).

    patterns: by modality, and LABEL if there are labels. option: of the command, that named the folder.
    Raises BadCaseError if the folder is missing, nothing matches, a pattern matches nothing at all, the layout is
    ambiguous, two equally specific patterns match one file, or flat patterns do not say where the case id is.
    """
    if not folder.is_dir():
        raise BadCaseError(f"{option} {folder}: there is no such folder")
    flat = _match(folder, "", patterns) if layout != "folders" else {}
    in_folders = _match(folder, "*/", patterns) if layout != "flat" else {}
    if flat and in_folders:
        raise BadCaseError(f"{option} {folder}: the patterns match files directly there ({min(flat)}) and in its "
                            f"folders ({min(in_folders)}): choose with --layout flat or --layout folders")
    found = flat or in_folders
    if silent := [_option(name, patterns) for name in patterns if name not in found.values()]:
        some = some_of([file for depth in ("*", "*/*", "*/*/*") for file in _files(folder, depth)])
        raise BadCaseError(f"no file under {folder} is matched by {' or '.join(silent)}. Files there: "
                            f"{some or 'none'}. The folder has to be the one that holds the cases; put "
                            "patterns in quotes, so that the shell leaves them alone")
    nested = any(pattern.count("*") > 1 for pattern in patterns.values())
    if flat:
        _refuse_patterns_without_case_id(patterns, nested)

    cases: dict[str, Case] = {}
    for file, name in sorted(found.items()):
        source = _flat_source(patterns[name], file, nested) if flat else file.split("/")[0]
        case = cases.setdefault(source, Case(safe_case_id(source), source, {name: [] for name in [*patterns, LABEL]}))
        case.files[name].append(folder / file)
    ignored = [] if flat else [f.name for f in sorted(folder.iterdir())
                               if f.is_dir() and not f.name.startswith(".") and f.name not in cases]
    return sorted(cases.values(), key=lambda c: (c.id, c.source)), ignored


def id_problems(cases: list[Case]) -> dict[str, list[str]]:
    """Problems with the ids themselves, by `Case.source`: empty, too long, or shared by several cases."""
    by_id: dict[str, list[str]] = {}
    for case in cases:
        # Compared without case, since file systems of macOS and Windows do not tell A from a.
        by_id.setdefault(case.id.casefold(), []).append(case.source)
    problems: dict[str, list[str]] = {case.source: [] for case in cases}
    for case in cases:
        if others := [source for source in by_id[case.id.casefold()] if source != case.source]:
            problems[case.source].append(f"duplicate case: {', '.join(others)} would get the same id '{case.id}'; "
                                         "rename one of them")
        if not case.id:
            problems[case.source].append(f"no case id can be made of '{case.source}': use letters, digits, '.', '_' "
                                         "and '-'")
        if len(case.id) > LONGEST_CASE_ID:
            problems[case.source].append(f"the case id has {len(case.id)} characters, at most {LONGEST_CASE_ID} are "
                                         "possible")
    return problems


def _files(folder: Path, pattern: str) -> list[str]:
    """Files that glob's pattern matches; links that lead nowhere, too, so that they are named and not passed over.

    Raises OSError for a folder on the way that can not be read, which glob passes over.
    """
    pattern = pattern.replace("[", "[[]")
    parents = pattern.split("/")[:-1]
    for depth in range(1, len(parents) + 1):
        for parent in glob("/".join(parents[:depth]), root_dir=folder):
            if os.path.isdir(folder / parent):
                os.scandir(folder / parent).close()
    found = glob(pattern, root_dir=folder)
    return sorted(f for f in found if os.path.isfile(folder / f) or not os.path.exists(folder / f))


def _match(folder: Path, prefix: str, patterns: Mapping[str, str]) -> dict[str, str]:
    """Of every file, relative to `folder`, the name of its pattern."""
    names: dict[str, list[str]] = {}
    for name, pattern in patterns.items():
        for file in _files(folder, prefix + pattern):
            names.setdefault(file, []).append(name)

    def literal_characters(name: str) -> int:
        return len(re.sub(r"[*?]", "", patterns[name]))

    for file, candidates in names.items():
        candidates.sort(key=literal_characters, reverse=True)
        best, *others = (_option(name, patterns) for name in candidates)
        if others and literal_characters(candidates[0]) == literal_characters(candidates[1]):
            raise BadCaseError(f"{folder / file} matches two patterns equally well: {best} and {others[0]}: make one "
                                "of them more specific")
    return {file: candidates[0] for file, candidates in names.items()}


def _flat_source(pattern: str, file: str, nested: bool) -> str:
    """What the star stands for; nested: those of the file's folders that the pattern does not know by name."""
    if nested:
        *folders, (_, star) = zip(pattern.split("/"), file.split("/"))
        if places := [found for wanted, found in folders if "*" in wanted]:
            return "_".join(places)
    else:
        star = re.fullmatch(re.escape(pattern).replace(r"\*", "([^/]*)").replace(r"\?", "[^/]"), file)[1]
    return star[:-len(ending)] if (ending := file_ending(star)) else star


def _option(name: str, patterns: Mapping[str, str]) -> str:
    return f"--label {patterns[name]}" if name == LABEL else f"--modality {name}={patterns[name]}"


def _refuse_patterns_without_case_id(patterns: Mapping[str, str], nested: bool) -> None:
    """nested: some pattern has several stars, so folders name the case, not what a single star matches."""
    if nested:
        bad = [name for name, p in patterns.items() if p.count("*") != 1 and "*" not in p.rpartition("/")[0]]
        why = "a pattern has several *, so the case id is that of the folders with a *, as sub-*/anat/*_T1w.nii.gz has"
        need = "there is none"
    else:
        bad = [name for name, pattern in patterns.items() if "*" not in pattern]
        why, need = "all cases lie in one folder, so the case id is what the * of a pattern matches", "one is needed"
    if bad:
        raise BadCaseError(f"{why}; {need} in {' and '.join(_option(name, patterns) for name in bad)} (in quotes, so "
                            "that the shell leaves it alone)")
