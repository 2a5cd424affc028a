"""`nnUNetv2_rmr_export_vanilla`: the segmentation half of an RMR model as one of nnU-Net's."""

import argparse
import sys
from pathlib import Path

from nnunetv2_rmr.cli.argument_types import output_folder
from nnunetv2_rmr.ext_trainer import add_to_ext_trainer


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_export_vanilla",
        description="Write the segmentation half of an RMR model as a model folder of nnU-Net's, which predicts the "
                    "same segmentations where nnunetv2-rmr is not installed.")
    p.add_argument("-m", dest="model", type=Path, required=True, metavar="FOLDER",
                   help="of the model, TRAINER__PLANS__CONFIGURATION in nnUNet_results")
    p.add_argument("-o", dest="out", type=output_folder, required=True, metavar="FOLDER", help="to be made")
    p.add_argument("-f", dest="folds", nargs="+", metavar="FOLD", help="default: all that there are")
    p.add_argument("-chk", dest="checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    return p


def main(argv: list[str] | None = None) -> None:
    p = parser()
    given = p.parse_args(argv)
    add_to_ext_trainer()
    from nnunetv2_rmr.inference.export_vanilla import export_vanilla

    try:
        export_vanilla(**vars(given))
    except (ValueError, OSError) as error:
        sys.exit(f"{p.prog}: error: {error}")
    folds = " ".join(sorted(folder.name.removeprefix("fold_") for folder in given.out.glob("fold_*")))
    print(f"{given.out}: predict with nnUNetv2_predict_from_modelfolder -i IN -o OUT -m {given.out} -f {folds} "
          f"-chk {given.checkpoint} (without a GPU: -device cpu)")
