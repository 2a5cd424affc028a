"""`nnUNetv2_rmr_corrupt`: degraded copies of a folder of images, to see what a model makes of them."""

import argparse
from pathlib import Path

from nnunetv2_rmr.cli.argument_types import (
    add_arguments_of_image_folders,
    errors_in_one_line,
    exit_if_failed,
    output_folder,
    whole_number,
)

ALL = "all"
SEVERITIES = ("1", "2", "3", "4", "5")
EXAMPLE = """\
example: FLAIR, and all modalities at once, shaken at every severity

  nnUNetv2_rmr_corrupt -i imagesTs -o corrupted --corruption motion --severity all --modality all FLAIR

degradations
  trained (in RMR's default training): noise, blur, fourier
  never trained:                       motion, ghosting, spikes, bias_field, anisotropy, gamma
What they are, with numbers: docs/corruptions.md
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_corrupt", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Writes degraded copies of a folder of images in nnU-Net's format. Every copy is a folder "
                    "OUT/NAME_SEVERITY (all modalities degraded) or OUT/NAME_SEVERITY_MODALITY, ready for "
                    "nnUNetv2_predict, with a record of what was done in corruption.json. Degraded images are float32 "
                    "on the grid of the input; what lies outside the body and modalities not asked for stay as they "
                    "are.")
    p.add_argument("-i", dest="images", type=Path, required=True, metavar="IMAGES",
                   help="folder with CASE_0000.nii.gz, ..., e.g. imagesTs")
    p.add_argument("-o", dest="output", type=output_folder, required=True, metavar="OUT",
                   help="where the folders are made")
    p.add_argument("--corruption", nargs="+", required=True, metavar="NAME", help=f"see below; {ALL}: all of them")
    p.add_argument("--severity", choices=(*SEVERITIES, ALL), nargs="+", required=True, metavar="1..5",
                   help=f"1 to 5, or {ALL}")
    p.add_argument("--modality", nargs="+", default=[ALL], metavar="NAME",
                   help=f"one copy for each named modality, in which only that one is degraded; {ALL}: one in which "
                        "all are (default). Without a dataset.json the names are the files' numbers: 0000, 0001, ...")
    p.add_argument("--seed", type=whole_number(0), default=0, metavar="N",
                   help="what is drawn depends on this, the case's name, the kind and the modality, not on the "
                        "severity: the same damage gets worse (default %(default)s)")
    p.add_argument("--link", choices=("copy", "hard", "sym"), default="copy",
                   help="how modalities that stay as they are get into a copy (default copy)")
    add_arguments_of_image_folders(p)
    return p


def main(argv: list[str] | None = None) -> None:
    p = parser()
    values = p.parse_args(argv)

    # Here and not above: torch takes seconds to import, --help and usage errors should not.
    from nnunetv2_rmr.evaluation.image_folder import ImageFolder
    from nnunetv2_rmr.evaluation.scan_degradations import SCAN_DEGRADATIONS
    from nnunetv2_rmr.evaluation.scan_degradations.degrade_folder import copies_of, degrade_folder

    names = list(SCAN_DEGRADATIONS if ALL in values.corruption else dict.fromkeys(values.corruption))
    severities = SEVERITIES if ALL in values.severity else sorted(set(values.severity))
    with errors_in_one_line(p.prog):
        images = ImageFolder.open(values.images, values.djfile)
        copies = copies_of(images, values.output, names, [*map(int, severities)], [*dict.fromkeys(values.modality)],
                           values.overwrite)
        failures = degrade_folder(images, copies, values.seed, values.link, values.num_processes)
    done = len(images.cases) - len(failures)
    print(f"{done} case(s) in {len(copies)} folder(s) under {values.output}")
    exit_if_failed(p.prog, failures, "degraded")
