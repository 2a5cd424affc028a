"""The network that shares all of nnU-Net's, its loss, and what is made of its restored modalities."""

import copy
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
import torch
from conftest import PLAIN, REGIONS
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from small_networks import CLASSES, M, primus, rmrnet, teach, unet
from torch import nn

from nnunetv2_rmr.fusion.fused_image import fused_image
from nnunetv2_rmr.fusion.gradient import gradient
from nnunetv2_rmr.losses.restoration import RMRLoss
from nnunetv2_rmr.networks.features import find_last_features
from nnunetv2_rmr.networks.monai_networks import SegResNet
from nnunetv2_rmr.networks.rmrnet import RestorationHead, RMRNet, TrainingOutputs
from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


@pytest.mark.parametrize(("network", "patch", "channels", "scale"), [
    (lambda: unet(), (16, 16, 16), 4, 1),
    (lambda: unet(2), (16, 16), 4, 1),
    (lambda: unet(cls=ResidualEncoderUNet), (16, 16, 16), 4, 1),
    (lambda: primus(), (16, 16, 16), 8, 2),
    (lambda: SegResNet(M, CLASSES, init_filters=8), (16, 16, 16), 8, 1),
])
def test_the_last_features_of_any_network_are_found_and_used(network, patch, channels, scale):
    name, of_features, scales = find_last_features(network(), M, patch)
    assert (of_features, set(scales)) == (channels, {scale})
    net = teach(RMRNet(network(), M, M, patch)).eval()
    x = torch.randn(2, M, *patch)
    with torch.no_grad():
        logits, restored = net(x, images=True)
        torch.testing.assert_close(net(x), logits)
        before = restored
        module = net.segmentation.get_submodule(name)  # what the head sees is what this module sees
        handle = module.register_forward_pre_hook(lambda m, inputs: (inputs[0] * 0,), prepend=True)
        without = net(x, images=True)[1]
        handle.remove()
    assert restored.shape == x.shape and not torch.allclose(before, without)


def test_under_deep_supervision_the_last_features_are_those_of_the_finest_logits():
    found = [find_last_features(unet(deep_supervision=deep), M, (16, 16, 16)) for deep in (True, False)]
    assert found[0] == found[1]


def head_and_input() -> tuple[RestorationHead, torch.Tensor, torch.Tensor]:
    """A head, features and modalities of two samples, whose body is the first half along an axis."""
    torch.manual_seed(0)
    head, features, modalities = RestorationHead(3, 2, M), torch.randn(2, 2, 8, 8, 8), torch.randn(2, M, 8, 8, 8)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    modalities[:, :, 4:] = 0
    return head, features, modalities


def test_the_head_sees_the_raw_modalities():
    head, features, modalities = head_and_input()
    assert not torch.allclose(head(features, modalities), head(features, 2 * modalities), atol=0.01)


def test_the_gate_sees_the_body_of_its_own_sample_and_nothing_else():
    head, features, modalities = head_and_input()
    before, changed = head(features, modalities), features.clone()
    changed[:, :, 6:] += 5  # outside of the body, and further from it than the convolution sees
    torch.testing.assert_close(head(changed, modalities)[:, :, :4], before[:, :, :4])
    changed = features.clone()
    changed[0, :, 0] += 5
    after = head(changed, modalities)
    assert not torch.allclose(after[0, :, 3], before[0, :, 3], atol=0.01)  # as far away, but in the body
    torch.testing.assert_close(after[1], before[1])


def test_a_network_whose_logits_no_module_makes_is_refused():
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv3d(M, CLASSES, 1)

        def forward(self, x):
            return 2 * self.inner(x)

    with pytest.raises(ValueError, match=r"Doubled: no module's output is the network's logits"):
        RMRNet(Doubled(), M, M, (8, 8, 8))


def test_a_fresh_network_has_the_names_and_the_start_of_nnunets_own_and_restores_nothing_yet():
    network, vanilla = rmrnet(), unet()
    state, expected = network.state_dict(), vanilla.state_dict()
    assert set(expected) < set(state)
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert all(name.startswith("image_decoder.") for name in set(state) - set(expected))
    x = torch.randn(2, M, 16, 16, 16)
    with torch.no_grad():
        logits, restored = network(x, images=True)
        assert torch.equal(logits, vanilla(x)) and torch.equal(network(x), vanilla(x))
    assert torch.equal(restored, x)


def test_weights_go_from_nnunet_to_this_network_and_back(tmp_path):
    trained = unet()
    for parameter in trained.parameters():
        nn.init.normal_(parameter)
    torch.save({"network_weights": trained.state_dict()}, tmp_path / "vanilla.pth")
    network = rmrnet()
    load_pretrained_weights(network, str(tmp_path / "vanilla.pth"))  # what nnUNetv2_train -pretrained_weights does
    for name, value in trained.state_dict().items():
        assert torch.equal(network.state_dict()[name], value) != (".seg_layers." in name), name
    own = {name: value for name, value in teach(rmrnet()).state_dict().items() if "image_decoder" not in name}
    unet().load_state_dict(own)
    again = rmrnet()
    again.load_state_dict(teach(rmrnet()).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), teach(rmrnet()).state_dict().values()))


