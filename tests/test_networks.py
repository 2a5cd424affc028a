import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunetv2_rmr.networks.encoder import ConvEncoder
from nnunetv2_rmr.networks.fusion import DenseFusion
from nnunetv2_rmr.networks.fusion_decoder import FusionDecoder
from nnunetv2_rmr.networks.rmrnet import OUTPUTS, RMRNet
from nnunetv2_rmr.networks.start import start_as_modalities
from nnunetv2_rmr.settings import RMRSettings

FEATURES = RMRSettings().features


def unet(dim: int, in_channels: int, deep_supervision: bool = False) -> PlainConvUNet:
    return PlainConvUNet(in_channels, 3, [4, 8, 8], nn.Conv3d if dim == 3 else nn.Conv2d, 3, [1, 2, 2], 1, 3, 1,
                         norm_op=nn.InstanceNorm3d if dim == 3 else nn.InstanceNorm2d,
                         norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, deep_supervision=deep_supervision)


def rmrnet(modalities: int = 2, dim: int = 3, extra: int = 0, **kwargs) -> RMRNet:
    return RMRNet(unet(dim, FEATURES + extra, **kwargs), modalities, dim)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_forward_gives_logits_and_nothing_else(dim, modalities):
    x = torch.randn(2, modalities, *[8] * dim)
    assert rmrnet(modalities, dim)(x).shape == (2, 3, *[8] * dim)


def test_deep_supervision_is_switched_where_nnunet_switches_it():
    net = rmrnet(deep_supervision=True)
    keys = set(net.state_dict())
    x = torch.randn(2, 2, 8, 8, 8)
    assert [tuple(o.shape[2:]) for o in net(x)] == [(8, 8, 8), (4, 4, 4)]
    net.decoder.deep_supervision = False
    assert net(x).shape == (2, 3, 8, 8, 8)
    assert set(net.state_dict()) == keys


def test_batch_norms_become_synchronised_ones_with_the_same_parameters():
    # nnU-Net converts them when the optimiser is there already: other parameters would never be trained
    net = RMRNet(nn.Sequential(nn.Conv3d(FEATURES, 4, 3), nn.BatchNorm3d(4), nn.Conv3d(4, 3, 1)), 2, 3).eval()
    before, x = {name: id(p) for name, p in net.named_parameters()}, torch.randn(1, 2, 8, 8, 8)
    with torch.no_grad():
        expected = net(x)
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        assert isinstance(converted.segmentation[1], nn.SyncBatchNorm)
        torch.testing.assert_close(converted(x), expected)
    assert {name: id(p) for name, p in converted.named_parameters()} == before


def test_every_output_can_be_asked_for_and_only_what_was_asked_for_comes():
    net, x = RMRNet(unet(3, FEATURES), 3, 3, all_modalities=True), torch.randn(2, 3, 8, 8, 8)
    shapes = {"logits": (2, 3, 8, 8, 8), "fused": (2, 1, 8, 8, 8), "features": (2, 3, FEATURES, 8, 8, 8),
              "reconstructions": (2, 3, 8, 8, 8), "all_modalities": (2, 3, 8, 8, 8)}
    assert set(shapes) == OUTPUTS
    for name, shape in shapes.items():
        out = net(x, outputs=(name,))
        assert getattr(out, name).shape == shape
        assert all(getattr(out, other) is None for other in OUTPUTS - {name})
    with pytest.raises(ValueError, match="outputs must be among"):
        net(x, outputs=("fusion",))


