"""Final validation: fused images of its cases, and how well degraded copies of them are restored."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from os.path import join
from unittest.mock import patch

import numpy as np
import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.evaluation import evaluate_predictions
from nnunetv2.paths import nnUNet_raw
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from torch import distributed as dist

from nnunetv2_rmr.degradations.degrade import degradation_arguments, degrade_case
from nnunetv2_rmr.evaluation.fusion_metrics.similarity import restoration_scores
from nnunetv2_rmr.files.atomic import remove_leftovers, write_json
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.whole_files import save_json_whole
from nnunetv2_rmr.files.workers import Beside, Failure, new_pool, or_failure
from nnunetv2_rmr.fusion.fused_image import fused_image, fusion_target
from nnunetv2_rmr.inference.export import IntensityMap, export_fused, export_segmentation
from nnunetv2_rmr.inference.fused_writer import check_can_write
from nnunetv2_rmr.inference.predictor import RMRPredictor
from nnunetv2_rmr.inference.preprocessing import PROPERTY, RMRConfigurationManager

BARRIER_EVERY = 10  # cases
AHEAD = 2  # cases that may wait to be finished: each is several volumes in memory


@contextmanager
def whole_files(folder: str) -> Iterator[None]:
    """Within it what nnU-Net writes of a validation, in `folder`, is there as a whole or not at all."""
    remove_leftovers([folder, join(folder, "fused")])
    with (patch.object(stock, "export_prediction_from_logits", export_segmentation),
          patch.object(evaluate_predictions, "save_json", save_json_whole)):
        yield


def export_validation_fusion(trainer: nnUNetTrainer) -> None:
    """Write validation/fused/CASE and validation/fused/restoration.json.

    The scores compare, per case, the fused image of a degraded copy (every modality degraded as in training, seeded
    by the case's number) with what the fused image aims at, made from the clean case; "input" are the same scores of
    what is made so from the degraded case. Without the raw images at hand the fused images stay in normalised
    intensities; the log says so. What goes wrong with a case is logged, and the others are done: nothing here costs a
    training its segmentation validation.
    """
    trainer.set_deep_supervision_enabled(False)  # as nnU-Net's own validation, which follows
    predictor = RMRPredictor(perform_everything_on_device=False, device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(trainer.network, trainer.plans_manager, trainer.configuration_manager, None,
                                    trainer.dataset_json, type(trainer).__name__, None)
    processes = dist.get_world_size() if trainer.is_ddp else 1
    all_keys = sorted(trainer.do_split()[1])
    keys = all_keys[trainer.local_rank::processes] if trainer.is_ddp else all_keys
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, keys,
                                    folder_with_segs_from_previous_stage=trainer.folder_with_segs_from_previous_stage)
    finish = _Finish(trainer)
    # a worker takes seconds to start, as it imports torch
    workers = min(AHEAD, default_num_processes) if len(keys) > 1 and default_num_processes > 1 else 0
    with Beside(partial(new_pool, workers) if workers else partial(ThreadPoolExecutor, 1), AHEAD) as finishing:
        for number, key in enumerate(keys, 1):
            trainer.print_to_log_file(f"fusing {key}")
            images = or_failure(key, _predict, trainer, predictor, dataset, key, all_keys.index(key))
            if isinstance(images, Failure):
                finishing.submit("", Failure, images.message)
            else:
                finishing.submit(key, finish, key, *images)
            if number % BARRIER_EVERY == 0 and number <= len(all_keys) // processes and trainer.is_ddp:
                dist.barrier()  # whoever is ahead would wait at the end, longer than NCCL allows
        results = dict(zip(keys, finishing.results()))
    scores = {}
    for key, result in results.items():
        if isinstance(result, tuple):
            scores[key], message = result
            if message:
                trainer.print_to_log_file(message)
        else:
            trainer.print_to_log_file(f"ERROR: no fused image of the validation case {result.message}")
    if trainer.is_ddp:
        gathered = [None] * processes
        dist.all_gather_object(gathered, scores)
        scores = {key: value for part in gathered for key, value in part.items()}
    if trainer.local_rank == 0 and scores:
        _save(trainer, scores)


def _predict(trainer: nnUNetTrainer, predictor: RMRPredictor, dataset, key: str, seed: int) -> tuple:
    """What `_Finish` needs of a case: its modalities clean and degraded, what the network makes of both, its body."""
    data, seg, previous, properties = dataset.load_case(key)
    clean = torch.from_numpy(np.asarray(data[:], dtype=np.float32))
    inside = torch.from_numpy(np.asarray(seg[:])[0] >= 0)
    degraded = degrade_case(clean, inside, trainer.configuration_manager.spacing, seed=seed,
                            **degradation_arguments(trainer.settings, trainer.configuration_manager))
    extra = clean[:0]
    if trainer.is_cascaded:  # as nnU-Net's validation has it
        extra = torch.from_numpy(convert_labelmap_to_one_hot(
            np.asarray(previous[:]), trainer.label_manager.foreground_labels, output_dtype=np.float32))
    images = [predictor.predict_images_from_preprocessed_data(torch.cat((seen, extra))) for seen in (clean, degraded)]
    return clean, degraded, *images, inside, properties


class _Finish:
    """What is left of a case when the network is done with it. Without the trainer, so it can go to another process."""

    def __init__(self, trainer: nnUNetTrainer):
        self.plans, self.configuration = trainer.plans_manager, trainer.configuration_manager
        self.dataset_json, self.reference = trainer.dataset_json, trainer.reference
        self.folder = join(trainer.output_folder, "validation")
        self.raw_files, self.write = _raw_files(trainer), True
        try:
            check_can_write(self.plans.image_reader_writer_class, self.dataset_json["file_ending"])
        except NotImplementedError as error:  # no reason to lose a finished training
            trainer.print_to_log_file(f"The fused images of the validation are not written: {error}")
            self.write = False

    def __call__(self, key: str, clean: torch.Tensor, degraded: torch.Tensor, of_clean: torch.Tensor,
                 of_degraded: torch.Tensor, inside: torch.Tensor, properties: dict) -> tuple[dict, str]:
        """Scores, and what there is to say in the log."""
        spacing, pairs = self.configuration.spacing, ((of_clean, clean), (of_degraded, degraded))
        fused, restored = (fused_image(images, seen, spacing, self.reference) for images, seen in pairs)
        aimed_at, given = (fusion_target(seen, len(images), spacing, self.reference) for images, seen in pairs)
        scores = restoration_scores(restored, aimed_at, inside)
        scores["input"] = restoration_scores(given, aimed_at, inside)
        message = ""
        if self.write:
            intensity_map, message = self._intensity_map(key)
            export_fused(fused, properties, intensity_map, self.plans, self.configuration,
                         self.dataset_json["file_ending"], join(self.folder, key))
        return scores, message

    def _intensity_map(self, key: str) -> tuple[IntensityMap | None, str]:
        """How the case was normalised: by repeating nnU-Net's preprocessing, since its files do not hold raw values."""
        if key not in self.raw_files:
            return None, ""
        configuration = _WithoutResampling(self.configuration.configuration)
        try:
            _, _, properties = configuration.preprocessor_class(verbose=False).run_case(
                self.raw_files[key], None, self.plans, configuration, self.dataset_json)
        except BadCaseError as error:  # nnU-Net trained on it all the same
            return None, f"A fused image stays in normalised intensities: {error}"
        return properties[PROPERTY], ""


class _WithoutResampling(RMRConfigurationManager):
    """Normalisation comes before resampling, which is most of preprocessing's time."""

    resampling_fn_data = resampling_fn_seg = property(lambda self: lambda data, *args: data)


def _raw_files(trainer: nnUNetTrainer) -> dict[str, list[str]]:
    """Raw images of every training case, empty if they are not there."""
    try:
        cases = get_filenames_of_train_images_and_targets(
            join(nnUNet_raw, trainer.plans_manager.dataset_name), trainer.dataset_json) if nnUNet_raw.is_set() else {}
    except FileNotFoundError:
        cases = {}
    if not cases:
        trainer.print_to_log_file("The raw images are not at hand (nnUNet_raw): the fused images of the validation are "
                                  "in normalised intensities")
    return {key: case["images"] for key, case in cases.items()}


def _save(trainer: nnUNetTrainer, scores: dict[str, dict]) -> None:
    mean = mean_scores([*scores.values()]) | {"input": mean_scores([s["input"] for s in scores.values()])}
    write_json({"mean": mean, "cases": scores}, join(trainer.output_folder, "validation", "fused", "restoration.json"))
    for name in ("PSNR", "SSIM"):
        trainer.logger.log_summary(f"final_val/restoration_{name}", mean[name])
    trainer.print_to_log_file(f"Restoration of degraded validation cases, fused image: PSNR {mean['PSNR']:.2f} dB, "
                              f"SSIM {mean['SSIM']:.3f} (input: PSNR {mean['input']['PSNR']:.2f} dB, "
                              f"SSIM {mean['input']['SSIM']:.3f})")


def mean_scores(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Without infinite PSNR: of a case that the draw left as it was."""
    return {name: float(np.mean([s[name] for s in scores if np.isfinite(s[name])] or [np.nan]))
            for name in ("PSNR", "SSIM")}
