"""RMRNet: encoders -> fusion module -> { fusion decoder -> fused image, segmentation network -> logits }."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from nnunetv2_rmr.networks.encoder import ENCODERS
from nnunetv2_rmr.networks.fusion import DenseFusion
from nnunetv2_rmr.networks.fusion_decoder import FusionDecoder
from nnunetv2_rmr.networks.presence import fill_absent


@dataclass
class RMROutputs:
    """What was asked of RMRNet; the rest is None. M modalities, F features, images in normalised intensities."""

    logits: torch.Tensor | list[torch.Tensor] | None = None  # (B, classes, *spatial); a list under deep supervision
    fused: torch.Tensor | None = None  # (B, 1, *spatial)
    features: torch.Tensor | None = None  # (B, M, F, *spatial), of every modality before fusion
    reconstructions: torch.Tensor | None = None  # (B, M, *spatial), every modality decoded from its own features
    all_modalities: torch.Tensor | None = None  # (B, M, *spatial), every modality decoded from the fused features


OUTPUTS = frozenset(RMROutputs.__dataclass_fields__)


class RMRNet(nn.Module):
    """Fuses M >= 2 modalities and segments them from the shared fusion features (RMR, AAAI 2024).

    segmentation: any segmentation network that takes `features` + `extra_channels` input channels and returns logits.
    num_modalities: M. Input channels beyond M (the one-hot segmentation of a cascade's previous stage) by-pass the
        fusion and go to the segmentation network directly.
    dim: 2 or 3, number of spatial axes.
    all_modalities: with a head for the output of that name; it is a fusion decoder with M images.

    `forward(x)` with x (B, M + extra, *spatial) returns what nnU-Net expects: logits, a list under deep supervision.
    `forward(x, outputs=("logits", "fused"))` returns RMROutputs with the named fields.
    `presence`, boolean (B, M) or (1, M): the fusion does without the modalities that are False in it, whatever x holds
        in their place (see presence.py); None: all are there. It is told, not guessed from zeros in x: a tile of pure
        background is zero in every modality. `features` and `reconstructions` are of x as it is.
    """

    def __init__(self, segmentation: nn.Module, num_modalities: int, dim: int, *, encoder: str = "conv",
                 features: int = 8, fusion_growth: int = 8, fusion_layers: int = 3, fusion_collect: bool = True,
                 decoder_hidden: int = 8, decoder_layers: int = 1, convolutions: str = "near_identity",
                 all_modalities: bool = False):
        super().__init__()
        if num_modalities < 2:
            raise ValueError(f"RMRNet fuses two or more modalities, got num_modalities={num_modalities}")
        if encoder not in ENCODERS:
            raise ValueError(f"RMRNet has the encoders {sorted(ENCODERS)}, got encoder={encoder!r}")
        self.num_modalities = num_modalities
        self.encoders = nn.ModuleList(ENCODERS[encoder](dim, features, convolutions) for _ in range(num_modalities))
        self.fusion = DenseFusion(dim, num_modalities * features, features, fusion_growth, fusion_layers,
                                  fusion_collect, convolutions)
        self.fusion_decoder = FusionDecoder(dim, features, decoder_hidden, decoder_layers, convolutions)
        self.segmentation = segmentation
        # last, so that without it all other weights are drawn as ever
        self.all_modalities_decoder = FusionDecoder(dim, features, decoder_hidden, decoder_layers, convolutions,
                                                    images=num_modalities) if all_modalities else None
        self.log_variances = nn.ParameterDict()  # of loss terms, see learn_balance

    def learn_balance(self, terms: Collection[str]) -> None:
        """Carry a learned log-variance of each of these loss terms (see losses/uncertainty.py) for the trainer, so that
        checkpoints and optimiser have them.
        """
        self.log_variances.update({term: nn.Parameter(torch.zeros(())) for term in terms})

    @property
    def decoder(self) -> nn.Module:
        """The segmentation network's decoder: nnU-Net switches deep supervision at `network.decoder`, also if it has
        none.
        """
        return getattr(self.segmentation, "decoder", self.segmentation)

    def autoencoder_parameters(self) -> list[nn.Parameter]:
        """Parameters of the encoders and the fusion decoder, which stage 1 trains."""
        return [*self.encoders.parameters(), *self.fusion_decoder.parameters()]

    def front_parameters(self) -> list[nn.Parameter]:
        """Parameters of all parts but the segmentation network."""
        parts = (self.encoders, self.fusion, self.fusion_decoder, self.all_modalities_decoder)
        return [parameter for part in parts if part is not None for parameter in part.parameters()]

    def forward(self, x: torch.Tensor, outputs: Collection[str] | None = None, presence: torch.Tensor | None = None):
        if outputs is None:
            return self._forward(x, ("logits",), presence).logits
        if not OUTPUTS.issuperset(outputs):
            raise ValueError(f"outputs must be among {sorted(OUTPUTS)}, got {outputs}")
        if "all_modalities" in outputs and self.all_modalities_decoder is None:
            raise ValueError("this RMRNet has no head for all_modalities (setting all_modalities_weight)")
        return self._forward(x, outputs, presence)

    def _forward(self, x: torch.Tensor, outputs: Collection[str], presence: torch.Tensor | None) -> RMROutputs:
        modalities, extra = x[:, :self.num_modalities], x[:, self.num_modalities:]
        features = [encoder(modalities[:, i:i + 1]) for i, encoder in enumerate(self.encoders)]
        out = RMROutputs()
        if "features" in outputs:
            out.features = torch.stack(features, dim=1)
        if "reconstructions" in outputs:
            out.reconstructions = torch.cat([self.fusion_decoder(f) for f in features], dim=1)
        if "logits" in outputs or "fused" in outputs or "all_modalities" in outputs:
            shared = self.fusion(torch.cat(features if presence is None else fill_absent(features, presence), dim=1))
            if "fused" in outputs:
                out.fused = self.fusion_decoder(shared)
            if "all_modalities" in outputs:
                out.all_modalities = self.all_modalities_decoder(shared)
            if "logits" in outputs:
                out.logits = self.segmentation(torch.cat((shared, extra), dim=1) if extra.shape[1] else shared)
        return out
