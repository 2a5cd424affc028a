"""From the network's grid and units to files on the input's: segmentations by nnU-Net, fused images by us."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_rmr.inference.fused_writer import appearing_whole, write_image


def export_segmentation(logits: np.ndarray, properties: dict, configuration_manager: ConfigurationManager,
                        plans_manager: PlansManager, dataset_json: dict, output_file_truncated: str | None,
                        save_probabilities: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray] | None:
    """Write folder/CASE.nii.gz and, with save_probabilities, CASE.npz and CASE.pkl, each of which appears under its
    name only when it is whole; without a file return what would be in them.

    logits: (classes, D, H, W) on the configuration's grid. Raises OSError if the disk is full.
    """
    if output_file_truncated is None:
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, plans_manager, configuration_manager, plans_manager.get_label_manager(dataset_json), properties,
            save_probabilities)
    ending = dataset_json["file_ending"]
    with appearing_whole(output_file_truncated + ending) as temporary:
        export_prediction_from_logits(logits, properties, configuration_manager, plans_manager, dataset_json,
                                      temporary[:-len(ending)], save_probabilities)
    return None


@dataclass(frozen=True)
class IntensityMap:
    """How nnU-Net normalised the reference modality of one case, and where the case has data at all.

    raw = slope * normalised + intercept. All of nnU-Net's normalisations are affine (CT's clips besides; what it
    clipped can not come back). `inside`: boolean mask (D, H, W) on nnU-Net's cropped, not yet resampled grid; outside
    of it every modality is exactly zero.
    """

    slope: float
    intercept: float
    inside: np.ndarray

    @classmethod
    def fit(cls, raw: np.ndarray, normalised: np.ndarray, inside: np.ndarray) -> IntensityMap:
        """The map between two versions of one image, same shape (D, H, W), of which none was clipped: least squares."""
        x, y = normalised[inside].astype(np.float64), raw[inside].astype(np.float64)
        variance = x.var()
        slope = ((x - x.mean()) * (y - y.mean())).mean() / variance if variance > 0 else 1.0
        return cls(float(slope), float(y.mean() - slope * x.mean()), inside)

    def undo(self, normalised: np.ndarray) -> np.ndarray:
        """Normalised image (D, H, W) on the cropped grid -> float32 in the reference modality's units.

        Voxels without data in any modality are zero, as they are in the reference modality.
        """
        raw = normalised.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)
        raw[~self.inside] = 0
        return raw


def fused_to_input_grid(fused: torch.Tensor | np.ndarray, properties: dict, intensity_map: IntensityMap | None,
                        plans_manager: PlansManager, configuration_manager: ConfigurationManager) -> np.ndarray:
    """Resample back, undo the normalisation, un-crop and un-transpose: the inverse of nnU-Net's preprocessing.

    fused: (D, H, W) on the configuration's grid, normalised intensities. properties: nnU-Net's, of the case.
    intensity_map: None leaves normalised intensities (the raw images are not at hand).
    Returns float32 on the grid of the input image; voxels that nnU-Net cropped away are zero, as in every modality.
    """
    spacing = [properties["spacing"][i] for i in plans_manager.transpose_forward]
    target_spacing = configuration_manager.spacing
    if len(target_spacing) < len(spacing):  # 2D configurations do not resample between slices
        target_spacing = [spacing[0], *target_spacing]
    shape = properties["shape_after_cropping_and_before_resampling"]
    # the function for images (cubic by default), not the one for probabilities: this is an image
    normalised = np.asarray(fused, dtype=np.float32)[None]
    image = np.asarray(configuration_manager.resampling_fn_data(normalised, shape, target_spacing, spacing))[0]
    if intensity_map is not None:
        image = intensity_map.undo(image)
    full = np.zeros(properties["shape_before_cropping"], dtype=np.float32)
    full = insert_crop_into_image(full, image, properties["bbox_used_for_cropping"])
    return np.ascontiguousarray(full.transpose(plans_manager.transpose_backward))


def fused_filename(output_file_truncated: str, file_ending: str) -> str:
    """folder/CASE -> folder/fused/CASE.nii.gz: a folder of its own, since nnU-Net evaluates all files of a folder."""
    folder, case = os.path.split(output_file_truncated)
    return os.path.join(folder, "fused", case + file_ending)


def export_fused(fused: torch.Tensor | np.ndarray, properties: dict, intensity_map: IntensityMap | None,
                 plans_manager: PlansManager, configuration_manager: ConfigurationManager, file_ending: str,
                 output_file_truncated: str | None) -> np.ndarray | None:
    """Bring a fused image to the input's grid and units; write it beside the segmentation `output_file_truncated`, or
    return it if there is no such file. For the rest see `fused_to_input_grid`."""
    image = fused_to_input_grid(fused, properties, intensity_map, plans_manager, configuration_manager)
    if output_file_truncated is None:
        return image
    write_image(image, fused_filename(output_file_truncated, file_ending), plans_manager.image_reader_writer_class,
                file_ending, properties)
    return None
