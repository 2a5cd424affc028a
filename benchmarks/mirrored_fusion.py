"""Is it worth averaging the fused image over mirrored passes, as nnU-Net does with the segmentation?

    python benchmarks/mirrored_fusion.py -m MODELFOLDER -i IMAGES [-f 0] [-device cpu] [-o FILE.json]

For every case: fused image from the plain pass alone against the mean over all mirrored passes, seconds of both, how
far they are apart, and how well each restores a degraded copy (PSNR and SSIM of fused(degraded) against its own
fused(clean); every modality degraded as in training). MODELFOLDER holds fold_X, as for
nnUNetv2_predict_from_modelfolder.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.utilities.utils import create_lists_from_splitted_dataset_folder

from nnunetv2_rmr.degradations.degrade import degrade_case
from nnunetv2_rmr.evaluation.restoration import restoration_scores
from nnunetv2_rmr.ext_trainer import add_to_ext_trainer
from nnunetv2_rmr.inference.predictor import RMRPredictor


def fuse(predictor: RMRPredictor, data: torch.Tensor, mirrored: bool) -> tuple[torch.Tensor, float]:
    """Fused image (D, H, W) and seconds. Mirroring whole images mirrors the tiles, too: the tiling is symmetric."""
    spatial = range(1, data.ndim)
    flips = [axes for n in range(data.ndim) for axes in itertools.combinations(spatial, n)] if mirrored else [()]
    start = time.perf_counter()
    fused = sum(predictor.predict_fused_from_preprocessed_data(data.flip(axes)).flip([a - 1 for a in axes])
                for axes in flips) / len(flips)
    return fused, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", required=True, help="model folder")
    parser.add_argument("-i", required=True, help="folder of images")
    parser.add_argument("-f", default="0", help="fold")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("-o", type=Path)
    args = parser.parse_args()
    add_to_ext_trainer()
    predictor = RMRPredictor(device=torch.device(args.device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(args.m, (args.f,))
    configuration = predictor.configuration_manager
    rows = []
    for number, files in enumerate(create_lists_from_splitted_dataset_folder(args.i,
                                                                             predictor.dataset_json["file_ending"])):
        data, seg, _ = configuration.preprocessor_class(verbose=False).run_case(
            files, None, predictor.plans_manager, configuration, predictor.dataset_json)
        clean, inside = torch.from_numpy(data), torch.from_numpy(seg[0] >= 0)
        degraded = degrade_case(clean, inside, configuration.spacing, seed=number)
        row = {"case": Path(files[0]).name}
        images = {}
        for way, mirrored in (("plain", False), ("mirrored", True)):
            images[way], seconds = fuse(predictor, clean, mirrored)
            restored, _ = fuse(predictor, degraded, mirrored)
            row[way] = restoration_scores(restored, images[way], inside) | {"seconds": seconds}
        row["mirrored against plain"] = restoration_scores(images["mirrored"], images["plain"], inside)
        rows.append(row)
        print(json.dumps(row), flush=True)
    mean = {way: {key: float(np.mean([row[way][key] for row in rows])) for key in rows[0][way]}
            for way in ("plain", "mirrored", "mirrored against plain")}
    print(json.dumps({"n": len(rows), "mean": mean}, indent=2))
    if args.o is not None:
        args.o.write_text(json.dumps({"mean": mean, "cases": rows}, indent=2))


if __name__ == "__main__":
    main()
