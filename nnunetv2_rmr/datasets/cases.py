"""Which files belong to which case: patterns, the two folder layouts, case ids."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_rmr.files.endings import ENDS_LIKE_NIFTI, file_ending
from nnunetv2_rmr.files.refused import ImportRefused

LAYOUTS = ("auto", "folders", "flat")
# Room for "_0000.nii.gz" within the 255 bytes file systems allow.
LONGEST_CASE_ID = 200


@dataclass
class Case:
    """One patient or visit: the files each modality's pattern and the label's pattern found for it."""

    id: str  # safe for nnU-Net's file names
    source: str  # as found: the folder's name, or what the * matched
    images: dict[str, list[Path]] = field(default_factory=dict)  # by modality; one file each if all is well
    labels: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """Result of `find_cases`."""

    cases: list[Case]
    layout: str  # "folders" or "flat"
    ignored_folders: list[str]  # folders without any matching file


def safe_case_id(source: str) -> str:
    """`source` with everything replaced that nnU-Net or a file system can not handle; may be empty.

    Letters, digits, '.', '_' and '-' stay. A trailing '_seg' becomes '-seg': nnU-Net stores the preprocessed
    segmentation of case X as X_seg and would overlook a case of that name. A trailing '.nii' becomes '-nii', and so on:
    of c.nii.nii.gz SimpleITK would make c.nii.gz, another case's file.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", source).lstrip(".")
    safe = ENDS_LIKE_NIFTI.sub(lambda ending: ending[0].replace(".", "-"), safe)
    return safe[:-4] + "-seg" if safe.endswith("_seg") else safe


def find_cases(folder: Path, modalities: Mapping[str, str], label: str | None, layout: str = "auto",
               option: str = "-i") -> Found:
    """Sort the files of `folder` into cases, ordered by id.

    folders: every subfolder with a matching file is a case of that name; patterns apply inside it.
    flat: patterns apply to `folder` itself, and the case id is what their one `*` matched. If one of them has several,
    it is what stands in the place of the folders with a `*`, joined by `_` (sub-01_ses-02 for sub-*/ses-*/anat/*.nii).
    auto: whichever of the two finds files.
    A `*` stands for any characters but '/', a '?' for one; patterns may contain '/'. Hidden files are skipped. A file
    that several patterns match belongs to the one with the most literal characters (*_t1ce* rather than *_t1*).

    modalities: pattern by modality name. label: the segmentation's pattern; None: there are none. option: of the
    command, that named the folder.
    Raises ImportRefused if the folder is missing, nothing matches, a pattern matches nothing at all, the layout is
    ambiguous, two equally specific patterns match one file, or flat patterns do not say where the case id is.
    """
    if not folder.is_dir():
        raise ImportRefused(f"{option} {folder}: there is no such folder")
    patterns = {("modality", name): pattern for name, pattern in modalities.items()}
    if label is not None:
        patterns["label", ""] = label
    flat = _match(folder, "", patterns) if layout != "folders" else []
    subfolders = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    by_folder = {name: _match(folder / name, name, patterns) for name in subfolders} if layout != "flat" else {}
    in_folders = [hit for hits in by_folder.values() for hit in hits]

    if flat and in_folders:
        raise ImportRefused(f"{option} {folder}: the patterns match files directly there ({flat[0].relative}) and in "
                            f"its folders ({in_folders[0].case}/{in_folders[0].relative}): choose with --layout flat "
                            "or --layout folders")
    hits = flat or in_folders
    _refuse_silent_patterns(folder, patterns, hits)
    nested = any(pattern.count("*") > 1 for pattern in patterns.values())
    if flat:
        _refuse_patterns_without_case_id(patterns, nested)

    cases: dict[str, Case] = {}
    for hit in hits:
        source = (hit.place if nested else hit.matched) if flat else hit.case
        case = cases.setdefault(source, Case(safe_case_id(source), source, {name: [] for name in modalities}))
        kind, name = hit.role
        (case.labels if kind == "label" else case.images[name]).append(folder / hit.case / hit.relative)
    ignored = [] if flat else [name for name, hits in by_folder.items() if not hits]
    return Found(sorted(cases.values(), key=lambda c: (c.id, c.source)), "flat" if flat else "folders", ignored)


def id_problems(cases: list[Case]) -> dict[str, list[str]]:
    """Problems with the ids themselves, by `Case.source`: empty, too long, or shared by several cases."""
    by_id: dict[str, list[str]] = {}
    for case in cases:
        # Compared without case, since file systems of macOS and Windows do not tell A from a.
        by_id.setdefault(case.id.casefold(), []).append(case.source)
    problems: dict[str, list[str]] = {}
    for case in cases:
        others = [s for s in by_id[case.id.casefold()] if s != case.source]
        if others:
            problems.setdefault(case.source, []).append(
                f"duplicate case: {', '.join(others)} would get the same id '{case.id}'; rename one of them")
        if not case.id:
            problems.setdefault(case.source, []).append(
                f"no case id can be made of '{case.source}': use letters, digits, '.', '_' and '-'")
        if len(case.id) > LONGEST_CASE_ID:
            problems.setdefault(case.source, []).append(
                f"the case id has {len(case.id)} characters, at most {LONGEST_CASE_ID} are possible")
    return problems


