"""One trained model of a benchmark: any folder that nnU-Net can predict with, of our trainers or not."""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

from nnunetv2_rmr.degradations.degrade import DEGRADATIONS
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.inference.export import fused_to_input_grid
from nnunetv2_rmr.inference.model_folder import find_checkpoints
from nnunetv2_rmr.inference.predictor import RMRPredictor
from nnunetv2_rmr.inference.preprocessing import PROPERTY
from nnunetv2_rmr.settings import RMRSettings, channel_names, distinct_names


class BenchmarkModel:
    """A model, loaded once for all cases.

    fuses: whether it makes fused images; of such a model target(images, spacing) is what they aim at, made of raw
    images (C, Z, Y, X), and reference the channel whose intensities they have.

    folder: of the trained model (with dataset.json, plans.json and fold_X). folds: None for all that have the
    checkpoint, without fold_all if there are others. Raises BadCaseError for folders without a usable model.
    """

    def __init__(self, name: str, folder: Path, folds: Sequence[int | str] | None, checkpoint: str,
                 device: torch.device, mirroring: bool, step_size: float):
        self.name, self.folder, self.device = name, folder, device
        self.predictor = RMRPredictor(tile_step_size=step_size, use_mirroring=mirroring, device=device,
                                      perform_everything_on_device=device.type == "cuda", allow_tqdm=False,
                                      allow_missing=True)
        try:
            self.predictor.initialize_from_trained_model_folder(str(folder), folds, checkpoint)
            self.checkpoints = find_checkpoints(folder, folds, checkpoint)
            self.fuses, self.target = self.predictor.fuses, self.predictor.fusion_target
            self.reference = self.predictor.reference if self.fuses else None
        except (RuntimeError, ValueError, AttributeError, ImportError, FileNotFoundError) as error:
            raise BadCaseError(f"-m {name}={folder}: {str(error).strip() or type(error).__name__}") from error
        if self.predictor.configuration_manager.previous_stage_name is not None:
            raise BadCaseError(f"-m {name}={folder}: the second stage of a cascade needs the first one's "
                                   "predictions, which the benchmark does not make")
        self.dataset_json = self.predictor.dataset_json
        self.channels = distinct_names(channel_names(self.dataset_json))

    def description(self) -> dict:
        """For the results: where the model is, what it is, and its checkpoints' hashes, which identify it."""
        return {"folder": str(self.folder), "trainer": self.predictor.trainer_name,
                "plans": self.predictor.plans_manager.plans_name,
                "configuration": self.folder.name.split("__")[-1], "folds": list(self.checkpoints),
                "mirroring": self.predictor.use_mirroring, "step_size": self.predictor.tile_step_size,
                "checkpoint": next(iter(self.checkpoints.values())).name,
                "checkpoints": [hashlib.sha256(file.read_bytes()).hexdigest()[:16]
                                for file in self.checkpoints.values()]}

    @property
    def trained_on(self) -> list[str]:
        """Degradations that its training drew, of models of this package."""
        if "rmr" not in self.predictor.plans_manager.plans:
            return []
        settings = RMRSettings.from_plans(self.predictor.plans_manager.plans)
        return [kind for kind, p in settings.degradation_probabilities.items()
                if kind in DEGRADATIONS and p > 0 and settings.p_clean < 1]

    def predict(self, images: np.ndarray, properties: dict, *, fuse: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Label map (Z, Y, X) and, if asked for and there is one, fused image in the reference modality's units.

        images: (C, Z, Y, X) raw intensities, as nnU-Net's reader gives them with `properties` (not changed). The steps
        are those of nnUNetPredictor.predict_single_npy_array.
        """
        predictor, properties = self.predictor, deepcopy(properties)
        configuration = predictor.configuration_manager
        preprocessor = configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(images, None, properties, predictor.plans_manager,
                                                        configuration, self.dataset_json)
        intensity_map = properties.pop(PROPERTY, None)
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
        fused = predictor.take_fused()
        segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, predictor.plans_manager, configuration, predictor.label_manager, properties)
        if fuse and fused is not None:
            return segmentation, fused_to_input_grid(fused, properties, intensity_map, predictor.plans_manager,
                                                     configuration)
        return segmentation, None


def check_comparable(models: Sequence[BenchmarkModel]) -> None:
    """Raises BadCaseError unless all models have the same modalities, labels and file ending."""
    first = models[0]
    for model in models[1:]:
        for what in ("channels", "labels", "file_ending"):
            mine, theirs = ((m.dataset_json | {"channels": m.channels})[what] for m in (model, first))
            if mine != theirs:
                raise BadCaseError(f"-m {model.name}: its {what} are {mine}, those of {first.name} are {theirs}; "
                                       "models are compared on one data set")