@pytest.mark.parametrize("extra", [0, 2])
def test_clean_and_degraded_patches_are_told_apart(extra):
    """The network sees the degraded modalities and the extra channels; the clean ones it hands on."""
    network = teach(rmrnet(extra=extra, deep_supervision=True))
    clean, seen = torch.randn(2, M, 16, 16, 16), torch.randn(2, M + extra, 16, 16, 16)
    out = network(torch.cat((clean, seen), 1))
    logits, restored = network(seen, images=True)
    assert isinstance(out, TrainingOutputs) and torch.equal(out.clean, clean)
    assert torch.equal(out.restored, restored) and all(map(torch.equal, out.logits, logits))
    assert restored.shape == (2, M, 16, 16, 16)


def test_nothing_of_a_pass_is_kept_alive_and_copies_are_independent():
    network = rmrnet()
    other = copy.deepcopy(network)
    network(torch.randn(2, M, 16, 16, 16), images=True)
    assert network._tap.held is None
    network(torch.randn(2, M, 16, 16, 16))
    assert network._tap.held is None
    teach(other)
    x = torch.randn(2, M, 16, 16, 16)
    assert torch.equal(network(x, images=True)[1], x) and not torch.equal(other(x, images=True)[1], x)


def test_the_network_compiles_as_one_graph():
    network = teach(rmrnet(deep_supervision=True))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    x = torch.randn(2, 2 * M, 16, 16, 16)
    torch.testing.assert_close(compiled(x).restored, network(x).restored)
    torch.testing.assert_close(compiled(x[:, M:])[0], network(x[:, M:])[0])


def test_restored_modalities_are_float32_under_autocast():
    network = teach(rmrnet())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, restored = network(torch.randn(2, M, 16, 16, 16), images=True)
    assert logits.dtype == torch.bfloat16 and restored.dtype == torch.float32


# --------------------------------------------------------------------------------------------------------------- loss

def test_the_loss_is_nnunets_and_the_weighted_squared_distance_to_the_clean_modalities():
    loss = RMRLoss(lambda logits, target: (logits - target).abs().mean(), restoration_weight=3.0)
    logits, target, clean = torch.full((1, 2), 5.0), torch.full((1, 2), 1.0), torch.zeros(1, M, 4)
    restored = torch.full((1, M, 4), 0.5)
    assert loss(TrainingOutputs(logits, restored, clean), target) == 4 + 3 * 0.25
    assert loss(logits, target) == 4  # in nnU-Net's validation step
    assert loss.take() == {"segmentation": 4.0, "restoration": 0.25}
    assert np.isnan(loss.take()["restoration"])


def test_a_training_step_is_nnunets_own_with_the_degraded_patch_in_and_the_clean_one_to_restore(trainer_of):
    class Weighted(nnUNetTrainerRMR):
        settings = RMRSettings(restoration_weight=3.0)

    trainer = trainer_of(Weighted)
    teach(trainer.network)
    clean, degraded = torch.randn(2, 2, 8, 8, 8), torch.randn(2, 2, 8, 8, 8)
    target = (torch.randn(2, 1, 8, 8, 8) > 0).float()
    with torch.no_grad():
        logits, restored = trainer.network(degraded, images=True)
        segmentation = trainer.loss.segmentation(logits, target)
    expected = segmentation + 3 * (restored - clean).square().mean()
    before = [p.clone() for p in trainer.network.parameters()]
    found = trainer.train_step({"data": torch.cat((clean, degraded), 1), "target": target})
    assert float(found["loss"]) == pytest.approx(float(expected), rel=1e-5)
    moved = [not torch.equal(a, b) for a, b in zip(before, trainer.network.parameters())]
    assert all(moved), "both losses reach all of the network"


def test_few_of_nnunets_methods_are_overridden():
    own = [name for name, value in vars(nnUNetTrainerRMR).items()
           if hasattr(nnUNetTrainer, name) and not name.startswith("__") and callable(getattr(nnUNetTrainer, name))]
    assert len([*own, "__init__"]) <= 12, own


def test_a_wrong_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"takes 4 channels, in training after 3 clean modalities, got 6"):
        rmrnet(extra=1)(torch.zeros(1, 6, 16, 16, 16))


def test_one_seed_is_one_start_for_nnunets_trainer_and_this_one(trainer_of, monkeypatch):
    monkeypatch.setenv("nnUNet_rmr_seed", "3")
    ours = trainer_of(nnUNetTrainerRMR).network.state_dict()
    other = trainer_of(nnUNetTrainerRMR).network.state_dict()
    assert all(torch.equal(ours[name], other[name]) for name in ours)
    from nnunetv2_rmr.training.reproducible import seed_everything

    class Seeded(nnUNetTrainer):
        def initialize(self):
            seed_everything(3)
            super().initialize()

    vanilla = trainer_of(Seeded).network.state_dict()
    assert all(torch.equal(ours[name], vanilla[name]) for name in vanilla)


