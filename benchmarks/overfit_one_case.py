"""Can the whole chain learn one real case by heart? Whole-lesion Dice, and the fused image against plain averaging.

    python benchmarks/overfit_one_case.py -d 101 --case BraTS2021_01478 -o OUT

Needs the plans (nnUNetv2_plan_and_preprocess -d 101 --no_pp). Trains nnUNetTrainerRMR on that case alone, resampled to
--spacing, with a small patch and network and no augmentation but RMR's degradations, predicts the same case from its
raw files with RMRPredictor, and writes OUT/result.json and OUT/panel.png. The Dice is that of the segmentation as
nnU-Net writes it, on the scan's own grid; the scores of the fused image are taken on the network's grid, inside the
body, on normalised intensities (z-scores).
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunetv2_rmr.degradations.degrade import add_degradations
from nnunetv2_rmr.evaluation.restoration import restoration_scores
from nnunetv2_rmr.inference.predictor import RMRPredictor
from nnunetv2_rmr.inference.preprocessing import PROPERTY
from nnunetv2_rmr.losses.filters import sobel_magnitude
from nnunetv2_rmr.settings import channel_names
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

matplotlib.use("agg")
CONFIGURATION = "3d_overfit"


class OneCaseTrainer(nnUNetTrainerRMR):
    case: str = ""

    def do_split(self):
        return [self.case], [self.case]

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        # patches as they are: learned by heart is what was seen, not what augmentation makes of it
        _, dummy_2d, _, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return (0, 0), dummy_2d, self.configuration_manager.patch_size, None

    def get_training_transforms(self, patch_size, rotation, scales, *args, regions=None, ignore_label=None, **kwargs):
        transforms = nnUNetTrainer.get_validation_transforms(scales, regions=regions, ignore_label=ignore_label)
        return add_degradations(transforms, self.rmrnet.num_modalities, self.configuration_manager.spacing,
                                p_clean=self.settings.p_clean, probabilities=self.settings.degradation_probabilities)


def small_configuration(plans: dict, patch: int, spacing: float) -> dict:
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    kwargs = architecture["arch_kwargs"] | {
        "n_stages": 4, "features_per_stage": [12, 24, 48, 96], "kernel_sizes": [[3, 3, 3]] * 4,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * 3, "n_conv_per_stage": [2] * 4, "n_conv_per_stage_decoder": [2] * 3}
    return {"inherits_from": "3d_fullres", "data_identifier": f"overfit_{spacing:g}mm", "spacing": [spacing] * 3,
            "patch_size": [patch] * 3, "batch_size": 2,
            "architecture": architecture | {"arch_kwargs": kwargs}}


def train(args: argparse.Namespace, plans: dict, dataset_json: dict) -> OneCaseTrainer:
    plans["continue_training"] = False
    OneCaseTrainer.case = args.case
    trainer = OneCaseTrainer(plans, CONFIGURATION, 0, dataset_json, torch.device(args.device))
    trainer.num_epochs, trainer.num_iterations_per_epoch = 10, args.iterations // 10
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    return trainer


def fused_scores(fused: np.ndarray, data: np.ndarray, inside: np.ndarray, reference: int) -> dict:
    """SSIM and PSNR to the clean reference modality and RMR's gradient loss, of the fused image and of the average."""
    clean, inside = torch.from_numpy(data), torch.from_numpy(inside)
    wanted = sobel_magnitude(clean[None]).amax(1)
    core = inside[1:-1, 1:-1, 1:-1]
    scores = {}
    for name, image in (("fused", torch.from_numpy(fused)), ("average", clean.mean(0))):
        image = torch.where(inside, image, 0)
        gradient = (sobel_magnitude(image[None, None])[:, 0] - wanted)[0][core].abs().mean()
        scores[name] = restoration_scores(image, clean[reference], inside) | {"gradient_loss": float(gradient)}
    return scores