Role = tuple[str, str]  # ("modality", its name) or ("label", "")


@dataclass(frozen=True)
class _Hit:
    role: Role
    case: str  # folder of the case, "" in the flat layout
    relative: str  # path the pattern was applied to
    matched: str  # what the (first) * stood for, without a file ending
    place: str  # those of its folders whose names the pattern does not know, or the file's name without ending


def _regex(pattern: str) -> re.Pattern[str]:
    parts = {"*": "([^/]*)", "?": "[^/]"}
    return re.compile("".join(parts.get(c, re.escape(c)) for c in pattern))


def _literal_characters(pattern: str) -> int:
    return len(pattern) - pattern.count("*") - pattern.count("?")


def _match(folder: Path, case: str, patterns: Mapping[Role, str]) -> list[_Hit]:
    compiled = {role: _regex(pattern) for role, pattern in patterns.items()}
    hits = []
    for depth in sorted({pattern.count("/") for pattern in patterns.values()}):
        for relative in _files_at_depth(folder, depth):
            matches = {role: m for role, regex in compiled.items() if (m := regex.fullmatch(relative))}
            if not matches:
                continue
            ranked = sorted(matches, key=lambda role: -_literal_characters(patterns[role]))
            role = ranked[0]
            if len(ranked) > 1 and _literal_characters(patterns[role]) == _literal_characters(patterns[ranked[1]]):
                raise ImportRefused(f"{folder / relative} matches two patterns equally well: {_option(role, patterns)} "
                                    f"and {_option(ranked[1], patterns)}: make one of them more specific")
            matched = matches[role].group(1) if matches[role].groups() else ""
            hits.append(_Hit(role, case, relative, _without_ending(matched), _place(patterns[role], relative)))
    return hits


def _without_ending(name: str) -> str:
    ending = file_ending(name)
    return name[:-len(ending)] if ending else name


def _place(pattern: str, relative: str) -> str:
    *folders, name = zip(pattern.split("/"), relative.split("/"))
    return "_".join(found for wanted, found in folders if "*" in wanted) or _without_ending(name[1])


def _files_at_depth(folder: Path, depth: int, prefix: str = "") -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.startswith("."):  # .DS_Store, and the ._x.nii.gz that macOS leaves on foreign disks
                continue
            try:
                is_file, is_folder = entry.is_file(), entry.is_dir()
            except OSError as error:  # a link to itself
                raise ImportRefused(f"{entry.path}: can not be followed ({error.strerror})") from None
            if depth == 0 and is_file:
                yield prefix + entry.name
            elif depth > 0 and is_folder:
                yield from _files_at_depth(Path(entry.path), depth - 1, f"{prefix}{entry.name}/")


def _option(role: Role, patterns: Mapping[Role, str]) -> str:
    kind, name = role
    return f"--label {patterns[role]}" if kind == "label" else f"--modality {name}={patterns[role]}"


def _refuse_silent_patterns(folder: Path, patterns: Mapping[Role, str], hits: list[_Hit]) -> None:
    silent = [_option(role, patterns) for role in patterns if role not in {hit.role for hit in hits}]
    if silent:
        some = [f for depth in (0, 1) for f in _files_at_depth(folder, depth)][:5]
        raise ImportRefused(f"no file under {folder} is matched by {' or '.join(silent)}. Files there: "
                            f"{', '.join(some) or 'none'}. The folder has to be the one that holds the cases; put "
                            "patterns in quotes, so that the shell leaves them alone")


def _refuse_patterns_without_case_id(patterns: Mapping[Role, str], nested: bool) -> None:
    """nested: some pattern has several stars, so folders name the case, not what a single star matches."""
    if nested:
        bad = [_option(role, patterns) for role, pattern in patterns.items()
               if pattern.count("*") != 1 and "*" not in pattern.rpartition("/")[0]]
        why = "a pattern has several *, so the case id is that of the folders with a *, as sub-*/anat/*_T1w.nii.gz has"
        need = "there is none"
    else:
        bad = [_option(role, patterns) for role, pattern in patterns.items() if "*" not in pattern]
        why, need = "all cases lie in one folder, so the case id is what the * of a pattern matches", "one is needed"
    if bad:
        raise ImportRefused(f"{why}; {need} in {' and '.join(bad)} (in quotes, so that the shell leaves it alone)")
