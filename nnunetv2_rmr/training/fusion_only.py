"""A fused image for an nnU-Net model that exists: its network stays as it is, only the restoration head learns."""

from types import SimpleNamespace

import torch
from nnunetv2.run import load_pretrained_weights

from nnunetv2_rmr.networks.fusing import unwrapped
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

LAST_LAYERS = ".seg_layers."  # names of the weights that nnU-Net's loader passes over


class nnUNetTrainerRMR_fusionOnly(nnUNetTrainerRMR):
    """For `nnUNetv2_train ... -pretrained_weights CHECKPOINT` of a trained nnU-Net model with the same plans.

    Its segmentations stay byte for byte, as nothing of the segmentation network is trained; without a backward pass
    through it, a step costs less than nnU-Net's own. The default number of epochs is that after which
    restoration was as good as after a whole training (docs/existing_models.md).
    """

    epochs = 50
    learns_from_unlabelled = False
    _has_weights = False

    def initialize(self) -> None:
        super().initialize()
        network = unwrapped(self.network)
        network.segmentation.requires_grad_(False)
        load = load_pretrained_weights.torch.load

        def load_with_last_layers(file, **options) -> dict:
            # nnU-Net trains the last layers anew, so its loader leaves them out
            found = load(file, **options)
            last = {name: weight for name, weight in found["network_weights"].items()
                    if LAST_LAYERS in name and not name.startswith("image_decoder.")}
            wanted = {name: weight.shape for name, weight in network.state_dict().items() if name in last}
            if wanted != {name: weight.shape for name, weight in last.items()}:
                raise ValueError(f"-pretrained_weights {file}: is of a model with other labels or other plans")
            network.load_state_dict(last, strict=False)
            self._has_weights = True
            return found

        load_pretrained_weights.torch = SimpleNamespace(load=load_with_last_layers, device=torch.device)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        self._has_weights = True

    def on_train_start(self) -> None:
        if not self._has_weights:
            raise ValueError(f"{type(self).__name__} adds a fused image to a model that exists: give its checkpoint "
                             "with -pretrained_weights (.../nnUNetTrainer__.../fold_0/checkpoint_final.pth)")
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        unwrapped(self.network).segmentation.eval()  # no dropout; statistics of batch norms stay
