"""The final validation's fused images can not cost a training its segmentation validation."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_rmr.degradations.degrade import degradation_arguments, degrade_case
from nnunetv2_rmr.evaluation.fusion_metrics.similarity import restoration_scores
from nnunetv2_rmr.fusion.fused_image import fused_image
from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.published.nnUNetTrainerRMR_paper import nnUNetTrainerRMR_paper
from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training import validation
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

CASES = ("one", "three", "two")


class Cases:
    """Stands in for nnU-Net's data set: preprocessed cases of 8 x 10 x 12 voxels, each with a previous stage."""

    def __init__(self, folder: str, keys: list[str], **_):
        self.keys = keys

    def load_case(self, key: str) -> tuple:
        rng = np.random.default_rng(CASES.index(key))
        data, shape = rng.normal(size=(2, 8, 10, 12)).astype(np.float32), [8, 10, 12]
        properties = {"spacing": [1.0, 1.0, 1.0], "shape_before_cropping": shape,
                      "shape_after_cropping_and_before_resampling": shape,
                      "bbox_used_for_cropping": [[0, n] for n in shape],
                      "sitk_stuff": {"spacing": (1, 1, 1), "origin": (0, 0, 0), "direction": tuple(np.eye(3).ravel())}}
        return data, np.zeros((1, *shape), np.int8), np.ones(shape, np.int8), properties


@pytest.fixture
def trainer(trainer_of, monkeypatch, tmp_path):
    trainer = trainer_of(nnUNetTrainerRMR)
    trainer.dataset_class, trainer.output_folder = Cases, str(tmp_path)
    monkeypatch.setattr(trainer, "do_split", lambda: ([], list(CASES)))
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda self, save: (tmp_path / "done").touch())
    return trainer


def fused(folder) -> set[str]:
    return {file.name.split(".")[0] for file in (folder / "validation" / "fused").glob("*.nii.gz")}


def test_every_case_is_fused_and_degraded_copies_are_scored(trainer, tmp_path):
    trainer.perform_actual_validation()
    assert fused(tmp_path) == set(CASES) and (tmp_path / "done").exists()
    scores = json.loads((tmp_path / "validation" / "fused" / "restoration.json").read_text())
    assert set(scores["cases"]) == set(CASES)
    # a head that has learned nothing hands everything on: the degraded case's image is the degraded case's target
    for of_case in scores["cases"].values():
        assert of_case["PSNR"] == pytest.approx(of_case["input"]["PSNR"]) and 0 < of_case["PSNR"] < 60


@pytest.mark.parametrize("cls", [nnUNetTrainerRMR, nnUNetTrainerRMR_paper])
def test_fused_and_degraded_copies_are_made_with_spacing_and_reference_modality_of_the_training(trainer, tmp_path, cls,
                                                                                                 trainer_of):
    if cls is nnUNetTrainerRMR_paper:
        trainer.network = trainer_of(cls).network
    spacing = trainer.configuration_manager.configuration["spacing"] = [1.0, 2.0, 6.0]
    trainer.reference, trainer.do_split = 0, lambda: ([], ["one", "three"])
    trainer.perform_actual_validation()
    for seed, key in enumerate(("one", "three")):
        clean = torch.from_numpy(Cases("", []).load_case(key)[0])
        inside = torch.ones(clean.shape[1:], dtype=torch.bool)
        degraded = degrade_case(clean, inside, spacing, seed=seed,
                                **degradation_arguments(trainer.settings, trainer.configuration_manager))
        # the published network fuses by itself, and aims at the reference modality
        target, given = (x[0] if cls is nnUNetTrainerRMR_paper else fused_image(x, x, spacing, 0)
                         for x in (clean, degraded))
        scores = json.loads((tmp_path / "validation" / "fused" / "restoration.json").read_text())["cases"][key]
        assert scores["input"] == pytest.approx(restoration_scores(given, target, inside), rel=1e-4)
        if cls is nnUNetTrainerRMR:  # whose head hands everything on
            written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "validation" / "fused" / f"{key}.nii.gz")))
            np.testing.assert_allclose(written, target, atol=1e-4)


@pytest.mark.parametrize("where", ["_predict", "export_fused"])
def test_a_case_that_fails_is_named_and_the_others_and_the_segmentations_are_done(trainer, tmp_path, monkeypatch,
                                                                                  capsys, where):
    whole = getattr(validation, where)

    def fail_for_two(*arguments, **options):
        if any(str(argument).endswith("two") for argument in arguments):
            raise OSError("no space left")
        return whole(*arguments, **options)

    monkeypatch.setattr(validation, where, fail_for_two)
    trainer.perform_actual_validation()
    assert fused(tmp_path) == {"one", "three"} and (tmp_path / "done").exists()
    assert "ERROR: no fused image of the validation case two: no space left" in capsys.readouterr().out
    assert "two" not in json.loads((tmp_path / "validation" / "fused" / "restoration.json").read_text())["cases"]


def test_it_can_be_switched_off(trainer, tmp_path):
    trainer.settings = RMRSettings(validation_fusion=False)
    trainer.perform_actual_validation()
    assert (tmp_path / "done").exists() and not (tmp_path / "validation").exists()


def test_the_second_stage_of_a_cascade_gets_the_first_ones_segmentation(trainer, tmp_path):
    seen = []
    trainer.is_cascaded = True
    network = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 1), torch.nn.Conv3d(4, 2, 1))  # two modalities and a label
    trainer.network = RMRNet(network, 2, 3, (8, 8, 8))
    trainer.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    trainer.perform_actual_validation()
    assert fused(tmp_path) == set(CASES)
    assert all(x.shape[1] == 3 and (x[:, 2] <= 1).all() and x[:, 2].any() for x in seen)
