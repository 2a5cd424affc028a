"""A fused image from the network's grid and units back to the input's: the inverse of nnU-Net's preprocessing."""

import os

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_rmr.inference.fused_writer import write_image
from nnunetv2_rmr.inference.intensity import IntensityMap


def fused_to_input_grid(fused: torch.Tensor | np.ndarray, properties: dict, intensity_map: IntensityMap | None,
                        plans_manager: PlansManager, configuration_manager: ConfigurationManager) -> np.ndarray:
    """Resample back, undo the normalisation, un-crop and un-transpose.

    fused: (D, H, W) on the configuration's grid, normalised intensities. properties: nnU-Net's, of the case.
    intensity_map: None leaves normalised intensities (the raw images are not at hand).
    Returns float32 on the grid of the input image; voxels that nnU-Net cropped away are zero, as in every modality.
    """
    fused = np.asarray(fused, dtype=np.float32)[None]
    spacing = [properties["spacing"][i] for i in plans_manager.transpose_forward]
    target_spacing = configuration_manager.spacing
    if len(target_spacing) < len(spacing):  # 2D configurations do not resample between slices
        target_spacing = [spacing[0], *target_spacing]
    shape = properties["shape_after_cropping_and_before_resampling"]
    # the function for images (cubic by default), not the one for probabilities: this is an image
    fused = np.asarray(configuration_manager.resampling_fn_data(fused, shape, target_spacing, spacing))[0]
    if intensity_map is not None:
        fused = intensity_map.undo(fused)
    full = np.zeros(properties["shape_before_cropping"], dtype=np.float32)
    full = insert_crop_into_image(full, fused, properties["bbox_used_for_cropping"])
    return np.ascontiguousarray(full.transpose(plans_manager.transpose_backward))


def fused_filename(output_file_truncated: str, file_ending: str) -> str:
    """folder/CASE -> folder/fused/CASE.nii.gz: a folder of its own, since nnU-Net evaluates all files of a folder."""
    folder, case = os.path.split(output_file_truncated)
    return os.path.join(folder, "fused", case + file_ending)


def export_fused(fused: torch.Tensor | np.ndarray, properties: dict, intensity_map: IntensityMap | None,
                 plans_manager: PlansManager, configuration_manager: ConfigurationManager, file_ending: str,
                 output_file_truncated: str) -> None:
    """Bring a fused image to the input's grid and units; write it beside the segmentation `output_file_truncated`."""
    image = fused_to_input_grid(fused, properties, intensity_map, plans_manager, configuration_manager)
    write_image(image, fused_filename(output_file_truncated, file_ending), plans_manager.image_reader_writer_class,
                file_ending, properties)