# -------------------------------------------------------------------------------------------------------- fused image

@pytest.fixture
def case() -> torch.Tensor:
    """Three modalities, zero outside of a ball, as a whole preprocessed case."""
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (14, 18, 16)], indexing="ij"))
    torch.manual_seed(0)
    return torch.randn(M, 14, 18, 16) * (grid.square().sum(0) < 0.8)


def test_the_fused_image_is_the_gradient_fusion_of_the_restored_modalities_in_the_body(case):
    restored = case + torch.tensor([0.1, 0.2, 0.3]).reshape(M, 1, 1, 1)
    inside = (case[0] != 0).numpy()
    fused = fused_image(restored, case, (1, 2, 3), reference=1)
    sources = [np.where(inside, image, 0) for image in restored.numpy()]
    expected = gradient(sources, inside, (1, 2, 3), 1)
    np.testing.assert_allclose(fused.numpy()[inside], expected[inside], atol=1e-5)
    np.testing.assert_array_equal(fused.numpy()[~inside], restored[1].numpy()[~inside])


def test_without_a_modality_the_others_are_fused(case):
    presence = torch.tensor([True, True, False])
    wild = case.clone()
    wild[2] = 100
    absent = case.clone()
    absent[2] = 0
    fused = fused_image(wild, absent, (1, 1, 1), 0, presence)
    torch.testing.assert_close(fused, fused_image(case[:2], case[:2], (1, 1, 1), 0))
    without_reference = fused_image(wild, absent, (1, 1, 1), 2, presence)  # the last one that is there
    torch.testing.assert_close(without_reference, fused_image(case[:2], case[:2], (1, 1, 1), 1))


def test_the_reference_modality_stays_the_reference_where_one_before_it_is_missing(case):
    presence = torch.tensor([False, True, True])
    absent = case * presence.reshape(M, 1, 1, 1)
    torch.testing.assert_close(fused_image(case, absent, (1, 1, 1), 1, presence),
                               fused_image(case[1:], case[1:], (1, 1, 1), 0))


def test_slices_of_a_2d_configuration_are_fused_one_by_one(case):
    fused = fused_image(case, case, (1, 3), 0)
    inside = (case[0, 7] != 0).numpy()
    expected = gradient([image[7].numpy() for image in case], inside, (1, 3), 0)
    np.testing.assert_allclose(fused[7].numpy()[inside], expected[inside], atol=1e-5)


# ----------------------------------------------------------------------------------------------------- by the commands

@pytest.mark.slow
@pytest.mark.parametrize("dataset", [PLAIN, REGIONS])
def test_it_trains_goes_on_and_predicts_by_the_commands(nnunet, tmp_path, dataset):
    env = nnunet | {"nnUNet_results": str(tmp_path / "results"), "nnUNet_rmr_seed": "1"}
    model = (dataset, tiny.CONFIGURATION, 0, "-tr", "nnUNetTrainerRMR_tiny", "-device", tiny.DEVICE)
    killed = tiny.run("nnUNetv2_train", *model, env=env | {"TINY_KILLED_AT": "iteration 20"}, check=False)
    assert killed.returncode != 0
    tiny.run("nnUNetv2_train", *model, "--c", env=env)
    fold = next((tmp_path / "results").glob("*/*/fold_0"))
    log = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)["logging"]
    assert len(log["loss_restoration"]) == 4 and np.isfinite(log["loss_restoration"]).all()
    assert (fold / "validation" / "fused" / "restoration.json").is_file()
    images = Path(nnunet["nnUNet_raw"]) / f"Dataset{dataset}_Tiny" / "imagesTs"
    options = ("-i", images, "-d", dataset, "-c", tiny.CONFIGURATION, "-tr", "nnUNetTrainerRMR_tiny", "-f", 0,
               "-device", tiny.DEVICE)
    tiny.run("nnUNetv2_rmr_predict", *options, "-o", tmp_path / "ours", env=env)
    tiny.run("nnUNetv2_predict", *options, "-o", tmp_path / "stock", "-npp", 1, "-nps", 1, env=env)
    for name in ("caseTs00.nii.gz", "caseTs01.nii.gz"):
        if tiny.DEVICE == "cpu":
            assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "stock" / name).read_bytes()
        fused = sitk.ReadImage(str(tmp_path / "ours" / "fused" / name))
        flair = sitk.ReadImage(str(images / name.replace(".nii.gz", "_0002.nii.gz")))
        assert fused.GetSize() == flair.GetSize() and fused.GetPixelID() == sitk.sitkFloat32
        values, reference = sitk.GetArrayFromImage(fused), sitk.GetArrayFromImage(flair)
        body = reference > 0
        assert not values[~body].any() and 0.5 < values[body].mean() / reference[body].mean() < 2
