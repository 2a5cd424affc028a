"""nnU-Net's preprocessing, which also checks its input and, for models that fuse, remembers how the reference modality
was normalised."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_rmr.files.endings import case_name
from nnunetv2_rmr.files.input_check import absent_channels, check_array, check_files, label_map
from nnunetv2_rmr.files.nifti import misnamed_output
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.workers import Failure, or_failure
from nnunetv2_rmr.inference.export import IntensityMap
from nnunetv2_rmr.registration import misregistration
from nnunetv2_rmr.settings import RMRSettings, channel_names, distinct_names, reference_channel

PROPERTY = "rmr_intensity_map"


def reference_of(plans_manager: PlansManager, dataset_json: dict) -> int:
    """Number of the modality whose intensities a model's fused images have."""
    settings = RMRSettings.from_plans(plans_manager.plans)
    return reference_channel(settings.reference_modality, channel_names(dataset_json))


class ChecksInput:
    """Mixed into the preprocessor of the plans: run_case* refuse what can not be predicted from, by BadCaseError.

    With allow_missing a case may lack modalities: those whose file CASE_000X is not there, and those that are zero in
    every voxel. They are zero in every voxel of the result. `absent`: their indices in the case done last.
    """

    allow_missing: bool = False
    absent: list[int]
    _files: Sequence[str] = ()
    _first_stage: str = "the first stage's segmentation"

    def run_case(self, image_files, seg_file, plans_manager, configuration_manager, dataset_json):
        check_files(image_files, [seg_file] if seg_file else [])
        self._files, self._first_stage = list(image_files), seg_file or self._first_stage
        try:
            return super().run_case(image_files, seg_file, plans_manager, configuration_manager, dataset_json)
        finally:
            del self._files, self._first_stage

    def run_case_npy(self, data, seg, properties, plans_manager, configuration_manager, dataset_json):
        names = channel_names(dataset_json)
        self.absent = []
        if self.allow_missing:
            data, self.absent = self._complete(data, names, dataset_json["file_ending"])
        check_array(data, names, self._files, dataset_json["file_ending"], self.absent)
        coarse = {name: misregistration.coarse(channel, properties["spacing"])
                  for name, channel in zip(distinct_names(names), data)}
        case = case_name(self._files[0], dataset_json["file_ending"]) if self._files else "given as an array"
        for line in misregistration.warnings(coarse, properties["spacing"]):
            print(f"WARNING: case {case}: {line}")
        if seg is not None:  # nnU-Net takes .9999, a rounding error of 1, for no label at all
            labels = plans_manager.get_label_manager(dataset_json).all_labels
            seg = label_map(seg, Path(self._first_stage), {0, *labels}).astype(seg.dtype)
        return super().run_case_npy(data, seg, properties, plans_manager, configuration_manager, dataset_json)

    def _complete(self, data: np.ndarray, names: list[str], file_ending: str) -> tuple[np.ndarray, list[int]]:
        """Zeros in the place of absent modalities, and the indices of these."""
        if self._files:
            if len(data) != len(self._files):  # RGB: several channels in a file
                return data, []
            absent = absent_channels(self._files, names, file_ending)
            complete = np.zeros((len(names), *data.shape[1:]), dtype=data.dtype)
            complete[[i for i in range(len(names)) if i not in absent]] = data
            data = complete
        return data, [i for i, channel in enumerate(data) if not channel.any()]


class RemembersIntensities(ChecksInput):
    """Besides, run_case* put an IntensityMap under PROPERTY into the properties."""

    def run_case_npy(self, data, seg, properties, plans_manager, configuration_manager, dataset_json):
        self._reference = reference_of(plans_manager, dataset_json)
        data, seg, properties = super().run_case_npy(data, seg, properties, plans_manager, configuration_manager,
                                                     dataset_json)
        properties[PROPERTY] = self._intensity_map
        return data, seg, properties

    def _normalize(self, data, seg, configuration_manager, foreground_intensity_properties_per_channel):
        # the one moment at which raw and normalised intensities exist on the same grid
        reference, inside = self._reference, seg[0] >= 0
        raw = data[reference].copy()
        normalised = super()._normalize(data, seg, configuration_manager, foreground_intensity_properties_per_channel)
        normalised[self.absent] = 0  # CT's normalisation makes something else of zeros
        if configuration_manager.normalization_schemes[reference] == "CTNormalization":
            # by the plans' mean and deviation: known whatever was clipped, and for a case without its CT, too
            of_training = foreground_intensity_properties_per_channel[str(reference)]
            self._intensity_map = IntensityMap(float(of_training["std"]), float(of_training["mean"]), inside)
        elif reference in self.absent:
            # whose mean and deviation nobody knows: MRI units differ from scan to scan, and the plans hold statistics
            # of the lesions' voxels only. Normalised intensities stay as they are
            self._intensity_map = IntensityMap(1.0, 0.0, inside)
        else:
            self._intensity_map = IntensityMap.fit(raw, normalised[reference], inside)
        return normalised


class RMRConfigurationManager(ConfigurationManager):
    """A configuration whose preprocessor checks and, of a model that fuses, remembers, in all of nnU-Net's own
    preprocessing, worker processes too."""

    def __init__(self, configuration: dict, allow_missing: bool = False, fuses: bool = True):
        super().__init__(configuration)
        self.allow_missing, self.fuses = allow_missing, fuses

    @property
    def preprocessor_class(self):
        base = ConfigurationManager.preprocessor_class.fget(self)
        mixed_in = RemembersIntensities if self.fuses else ChecksInput
        return type(f"{mixed_in.__name__}In{base.__name__}", (mixed_in, base), {"allow_missing": self.allow_missing})


def preprocess_case(files: Sequence[str], previous_stage_file: str | None, output: str | None,
                    plans_manager: PlansManager, configuration_manager: ConfigurationManager, dataset_json: dict,
                    verbose: bool) -> dict | Failure:
    """What nnU-Net's data iterators yield for one case, or the reason why there is nothing to yield."""
    def preprocess() -> dict:
        if output is not None and (problem := misnamed_output(os.path.basename(output), dataset_json["file_ending"])):
            raise BadCaseError(problem)
        preprocessor = configuration_manager.preprocessor_class(verbose=verbose)
        data, seg, properties = preprocessor.run_case(files, previous_stage_file, plans_manager, configuration_manager,
                                                      dataset_json)
        if absent := getattr(preprocessor, "absent", ()):
            _tell_absent(files, absent, plans_manager, configuration_manager, dataset_json)
        if previous_stage_file is not None:
            labels = plans_manager.get_label_manager(dataset_json).foreground_labels
            data = np.vstack((data, convert_labelmap_to_one_hot(seg[0], labels, data.dtype)))
        data = torch.from_numpy(data).to(dtype=torch.float32, memory_format=torch.contiguous_format)
        return {"data": data, "data_properties": properties, "ofile": output}

    return or_failure(f"can not read or preprocess {', '.join(files)}", preprocess)


def _tell_absent(files: Sequence[str], absent: Sequence[int], plans_manager: PlansManager,
                 configuration_manager: ConfigurationManager, dataset_json: dict) -> None:
    names, ending = channel_names(dataset_json), dataset_json["file_ending"]
    case = case_name(files[0], ending)
    print(f"case {case} is predicted without " + ", ".join(f"{case}_{i:04d}{ending} ({names[i]})" for i in absent))
    reference = reference_of(plans_manager, dataset_json)
    if reference in absent and configuration_manager.normalization_schemes[reference] != "CTNormalization":
        print(f"case {case}: {names[reference]} would give the fused image its units; without it, the fused image is "
              "in normalised intensities")
