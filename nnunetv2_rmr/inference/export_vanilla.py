"""The segmentation half of an RMR model, as a model folder that nnU-Net reads without this package."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_rmr.files.atomic import temporary_folder
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.inference.model_folder import find_checkpoints
from nnunetv2_rmr.inference.trust import check_model_folder, load_data
from nnunetv2_rmr.networks.rmrnet import weights_that_segment
from nnunetv2_rmr.settings import PLANS_KEY

READ_BY_PREDICTION = ("trainer_name", "init_args", "inference_allowed_mirroring_axes")  # beside the weights


def export_vanilla(model: Path, out: Path, folds: Sequence[int | str] | None, checkpoint: str) -> None:
    """Write `out`, with what nnU-Net's prediction reads: plans, data set, and the weights of its own network.

    model: folder TRAINER__PLANS__CONFIGURATION. folds: None for all that there are. checkpoint: name of the file of
    each. The folder appears as a whole. Raises BadCaseError if it is there already, or if nnU-Net can not build the
    model's segmentation network; FileNotFoundError if a checkpoint is not there; ModelRefused for a model that can not
    be read.
    """
    if out.exists():
        raise BadCaseError(f"-o {out}: is there already")
    check_model_folder(model)
    plans, dataset_json = (json.loads((model / f"{name}.json").read_text(encoding="utf-8"))
                           for name in ("plans", "dataset"))
    plans.pop(PLANS_KEY, None)
    files = find_checkpoints(model, folds, checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(out) as temporary:
        for fold, file in files.items():
            (temporary / f"fold_{fold}").mkdir(parents=True)
            torch.save(_vanilla(file, plans, dataset_json), temporary / f"fold_{fold}" / checkpoint)
        (temporary / "plans.json").write_text(json.dumps(plans, indent=4), encoding="utf-8")
        shutil.copyfile(model / "dataset.json", temporary / "dataset.json")
        temporary.rename(out)


def without_weights(checkpoint: dict) -> dict:
    """What else prediction reads of a checkpoint of nnU-Net's."""
    return ({key: checkpoint[key] for key in READ_BY_PREDICTION}
            | {"init_args": {"configuration": checkpoint["init_args"]["configuration"]}})


def _vanilla(file: Path, plans: dict, dataset_json: dict) -> dict:
    """Content of nnU-Net's checkpoint. Raises BadCaseError if the weights are not those of the plans' own network."""
    found = load_data(file, "cpu")
    weights, small = weights_that_segment(found["network_weights"]), without_weights(found)
    try:
        _network(plans, small["init_args"]["configuration"], dataset_json).load_state_dict(weights)
    except Exception as error:
        raise BadCaseError(f"{file}: nnU-Net alone can not build the network of this {found['trainer_name']} model "
                           f"({str(error).splitlines()[0]})") from error
    # what it was trained on, as nnUNetTrainerRMR_fusionOnly asks
    return small | {"network_weights": weights, "trainer_name": nnUNetTrainer.__name__,
                    "init_args": found["init_args"] | {"plans": plans}}


def _network(plans: dict, configuration: str, dataset_json: dict) -> torch.nn.Module:
    """As nnU-Net's prediction builds it."""
    manager = PlansManager(plans)
    chosen = manager.get_configuration(configuration)
    if chosen.network_arch_class_name.startswith("nnunetv2_rmr."):
        raise ValueError(f"{chosen.network_arch_class_name} is a part of nnunetv2-rmr")
    return nnUNetTrainer.build_network_architecture(
        manager, chosen, determine_num_input_channels(manager, chosen, dataset_json),
        manager.get_label_manager(dataset_json).num_segmentation_heads, enable_deep_supervision=False)
