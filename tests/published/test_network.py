"""The published network's parts: sizes, and encoders of patches of any size."""

import math
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_rmr.published.network import DenseFusion, FusionDecoder, SwinEncoder


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def multiply_adds_per_voxel(module: torch.nn.Module, channels: int, shape: tuple[int, ...]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.to("meta")(torch.empty(1, channels, *shape, device="meta"))
    return counter.get_total_flops() / 2 / math.prod(shape)


# the published form, from method.md's table: 3x3x3 convolutions with bias, PReLU with one slope per channel
def conv(inputs: int, outputs: int) -> int:
    return 27 * inputs * outputs + outputs + outputs


def test_published_encoder_has_the_published_parameters():
    norms = 2 * (48 + 48)
    attention = (48 * 144 + 144) + 6 * 13**3 + (48 * 48 + 48)
    perceptron = (48 * 192 + 192) + (192 * 48 + 48)
    embed, upsample = 8 * 48 * 48 + 48, 8 * 48 * 48
    expected = conv(1, 24) + conv(24, 48) + embed + 6 * (norms + attention + perceptron) + upsample \
        + conv(48, 24) + conv(24, 16)
    assert expected == 359_084
    assert parameters(SwinEncoder(3)) == expected


def test_published_fusion_module_has_the_published_parameters():
    expected = sum(conv(inputs, 16) for inputs in (32, 48, 64, 80, 96)) + conv(16, 16)
    assert expected == 145_344
    assert parameters(DenseFusion(3, 32)) == expected


def test_published_decoder_has_the_published_parameters():
    expected = conv(16, 8) + 3 * conv(8, 8) + (8 + 1)
    assert expected == 8_713
    assert parameters(FusionDecoder(3)) == expected


def test_multiply_adds_are_those_of_the_published_form():
    convolutions = 27 * (24 + 24 * 48 + 48 * 24 + 24 * 16) + 2 * 48 * 48
    per_token = 6 * (12 * 48 * 48 + 2 * 343 * 48)
    # half of 28 and 56 are multiples of the window
    assert multiply_adds_per_voxel(SwinEncoder(3), 1, (28, 56, 56)) == convolutions + per_token / 8


@pytest.mark.parametrize("shape", [(12, 9, 15), (1, 7, 20), (16, 2, 3), (31, 17), (1, 40), (5, 5)])
def test_patches_of_any_size_keep_it(shape):
    x = torch.randn(2, 1, *shape)
    out = SwinEncoder(len(shape))(x)
    assert out.shape == (2, 16, *shape) and torch.isfinite(out).all()


def test_samples_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    encoder, x = SwinEncoder(2), torch.randn(3, 1, 19, 22)
    torch.testing.assert_close(encoder(x), torch.cat([encoder(sample[None]) for sample in x]))


def test_every_voxel_of_the_input_gets_a_gradient():
    torch.manual_seed(0)
    encoder = SwinEncoder(3)
    x = torch.randn(1, 1, 9, 16, 17, requires_grad=True)
    encoder(x).square().mean().backward()
    assert (x.grad != 0).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_shifted_windows_connect_neighbouring_windows():
    """Windows of 7 tokens, in every second block of three shifted by 3: six blocks lead from token 28 to 14 ... 48."""
    torch.manual_seed(0)
    encoder, x = SwinEncoder(2), torch.randn(1, 1, 112, 14, requires_grad=True)
    encoder.blocks(encoder.embed(encoder.first(x)))[0, :, 28].sum().backward()
    seen = (x.grad.abs().sum((0, 1, 3)) > 1e-12).nonzero().flatten()  # masked voxels weigh exp(-100)
    assert seen[[0, -1]].tolist() == [2 * 14 - 2, 2 * 48 + 1 + 2]  # two convolutions stand before


def test_encoder_works_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        out = SwinEncoder(3)(torch.randn(1, 1, 16, 9, 9))
    assert out.dtype == torch.bfloat16 and torch.isfinite(out).all()


def test_without_monai_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets.swin_unetr", None)
    with pytest.raises(ImportError, match=r"nnUNetTrainerRMR_paper .* pip install \"nnunetv2-rmr\[monai\]\""):
        SwinEncoder(3)
