"""`nnUNetv2_rmr_evaluate_fusion`: all fusion metrics of a folder of fused images, beside those of classical methods."""

import argparse
from pathlib import Path

from nnunetv2_rmr.cli.argument_types import errors_in_one_line, exit_if_failed, output_file, whole_number
from nnunetv2_rmr.evaluation.fusion_baselines import METHODS

DEFAULT_OUTPUT = "fusion_metrics.json"
DEFAULT_BASELINES = ("copy", "gradient", "average", "maximum")


def json_file(text: str) -> Path:
    """A name that ends in .json, of what is or can be a file. Raises ArgumentTypeError."""
    if Path(text).suffix != ".json":
        raise argparse.ArgumentTypeError(f"'{text}' must end in .json (a .csv file is written beside it)")
    return output_file(text)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_evaluate_fusion",
        description="All fusion metrics (own edges, Qabf, VIF, SSIM, mutual information, contrast of lesions ...) of "
                    "fused images against the images they were fused from, beside those of classical fusion methods "
                    "and of copies of single modalities; and in words what of each modality is in the image. Writes a "
                    "JSON file like nnU-Net's summary.json, in which every rule is stated, and a CSV file. How to read "
                    "each metric: docs/fusion_metrics.md. Exit status 1 if a case failed; the others are evaluated.")
    p.add_argument("-fused", type=Path, required=True, metavar="FOLDER", help="fused images, CASE.nii.gz")
    p.add_argument("-i", dest="images", type=Path, required=True, metavar="FOLDER",
                   help="the images they were fused from, in nnU-Net's format, CASE_0000.nii.gz ...")
    p.add_argument("-o", dest="output", type=json_file, metavar="FILE.json",
                   help=f"default: {DEFAULT_OUTPUT} in the folder of fused images; the CSV file is written beside it")
    p.add_argument("-l", dest="labels", type=Path, metavar="FOLDER",
                   help="label maps of lesions, CASE.nii.gz: how well the fused image shows each label or region of "
                        "dataset.json (without one: each value)")
    p.add_argument("--mask", default="body", metavar="FOLDER|body|none",
                   help="what counts: voxels > 0 of CASE.nii.gz in a folder; the body, as found in the images "
                        "(default); every voxel")
    p.add_argument("--mode", choices=("3d", "compat"), default="3d",
                   help="the whole volume (default), or the mean over 2D axial slices, to compare with papers")
    p.add_argument("--baselines", nargs="*", choices=METHODS, default=DEFAULT_BASELINES, metavar="NAME",
                   help=f"what to compare with: {', '.join(METHODS)} (default: {' '.join(DEFAULT_BASELINES)}; "
                        "--baselines without a name: none). copy: every modality alone. wavelet needs PyWavelets, in "
                        "the extra [benchmark]")
    p.add_argument("-d", "-djfile", "--dataset_json", type=Path, metavar="FILE",
                   help="dataset.json with file ending and channel names (default: the one in or beside one of the "
                        "folders, else the images' ending and channel numbers)")
    p.add_argument("-np", dest="num_processes", type=whole_number(1), default=2, metavar="N",
                   help="cases worked on at once (default %(default)s)")
    return p


def main(argv: list[str] | None = None) -> None:
    p = parser()
    args = p.parse_args(argv)

    # Here and not above: --help and usage errors should not wait for the imports
    from nnunetv2_rmr.evaluation.fusion_metrics.evaluate_folder import evaluate_folder
    from nnunetv2_rmr.evaluation.fusion_metrics.summary import table, write_summary
    from nnunetv2_rmr.files.atomic import remove_leftovers, temporary_beside

    output = args.output or args.fused / DEFAULT_OUTPUT
    with errors_in_one_line(p.prog, "nothing was written"):
        if args.output:
            output.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers([output.parent])
        if output.parent.is_dir():  # what can not be written is better noticed now than when all is done
            temporary_beside(output).touch()
            temporary_beside(output).unlink()
        if (table_file := output.with_suffix(".csv")).is_dir():
            raise IsADirectoryError(f"-o {output}: the table beside it, {table_file}, is a folder")
        summary = evaluate_folder(args.fused, args.images, args.mask, args.mode, args.baselines, args.dataset_json,
                                  args.num_processes, args.labels)
        if not summary["metric_per_case"]:  # files without a number would look like a result
            exit_if_failed(p.prog, summary["failed_cases"], "evaluated, nothing is written")
        csv_file = write_summary(summary, output)

    done, failed, rules = summary["metric_per_case"], summary["failed_cases"], summary["rules"]
    if done:
        print(f"\nMean over {len(done)} case{'s' * (len(done) > 1)}. {rules['mode']}. Mask: {rules['mask']}. "
              f"Sources: {', '.join(rules['sources'])}.\n\n{table(summary)}\n\n"
              "Read the first lines: a copy of one modality wins most of the others. EN, SD, SF and AG reward noise; "
              "MI, Q_MI and Q_NCIE depend on the number of sources.\n\n" + summary["verdict"]["fused"])
    if not_fused := rules["images_without_fused_image"]:
        print(f"Not evaluated, {len(not_fused)} case{'s' * (len(not_fused) > 1)} of {args.images} without fused image: "
              + ", ".join(not_fused[:5]) + (" ..." if len(not_fused) > 5 else ""))
    print(f"Written: {output}, {csv_file}")
    exit_if_failed(p.prog, failed, "evaluated")
