"""`nnUNetv2_rmr_fuse`: fused images of anybody's scans by classical methods, without any training."""

import argparse
from pathlib import Path

from nnunetv2_rmr.cli.argument_types import (
    add_arguments_of_image_folders,
    errors_in_one_line,
    exit_if_failed,
    output_folder,
)
from nnunetv2_rmr.evaluation.fusion_baselines import METHODS


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_fuse",
        description="Fuses the modalities of every case of a folder into one image, OUT/CASE.nii.gz, by a classical "
                    "method that needs no training: float32, on the grid of the input, about 0 to 1, zero outside the "
                    "body. What the methods do: docs/fusion_metrics.md. Exit status 1 if a case failed; the others are "
                    "done.")
    p.add_argument("-i", dest="images", type=Path, required=True, metavar="IMAGES",
                   help="folder with CASE_0000.nii.gz, CASE_0001.nii.gz ..., e.g. imagesTs")
    p.add_argument("-o", dest="output", type=output_folder, required=True, metavar="OUT",
                   help="folder for the fused images")
    p.add_argument("--method", choices=METHODS, default="gradient", metavar="NAME",
                   help=f"{', '.join(METHODS)} (default %(default)s, which shows the edges of all modalities over the "
                        "coarse scales of the reference modality). wavelet needs PyWavelets, in the extra [benchmark]")
    p.add_argument("--reference", metavar="NAME",
                   help="the reference modality, whose coarse scales gradient takes and which copy is (default: the "
                        "one called FLAIR, else PET, else the last). Without a dataset.json the names are the files' "
                        "numbers: 0000, 0001, ...")
    add_arguments_of_image_folders(p)
    return p


def main(argv: list[str] | None = None) -> None:
    p = parser()
    values = p.parse_args(argv)

    # Here and not above: --help and usage errors should not wait for the imports
    from nnunetv2_rmr.evaluation.fusion_baselines.fuse_folder import fuse_folder, reference_of
    from nnunetv2_rmr.evaluation.image_folder import ImageFolder

    with errors_in_one_line(p.prog):
        images = ImageFolder.open(values.images, values.djfile)
        reference = reference_of(images, values.reference)
        failures = fuse_folder(images, values.output, values.method, reference, values.overwrite, values.num_processes)
    what = f" of {images.names[reference]}" if values.method == "copy" else (
        f", reference modality {images.names[reference]}" if values.method == "gradient" else "")
    if values.reference is None and images.names[0] == "0000":
        what += " (no dataset.json says what the modalities are: the last one)"
    print(f"{len(images.cases) - len(failures)} case(s) under {values.output}: {values.method}{what}")
    exit_if_failed(p.prog, failures, "fused")
