"""MONAI's segmentation networks under the names of arguments that nnU-Net's plans use: see docs/backbones.md."""

import torch
from torch import nn

try:
    from monai.networks import nets
except ImportError as error:
    raise ImportError(f'{error}: MONAI\'s networks need it, pip install "nnunetv2-rmr[monai]"') from error


class MonaiNetwork(nn.Module):
    """A network of MONAI that gives logits of the input's size, without deep supervision.

    arguments: of MONAI's class, but for the numbers of channels, which nnU-Net knows.
    Raises NotImplementedError if deep supervision is asked for, and ValueError from `forward` for an image whose edges
    are no multiples of `multiple` voxels. Input (B, input_channels, *spatial), output (B, num_classes, *spatial).
    """

    network_class: type[nn.Module]
    multiple: int
    has_deep_supervision = False

    def __init__(self, input_channels: int, num_classes: int, deep_supervision: bool | None = None, **arguments):
        super().__init__()
        if deep_supervision:
            raise NotImplementedError(f"{type(self).__name__} has no deep supervision: train it with a trainer that "
                                      "does without, such as nnU-Net's nnUNetTrainerNoDeepSupervision")
        self.network = self.network_class(in_channels=input_channels, out_channels=num_classes, **arguments)
        self.decoder = nn.Identity()  # nnU-Net switches deep supervision at network.decoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if any(n % self.multiple for n in x.shape[2:]):
            raise ValueError(f"{type(self).__name__} needs patches whose edges are multiples of {self.multiple} "
                             f"voxels, got patch_size {list(x.shape[2:])}: change it in the plans file")
        return self.network(x)


class SwinUNETR(MonaiNetwork):
    """Hatamizadeh et al. 2022, doi:10.1007/978-3-031-08999-2_22; RMR's published segmentation network."""

    network_class, multiple = nets.SwinUNETR, 32


class UNETR(MonaiNetwork):
    """Hatamizadeh et al. 2022, doi:10.1109/WACV51458.2022.00181. Needs the argument img_size, the patch size."""

    network_class, multiple = nets.UNETR, 16


class SegResNet(MonaiNetwork):
    """Myronenko 2019, doi:10.1007/978-3-030-11726-9_28, without the autoencoder branch."""

    network_class, multiple = nets.SegResNet, 8
