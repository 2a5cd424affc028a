"""Float16 on a GPU, tried out on the CPU: what overflows there overflows here."""

import pytest
import torch
from small_networks import M, rmrnet, teach

from nnunetv2_rmr.losses.restoration import RMRLoss

LOSS_SCALE = 2.0 ** 16  # GradScaler's first


@pytest.mark.parametrize("filled", [16, 6, 2])
def test_gradients_are_finite_and_those_of_full_precision_however_empty_the_patches(filled):
    """filled: edge of the cube with content in a patch of 16^3, the rest is zero."""
    gradients = []
    for half in (False, True):
        torch.manual_seed(0)
        net, loss = teach(rmrnet()), RMRLoss(torch.nn.CrossEntropyLoss(), 2.0)
        clean = torch.zeros(2, M, 16, 16, 16)
        clean[0, :, :filled, :filled, :filled] = torch.randn(M, filled, filled, filled)
        degraded = clean + 0.5 * torch.randn_like(clean) * (clean != 0)
        with torch.autocast("cpu", dtype=torch.float16, enabled=half):
            out = net(torch.cat((clean, degraded), 1))
            (LOSS_SCALE * loss(out, torch.zeros(2, 16, 16, 16, dtype=torch.long))).backward()
        assert out.restored.dtype == torch.float32
        gradients.append(torch.cat([p.grad.flatten() for p in net.image_decoder.parameters()]) / LOSS_SCALE)
    full, halved = gradients
    assert torch.isfinite(halved).all()
    assert torch.nn.functional.cosine_similarity(full, halved, dim=0) > 0.98