def picture(data: np.ndarray, names: list[str], fused: np.ndarray, label: np.ndarray, prediction: np.ndarray,
            inside: np.ndarray, file: Path) -> None:
    """The axial slice with most of the lesion, cropped to the body."""
    import matplotlib.pyplot as plt

    where = int((label > 0).sum((1, 2)).argmax())
    rows, columns = (np.flatnonzero(inside[where].any(axis)) for axis in (1, 0))
    view = where, slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    images = {**dict(zip(names, data)), "average": data.mean(0), "fused": fused,
              "fused; label green, prediction red": fused}
    with plt.style.context("default"):  # nnU-Net's loggers change the fonts
        fig, axes = plt.subplots(1, len(images), figsize=(2.6 * len(images), 3.4), facecolor="black")
        for ax, (name, image) in zip(axes, images.items()):
            low, high = np.percentile(image[inside], (0.5, 99.5))
            ax.imshow(np.where(inside, image, low)[view], cmap="gray", vmin=low, vmax=high)
            ax.set_title(name, color="white", fontsize=11)
            ax.axis("off")
        for mask, colour in ((label, "lime"), (prediction, "red")):
            axes[-1].contour(mask[view] > 0, [0.5], colors=colour, linewidths=1)
        fig.tight_layout()
        fig.savefig(file, dpi=110, facecolor="black", bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True, type=int)
    parser.add_argument("--case", required=True)
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--spacing", type=float, default=2, help="in mm (default %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("-device", default="cpu")
    parser.add_argument("-o", required=True, type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.o.mkdir(parents=True, exist_ok=True)

    folder = next(Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{args.d:03d}_*"))
    dataset_json = json.loads((folder / "dataset.json").read_text())
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["configurations"][CONFIGURATION] = small_configuration(plans, args.patch, args.spacing)
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    files = get_filenames_of_train_images_and_targets(str(Path(os.environ["nnUNet_raw"]) / folder.name),
                                                      dataset_json)[args.case]
    preprocessed = folder / configuration.data_identifier
    shutil.rmtree(preprocessed, ignore_errors=True)  # of an earlier run
    preprocessed.mkdir()
    configuration.preprocessor_class(verbose=False).run_case_save(
        str(preprocessed / args.case), files["images"], files["label"], manager, configuration, dataset_json)
    start = time.time()
    trainer = train(args, plans, dataset_json)
    trained = time.time() - start

    predictor = RMRPredictor(device=torch.device(args.device), use_mirroring=False, allow_tqdm=False)
    trainer.set_deep_supervision_enabled(False)
    predictor.manual_initialization(trainer.network, trainer.plans_manager, trainer.configuration_manager,
                                    [trainer.rmrnet.state_dict()], dataset_json, "nnUNetTrainerRMR", None)
    configuration = predictor.configuration_manager
    data, seg, properties = configuration.preprocessor_class(verbose=False).run_case(
        files["images"], files["label"], trainer.plans_manager, configuration, dataset_json)
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    fused = predictor.take_fused().numpy()
    label, inside = np.maximum(seg[0], 0), seg[0] >= 0
    whole = (logits[0].float() > 0).numpy() if trainer.label_manager.has_regions else (logits.argmax(0) > 0).numpy()
    properties.pop(PROPERTY)
    prediction = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, trainer.plans_manager, configuration, predictor.label_manager, properties) > 0
    reference = trainer.plans_manager.image_reader_writer_class().read_seg(files["label"])[0][0] > 0
    dice = 2 * np.count_nonzero(prediction & reference) / (np.count_nonzero(prediction) + np.count_nonzero(reference))
    names = channel_names(dataset_json)
    result = {"case": args.case, "iterations": args.iterations, "seconds_training": round(trained), "patch": args.patch,
              "spacing_mm": args.spacing,
              "whole_lesion_dice": dice, "reference_modality": names[trainer.reference],
              "scores": fused_scores(fused, data, inside, trainer.reference)}
    (args.o / "result.json").write_text(json.dumps(result, indent=2))
    print(json.dumps(result, indent=2))
    picture(data, names, fused, label, whole, inside, args.o / "panel.png")


if __name__ == "__main__":
    main()
