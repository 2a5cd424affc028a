"""Run by test_prediction: RMRPredictor in the ways of nnU-Net's usage examples. Arguments: model, images, output."""

import sys
from pathlib import Path

import numpy as np
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_rmr.inference.predictor import RMRPredictor


def main(model: Path, images: Path, out: Path) -> None:
    predictor = RMRPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), use_folds=(0, 1))
    cases = [[str(images / f"{case}_{i:04d}.nii.gz") for i in range(3)] for case in ("caseTs00", "caseTs01")]

    def keep(way: str, segmentations, fused) -> None:
        named = {f"segmentation{i}": s for i, s in enumerate(segmentations)}
        np.savez(out / f"{way}.npz", **named, **{f"fused{i}": f for i, f in enumerate(fused)})

    (out / "files").mkdir()
    predictor.predict_from_files_sequential(str(images), str(out / "files"))
    written = [SimpleITKIO().read_images([str(out / "files" / folder / f"caseTs0{i}.nii.gz")])[0][0]
               for folder in (".", "fused") for i in (0, 1)]
    keep("sequential", written[:2], written[2:])

    keep("sequential_in_memory", predictor.predict_from_files_sequential(cases, None), predictor.fused_volumes)

    arrays, properties = zip(*[SimpleITKIO().read_images(case) for case in cases])
    keep("arrays", predictor.predict_from_list_of_npy_arrays(list(arrays), None, [dict(p) for p in properties], None,
                                                             num_processes=1, num_processes_segmentation_export=1),
         predictor.fused_volumes)

    keep("single", [predictor.predict_single_npy_array(arrays[0], dict(properties[0]))], predictor.fused_volumes)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
