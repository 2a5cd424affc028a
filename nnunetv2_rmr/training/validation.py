"""Final validation, RMR's part: fused images of the validation cases and how robust they are."""

from __future__ import annotations

from collections.abc import Collection
from os.path import join
from typing import TYPE_CHECKING

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import maybe_mkdir_p, save_json
from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from torch import distributed as dist

from nnunetv2_rmr.degradations.degrade import degrade_case, drawn_by
from nnunetv2_rmr.evaluation.restoration import restoration_scores
from nnunetv2_rmr.inference.export_fused import export_fused
from nnunetv2_rmr.inference.fused_writer import check_can_write
from nnunetv2_rmr.inference.input_check import BadCaseError
from nnunetv2_rmr.inference.intensity import IntensityMap
from nnunetv2_rmr.inference.predictor import RMRPredictor
from nnunetv2_rmr.inference.preprocessing import PROPERTY, RMRConfigurationManager

if TYPE_CHECKING:
    from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


BARRIER_EVERY = 10  # cases


def export_validation_fusion(trainer: nnUNetTrainerRMR) -> None:
    """Write validation/fused/CASE and validation/fused/restoration.json.

    The scores compare, per case, the fused image of a degraded copy (every modality degraded as in training, seeded
    by the case's number) with what the fused image aims at, made from the clean case (the clean case's fused image, if
    it aims at nothing that is made from the modalities alone); "input" are the same scores of what is made so from the
    degraded case. Without the raw images at hand the fused images stay in normalised intensities; the log says so.
    """
    predictor = RMRPredictor(perform_everything_on_device=False, device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(trainer.network, trainer.plans_manager, trainer.configuration_manager, None,
                                    trainer.dataset_json, type(trainer).__name__, None)
    folder = join(trainer.output_folder, "validation")
    _, keys = trainer.do_split()
    all_keys = sorted(keys)
    keys = all_keys[trainer.local_rank::dist.get_world_size()] if trainer.is_ddp else all_keys
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, keys,
                                    folder_with_segs_from_previous_stage=trainer.folder_with_segs_from_previous_stage)
    ending = trainer.dataset_json["file_ending"]
    try:
        check_can_write(trainer.plans_manager.image_reader_writer_class, ending)
        writable = True
    except NotImplementedError as error:  # no reason to lose a finished training
        trainer.print_to_log_file(f"The fused images of the validation are not written: {error}")
        writable = False
    raw_files = _raw_files(trainer)
    if writable and not raw_files:
        trainer.print_to_log_file("The raw images are not at hand (nnUNet_raw): the fused images of the validation "
                                  "are in normalised intensities")
    scores = {}
    every_process_has = len(all_keys) // dist.get_world_size() if trainer.is_ddp else 0
    for number, key in enumerate(keys, 1):
        trainer.print_to_log_file(f"fusing {key}")
        data, seg, _, properties = dataset.load_case(key)
        clean = torch.from_numpy(np.asarray(data[:], dtype=np.float32))
        inside = torch.from_numpy(np.asarray(seg[:])[0] >= 0)
        degraded = degrade_case(clean, inside, trainer.configuration_manager.spacing, seed=all_keys.index(key),
                                **drawn_by(trainer.settings, trainer.configuration_manager))
        fused = predictor.predict_fused_from_preprocessed_data(clean)
        restored = predictor.predict_fused_from_preprocessed_data(degraded)
        aimed_at, given = predictor.fusion_target(clean), predictor.fusion_target(degraded)
        if aimed_at is None:
            aimed_at, given = fused, degraded[trainer.reference]
        scores[key] = restoration_scores(restored, aimed_at, inside)
        scores[key]["input"] = restoration_scores(given, aimed_at, inside)
        if writable:
            export_fused(fused, properties, _intensity_map(trainer, raw_files.get(key)), trainer.plans_manager,
                         trainer.configuration_manager, ending, join(folder, key))
        if number % BARRIER_EVERY == 0 and number <= every_process_has:
            dist.barrier()  # whoever is ahead would wait at the end, longer than NCCL allows
    if trainer.is_ddp:
        gathered = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, scores)
        scores = {key: value for part in gathered for key, value in part.items()}
    if trainer.local_rank == 0 and scores:
        mean = _mean_scores(scores.values()) | {"input": _mean_scores([s["input"] for s in scores.values()])}
        maybe_mkdir_p(join(folder, "fused"))
        save_json({"mean": mean, "cases": scores}, join(folder, "fused", "restoration.json"), sort_keys=False)
        for name in ("PSNR", "SSIM"):
            trainer.logger.log_summary(f"final_val/restoration_{name}", mean[name])
        trainer.print_to_log_file(f"Restoration of degraded validation cases, fused image: PSNR {mean['PSNR']:.2f} dB, "
                                  f"SSIM {mean['SSIM']:.3f} (input: PSNR {mean['input']['PSNR']:.2f} dB, "
                                  f"SSIM {mean['input']['SSIM']:.3f})")


def _mean_scores(scores: Collection[dict[str, float]]) -> dict[str, float]:
    """Without infinite PSNR: of a case that the draw left as it was, or whose reference modality is constant."""
    return {name: float(np.mean([s[name] for s in scores if np.isfinite(s[name])] or [np.nan]))
            for name in ("PSNR", "SSIM")}


def _raw_files(trainer: nnUNetTrainerRMR) -> dict[str, list[str]]:
    """Raw images of every training case, empty if they are not there."""
    if not nnUNet_raw.is_set():
        return {}
    try:
        cases = get_filenames_of_train_images_and_targets(join(nnUNet_raw, trainer.plans_manager.dataset_name),
                                                          trainer.dataset_json)
    except FileNotFoundError:
        return {}
    return {key: case["images"] for key, case in cases.items()}


class _WithoutResampling(RMRConfigurationManager):
    """Normalisation comes before resampling, which is most of preprocessing's time."""

    resampling_fn_data = resampling_fn_seg = property(lambda self: lambda data, *args: data)


def _intensity_map(trainer: nnUNetTrainerRMR, files: list[str] | None) -> IntensityMap | None:
    """How the case was normalised: by repeating nnU-Net's preprocessing, since its files do not hold the raw values."""
    if files is None:
        return None
    configuration = _WithoutResampling(trainer.configuration_manager.configuration)
    try:
        _, _, properties = configuration.preprocessor_class(verbose=False).run_case(
            files, None, trainer.plans_manager, configuration, trainer.dataset_json)
    except BadCaseError as error:  # nnU-Net trained on it all the same
        trainer.print_to_log_file(f"A fused image stays in normalised intensities: {error}")
        return None
    return properties[PROPERTY]
