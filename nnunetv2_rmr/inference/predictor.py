"""nnUNetPredictor that, in the same sliding-window pass, also predicts the fused image."""

from __future__ import annotations

import os
import pydoc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from inspect import signature
from os.path import join
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.data_iterators import PreprocessAdapterFromNpy
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.helpers import dummy_context, empty_cache

from nnunetv2_rmr.ext_trainer import add_to_ext_trainer
from nnunetv2_rmr.files.atomic import remove_leftovers
from nnunetv2_rmr.files.input_check import files_of_cases
from nnunetv2_rmr.files.whole_files import is_whole, save_json_whole
from nnunetv2_rmr.files.workers import Beside, WorkerDied, ahead, new_pool
from nnunetv2_rmr.fusion.fused_image import fused_image, fusion_target
from nnunetv2_rmr.inference.export_fused import export_fused, fused_filename, fused_to_input_grid
from nnunetv2_rmr.inference.export_segmentation import export_segmentation
from nnunetv2_rmr.inference.failures import FailedCasesError, Failure, or_failure, report
from nnunetv2_rmr.inference.fused_writer import check_can_write
from nnunetv2_rmr.inference.intensity import IntensityMap
from nnunetv2_rmr.inference.preprocessing import ABSENT, PROPERTY, RMRConfigurationManager, preprocess_case
from nnunetv2_rmr.inference.sliding_window import ImageAccumulator
from nnunetv2_rmr.inference.trust import ModelRefused, check_model_folder, reading_data_only
from nnunetv2_rmr.networks.fusing import FusingNetwork, unwrapped
from nnunetv2_rmr.settings import RMRSettings, channel_names, reference_channel


def _itself(result):
    return result


class _FirstPassTap:
    """Stands in for the network during one tile: its first, un-mirrored call also yields the images.

    So nnU-Net's own mirroring code runs unchanged and the images cost one pass through their head, no second forward.
    """

    def __init__(self, network: FusingNetwork):
        self.network = network
        self.images = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.images is not None:
            return self.network(x)
        logits, self.images = self.network(x, images=True)
        return logits