def test_logits_are_the_same_bits_whether_or_not_the_fused_image_is_asked_for():
    net, x = rmrnet().eval(), torch.randn(2, 2, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(net(x), net(x, outputs=("logits", "fused")).logits)


def test_extra_channels_reach_the_segmentation_but_not_the_fusion():
    net, x = rmrnet(extra=2), torch.randn(2, 4, 8, 8, 8)
    other = x.clone()
    other[:, 2:] += 1
    a, b = (net(i, outputs=("logits", "fused")) for i in (x, other))
    assert torch.equal(a.fused, b.fused)
    assert not torch.equal(a.logits, b.logits)


def test_each_modality_has_its_own_encoder():
    net, x = rmrnet(), torch.randn(1, 2, 8, 8, 8)
    other = x.clone()
    other[:, 1] += 1
    a, b = (net(i, outputs=("features",)).features for i in (x, other))
    assert torch.equal(a[:, 0], b[:, 0])
    assert not torch.equal(a[:, 1], b[:, 1])
    assert not torch.equal(*(e(x[:, :1]) for e in net.encoders))


def test_segmentation_loss_reaches_encoders_and_fusion_but_not_the_fusion_decoder():
    net = rmrnet()
    net(torch.randn(1, 2, 8, 8, 8)).square().mean().backward()
    assert all(p.grad is not None for m in (net.encoders, net.fusion) for p in m.parameters())
    assert all(p.grad is None for p in net.fusion_decoder.parameters())


@pytest.mark.parametrize("encoder", ["conv", "swin"])
@pytest.mark.parametrize("outputs", [None, ("logits", "fused"), ("features", "reconstructions"), ("fused",),
                                     ("features", "reconstructions", "fused", "logits")])
def test_network_compiles_without_graph_breaks(outputs, encoder):
    torch._dynamo.reset()
    settings = {"encoder": encoder, "features": FEATURES}
    net, x = RMRNet(unet(3, FEATURES, deep_supervision=True), 2, 3, **settings), torch.randn(1, 2, 8, 8, 8)
    torch.compile(net, backend="eager", fullgraph=True)(x, outputs=outputs)


def test_one_modality_is_refused():
    with pytest.raises(ValueError, match="two or more modalities, got num_modalities=1"):
        rmrnet(modalities=1)


def test_untrained_encoders_hand_their_modality_on():
    torch.manual_seed(0)
    net, x = rmrnet(modalities=3), torch.randn(2, 3, 12, 12, 12)
    features = net(x, outputs=("features",)).features
    for m in range(3):
        pair = torch.stack((x[:, m].flatten(), features[:, m].mean(1).flatten()))
        assert torch.corrcoef(pair)[0, 1] > 0.8


def conv_weights(module: nn.Module) -> list[tuple[int, int, int]]:
    return [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in module.modules() if isinstance(m, nn.Conv3d)]


def test_fusion_module_can_have_the_published_shape():
    module = DenseFusion(3, 32, 16, growth=16, layers=5, collect=False)
    assert conv_weights(module) == [(32, 16, 3), (48, 16, 3), (64, 16, 3), (80, 16, 3), (96, 16, 3), (16, 16, 3)]


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("collect", [True, False])
def test_fusion_module_is_the_dense_block_that_concatenates(dim, collect):
    module = DenseFusion(dim, 6, 5, growth=4, layers=3, collect=collect)
    x = torch.randn(2, 6, *[5] * dim)
    parts = x
    for layer in module.layers:
        new = layer(parts)
        parts = torch.cat((parts, new), dim=1)
    torch.testing.assert_close(module(x), module.last(parts if collect else new))


def test_fusion_decoder_can_have_the_published_shape():
    assert conv_weights(FusionDecoder(3, 16, hidden=8, layers=4)) == [(16, 8, 3), (8, 8, 3), (8, 8, 3), (8, 8, 3),
                                                                      (8, 1, 1)]


def test_default_front_is_lean():
    # multiply-adds per voxel = weights, as everything runs at full resolution; PlainConvUNet has 234 thousand
    def weights(module):
        return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv3d))

    assert weights(ConvEncoder(3)) == 1944
    assert weights(rmrnet()) - weights(rmrnet().segmentation) < 0.1 * 234_000


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize(("modalities", "reference"), [(2, 0), (2, 1), (3, 2), (FEATURES + 2, FEATURES + 1)])
def test_a_training_starts_with_the_reference_modality_as_fused_image(dim, modalities, reference):
    torch.manual_seed(0)
    net = RMRNet(nn.Identity(), modalities, dim, all_modalities=True)
    start_as_modalities(net, reference)
    # smooth as scans are: the noisy part of the start averages over neighbours
    pool = nn.functional.avg_pool3d if dim == 3 else nn.functional.avg_pool2d
    x = 5 * pool(torch.randn(1, modalities, *[24] * dim), 3, 1, 1)
    out = net(x, outputs=("logits", "fused", "reconstructions", "all_modalities"))

    def alike(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])

    assert alike(out.fused, x[:, reference]) > 0.7
    assert all(alike(out.reconstructions[:, m], x[:, m]) > 0.7 for m in range(modalities))
    assert all(alike(out.logits[:, i], x[:, (reference + i) % modalities]) > 0.7 for i in range(FEATURES))
    if modalities <= FEATURES:
        assert all(alike(out.all_modalities[:, m], x[:, m]) > 0.7 for m in range(modalities))


def test_the_start_needs_a_fusion_module_that_sees_the_modalities_to_the_end():
    with pytest.raises(ValueError, match="last convolution"):
        start_as_modalities(RMRNet(nn.Identity(), 2, 3, fusion_collect=False), 0)
