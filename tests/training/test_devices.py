"""Apple's GPUs (-device mps) have no float64: nothing that runs on the training's device may ask for it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunetv2_rmr.inference.predictor import RMRPredictor
from nnunetv2_rmr.published.nnUNetTrainerRMR_paper import nnUNetTrainerRMR_paper
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


class WithoutFloat64(TorchDispatchMode):
    """Refuses every operation of torch that MPS would refuse for its type. What comes from numpy is not there yet."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and operation is not torch.ops.aten.lift_fresh.default:
                assert tensor.dtype not in (torch.float64, torch.complex128), operation
        return result


@pytest.mark.parametrize("cls", [nnUNetTrainerRMR, nnUNetTrainerRMR_paper])
def test_training_and_prediction_need_no_float64(trainer_of, cls):
    trainer = trainer_of(cls)
    clean = torch.randn(2, 2, 8, 8, 8)
    batch = {"data": torch.cat((clean, clean + 0.1), 1), "target": torch.randint(0, 2, (2, 1, 8, 8, 8)).float()}
    with WithoutFloat64():
        trainer.train_step(batch)
        if cls is nnUNetTrainerRMR_paper:
            trainer._enter_stage(2)
            trainer.train_step(batch)
        trainer.validation_step({"data": clean, "target": batch["target"]})
        predictor = RMRPredictor(device=trainer.device, allow_tqdm=False)
        predictor.manual_initialization(trainer.network, trainer.plans_manager, trainer.configuration_manager,
                                        [trainer.network.state_dict()], trainer.dataset_json, cls.__name__, (0, 1, 2))
        predictor.predict_logits_from_preprocessed_data(torch.randn(2, 12, 8, 8))
        predictor.predict_images_from_preprocessed_data(torch.randn(2, 12, 8, 8))
    with pytest.raises(AssertionError), WithoutFloat64():
        clean.double()
