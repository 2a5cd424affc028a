"""Which loss terms each stage has, and their weights."""

from collections.abc import Collection

import torch

from nnunetv2_rmr.losses.fusion import gradient_loss, intensity_loss
from nnunetv2_rmr.losses.reconstruction import reconstruction_loss
from nnunetv2_rmr.losses.refinement import feature_refinement, image_refinement
from nnunetv2_rmr.networks.rmrnet import RMROutputs
from nnunetv2_rmr.settings import RMRSettings

# loss term -> outputs of RMRNet that it looks at
TERMS = {"segmentation": ("logits",), "intensity": ("fused",), "gradient": ("fused",),
         "image_refinement": ("features", "reconstructions"), "feature_refinement": ("features", "reconstructions"),
         "reconstruction": ("all_modalities",)}


def outputs_for(terms: Collection[str]) -> tuple[str, ...]:
    """Outputs that RMRNet has to give for these loss terms, each once."""
    return tuple(dict.fromkeys(output for term in terms for output in TERMS[term]))


def refinement_terms(out: RMROutputs, clean: torch.Tensor, clean_features: torch.Tensor,
                     settings: RMRSettings) -> dict[str, torch.Tensor]:
    """Both levels of the refinement constraint for the degraded input's outputs, unweighted."""
    return {
        "image_refinement": image_refinement(out.reconstructions.float(), clean, settings.mse_weight,
                                             settings.tv_weight, settings.ssim_weight, settings.tv_norm),
        "feature_refinement": feature_refinement(out.features, clean_features, settings.mse_weight,
                                                 settings.tv_weight, settings.tv_norm, settings.feature_loss_relative),
    }


def fusion_terms(out: RMROutputs, clean: torch.Tensor, reference: int,
                 settings: RMRSettings) -> dict[str, torch.Tensor]:
    """What the fused image, and all that is decoded from the fused features, is to have of the clean modalities;
    unweighted. Nothing of outputs that are None."""
    terms = {}
    if out.fused is not None:
        terms["intensity"] = intensity_loss(out.fused.float(), clean, settings.intensity_target, reference,
                                            settings.intensity_norm)
        terms["gradient"] = gradient_loss(out.fused.float(), clean)
    if out.all_modalities is not None:
        terms["reconstruction"] = reconstruction_loss(out.all_modalities.float(), clean)
    return terms


def term_weights(stage: int, settings: RMRSettings) -> dict[str, float]:
    """Weight of every term in a stage; a term without weight is not computed."""
    if stage == 1:
        return {"image_refinement": 1.0, "feature_refinement": settings.feature_weight}
    refinement = 0.0 if settings.freeze_autoencoder else settings.refinement_weight
    weights = {"segmentation": settings.segmentation_weight, "intensity": settings.intensity_weight,
               "gradient": settings.gradient_weight, "image_refinement": refinement,
               "feature_refinement": refinement * settings.feature_weight,
               "reconstruction": settings.all_modalities_weight}
    return {name: weight for name, weight in weights.items() if weight > 0}
