"""Float16 on a GPU, tried out on the CPU: what overflows there overflows here."""

import pytest
import torch

from nnunetv2_rmr.losses.coupled import fusion_terms, refinement_terms, term_weights
from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.networks.start import start_as_modalities
from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training.paper import nnUNetTrainerRMR_paper

LOSS_SCALE = 2.0 ** 16  # GradScaler's first
# GradScaler halves its scale with each step that overflows and skips: the default's squared differences may cost two.
AFTER_TWO_STEPS = LOSS_SCALE / 4
ABSOLUTE = RMRSettings(intensity_norm="l1", intensity_weight=0.5)


@pytest.mark.parametrize(("settings", "loss_scale", "size", "filled"), [
    (RMRSettings(), AFTER_TWO_STEPS, 16, 16), (RMRSettings(), AFTER_TWO_STEPS, 16, 6),
    (RMRSettings(), AFTER_TWO_STEPS, 16, 2),
    (ABSOLUTE, LOSS_SCALE, 16, 16), (ABSOLUTE, LOSS_SCALE, 16, 6), (ABSOLUTE, LOSS_SCALE, 16, 2),
    (nnUNetTrainerRMR_paper.settings, LOSS_SCALE, 8, 8), (nnUNetTrainerRMR_paper.settings, LOSS_SCALE, 8, 2)])
def test_gradients_are_finite_and_those_of_full_precision_however_empty_the_patches(settings, loss_scale, size, filled):
    """filled: edge of the cube with content in a patch of size^3, the rest is zero."""
    gradients = []
    for half in (False, True):
        torch.manual_seed(0)
        net = RMRNet(torch.nn.Conv3d(settings.features, 2, 1), 2, 3, **settings.network_arguments())
        if settings.convolutions == "near_identity":
            start_as_modalities(net, 1)
        clean = torch.zeros(2, 2, size, size, size)
        clean[0, :, :filled, :filled, :filled] = torch.randn(2, filled, filled, filled)
        degraded = clean + 0.5 * torch.randn_like(clean) * (clean != 0)
        with torch.autocast("cpu", dtype=torch.float16, enabled=half):
            out = net(degraded, outputs=("features", "reconstructions", "fused"))
            with torch.set_grad_enabled(not settings.feature_loss_relative):
                features = net(clean, outputs=("features",)).features
        terms = fusion_terms(out, clean, 1, settings) | refinement_terms(out, clean, features, settings)
        weights = term_weights(1, settings) | term_weights(2, settings)
        (loss_scale * sum(weights.get(name, 0) * term for name, term in terms.items())).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.encoders.parameters()]) / loss_scale)
    full, halved = gradients
    assert torch.isfinite(halved).all()
    assert torch.nn.functional.cosine_similarity(full, halved, dim=0) > 0.98
