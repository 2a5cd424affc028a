"""What trainers do with checkpoints of others: see inference/trust.py."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import torch
from nnunetv2.run import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.inference.trust import ModelRefused, reading_data_only
from nnunetv2_rmr.networks.fusing import unwrapped
from nnunetv2_rmr.training.nnssl import ADAPTATION_PLAN, refuse_plans_of_nnssl, take_encoder


class ReadsDataOnly(nnUNetTrainer):
    """Base of trainers: neither --c, --val nor -pretrained_weights runs what a file holds. What can not be used ends
    nnUNetv2_train with one message."""

    def initialize(self) -> None:
        with self.ends_in_one_line():
            refuse_plans_of_nnssl(self.plans_manager.plans, type(self).__name__)
        super().initialize()
        load_pretrained_weights.torch = SimpleNamespace(load=self.ends_in_one_line()(self.read_weights),
                                                        device=torch.device)

    @contextmanager
    def ends_in_one_line(self) -> Iterator[None]:
        """Exits with the message of what is known to happen. Of a training that has not begun nothing is left."""
        try:
            yield
        except (BadCaseError, ModelRefused, OSError) as error:
            if self.current_epoch == 0:  # --val_best reads a checkpoint when all is done
                Path(self.log_file).unlink(missing_ok=True)
                for folder in (self.output_folder, self.output_folder_base, os.path.dirname(self.output_folder_base)):
                    with suppress(OSError):  # an earlier training's, say
                        os.rmdir(folder)
            sys.exit(f"{Path(sys.argv[0]).name}: error: {error}")

    def read_weights(self, file: str, **_) -> dict:
        """What nnU-Net's -pretrained_weights takes for the content of the file; also one of nnssl's."""
        with reading_data_only():
            found = torch.load(file, map_location="cpu", weights_only=False)
        if ADAPTATION_PLAN not in found:
            return found
        network = unwrapped(self.network)
        take_encoder(getattr(network, "segmentation", network), found, file)
        return {"network_weights": network.state_dict()}

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        with self.ends_in_one_line(), reading_data_only():
            super().load_checkpoint(filename_or_checkpoint)
