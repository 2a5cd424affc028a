"""nnU-Net's export of a segmentation, whose files appear under their names only when they are whole."""

import os
import shutil

import numpy as np
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_rmr.files.atomic import temporary_beside
from nnunetv2_rmr.files.whole_files import refuse_half


def export_segmentation(logits: np.ndarray, properties: dict, configuration_manager: ConfigurationManager,
                        plans_manager: PlansManager, dataset_json: dict, output_file_truncated: str | None,
                        save_probabilities: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray] | None:
    """Write folder/CASE.nii.gz and, with save_probabilities, CASE.npz and CASE.pkl; without a file return what would be
    in them. logits: (classes, D, H, W) on the configuration's grid. Raises OSError if the disk is full.
    """
    if output_file_truncated is None:
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, plans_manager, configuration_manager, plans_manager.get_label_manager(dataset_json), properties,
            save_probabilities)
    folder, case = os.path.split(output_file_truncated)
    ending = dataset_json["file_ending"]
    temporary = temporary_beside(output_file_truncated)
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        export_prediction_from_logits(logits, properties, configuration_manager, plans_manager, dataset_json,
                                      str(temporary / case), save_probabilities)
        for file in temporary.iterdir():
            refuse_half(file, output_file_truncated + ending)
        for file in sorted(temporary.iterdir(), key=lambda file: file.name == case + ending):  # the segmentation last
            os.replace(file, os.path.join(folder, file.name))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return None
