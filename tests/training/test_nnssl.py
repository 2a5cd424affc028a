"""Networks that nnssl has pretrained on one kind of image start trainings of ours."""

from pathlib import Path

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.run import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from plans import make_plans

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.training.degradations_only import nnUNetTrainer_RMRDegradations
from nnunetv2_rmr.training.fusion_only import nnUNetTrainerRMR_fusionOnly
from nnunetv2_rmr.training.nnssl import ADAPTATION_PLAN, refuse_plans_of_nnssl
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

MODALITIES = 2
STEM = {PlainConvUNet: "encoder.stages.0", ResidualEncoderUNet: "encoder.stem"}


@pytest.fixture(autouse=True)
def afterwards_nnunets_own(monkeypatch):
    monkeypatch.setattr(load_pretrained_weights, "torch", torch)


def architecture(network: type, features: int = 4) -> dict:
    found = make_plans(patch_size=(8, 8, 8)).plans["configurations"]["test"]["architecture"]
    kwargs = found["arch_kwargs"] | {"features_per_stage": [features, 6]}
    if network is ResidualEncoderUNet:
        kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
    return found | {"arch_kwargs": kwargs, "network_class_name": f"{network.__module__}.{network.__name__}"}


def pretrained(trainer_of, folder: Path, network: type, **options) -> Path:
    """A checkpoint as nnssl publishes them: of a network that sees one image and gives one, by nnU-Net's names."""
    found = trainer_of(nnUNetTrainer, architecture=architecture(network, **options)).network
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter)
    weights = {name: weight[:, :1] if STEM[network] in name and weight.ndim == 5 and weight.shape[1] == MODALITIES
               else weight for name, weight in found.state_dict().items()}
    file = folder / "nnssl.pth"
    torch.save({"network_weights": weights, "citations": [{"type": "Pretraining", "name": "MAE", "apa_citations": []}],
                ADAPTATION_PLAN: {"architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None},
                                  "pretrain_plan": {}, "pretrain_num_input_channels": 1, "key_to_stem": STEM[network],
                                  "key_to_encoder": "encoder.stages", "key_to_lpe": None}}, file)
    return file


@pytest.mark.parametrize("trainer", [nnUNetTrainerRMR, nnUNetTrainer_RMRDegradations])
@pytest.mark.parametrize("network", [PlainConvUNet, ResidualEncoderUNet])
def test_stem_and_encoder_are_the_pretrained_ones_and_all_else_is_as_it_was(trainer_of, tmp_path, network, trainer):
    file = pretrained(trainer_of, tmp_path, network)
    trained = torch.load(file)["network_weights"]
    made = trainer_of(trainer, architecture=architecture(network))
    before = {name: weight.clone() for name, weight in made.network.state_dict().items()}
    load_pretrained_weights.load_pretrained_weights(made.network, str(file))
    encoder = 0
    for name, weight in made.network.state_dict().items():
        if not name.startswith(("encoder.", "decoder.encoder.")):
            assert torch.equal(weight, before[name]), name
            continue
        encoder += 1
        if trained[name].shape != weight.shape:  # the mean over modalities is seen as the one image was
            torch.testing.assert_close(weight.sum(1, keepdim=True), trained[name])
            torch.testing.assert_close(weight[:, 0], weight[:, 1])
        else:
            assert torch.equal(weight, trained[name]), name
    assert encoder > 10


def test_another_encoder_is_refused_in_words(trainer_of, tmp_path):
    file = pretrained(trainer_of, tmp_path, ResidualEncoderUNet, features=8)
    made = trainer_of(nnUNetTrainerRMR, architecture=architecture(ResidualEncoderUNet))
    with pytest.raises(SystemExit, match=r"nnssl\.pth: nnssl has pretrained ResEncL, whose encoder is not that"):
        load_pretrained_weights.load_pretrained_weights(made.network, str(file))


def test_it_is_no_model_that_only_lacks_a_fused_image(trainer_of, tmp_path):
    file = pretrained(trainer_of, tmp_path, PlainConvUNet)
    made = trainer_of(nnUNetTrainerRMR_fusionOnly, architecture=architecture(PlainConvUNet))
    with pytest.raises(SystemExit, match="of another training"):
        load_pretrained_weights.load_pretrained_weights(made.network, str(file))


def test_plans_that_name_a_checkpoint_do_not_start_from_scratch_without_a_word():
    with pytest.raises(BadCaseError, match=r"to start from a/b\.pth, .* -pretrained_weights a/b\.pth"):
        refuse_plans_of_nnssl({"pretrain_info": {"checkpoint_path": "a/b.pth"}}, "nnUNetTrainerRMR")
    for of_nobody in ({}, {"pretrain_info": {"checkpoint_path": None}}):
        refuse_plans_of_nnssl(of_nobody, "nnUNetTrainerRMR")
