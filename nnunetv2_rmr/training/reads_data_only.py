"""What trainers do with checkpoints of others: see inference/trust.py."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_rmr.inference.trust import read_pretrained_weights_as_data, reading_data_only


class ReadsDataOnly(nnUNetTrainer):
    """Base of trainers: neither --c, --val nor -pretrained_weights runs what a file holds."""

    def initialize(self) -> None:
        super().initialize()
        read_pretrained_weights_as_data()

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        with reading_data_only():
            super().load_checkpoint(filename_or_checkpoint)
