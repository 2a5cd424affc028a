"""What the trainer takes and what it refuses, and its seeds: without a training."""

import pytest
import torch
from plans import DATASET_JSON, make_plans

from nnunetv2_rmr import __version__
from nnunetv2_rmr.degradations.degrade import DegradeTransform
from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR
from nnunetv2_rmr.training.panel import save_panel
from nnunetv2_rmr.training.reproducible import SeedNextSample


def refused(plans: dict, dataset_json: dict) -> None:
    """Before anything is written: there is no folder of results here."""
    nnUNetTrainerRMR({**plans, "continue_training": False}, "test", 0, dataset_json, torch.device("cpu"))


@pytest.mark.parametrize("scheme", ["NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"])
def test_channels_that_are_not_z_scored_are_refused_by_name(scheme):
    plans = make_plans(settings=None).plans
    plans["configurations"]["test"]["normalization_schemes"][1] = scheme
    with pytest.raises(ValueError, match=rf"every channel needs .* Not so: FLAIR \({scheme}\)\."):
        refused(plans, DATASET_JSON)


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "CTNormalization"])
def test_z_scores_and_ct_are_taken(trainer_of, scheme):
    trainer_of(nnUNetTrainerRMR, scheme=scheme)


def test_one_modality_is_refused_with_a_clear_message():
    with pytest.raises(NotImplementedError,
                       match="fuses two or more modalities, but the data set Dataset999_Test has one"):
        refused(make_plans(settings=None).plans, {"channel_names": {"0": "CT"}})


def test_the_plans_of_a_model_hold_its_reference_modality_what_was_changed_and_the_version(trainer_of):
    class Changed(nnUNetTrainerRMR):
        settings = RMRSettings(p_clean=0.5)

    for cls, changed in ((nnUNetTrainerRMR, {}), (Changed, {"p_clean": 0.5})):
        assert trainer_of(cls).plans_manager.plans["rmr"] == changed | {"reference_modality": "FLAIR",
                                                                        "version": __version__}


@pytest.mark.parametrize(("workers", "seeded"), [("0", True), ("1", True), ("2", False)])
def test_a_seed_that_several_workers_would_share_is_not_used(trainer_of, least_transforms, monkeypatch, capsys, workers,
                                                             seeded):
    monkeypatch.setenv("nnUNet_rmr_seed", "3")
    monkeypatch.setenv("nnUNet_n_proc_DA", workers)
    transforms = trainer_of(nnUNetTrainerRMR).get_training_transforms().transforms
    assert any(isinstance(transform, SeedNextSample) for transform in transforms) == seeded
    warning = "nnUNet_rmr_seed=3 does not seed the training patches: that takes at most one data augmentation worker"
    assert (warning in capsys.readouterr().out) != seeded


def test_with_a_seed_every_process_and_kind_of_patches_draws_samples_of_its_own(trainer_of, least_transforms,
                                                                                monkeypatch):
    monkeypatch.setenv("nnUNet_rmr_seed", "3")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    trainer, streams = trainer_of(nnUNetTrainerRMR), []
    for trainer.local_rank in (0, 1):
        streams += [transforms.transforms[-1].stream for transforms in (trainer.get_training_transforms(),
                                                                        trainer.get_validation_transforms(None))]
    assert len(set(streams)) == 4


def test_only_training_patches_are_degraded(trainer_of, least_transforms):
    trainer = trainer_of(nnUNetTrainerRMR)
    degrades = [any(isinstance(transform, DegradeTransform) for transform in transforms.transforms)
                for transforms in (trainer.get_training_transforms(), trainer.get_validation_transforms(None))]
    assert degrades == [True, False]


def test_the_loss_hears_of_the_trainings_progress(trainer_of):
    trainer = trainer_of(nnUNetTrainerRMR, epochs=4)
    for trainer.current_epoch in (0, 1):
        trainer.on_epoch_start()
    assert trainer.loss.progress == 0.25


@pytest.mark.parametrize(("names", "asked", "kept", "number"), [
    (("T1", "FLAIR"), "T1", "T1", 0), (("T1", "FLAIR"), None, "FLAIR", 1), (("MRI", "MRI"), 0, 0, 0)])
def test_the_reference_modality_is_kept_by_name_or_by_number_where_names_repeat(trainer_of, names, asked, kept, number):
    class Asked(nnUNetTrainerRMR):
        settings = RMRSettings(reference_modality=asked)

    trainer = trainer_of(Asked, dataset_json=DATASET_JSON | {"channel_names": dict(zip("01", names))})
    assert (trainer.reference, trainer.settings.reference_modality) == (number, kept)


def test_a_modality_called_like_a_formula_has_its_name_in_the_picture_of_the_training(trainer_of, tmp_path):
    trainer = trainer_of(nnUNetTrainerRMR, epochs=1,
                         dataset_json=DATASET_JSON | {"channel_names": {"0": "$x_{$", "1": "FLAIR"}})
    clean, target = torch.randn(1, 2, 8, 8, 8), torch.ones(1, 1, 8, 8, 8)
    save_panel(trainer, {"data": torch.cat((clean, clean), 1), "target": target}, str(tmp_path / "panel.png"))
    assert (tmp_path / "panel.png").is_file()