class RMRPredictor(nnUNetPredictor):
    """Drop-in for nnUNetPredictor: same arguments, same segmentations, and the fused image besides.

    Where segmentations go to files, the fused image of folder/CASE is written to folder/fused/CASE. Where they are
    returned, `fused_volumes` holds the fused images of the last call in the order of the cases: float32 (D, H, W), on
    the grid and in the axis order of the input, in the units of the reference modality; None for a case that failed.

    One bad case does not stop a batch: it is reported, the others are done, then FailedCasesError is raised, with what
    would have been returned in its `results`.
    With a model of another trainer it behaves like nnUNetPredictor.

    Worker processes take seconds to start, as each imports torch: a single case is predicted without, and with 0 of
    them asked for everything happens in this process.

    allow_missing: a case may lack modalities, files CASE_000X that are not there or channels of zeros in arrays (see
    docs/missing.md); without it such a case is a bad one.
    """

    # on the class, because a stock predictor can become one of these after its own __init__ (see stock.py)
    fused_volumes: list[np.ndarray] = ()
    allow_missing: bool = False
    _one_case: bool = False
    _failures: list[Failure] = ()
    _output_folder: str | None = None
    _fused: torch.Tensor | None = None
    _tapped: torch.nn.Module | None = None  # the network while something stands in for it
    _fused_of_folds: list[torch.Tensor] | None = None
    _accumulator: ImageAccumulator | None = None

    # ---- initialisation ---------------------------------------------------------------------------------------------

    def __init__(self, *args, allow_missing: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.allow_missing = allow_missing

    def initialize_from_trained_model_folder(self, model_training_output_dir: str,
                                             use_folds: Sequence[int | str] | str | None,
                                             checkpoint_name: str = "checkpoint_final.pth"):
        add_to_ext_trainer()
        check_model_folder(model_training_output_dir)
        try:
            with reading_data_only():
                super().initialize_from_trained_model_folder(model_training_output_dir, use_folds, checkpoint_name)
        except (KeyError, RuntimeError, ImportError, pydoc.ErrorDuringImport) as error:
            raise ModelRefused(f"{model_training_output_dir}: can not be loaded ({type(error).__name__}: {error})"
                               ) from error
        self.remember_intensities()

    def manual_initialization(self, *args, **kwargs):
        super().manual_initialization(*args, **kwargs)
        self.remember_intensities()

    def remember_intensities(self) -> None:
        """From here on preprocessing keeps what is needed to write fused images in their modality's units."""
        if self.fuses:
            self.configuration_manager = RMRConfigurationManager(self.configuration_manager.configuration,
                                                                 self.allow_missing)

    @property
    def _rmrnet(self):
        """The network without the wrappers of DDP and torch.compile."""
        return unwrapped(self.network if self._tapped is None else self._tapped)

    @property
    def fuses(self) -> bool:
        """Whether the loaded model has a fused image to give."""
        return isinstance(self._rmrnet, FusingNetwork)

    def _presence_in(self, data: torch.Tensor) -> torch.Tensor | None:
        """(M,): which modalities of a whole case (C, D, H, W) are there; None if all are.

        Of a case, not of a tile: a modality that is zero in a tile is no more than background there.
        """
        if not (self.allow_missing and self.fuses):
            return None
        presence = data[:self._rmrnet.num_modalities].flatten(1).any(1)
        return None if presence.all() else presence

    @property
    def reference(self) -> int:
        """Number of the modality whose intensities the fused image has."""
        settings = RMRSettings.from_plans(self.plans_manager.plans)
        return reference_channel(settings.reference_modality, channel_names(self.dataset_json))

    # ---- the sliding window -----------------------------------------------------------------------------------------

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        if self._accumulator is None:
            return super()._internal_maybe_mirror_and_predict(x)
        network = self.network
        tap = _FirstPassTap(network)
        self._tapped, self.network = network, tap
        try:
            logits = super()._internal_maybe_mirror_and_predict(x)
        finally:
            self.network, self._tapped = network, None
        self._accumulator.add(next(self._tiles), tap.images)
        return logits

    def _internal_predict_sliding_window_return_logits(self, data: torch.Tensor, slicers, do_on_device: bool = True):
        if not self.fuses:
            return super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)
        self._accumulator = self._new_accumulator(data, do_on_device)
        self._tiles = iter(slicers)  # nnU-Net predicts the tiles in this order
        try:
            logits = super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)
            self._fused = self._accumulator.mean().cpu()
        finally:
            self._accumulator = None
        return logits

    def _new_accumulator(self, data: torch.Tensor, on_device: bool) -> ImageAccumulator:
        return ImageAccumulator((self._rmrnet.num_images, *data.shape[1:]), self.configuration_manager.patch_size,
                                self.use_gaussian, self.device if on_device else torch.device("cpu"))

    def _pad(self, image: torch.Tensor) -> tuple[torch.Tensor, tuple]:
        """As nnU-Net pads an image smaller than the patch; and the spatial slicer that takes the padding off again."""
        padded, slicer = pad_nd_image(image, self.configuration_manager.patch_size, "constant", {"value": 0}, True)
        return padded, tuple(slicer[1:])

    def predict_sliding_window_return_logits(self, input_image: torch.Tensor):
        logits = super().predict_sliding_window_return_logits(input_image)
        if self._fused_of_folds is not None:  # else called for the segmentation alone, as nnU-Net's trainers do
            self._fused_of_folds.append(self._fused[(slice(None), *self._pad(input_image[:1])[1])])
        return logits

    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        self._fused_of_folds = [] if self.fuses else None
        try:
            logits = super().predict_logits_from_preprocessed_data(data)
            of_folds = self._fused_of_folds
            self._fused = self.fuse(sum(of_folds) / len(of_folds), data) if self.fuses else None
        finally:
            self._fused_of_folds = None
        return logits

    def take_fused(self) -> torch.Tensor | None:
        """The fused image that belongs to the logits predicted last, handed over: (D, H, W), normalised, on the CPU."""
        fused, self._fused = self._fused, None
        return fused

    @torch.inference_mode()
    def predict_images_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        """The images of `fuse` alone, with the present weights: (images, D, H, W), normalised, on the CPU.

        data: (C, D, H, W) preprocessed.
        """
        self.network = self.network.to(self.device).eval()
        padded, slicer = self._pad(data)
        accumulator = self._new_accumulator(padded, on_device=False)
        with torch.autocast(self.device.type) if self.device.type == "cuda" else dummy_context():
            for tile in self._internal_get_sliding_window_slicers(padded.shape[1:]):
                accumulator.add(tile, self.network(padded[tile][None].to(self.device), images=True)[1])
        return accumulator.mean()[(slice(None), *slicer)]

    def fuse(self, images: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        """The fused image (D, H, W) of a whole case, of what the network has made of it (see `fused_image`).

        data: what was predicted from, (C, D, H, W).
        """
        return fused_image(images, data[:self._rmrnet.num_modalities], self.configuration_manager.spacing,
                           self.reference, self._presence_in(data))

    def fusion_target(self, data: torch.Tensor, spacing: Sequence[float] | None = None) -> torch.Tensor:
        """What the fused image of a case aims at, made from its clean modalities (see fusion/fused_image.py).

        Returns (D, H, W), in the units of the reference modality in `data`.

        data: (C, D, H, W), normalised or not. spacing: of its grid in mm, by default the configuration's.
        """
        return fusion_target(data[:self._rmrnet.num_modalities], self._rmrnet.num_images,
                             spacing or self.configuration_manager.spacing, self.reference)

    # ---- from and to files ------------------------------------------------------------------------------------------

    def _manage_input_and_output_lists(self, list_of_lists_or_source_folder, output, prev=None, overwrite: bool = True,
                                       part_id: int = 0, num_parts: int = 1, save_probabilities: bool = False):
        if isinstance(list_of_lists_or_source_folder, str):
            list_of_lists_or_source_folder = files_of_cases(
                list_of_lists_or_source_folder, channel_names(self.dataset_json), self.dataset_json["file_ending"])
        # a case counts as predicted only if its fused image is there, too; nnU-Net would skip it for its segmentation
        lists = super()._manage_input_and_output_lists(list_of_lists_or_source_folder, output, prev, True, part_id,
                                                       num_parts, save_probabilities)
        if overwrite or lists[1] is None:
            return lists
        ending = self.dataset_json["file_ending"]

        def done(case: str) -> bool:
            files = [case + ending] + [case + ".npz"] * save_probabilities + [fused_filename(case, ending)] * self.fuses
            return all(is_whole(Path(f)) for f in files)

        todo = [i for i, case in enumerate(lists[1]) if not done(case)]
        print(f"continuing: {len(lists[1]) - len(todo)} case(s) are complete, {len(todo)} to go")
        return tuple([entries[i] for i in todo] for entries in lists)

    @wraps(nnUNetPredictor.predict_from_files)  # nnU-Net records the call by its signature
    def predict_from_files(self, list_of_lists_or_source_folder, output_folder_or_list_of_truncated_output_files,
                           *args, **kwargs):
        given = signature(super().predict_from_files).bind(
            list_of_lists_or_source_folder, output_folder_or_list_of_truncated_output_files, *args, **kwargs)
        self._start(to_files=output_folder_or_list_of_truncated_output_files is not None)
        output = output_folder_or_list_of_truncated_output_files
        self._output_folder = os.path.dirname(output[0]) or "." if isinstance(output, list) else output
        if self._output_folder is not None:
            remove_leftovers([self._output_folder, os.path.dirname(fused_filename(join(self._output_folder, "_"), ""))])
        self._refuse_without_first_stage(given.arguments.get("folder_with_segs_from_prev_stage"))
        with patch.object(predict_from_raw_data, "save_json", save_json_whole):
            return super().predict_from_files(*given.args, **given.kwargs)

    def predict_from_files_sequential(self, list_of_lists_or_source_folder,
                                      output_folder_or_list_of_truncated_output_files,
                                      save_probabilities: bool = False, overwrite: bool = True,
                                      folder_with_segs_from_prev_stage: str | None = None, num_parts: int = 1,
                                      part_id: int = 0):
        """As nnU-Net's: everything in this process. (Its own loop does not let go of what the fused image needs.)"""
        output = output_folder_or_list_of_truncated_output_files
        if isinstance(output, list):  # files without a folder are allowed here, but not there
            output = [join(os.path.curdir, file) for file in output]
        return self.predict_from_files(list_of_lists_or_source_folder, output, save_probabilities, overwrite,
                                       num_processes_preprocessing=0, num_processes_segmentation_export=0,
                                       folder_with_segs_from_prev_stage=folder_with_segs_from_prev_stage,
                                       num_parts=num_parts, part_id=part_id)

    def _start(self, to_files: bool) -> None:
        """Before a batch: forget the last one, and find out now whether fused images can be written at the end."""
        self._failures = []
        self._output_folder = None
        self.fused_volumes = []
        if not self.fuses:
            if self.allow_missing:
                raise ValueError("missing modalities (--missing) need a model of nnunetv2-rmr, but this one is of "
                                 f"{self.trainer_name}")
            print(f"A model of {self.trainer_name} has no fused image to give, segmentations only "
                  "(did you forget -tr nnUNetTrainerRMR?)")
        else:
            if self.allow_missing and RMRSettings.from_plans(self.plans_manager.plans).modality_dropout == 0:
                print("WARNING: this model was trained without modality dropout: what it makes of a case with a "
                      "missing modality is a guess (see docs/missing.md)")
            if to_files:
                check_can_write(self.plans_manager.image_reader_writer_class, self.dataset_json["file_ending"])

    def _refuse_without_first_stage(self, folder_with_segs_from_prev_stage: str | None) -> None:
        if self.configuration_manager.previous_stage_name is not None and folder_with_segs_from_prev_stage is None:
            raise ValueError("this is the second stage of a cascade: folder_with_segs_from_prev_stage "
                             "(-prev_stage_predictions) has to say where the first one's segmentations are")

    def _report_failures(self) -> None:
        failures, self._failures = self._failures, []
        folder, self._output_folder = self._output_folder, None
        report(failures, folder)

    def _note(self, failure: Failure) -> None:
        print(f"ERROR: {failure.message}")
        self._failures = [*self._failures, failure]

    def _internal_get_data_iterator_from_lists_of_filenames(self, input_list_of_lists, seg_from_prev_stage_files,
                                                            output_filenames_truncated, num_processes: int):
        # nnU-Net's iterator stops everything at the first bad case
        self._one_case = len(input_list_of_lists) == 1
        return self._preprocess(input_list_of_lists, seg_from_prev_stage_files, output_filenames_truncated,
                                num_processes)

    def _preprocess(self, files, previous, outputs, num_processes: int) -> Iterator[dict]:
        """Preprocessed cases in order, at most num_processes + 1 ahead; 0 processes: in this one. Notes bad cases."""
        nothing = [None] * len(files)
        jobs = [(f, p, o, self.plans_manager, self.configuration_manager, self.dataset_json, self.verbose_preprocessing)
                for f, p, o in zip(files, previous or nothing, outputs or nothing)]
        items = ahead(preprocess_case, jobs, min(num_processes, len(jobs)) if len(jobs) > 1 else 0)
        for case_files, item in zip(files, items):
            if isinstance(item, WorkerDied):
                item = Failure(f"{', '.join(case_files)}: {item}")
            if isinstance(item, Failure):
                self._note(item)
            else:
                if ABSENT in item["data_properties"]:
                    self._say_what_is_missing(case_files, item["data_properties"][ABSENT])
                yield item

    def _say_what_is_missing(self, files: list[str], absent: list[int]) -> None:
        names, ending = channel_names(self.dataset_json), self.dataset_json["file_ending"]
        case = os.path.basename(files[0])[:-(len(ending) + 5)]
        print(f"case {case} is predicted without " + ", ".join(f"{case}_{i:04d}{ending} ({names[i]})" for i in absent))
        reference = self.reference
        if reference in absent and self.configuration_manager.normalization_schemes[reference] != "CTNormalization":
            print(f"case {case}: {names[reference]} would give the fused image its units; without it, the fused image "
                  "is in normalised intensities")

    def predict_from_data_iterator(self, data_iterator, save_probabilities: bool = False,
                                   num_processes_segmentation_export: int = default_num_processes):
        # nnU-Net's loop stops everything at the first case that fails, and leaves half a file where it was writing
        processes, self._one_case = 0 if self._one_case else num_processes_segmentation_export, False
        dataset, cases = (self.configuration_manager, self.plans_manager, self.dataset_json), []
        with (Beside(partial(new_pool, processes) if processes else None, processes + 2) as segmentations,
              Beside(partial(ThreadPoolExecutor, 1), 1) as fused_images):
            for number, item in enumerate(data_iterator):
                case, properties, file = item["ofile"] or f"array {number}", item["data_properties"], item["ofile"]
                intensity_map = properties.pop(PROPERTY, None)
                print(f"predicting {os.path.basename(case)}")
                logits = or_failure(case, self._predict_item, item)
                cases.append(case)
                if isinstance(logits, Failure):
                    segmentations.submit(_itself, logits)
                    fused_images.submit(_itself, None)
                    continue
                fused = self.take_fused()
                fused_images.submit(or_failure, f"{case}: no fused image", self._export_fused, fused, properties,
                                    intensity_map, file)
                segmentations.submit(or_failure, f"{case}: no segmentation", export_segmentation, logits, properties,
                                     *dataset, file, save_probabilities)
            results, fused_volumes = segmentations.results(), fused_images.results()
        if isinstance(data_iterator, MultiThreadedAugmenter):
            data_iterator._finish()
        compute_gaussian.cache_clear()
        empty_cache(self.device)
        for case, *both in zip(cases, results, fused_volumes):  # one line for a case
            result = next((result for result in both if isinstance(result, (Failure, WorkerDied))), None)
            if result is not None:
                self._note(result if isinstance(result, Failure) else Failure(f"{case}: no segmentation ({result})"))
        if self.fuses and any(isinstance(volume, np.ndarray) for volume in fused_volumes):
            self.fused_volumes = [volume if isinstance(volume, np.ndarray) else None for volume in fused_volumes]
        else:
            self.fused_volumes = []
        try:
            self._report_failures()
        except FailedCasesError as error:
            error.results = results
            raise
        return results

    def _predict_item(self, item: dict) -> np.ndarray:
        """Logits (classes, D, H, W); an array, as nnU-Net has found tensors to fail on their way to another process."""
        data = item["data"]
        if isinstance(data, str):  # of nnU-Net's own iterators
            file, data = data, torch.from_numpy(np.load(data))
            os.remove(file)
        return self.predict_logits_from_preprocessed_data(data).cpu().numpy()

    def _export_fused(self, fused: torch.Tensor | None, properties: dict, intensity_map: IntensityMap | None,
                      file: str | None) -> np.ndarray | None:
        """To folder/fused/CASE; without a file returned, on the grid of the input. None if the model does not fuse."""
        if not self.fuses:
            return None
        job = fused, properties, intensity_map, self.plans_manager, self.configuration_manager
        return fused_to_input_grid(*job) if file is None else export_fused(*job, self.dataset_json["file_ending"], file)

    def predict_single_npy_array(self, input_image: np.ndarray, image_properties: dict,
                                 segmentation_previous_stage: np.ndarray | None = None,
                                 output_file_truncated: str | None = None, save_or_return_probabilities: bool = False):
        self._start(to_files=output_file_truncated is not None)
        items = PreprocessAdapterFromNpy([input_image], [segmentation_previous_stage], [image_properties],
                                         [output_file_truncated], self.plans_manager, self.dataset_json,
                                         self.configuration_manager, verbose=self.verbose)
        return self.predict_from_data_iterator(items, save_or_return_probabilities, 0)[0]
