"""nnUNetPredictor that, in the same sliding-window pass, also predicts the fused image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from inspect import signature
from os.path import join
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.data_iterators import PreprocessAdapterFromNpy
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.helpers import empty_cache

from nnunetv2_rmr.ext_trainer import add_to_ext_trainer
from nnunetv2_rmr.files.atomic import remove_leftovers, write_json
from nnunetv2_rmr.files.input_check import files_of_cases
from nnunetv2_rmr.files.whole_files import is_whole, save_json_whole
from nnunetv2_rmr.files.workers import DIED, Beside, Failure, ahead, new_pool, or_failure
from nnunetv2_rmr.fusion.body import body_of_preprocessed
from nnunetv2_rmr.fusion.fused_image import fused_image, fusion_target
from nnunetv2_rmr.inference.confidence import (
    confidence_filename,
    in_words,
    label_confidence,
    label_names,
    restoration_db,
)
from nnunetv2_rmr.inference.export import export_fused, export_segmentation, fused_filename
from nnunetv2_rmr.inference.failed_cases import report
from nnunetv2_rmr.inference.fused_writer import check_can_write
from nnunetv2_rmr.inference.model_folder import find_checkpoints
from nnunetv2_rmr.inference.preprocessing import PROPERTY, RMRConfigurationManager, preprocess_case, reference_of
from nnunetv2_rmr.inference.sliding_window import ImagePredictor
from nnunetv2_rmr.inference.trust import ModelRefused, check_model_folder, reading_data_only
from nnunetv2_rmr.settings import RMRSettings, channel_names, distinct_names


class RMRPredictor(ImagePredictor):
    """Drop-in for nnUNetPredictor: same arguments, same segmentations, and the fused image besides.

    Where segmentations go to files, the fused image of folder/CASE is written to folder/fused/CASE. Where they are
    returned, `fused_volumes` holds the fused images of the last call in the order of the cases: float32 (D, H, W), on
    the grid and in the axis order of the input, in the units of the reference modality; None for a case that failed.

    `confidences` holds in the same order what docs/confidence.md describes, which beside files is written to
    folder/confidence/CASE.json, too.

    One bad case does not stop a batch: it is reported, the others are done, then FailedCasesError is raised, with what
    would have been returned in its `results`.
    With a model of another trainer it predicts as nnUNetPredictor does; bad input is refused all the same.

    Worker processes take seconds to start, as each imports torch: a single case is predicted without, and with 0 of
    them asked for everything happens in this process.

    allow_missing: a case may lack modalities, files CASE_000X that are not there or channels of zeros in arrays (see
    docs/missing.md); without it such a case is a bad one.
    """

    # on the class, because a stock predictor can become one of these after its own __init__
    fused_volumes: Sequence[np.ndarray | None] = ()
    confidences: Sequence[dict | None] = ()
    allow_missing: bool = False
    _one_case: bool = False
    _failures: Sequence[Failure] = ()
    _output_folder: str | None = None
    _fused: torch.Tensor | None = None
    _restoration_db: Sequence[float | None] | None = None
    _label_sizes: torch.Tensor

    # ---- a model ----------------------------------------------------------------------------------------------------

    def __init__(self, *args, allow_missing: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.allow_missing = allow_missing

    def initialize_from_trained_model_folder(self, model_training_output_dir: str,
                                             use_folds: Sequence[int | str] | str | None,
                                             checkpoint_name: str = "checkpoint_final.pth"):
        add_to_ext_trainer()
        check_model_folder(model_training_output_dir)
        folds = [*find_checkpoints(Path(model_training_output_dir), use_folds, checkpoint_name)]
        try:
            with reading_data_only():
                super().initialize_from_trained_model_folder(model_training_output_dir, folds, checkpoint_name)
        except (ModelRefused, MemoryError, torch.OutOfMemoryError, OSError):
            raise
        except Exception as error:  # files that are not as nnU-Net makes them can raise anything
            raise ModelRefused(f"{model_training_output_dir}: can not be loaded ({type(error).__name__}: {error})"
                               ) from error
        self.prepare_preprocessing()

    def manual_initialization(self, *args, **kwargs):
        super().manual_initialization(*args, **kwargs)
        self.prepare_preprocessing()

    def prepare_preprocessing(self) -> None:
        """From here on it checks its input, and keeps what fused images need to be in their modality's units."""
        self.configuration_manager = RMRConfigurationManager(self.configuration_manager.configuration,
                                                             self.allow_missing, self.fuses)

    # ---- one preprocessed case --------------------------------------------------------------------------------------

    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        logits, images, self._label_sizes = self.predict_everything(data)
        self._fused = self._restoration_db = None
        if images is not None:
            modalities = data[:self.fusing_network.num_modalities]
            body = None
            if len(images) == len(modalities):
                body = body_of_preprocessed(list(modalities.cpu().numpy()))  # takes long, two want it
                self._restoration_db = restoration_db(images, modalities, body)
            self._fused = self.fuse(images, data, body)
        return logits

    def confidence(self, logits: np.ndarray, properties: dict) -> dict:
        """Of the case predicted last, see docs/confidence.md. logits: (heads, D, H, W); properties: nnU-Net's."""
        voxels = np.divide(properties["shape_after_cropping_and_before_resampling"], logits.shape[1:]).prod()
        names = label_names(self.dataset_json["labels"], self.label_manager)
        record = {"passes": len(self._label_sizes), "labels": label_confidence(
            torch.from_numpy(logits), self._label_sizes, names, float(np.prod(properties["spacing"]) * voxels / 1000),
            self.label_manager.has_regions)}
        if self._restoration_db is not None:
            record["restoration_db"] = dict(zip(distinct_names(channel_names(self.dataset_json)),
                                                self._restoration_db))
        return record

    def take_fused(self) -> torch.Tensor | None:
        """The fused image that belongs to the logits predicted last, handed over: (D, H, W), normalised, on the CPU."""
        fused, self._fused = self._fused, None
        return fused

    @property
    def reference(self) -> int:
        """Number of the modality whose intensities the fused image has."""
        return reference_of(self.plans_manager, self.dataset_json)

    def fuse(self, images: torch.Tensor, data: torch.Tensor, body: np.ndarray | None = None) -> torch.Tensor:
        """The fused image (D, H, W) of a whole case, of what the network has made of it (see `fused_image`).

        data: what was predicted from, (C, D, H, W). body: (D, H, W), where it is known already.
        """
        modalities = data[:self.fusing_network.num_modalities]
        # of a case, not of a tile: a modality that is zero in a tile is no more than background there
        presence = modalities.flatten(1).any(1) if self.allow_missing else None
        return fused_image(images, modalities, self.configuration_manager.spacing, self.reference, presence, body)

    def fusion_target(self, data: torch.Tensor, spacing: Sequence[float] | None = None) -> torch.Tensor:
        """What the fused image of a case aims at, made from its clean modalities (see fusion/fused_image.py).

        Returns (D, H, W), in the units of the reference modality in `data`.

        data: (C, D, H, W), normalised or not. spacing: of its grid in mm, by default the configuration's.
        """
        network = self.fusing_network
        return fusion_target(data[:network.num_modalities], network.num_images,
                             spacing or self.configuration_manager.spacing, self.reference)

    # ---- many cases, from and to files ------------------------------------------------------------------------------

    @wraps(nnUNetPredictor.predict_from_files)  # nnU-Net records the call by its signature
    def predict_from_files(self, list_of_lists_or_source_folder, output_folder_or_list_of_truncated_output_files,
                           *args, **kwargs):
        output = output_folder_or_list_of_truncated_output_files
        given = signature(super().predict_from_files).bind(list_of_lists_or_source_folder, output, *args, **kwargs)
        self._start(to_files=output is not None)
        if (self.configuration_manager.previous_stage_name is not None
                and given.arguments.get("folder_with_segs_from_prev_stage") is None):
            raise ValueError("this is the second stage of a cascade: folder_with_segs_from_prev_stage "
                             "(-prev_stage_predictions) has to say where the first one's segmentations are")
        self._output_folder = os.path.dirname(output[0]) or "." if isinstance(output, list) else output
        if output is not None:
            remove_leftovers([self._output_folder, *(join(self._output_folder, f) for f in ("fused", "confidence"))])
        with patch.object(predict_from_raw_data, "save_json", save_json_whole):
            results = super().predict_from_files(*given.args, **given.kwargs)
        report(self._failures, self._output_folder, results)  # of cases that were refused, if there were no others
        return results

    def predict_from_files_sequential(self, list_of_lists_or_source_folder,
                                      output_folder_or_list_of_truncated_output_files,
                                      save_probabilities: bool = False, overwrite: bool = True,
                                      folder_with_segs_from_prev_stage: str | None = None, num_parts: int = 1,
                                      part_id: int = 0):
        """As nnU-Net's: everything in this process. (Its own loop does not let go of what the fused image needs.)"""
        output = output_folder_or_list_of_truncated_output_files
        if isinstance(output, list):  # files without a folder are allowed here, but not there
            output = [join(os.path.curdir, file) for file in output]
        return self.predict_from_files(list_of_lists_or_source_folder, output, save_probabilities, overwrite, 0, 0,
                                       folder_with_segs_from_prev_stage, num_parts, part_id)

    def predict_single_npy_array(self, input_image: np.ndarray, image_properties: dict,
                                 segmentation_previous_stage: np.ndarray | None = None,
                                 output_file_truncated: str | None = None, save_or_return_probabilities: bool = False):
        self._start(to_files=output_file_truncated is not None)
        items = PreprocessAdapterFromNpy([input_image], [segmentation_previous_stage], [image_properties],
                                         [output_file_truncated], self.plans_manager, self.dataset_json,
                                         self.configuration_manager, verbose=self.verbose)
        return self.predict_from_data_iterator(items, save_or_return_probabilities, 0)[0]

    def _start(self, to_files: bool) -> None:
        """Before a batch: forget the last one, and find out now whether fused images can be written at the end."""
        self._failures, self._output_folder, self.fused_volumes, self.confidences = [], None, [], []
        if self.fuses:
            if self.allow_missing and RMRSettings.from_plans(self.plans_manager.plans).modality_dropout == 0:
                print("WARNING: this model was trained without modality dropout: what it makes of a case with a "
                      "missing modality is a guess (see docs/missing.md)")
            if to_files:
                check_can_write(self.plans_manager.image_reader_writer_class, self.dataset_json["file_ending"])
        elif self.allow_missing:
            raise ValueError("missing modalities (--missing) need a model of nnunetv2-rmr, but this one is of "
                             f"{self.trainer_name}")
        else:
            print(f"A model of {self.trainer_name} has no fused image to give, segmentations only "
                  "(did you forget -tr nnUNetTrainerRMR?)")

    def _manage_input_and_output_lists(self, list_of_lists_or_source_folder, output, prev=None, overwrite: bool = True,
                                       part_id: int = 0, num_parts: int = 1, save_probabilities: bool = False):
        ending = self.dataset_json["file_ending"]
        if isinstance(list_of_lists_or_source_folder, str):
            list_of_lists_or_source_folder = files_of_cases(list_of_lists_or_source_folder,
                                                            channel_names(self.dataset_json), ending)
        # a case counts as predicted only if its fused image is there, too; nnU-Net would skip it for its segmentation
        lists = super()._manage_input_and_output_lists(list_of_lists_or_source_folder, output, prev, True, part_id,
                                                       num_parts, save_probabilities)
        if overwrite or lists[1] is None:
            return lists

        todo = [i for i, case in enumerate(lists[1]) if not self.is_predicted(case, save_probabilities)]
        print(f"continuing: {len(lists[1]) - len(todo)} case(s) are complete, {len(todo)} to go")
        return tuple([entries[i] for i in todo] for entries in lists)

    def is_predicted(self, case: str, save_probabilities: bool) -> bool:
        """Whether all its files are there and whole. case: its path in the output folder, without ending."""
        ending = self.dataset_json["file_ending"]
        files = [case + ending] + [case + ".npz"] * save_probabilities + [fused_filename(case, ending)] * self.fuses
        return all(is_whole(Path(f)) for f in files)

    def _internal_get_data_iterator_from_lists_of_filenames(self, input_list_of_lists, seg_from_prev_stage_files,
                                                            output_filenames_truncated, num_processes: int):
        # at most num_processes + 1 cases ahead; nnU-Net's iterator stops everything at the first bad case
        self._one_case = len(input_list_of_lists) == 1
        nothing = [None] * len(input_list_of_lists)
        jobs = [(*case, self.plans_manager, self.configuration_manager, self.dataset_json, self.verbose_preprocessing)
                for case in zip(input_list_of_lists, seg_from_prev_stage_files or nothing,
                                output_filenames_truncated or nothing)]
        items = ahead(preprocess_case, jobs, 0 if self._one_case else min(num_processes, len(jobs)))
        return self._good_cases(input_list_of_lists, items)

    def _good_cases(self, files_of_each: list[list[str]], items: Iterable) -> Iterator[dict]:
        for files, item in zip(files_of_each, items):
            if isinstance(item, Failure):
                self._note(Failure(f"{', '.join(files)}: {DIED.message}") if item is DIED else item)
            else:
                yield item

    def _note(self, failure: Failure) -> None:
        print(f"ERROR: {failure.message}")
        self._failures = [*self._failures, failure]

    def predict_from_data_iterator(self, data_iterator, save_probabilities: bool = False,
                                   num_processes_segmentation_export: int = default_num_processes):
        # nnU-Net's loop stops everything at the first case that fails, and leaves half a file where it was writing
        processes, self._one_case = 0 if self._one_case else num_processes_segmentation_export, False
        confidences: list[dict | Failure] = []
        with (Beside(partial(new_pool, processes) if processes else None, processes + 2) as segmentations,
              Beside(partial(ThreadPoolExecutor, 1), 1) as fused_images):
            for number, item in enumerate(data_iterator):
                case = item["ofile"] or f"array {number}"
                self._predict_case(case, item, save_probabilities, segmentations, fused_images, confidences)
            results, images = segmentations.results(), fused_images.results()
        compute_gaussian.cache_clear()
        empty_cache(self.device)
        # one line for a case; no images: does not fuse
        for of_case in zip(results, images or results, confidences):
            for failure in [result for result in of_case if isinstance(result, Failure)][:1]:
                self._note(failure)
        volumes = [image if isinstance(image, np.ndarray) else None for image in images]
        self.fused_volumes = volumes if any(volume is not None for volume in volumes) else []
        self.confidences = [record if isinstance(record, dict) else None for record in confidences]
        failures, folder, self._failures, self._output_folder = self._failures, self._output_folder, [], None
        report(failures, folder, results)
        return results

    def _predict_case(self, case: str, item: dict, save_probabilities: bool, segmentations: Beside,
                      fused_images: Beside, confidences: list) -> None:
        """Predict a case and have both its outputs exported, or have them be the reason why there are none."""
        file, properties = item["ofile"], item["data_properties"]
        intensity_map = properties.pop(PROPERTY, None)
        print(f"predicting {os.path.basename(case)}")
        logits = or_failure(case, self._predict_item, item["data"])
        confidences.append(logits if isinstance(logits, Failure) else or_failure(
            f"{case}: no confidence", self._tell_confidence, file, case, logits, properties))
        if isinstance(logits, Failure):
            for exports in (segmentations, fused_images) if self.fuses else (segmentations,):
                exports.submit("", Failure, logits.message, logits.traceback)
            return
        if self.fuses:
            fused_images.submit(f"{case}: no fused image", export_fused, self.take_fused(), properties, intensity_map,
                                self.plans_manager, self.configuration_manager, self.dataset_json["file_ending"], file)
        segmentations.submit(f"{case}: no segmentation", export_segmentation, logits, properties,
                             self.configuration_manager, self.plans_manager, self.dataset_json, file,
                             save_probabilities)

    def _tell_confidence(self, file: str | None, case: str, logits: np.ndarray, properties: dict) -> dict:
        # before both outputs: who finds them, also in a prediction that was killed, finds this
        record = self.confidence(logits, properties)
        if file is not None:
            write_json(record, confidence_filename(file))
        print(in_words(f"case {os.path.basename(case)}", record))
        return record

    def _predict_item(self, data: torch.Tensor | str) -> np.ndarray:
        """Logits (classes, D, H, W); an array, as nnU-Net has found tensors to fail on their way to another process."""
        if isinstance(data, str):  # of nnU-Net's own iterators
            file, data = data, torch.from_numpy(np.load(data))
            os.remove(file)
        return self.predict_logits_from_preprocessed_data(data).cpu().numpy()
