"""The published network's parts: sizes, and attention in windows."""

import itertools
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_rmr.published import swin_encoder
from nnunetv2_rmr.published.network import DenseFusion, FusionDecoder
from nnunetv2_rmr.published.swin_encoder import SwinBlock, SwinEncoder, WindowAttention, windows_along


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


def test_multiply_adds_are_those_of_the_published_form_and_fewer_in_smaller_windows():
    convolutions = 27 * (24 + 24 * 48 + 48 * 24 + 24 * 16) + 2 * 48 * 48
    # Axes of 16 and 32 tokens have windows of 7, 7, 2 and 7, 7, 7, 7, 4; of 3, 7, 6 and 3, 7, 7, 7, 7, 1 if shifted.
    # 141 thousand were measured for the published code, which computes on padding and on what it masks.
    pairs = 4 * (49 + 49 + 4) * (4 * 49 + 16) ** 2 + 2 * (9 + 49 + 36) * (9 + 4 * 49 + 1) ** 2
    expected = convolutions + 6 * 12 * 48 * 48 / 8 + 2 * 48 * pairs / (32 * 64 * 64)
    assert multiply_adds_per_voxel(SwinEncoder(3), 1, (32, 64, 64)) == pytest.approx(expected)
    assert expected < 119_000


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


def test_windows_begin_at_the_shift_and_end_with_the_axis():
    assert windows_along(9, 3, 0) == [(3, 3)]
    assert windows_along(9, 3, 1) == [(1, 1), (2, 3), (1, 2)]
    assert windows_along(5, 3, 2) == [(1, 2), (1, 3)]
    assert windows_along(3, 3, 1) == [(1, 3)] and windows_along(2, 3, 1) == [(1, 2)]


def sees(shape, window, shift) -> torch.Tensor:
    """(N, N): which voxels of the image share a window, said without padding or rolling."""
    windows = [[0 if n <= window else (i - shift) // window for i in range(n)] for n in shape]
    of_voxel = list(itertools.product(*windows))
    return torch.tensor([[a == b for b in of_voxel] for a in of_voxel])


def dense_attention(attention: WindowAttention, x: torch.Tensor) -> torch.Tensor:
    """The same attention as one over all voxels of the image, with masks."""
    shape = x.shape[1:-1]
    voxels = torch.tensor(list(itertools.product(*map(range, shape))))
    offsets = voxels[:, None] - voxels + attention.window - 1
    inside = ((offsets >= 0) & (offsets < 2 * attention.window - 1)).all(-1)
    index = torch.zeros(offsets.shape[:2], dtype=torch.long)
    for axis in range(len(shape)):
        index = index * (2 * attention.window - 1) + offsets[..., axis]
    bias = attention.position_bias[:, torch.where(inside, index, 0)]
    query, key, value = attention.qkv(x).flatten(1, -2).unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias
    scores = scores.masked_fill(~sees(shape, attention.window, attention.shift), -torch.inf)
    out = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    return attention.proj(out).reshape(x.shape)


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("shape", [(6, 9), (7, 5), (8, 3), (2, 10), (1, 4), (6, 4, 5), (2, 7, 3), (4, 4, 4)])
def test_window_attention_is_masked_attention_over_the_image(shape, shift):
    # holds for the image's ends, shifts, shrunk windows and the biases all at once
    torch.manual_seed(0)
    attention = WindowAttention(len(shape), channels=6, heads=2, window=3, shift=shift).double()
    for p in attention.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(2, *shape, 6, dtype=torch.double)
    torch.testing.assert_close(attention(x), dense_attention(attention, x))


def reached_from(attention: WindowAttention, length: int, voxel: int) -> list[int]:
    x = torch.randn(1, length, 1, 6, requires_grad=True)
    attention(x)[0, voxel].sum().backward()
    return x.grad.abs().sum((0, 2, 3)).nonzero().flatten().tolist()


def test_shifted_windows_connect_neighbouring_windows_but_not_the_ends_of_the_image():
    torch.manual_seed(0)
    plain, shifted = (WindowAttention(2, channels=6, heads=2, window=4, shift=shift) for shift in (0, 2))
    assert reached_from(plain, 8, 3) == [0, 1, 2, 3]
    assert reached_from(shifted, 8, 3) == [2, 3, 4, 5]
    assert reached_from(shifted, 8, 0) == [0, 1]
    assert reached_from(shifted, 8, 7) == [6, 7]
    assert reached_from(shifted, 7, 6) == [6]


@pytest.mark.parametrize("shift", [0, 1])
def test_block_compiles_without_graph_breaks(shift):
    torch._dynamo.reset()
    block, x = SwinBlock(2, 6, heads=2, window=3, shift=shift), torch.randn(1, 7, 4, 6)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(block, backend="eager", fullgraph=True)(x), block(x))


def test_encoder_with_windows_of_every_kind_compiles_without_graph_breaks():
    torch._dynamo.reset()
    encoder, x = SwinEncoder(3), torch.randn(1, 1, 4, 36, 16)  # half of it: shifted and padded windows
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(encoder, backend="eager", fullgraph=True)(x), encoder(x))


def test_windows_some_at_a_time_are_all_windows_at_once(monkeypatch):
    torch.manual_seed(0)
    attention, x = WindowAttention(2, channels=6, heads=2, window=3, shift=1), torch.randn(2, 9, 12, 6)
    together = attention(x)
    monkeypatch.setattr(swin_encoder, "WINDOWS_AT_A_TIME", 3)
    torch.testing.assert_close(attention(x), together)


def test_encoder_works_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        out = SwinEncoder(3)(torch.randn(1, 1, 16, 9, 9))
    assert out.dtype == torch.bfloat16 and torch.isfinite(out).all()
