"""`nnUNetv2_rmr_import`: turn a folder of multi-modal cases into an nnU-Net data set, after checking every file."""

import argparse
import os
import re
import sys
from pathlib import Path

from nnunetv2_rmr.cli.argument_types import add_num_processes, output_folder, whole_number
from nnunetv2_rmr.datasets.cases import LAYOUTS
from nnunetv2_rmr.files.refused import BadCaseError

RAW = "nnUNet_raw"
EXAMPLE = """\
example (BraTS 2021, a folder CASE with CASE_t1.nii.gz, ... or t1.nii.gz, ... for each case):

  nnUNetv2_rmr_import -i BraTS2021 -d 101 -n BraTS \\
      --modality "T1=*t1.nii.gz" "T1ce=*t1ce.nii.gz" "T2=*t2.nii.gz" "FLAIR=*flair.nii.gz" \\
      --label "*seg.nii.gz" --map 1=2 2=1 4=3 \\
      --regions whole_tumor=1,2,3 tumor_core=2,3 enhancing_tumor=3
"""


def name_and_text(text: str) -> tuple[str, str]:
    """'T1=*_t1.nii.gz' -> ('T1', '*_t1.nii.gz'). Raises ArgumentTypeError."""
    name, _, value = text.partition("=")
    if not name.strip() or not value.strip():
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form NAME=VALUE")
    return name.strip(), value.strip()


def label_name(text: str) -> tuple[str, int]:
    """'tumour=1' -> ('tumour', 1). Raises ArgumentTypeError."""
    name, value = name_and_text(text)
    return name, whole_number(0)(value)


