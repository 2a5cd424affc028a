"""Cases without some of the model's modalities."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import tiny
import torch
from conftest import REGIONS
from plans import DATASET_JSON, make_plans
from small_cases import network_for, oblique_case, predictor_for
from torch import nn

from nnunetv2_rmr.degradations.degrade import DegradeTransform
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.fusion.fused_image import fused_image
from nnunetv2_rmr.inference.export import IntensityMap
from nnunetv2_rmr.inference.preprocessing import PROPERTY, RMRConfigurationManager
from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR

# ---- training -------------------------------------------------------------------------------------------------------

def lost(probability: float, modalities: int, samples: int) -> torch.Tensor:
    """(samples, modalities): what DegradeTransform takes away, seen in its output."""
    np.random.seed(0)
    transform = DegradeTransform(modalities, (1.0, 1.0), p_clean=0.5, modality_dropout=probability,
                                 probabilities={"none": 0.5, "noise": 0.5})
    image = torch.rand(modalities + 1, 4, 4) + 1  # and an extra channel
    out = torch.stack([transform(image=image.clone())["image"] for _ in range(samples)])
    assert (out[:, -1] == image[-1]).all()
    clean, degraded = (~half.flatten(2).any(2) for half in (out[:, :modalities], out[:, modalities:-1]))
    assert torch.equal(clean, degraded), "what is missing is not to be restored"
    return clean


def test_dropout_takes_one_or_more_modalities_but_never_all_with_the_stated_probability():
    drawn = lost(0.3, 4, 3000)
    gone = drawn.sum(1)
    assert gone.min() == 0 and gone.max() == 3
    assert (gone > 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(torch.stack([(gone == n).float().mean() for n in (1, 2, 3)]), torch.full((3,), 0.1),
                               atol=0.025, rtol=0)
    torch.testing.assert_close(drawn.float().mean(0), torch.full((4,), 0.3 * 0.5), atol=0.025, rtol=0)
    assert not lost(0.0, 2, 100).any() and (lost(1.0, 2, 100).sum(1) == 1).all()


def test_without_dropout_nothing_is_drawn_for_it():
    draws = []
    for options in ({}, {"modality_dropout": 0.0}):
        np.random.seed(0)
        DegradeTransform(2, (1.0, 1.0), **options).get_parameters(image=torch.zeros(2, 4, 4))
        draws.append(np.random.uniform())
    np.random.seed(0)
    with_dropout = DegradeTransform(2, (1.0, 1.0), modality_dropout=0.5)
    with_dropout.get_parameters(image=torch.zeros(2, 4, 4))
    assert draws[0] == draws[1] != np.random.uniform()


def test_the_setting_reaches_the_transform(trainer_of, least_transforms):
    class Dropping(nnUNetTrainerRMR):
        settings = RMRSettings(modality_dropout=0.4)

    *_, transform = trainer_of(Dropping).get_training_transforms().transforms
    assert transform.modality_dropout == 0.4


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_an_impossible_dropout_is_refused(value):
    with pytest.raises(ValueError, match="modality_dropout"):
        RMRSettings(modality_dropout=value)


# ---- prediction -----------------------------------------------------------------------------------------------------

def preprocess(plans, files, allow_missing=True):
    configuration = RMRConfigurationManager(plans.get_configuration("test").configuration, allow_missing)
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case(files, None, plans, configuration, DATASET_JSON)
    return data, properties, preprocessor.absent


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "CTNormalization", "RescaleTo01Normalization"])
@pytest.mark.parametrize("absent", [0, 1])
def test_preprocessing_puts_zeros_where_a_modality_is_absent(tmp_path, scheme, absent):
    files = oblique_case(tmp_path)
    plans = make_plans(scheme=scheme, mask_norm=False, spacing=(2, 1.2, 1))
    whole, *_ = preprocess(plans, files)
    data, _, found = preprocess(plans, [f for i, f in enumerate(files) if i != absent])
    assert not data[absent].any() and found == [absent]
    np.testing.assert_allclose(data[1 - absent], whole[1 - absent], atol=1e-6)


def test_complete_cases_are_preprocessed_the_same_with_and_without_the_permission(tmp_path):
    files, plans = oblique_case(tmp_path), make_plans()
    (a, properties_a, absent), (b, properties_b, _) = (preprocess(plans, files, allow) for allow in (True, False))
    np.testing.assert_array_equal(a, b)
    assert properties_a.keys() == properties_b.keys() and not absent


def test_without_permission_and_for_surplus_files_the_file_is_named(tmp_path):
    files, plans = oblique_case(tmp_path), make_plans()
    with pytest.raises(BadCaseError, match=r"case_0000.nii.gz \(T1\) missing"):
        preprocess(plans, files[1:], allow_missing=False)
    surplus = str(shutil.copy(files[0], tmp_path / "case_0002.nii.gz"))
    with pytest.raises(BadCaseError, match=r"remove case_0002.nii.gz .*0000=T1, 0001=FLAIR"):
        preprocess(plans, [files[0], surplus])


def test_a_bad_image_of_an_incomplete_case_is_named_by_its_file(tmp_path):
    files, plans = oblique_case(tmp_path), make_plans()
    image = sitk.ReadImage(files[1]) * 0
    sitk.WriteImage(image + 3, files[1])
    with pytest.raises(BadCaseError, match=r"case_0001.nii.gz is constant \(every voxel is 3\).*export it again$"):
        preprocess(plans, files[1:])
    sitk.WriteImage(image, files[1])
    with pytest.raises(BadCaseError, match=r"case_0001.nii.gz: zero in every voxel of every modality"):
        preprocess(plans, files[1:])


def test_a_file_of_zeros_is_an_absent_modality(tmp_path):
    files, plans = oblique_case(tmp_path), make_plans()
    without, *_ = preprocess(plans, files[:1])
    sitk.WriteImage(sitk.ReadImage(files[1]) * 0, files[1])
    with pytest.raises(BadCaseError, match=r"case_0001.nii.gz is constant.*or give --missing to predict without it"):
        preprocess(plans, files, allow_missing=False)
    data, _, absent = preprocess(plans, files)
    assert absent == [1]
    np.testing.assert_array_equal(data, without)


def test_a_complete_case_may_have_files_of_any_name(tmp_path):
    files, plans = oblique_case(tmp_path), make_plans()
    renamed = [str(shutil.copy(file, tmp_path / name)) for file, name in zip(files, ("t1.nii.gz", "flair.nii.gz"))]
    np.testing.assert_array_equal(preprocess(plans, renamed)[0], preprocess(plans, files)[0])


def test_units_without_the_reference_modality_are_ct_units_or_normalised_ones(tmp_path):
    files = oblique_case(tmp_path)
    units = {}
    for scheme in ("ZScoreNormalization", "CTNormalization"):
        found: IntensityMap = preprocess(make_plans(scheme=scheme), files[:1])[1][PROPERTY]
        units[scheme] = (found.slope, found.intercept)
        assert found.inside.any() and not found.inside.all()
    assert units == {"ZScoreNormalization": (1, 0), "CTNormalization": (50, 100)}


def test_the_fused_image_of_a_case_is_made_of_the_modalities_that_are_there():
    plans = make_plans()
    network, x = network_for(plans), torch.randn(2, 24, 18, 16)
    x[:, 12:] = 0  # tiles in which both modalities are background
    x[1] = 0  # the reference modality
    predictor = predictor_for(plans, network, allow_missing=True)
    predictor.predict_logits_from_preprocessed_data(x)
    fused, images = predictor.take_fused(), predictor.predict_images_from_preprocessed_data(x)
    torch.testing.assert_close(fused, fused_image(images, x, (1, 1, 1), 1, torch.tensor([True, False])))
    assert not torch.allclose(fused, fused_image(images, x, (1, 1, 1), 1), atol=0.1)
    x[1, :12] = torch.randn(12, 18, 16)  # the next case is complete
    predictor.predict_logits_from_preprocessed_data(x)
    images = predictor.predict_images_from_preprocessed_data(x)
    torch.testing.assert_close(predictor.take_fused(), fused_image(images, x, (1, 1, 1), 1))


def test_an_array_of_zeros_is_an_absent_modality():
    plans = make_plans()
    network = network_for(plans)
    predictor = predictor_for(plans, network, allow_missing=True)
    image = np.random.default_rng(0).normal(100, 20, (2, 16, 16, 16)).astype(np.float32)
    image[1] = 0
    assert predictor.predict_single_npy_array(image, {"spacing": (1.0, 1.0, 1.0)}).shape == (16, 16, 16)
    assert len(predictor.fused_volumes) == 1
    with pytest.raises(BadCaseError, match="constant"):
        predictor_for(plans, network).predict_single_npy_array(image, {"spacing": (1.0, 1.0, 1.0)})


def test_a_model_of_another_trainer_can_not_do_without_modalities():
    plans = make_plans(settings=None)
    predictor = predictor_for(plans, nn.Conv3d(2, 2, 1), allow_missing=True)
    with pytest.raises(ValueError, match=r"--missing.* need a model of nnunetv2-rmr"):
        predictor.predict_from_files([["a_0000.nii.gz"]], None)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_model_trained_without_dropout_warns(capsys, dropout):
    plans = make_plans(settings=RMRSettings(modality_dropout=dropout))
    predictor = predictor_for(plans, network_for(plans), allow_missing=True)
    image = np.random.default_rng(0).normal(100, 20, (2, 16, 16, 16)).astype(np.float32)
    predictor.predict_single_npy_array(image, {"spacing": (1.0, 1.0, 1.0)})
    warned = "WARNING: this model was trained without modality dropout" in capsys.readouterr().out
    assert warned == (dropout == 0)


# ---- command --------------------------------------------------------------------------------------------------------

@tiny.bit_by_bit
@pytest.mark.slow
def test_the_command_predicts_without_modalities(trained, nnunet, tmp_path):
    raw = tmp_path / "in"
    images = f"{nnunet['nnUNet_raw']}/Dataset{REGIONS}_Tiny/imagesTs"
    shutil.copytree(images, raw)
    (raw / "caseTs00_0001.nii.gz").unlink()  # T2
    (raw / "caseTs01_0002.nii.gz").unlink()  # FLAIR, the reference modality
    for i in range(3):
        shutil.copy(f"{images}/caseTs00_{i:04d}.nii.gz", raw / f"whole_{i:04d}.nii.gz")
    command = ["nnUNetv2_rmr_predict_from_modelfolder", "-i", raw, "-m", trained, "-f", 0, "-device", tiny.DEVICE,
               "--disable_tta", "-npp", 0, "-nps", 0]

    result = tiny.run(*command, "-o", tmp_path / "out", "--missing", env=nnunet)
    assert "case caseTs00 is predicted without caseTs00_0001.nii.gz (T2)" in result.stdout
    assert "case caseTs01 is predicted without caseTs01_0002.nii.gz (FLAIR)" in result.stdout
    assert "caseTs01: FLAIR would give the fused image its units" in result.stdout
    refused = tiny.run(*command, "-o", tmp_path / "strict", env=nnunet, check=False)
    assert refused.returncode == 1
    assert "caseTs00_0001.nii.gz (T2) missing" in refused.stdout
    assert "caseTs01_0002.nii.gz (FLAIR) missing" in refused.stdout
    for folder in ("", "fused"):
        assert {f.name for f in (tmp_path / "out" / folder).glob("*.nii.gz")} == \
            {f"{case}.nii.gz" for case in ("caseTs00", "caseTs01", "whole")}
        # a complete case is predicted as without the option
        assert (tmp_path / "out" / folder / "whole.nii.gz").read_bytes() == \
            (tmp_path / "strict" / folder / "whole.nii.gz").read_bytes()
    flair = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "caseTs00_0002.nii.gz")))
    fused = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "fused" / "caseTs00.nii.gz")))
    assert 0.5 < fused[flair > 0].mean() / flair[flair > 0].mean() < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("command", ["nnUNetv2_rmr_predict", "nnUNetv2_rmr_predict_from_modelfolder"])
def test_help_names_the_option_beside_nnunets(nnunet, command):
    help_text = tiny.run(command, "-h", env=nnunet).stdout
    assert "--missing" in help_text and "-step_size" in help_text
