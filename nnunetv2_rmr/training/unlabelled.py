"""A part of every training batch from scans that have no labels."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_rmr.datasets.unlabelled import RAW_FOLDER, preprocessed_folder, raw_cases, unlabelled_dataset


def unused_scans(trainer: nnUNetTrainer) -> str | None:
    """Why scans in imagesUn/ will not be seen by the training; None if there are none, or none is here."""
    name, manager = trainer.plans_manager.dataset_name, trainer.configuration_manager
    raw = raw_cases(name, trainer.dataset_json["file_ending"])
    if raw and not (trainer.settings.unlabelled_fraction and trainer.learns_from_unlabelled):
        why = "unlabelled_fraction is 0" if trainer.learns_from_unlabelled else "this trainer can not"
        return f"the {len(raw)} scans in {RAW_FOLDER} are not learned from, as {why}"
    if manager.previous_stage_name is not None:
        return f"the second stage of a cascade does not learn from the scans in {RAW_FOLDER}" if raw else None
    found = unlabelled_dataset(name, manager.data_identifier)
    if not (unused := raw - {*(found.identifiers if found else ())}):
        return None
    return (f"{len(unused)} of {len(raw)} scans in {RAW_FOLDER} are not in "
            f"{preprocessed_folder(name, manager.data_identifier)} and will not be used: run "
            f"nnUNetv2_rmr_preprocess_unlabelled -d {name} -plans_name {trainer.plans_manager.plans_name} "
            f"-c {trainer.configuration_name}")


class PartlyLabelledLoader(nnUNetDataLoader):
    """nnU-Net's loader of the labelled cases, whose batches end with samples of unlabelled ones.

    The latter come from anywhere in a case, through the same transforms. Of the former as large a share is centred on
    foreground as nnU-Net would have in a batch of this size, but by chance: there may be one of them only.
    """

    def __init__(self, data: nnUNetBaseDataset, batch_size: int, *args, unlabelled: nnUNetBaseDataset,
                 num_unlabelled: int, oversample_foreground_percent: float, probabilistic_oversampling: bool, **kwargs):
        forced = oversample_foreground_percent
        if not probabilistic_oversampling:
            forced = (batch_size - round(batch_size * (1 - oversample_foreground_percent))) / batch_size
        super().__init__(data, batch_size - num_unlabelled, *args, oversample_foreground_percent=forced,
                         probabilistic_oversampling=True, **kwargs)
        self.others = nnUNetDataLoader(unlabelled, num_unlabelled, *args, oversample_foreground_percent=0, **kwargs)
        self.others.has_ignore = False  # it would look for annotated voxels

    def generate_train_batch(self) -> dict:
        first, second = super().generate_train_batch(), self.others.generate_train_batch()
        targets = first["target"], second["target"]
        return {"data": torch.cat((first["data"], second["data"])),
                "target": [torch.cat(of_scale) for of_scale in zip(*targets, strict=True)]
                if isinstance(targets[0], list) else torch.cat(targets),
                "keys": np.concatenate((first["keys"], second["keys"]))}


def number_in_batch(fraction: float, batch_size: int) -> int:
    """How many samples of a batch are unlabelled: about the fraction, at least one, and not all of them.

    Raises ValueError for a batch of one.
    """
    if batch_size < 2:
        raise ValueError("a batch of one sample (per process) has no room for a labelled and an unlabelled one: take a "
                         "larger batch or fewer GPUs, or set unlabelled_fraction to 0")
    return min(max(1, round(fraction * batch_size)), batch_size - 1)


@contextmanager
def partly_unlabelled_batches(unlabelled: nnUNetBaseDataset, num_unlabelled: int) -> Iterator[None]:
    """Within it, the loader that nnU-Net's get_dataloaders makes first, that of the training cases, is ours."""
    classes = iter((partial(PartlyLabelledLoader, unlabelled=unlabelled, num_unlabelled=num_unlabelled),
                    nnUNetDataLoader))
    with patch.object(stock, "nnUNetDataLoader", lambda *args, **kwargs: next(classes)(*args, **kwargs)):
        yield
