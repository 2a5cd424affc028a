"""What is fused: saliency as intensity target, and every modality decoded from the fused features."""

import pytest
import torch
from plans import CHANNELS, make_plans
from test_networks import rmrnet, unet

from nnunetv2_rmr.losses.coupled import fusion_terms
from nnunetv2_rmr.losses.fusion import intensity_loss
from nnunetv2_rmr.losses.reconstruction import reconstruction_loss
from nnunetv2_rmr.losses.saliency import local_contrast, saliency_weights
from nnunetv2_rmr.networks.build import build_rmrnet
from nnunetv2_rmr.networks.rmrnet import RMRNet, RMROutputs
from nnunetv2_rmr.settings import RMRSettings


@pytest.mark.parametrize("shape", [(2, 3, 9, 10, 11), (2, 3, 14, 15), (1, 2, 3, 20, 20)])
def test_saliency_weights_are_weights(shape):
    weights = saliency_weights(torch.randn(shape))
    assert weights.shape == shape and weights.min() >= 0 and not weights.requires_grad
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))


def test_the_modality_with_an_edge_weighs_more_there_and_not_elsewhere():
    clean = torch.zeros(1, 2, 30, 30)
    clean[:, 0, :, 15:] = 2
    weights = saliency_weights(clean)
    assert weights[0, 0, :, 14:16].min() > 0.95
    torch.testing.assert_close(weights[..., :8], torch.full((1, 2, 30, 8), 0.5))


def test_contrast_is_the_local_standard_deviation_whatever_the_brightness_also_at_the_border():
    checkerboard = ((torch.arange(24)[:, None] + torch.arange(24)) % 2 * 2.0 - 1)[None, None]
    contrast = local_contrast(0.3 * checkerboard + 5)
    torch.testing.assert_close(contrast, torch.full_like(contrast, 0.3), atol=0.01, rtol=0)


def test_saliency_target_is_zero_for_its_own_image_and_lies_between_the_modalities():
    clean = torch.randn(2, 3, 8, 8, 8)
    target = (saliency_weights(clean) * clean).sum(1, keepdim=True)
    assert (target <= clean.amax(1, keepdim=True)).all() and (target >= clean.amin(1, keepdim=True)).all()
    assert intensity_loss(target, clean, "saliency", 0) == 0
    assert intensity_loss(clean[:, :1], clean, "saliency", 0) > 0
    same = clean[:, :1].expand(2, 3, 8, 8, 8)
    assert intensity_loss(clean[:, :1], same, "saliency", 0).item() == pytest.approx(0, abs=1e-6)


def test_the_norm_of_the_intensity_loss_is_the_setting():
    clean = torch.randn(1, 2, 6, 6, 6)
    out = RMROutputs(fused=clean[:, :1] + 0.3)
    for norm, expected in (("l1", 0.3), ("l2", 0.09)):
        terms = fusion_terms(out, clean, 0, RMRSettings(intensity_norm=norm))
        assert terms["intensity"].item() == pytest.approx(expected)


def test_the_setting_says_which_image_the_fused_one_is_to_be():
    clean = torch.randn(1, 3, 8, 8, 8)
    targets = {"reference": clean[:, 1:2], "maximum": clean.amax(1, keepdim=True),
               "saliency": (saliency_weights(clean) * clean).sum(1, keepdim=True)}
    for setting in targets:
        for name, image in targets.items():
            loss = fusion_terms(RMROutputs(fused=image), clean, 1, RMRSettings(intensity_target=setting))["intensity"]
            assert (loss == 0) == (name == setting), (setting, name)


def test_reconstruction_is_a_term_only_where_its_output_is():
    clean = torch.randn(1, 2, 6, 6, 6)
    out = RMROutputs(fused=clean[:, :1])
    assert set(fusion_terms(out, clean, 0, RMRSettings())) == {"intensity", "gradient"}
    out.all_modalities = clean + 0.5
    assert fusion_terms(out, clean, 0, RMRSettings())["reconstruction"].item() == pytest.approx(0.5, abs=1e-6)
    assert reconstruction_loss(clean, clean) == 0


def test_without_the_term_there_is_no_head_and_the_same_weights_are_drawn():
    def network(**settings):
        torch.manual_seed(0)
        plans = make_plans(settings=RMRSettings(**settings))
        return build_rmrnet(plans, plans.get_configuration("test"), len(CHANNELS), 2, False)

    plain, with_head = (network(all_modalities_weight=w).state_dict() for w in (0.0, 0.5))
    head = with_head.keys() - plain.keys()
    assert head and all(name.startswith("all_modalities_decoder") for name in head)
    assert all(torch.equal(value, with_head[name]) for name, value in plain.items())
    with pytest.raises(ValueError, match="no head for all_modalities"):
        rmrnet()(torch.randn(1, 2, 8, 8, 8), outputs=("all_modalities",))


def test_the_term_reaches_the_fusion_module():
    net = RMRNet(unet(3, RMRSettings().features), 2, 3, all_modalities=True)
    out = net(torch.randn(1, 2, 8, 8, 8), outputs=("all_modalities",))
    reconstruction_loss(out.all_modalities, torch.zeros(1, 2, 8, 8, 8)).backward()
    assert all(p.grad is not None for m in (net.encoders, net.fusion, net.all_modalities_decoder)
               for p in m.parameters())
    assert all(p.grad is None for p in net.segmentation.parameters())
