"""`nnUNetv2_rmr_view`: look at predictions and fused images in three planes, in a browser."""

import argparse
import sys
from pathlib import Path

from nnunetv2_rmr.cli.argument_types import errors_in_one_line, output_file


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_view",
        description="Writes one HTML file with all modalities of the given cases, the fused image and the "
                    "segmentations, in three planes with a common cursor. It opens in any browser, without network.",
        epilog="examples: nnUNetv2_rmr_view -i imagesTs -p OUT BraTS2021_01480 --open; after nnUNetv2_rmr_fuse: "
               "nnUNetv2_rmr_view -i imagesTs --fused OUT BraTS2021_01480")
    p.add_argument("cases", nargs="+", metavar="CASE", help="case identifiers, without _0000 and file ending")
    p.add_argument("-i", dest="images", type=Path, required=True, metavar="IMAGES",
                   help="folder with the images in nnU-Net's format, CASE_0000.nii.gz ...")
    p.add_argument("-p", dest="predictions", type=Path, metavar="PREDICTIONS",
                   help="folder of nnUNetv2_rmr_predict or nnUNetv2_predict; fused/CASE.nii.gz is shown if it is "
                        "there. Its dataset.json, else that of the images, gives the names of modalities and labels")
    p.add_argument("--fused", type=Path, metavar="FOLDER", help="folder with fused images, CASE.nii.gz, as of "
                                                                "nnUNetv2_rmr_fuse (default: PREDICTIONS/fused)")
    p.add_argument("--labels", type=Path, metavar="FOLDER", help="folder with expert labels, CASE.nii.gz")
    p.add_argument("-o", dest="output", type=output_file, default=Path("view.html"), metavar="FILE.html",
                   help="default: %(default)s")
    p.add_argument("--open", action="store_true", help="show it in the browser")
    return p


def main(argv: list[str] | None = None) -> None:
    p = parser()
    values = p.parse_args(argv)
    if values.predictions is None and values.fused is None:
        p.error("give -p, --fused or both")
    for option, folder in (("-i", values.images), ("-p", values.predictions), ("--fused", values.fused),
                           ("--labels", values.labels)):
        if folder is not None and not folder.is_dir():
            p.error(f"{option} {folder}: is no folder")

    # Here and not above: --help and usage errors should not wait for the imports
    from nnunetv2_rmr.report.view import write_view

    with errors_in_one_line(p.prog):
        problems = write_view(values.images, values.predictions, values.cases, values.output, values.labels,
                              values.fused)
    for problem in problems:
        print(f"{p.prog}: error: {problem}", file=sys.stderr)
    if len(problems) == len(values.cases):
        sys.exit(f"{p.prog}: no case can be shown; {values.output} was not written")
    print(values.output)
    if values.open:
        import webbrowser

        webbrowser.open(values.output.resolve().as_uri())
    sys.exit(1 if problems else 0)