def replacement(text: str) -> tuple[int, int]:
    """'4=3' -> (4, 3). Raises ArgumentTypeError."""
    if not re.fullmatch(r"\s*-?\d+\s*=\s*\d+\s*", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form OLD=NEW with whole numbers, NEW from 0")
    old, new = text.split("=")
    return int(old), int(new)


def region(text: str) -> tuple[str, tuple[int, ...]]:
    """'core=2,3' -> ('core', (2, 3)). Raises ArgumentTypeError."""
    name, values = name_and_text(text)
    return name, tuple(sorted({whole_number(0)(value.strip()) for value in values.strip("()[]").split(",")}))


def dataset_name(text: str) -> str:
    """Letters, digits, '_' and '-'. Raises ArgumentTypeError."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise argparse.ArgumentTypeError(f"'{text}' may hold letters, digits, _ and - only (without 'DatasetXXX_')")
    return text


class IntoDict(argparse.Action):
    """Pairs of name and value become a dict; a name may be given once."""

    def __call__(self, parser, namespace, values, option_string=None):
        pairs = dict(getattr(namespace, self.dest) or {})
        for name, value in values:
            if name in pairs:
                raise argparse.ArgumentError(self, f"{name} is given twice")
            pairs[name] = value
        setattr(namespace, self.dest, pairs)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_import", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s -i FOLDER -d ID -n NAME --modality NAME=PATTERN ... --label PATTERN [options]; --help: all",
        description="Turn a folder of multi-modal cases into an nnU-Net data set, after checking every file.")
    p.add_argument("-i", dest="input_folder", type=Path, required=True, metavar="FOLDER",
                   help="one folder per case (its name is the case id), all files in one folder (the case id is what "
                        "the * of a pattern matches), or folders in folders, as in BIDS: patterns like "
                        "'sub-*/ses-*/anat/*_T1w.nii.gz' (the case id is sub-01_ses-02)")
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--series", type=name_and_text, nargs="+", action=IntoDict, metavar="NAME=PATTERN",
                      help="DICOM instead of --modality: a folder (study) per case, the pattern is of a series' "
                           "description (or its number), see docs/dicom.md")
    what.add_argument("--modality", dest="modalities", type=name_and_text, nargs="+", action=IntoDict,
                      metavar="NAME=PATTERN",
                      help="at least two, in channel order. Patterns in quotes: * any characters, ? one; relative to "
                           "the case's folder, or to FOLDER. nnU-Net chooses the normalisation by the name: CT "
                           "(exactly) gets CT normalisation, any other name z-score")
    p.add_argument("--label", required=True, metavar="PATTERN", help="pattern of the segmentation")
    p.add_argument("-d", dest="dataset_id", type=whole_number(1, 999), required=True, metavar="ID",
                   help="data set id, 1 to 999")
    p.add_argument("-n", dest="name", type=dataset_name, required=True, metavar="NAME", help="data set name")
    p.add_argument("-o", dest="output_folder", type=output_folder, default=os.environ.get(RAW) or None,
                   metavar="FOLDER", help=f"where DatasetXXX_NAME is made (default: the environment variable {RAW})")
    p.add_argument("--layout", choices=LAYOUTS, default="auto", help="see -i; auto finds out (default)")

    g = p.add_argument_group("labels")
    g.add_argument("--map", dest="label_map", type=replacement, nargs="+", action=IntoDict, default={},
                   metavar="OLD=NEW", help="change label values, all at once (1=2 2=1 swaps)")
    g.add_argument("--labels", type=label_name, nargs="+", action=IntoDict, metavar="NAME=VALUE",
                   help="the labels, values after --map, without 0 (default: label_1 ... as found in the files)")
    g.add_argument("--regions", type=region, nargs="+", action=IntoDict, metavar="NAME=VALUE,VALUE",
                   help="instead of --labels: overlapping regions of label values (after --map), larger ones first")
    g.add_argument("--regions_class_order", type=int, nargs="+", metavar="VALUE",
                   help="for each region the label written where it is predicted; later regions overwrite earlier ones "
                        "(default: the label of the region that no later region holds)")
    g.add_argument("--ignore_label", type=int, metavar="VALUE",
                   help="value (after --map) of voxels without annotation; must be the highest")

    g = p.add_argument_group("test cases")
    g.add_argument("--test_cases", nargs="+", action="extend", default=[], metavar="CASE",
                   help="cases for imagesTs (and labelsTs, if they have a label) instead of training")
    g.add_argument("--unlabelled_as_test", action="store_true",
                   help="cases without label become test cases instead of an error")

    g = p.add_argument_group("scans without labels")
    g.add_argument("--unlabelled", type=Path, metavar="FOLDER",
                   help="its cases, found by the same patterns, go to imagesUn, from which nnUNetTrainerRMR can "
                        "learn; may be the folder of -i: its cases without a label")

    g = p.add_argument_group("files")
    grid = g.add_mutually_exclusive_group()
    grid.add_argument("--resample_to", metavar="NAME",
                      help="bring all images and the label of a case to the grid of this modality, where they differ "
                           "(default: different grids are an error)")
    grid.add_argument("--register_to", metavar="NAME",
                      help="instead of --resample_to: the same, after a rigid registration of the other modalities to "
                           "this one (the label is taken to lie where NAME does); see docs/registration.md")
    g.add_argument("--interpolation", choices=("linear", "bspline"), default="linear",
                   help="for resampled images (default linear); labels always take the nearest voxel")
    g.add_argument("--link", choices=("copy", "hard", "sym"), default="copy",
                   help="how files that need no change get into the data set: copied (default), or as hard or symbolic "
                        "links, which save space but change when the originals do. Changed files are written anew")
    g.add_argument("--skip_bad_cases", action="store_true", help="import the good cases if others have problems")
    g.add_argument("--overwrite", action="store_true", help="replace an existing data set of the same id and name")
    add_num_processes(g)
    return p


def _check_series(p: argparse.ArgumentParser, values: dict) -> None:
    if values["layout"] == "flat":
        p.error("--layout flat: --series needs a folder for each case")
    if values["link"] != "copy":
        p.error(f"--link {values['link']}: what --series converts is new, there is nothing to link to")
    if bad := [name for name in values["modalities"] if set(name) & set("/\\*?")]:
        p.error(f"--series: the name {bad[0]} may not hold any of / \\ * ?")
    from nnunetv2_rmr.dicom.installed import refuse_without_extra

    try:
        refuse_without_extra("--series")
    except BadCaseError as error:
        sys.exit(f"{p.prog}: error: {error}")


def main(argv: list[str] | None = None) -> None:
    p = parser()
    # argparse takes the value of `--map -1=1` for an option, unless it holds a space
    values = vars(p.parse_args([f" {text}" if re.fullmatch(r"-\d+=\d+", text) else text
                                for text in (sys.argv[1:] if argv is None else argv)]))
    if series := values.pop("series"):
        values |= {"modalities": series, "dicom": True}
        _check_series(p, values)
    if len(values["modalities"]) < 2:
        p.error(f"{'--series' if series else '--modality'}: only {', '.join(values['modalities'])} is given, but RMR "
                "fuses at least two modalities; for one modality use nnU-Net itself")
    for option in ("resample_to", "register_to"):
        if values[option] not in (None, *values["modalities"]):
            p.error(f"--{option} {values[option]}: is none of the modalities ({', '.join(values['modalities'])})")
    values["resample_to"] = values["register_to"] or values["resample_to"]
    if values["output_folder"] is None:
        p.error(f"the environment variable {RAW} is not set: set it, or give the folder with -o")

    # Here and not above: SimpleITK takes seconds to import, --help and usage errors should not.
    from nnunetv2_rmr.datasets.importer import import_dataset, summary
    from nnunetv2_rmr.datasets.request import ImportRequest

    request = ImportRequest(**values)
    try:
        checked = import_dataset(request)
    except (BadCaseError, OSError) as error:
        sys.exit(f"{p.prog}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{p.prog}: stopped; nothing was written")
    print(summary(request, checked))
