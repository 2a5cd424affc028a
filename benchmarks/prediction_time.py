"""Seconds to predict a case, from its files to its files, with and without the fused volume, against vanilla nnU-Net.

    python benchmarks/prediction_time.py --vanilla MODELFOLDER --rmr MODELFOLDER -i IMAGES [--case CASE] [-f all]

Both models should have the same plans and configuration. All in one process, in turns: nnU-Net's predictor with the
vanilla model, nnU-Net's predictor with the RMR model (segmentation only), and RMRPredictor (segmentation and fused
volume).
"""

import argparse
import tempfile
from pathlib import Path

import torch
from alternate import alternate, summary, table
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from report import add_json_argument, print_machine, write_json

from nnunetv2_rmr.inference.predictor import RMRPredictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vanilla", required=True, metavar="MODELFOLDER")
    parser.add_argument("--rmr", required=True, metavar="MODELFOLDER")
    parser.add_argument("-i", dest="images", required=True, type=Path)
    parser.add_argument("--case", help="default: the first one of the folder")
    parser.add_argument("-f", dest="folds", nargs="+", default=["all"])
    parser.add_argument("-chk", default="checkpoint_final.pth")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--mirror", action="store_true", help="with test time augmentation")
    parser.add_argument("--repeats", type=int, default=5)
    add_json_argument(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print_machine(args)
    case = args.case or sorted(args.images.iterdir())[0].name.rsplit("_", 1)[0]
    files = sorted(str(f) for f in args.images.glob(f"{case}_*"))
    folds = [f if f == "all" else int(f) for f in args.folds]
    with tempfile.TemporaryDirectory() as folder:
        sides = {}
        for name, cls, model in (("vanilla", nnUNetPredictor, args.vanilla),
                                 ("RMR, segmentation only", nnUNetPredictor, args.rmr),
                                 ("RMR, with fused volume", RMRPredictor, args.rmr)):
            predictor = cls(use_mirroring=args.mirror, device=torch.device(args.device), allow_tqdm=False,
                            perform_everything_on_device=args.device == "cuda")
            predictor.initialize_from_trained_model_folder(model, folds, args.chk)
            sides[name] = lambda p=predictor: p.predict_from_files_sequential([files], [f"{folder}/{case}"])
        taken = alternate(sides, args.repeats)
    rows = summary(taken, "vanilla")
    print(table(rows))
    write_json(args, rows)


if __name__ == "__main__":
    main()
