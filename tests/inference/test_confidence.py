"""What is told beside a prediction: measures, where they are counted, and their files."""

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from plans import DATASET_JSON, make_plans
from small_cases import network_for, oblique_case, predictor_for

from nnunetv2_rmr.inference.confidence import UNCHANGED, entropy, in_words, label_confidence, restoration_db
from nnunetv2_rmr.inference.passes import LabelSizes, labels_in
from nnunetv2_rmr.inference.predictor import RMRPredictor

BODY = np.ones((6, 7, 8), dtype=bool)
BODY[:2] = False


def modalities() -> torch.Tensor:
    return torch.from_numpy(np.where(BODY, np.random.default_rng(0).normal(3, 2, (2, *BODY.shape)), 0)).float()


# ---- how far from clean -------------------------------------------------------------------------------------------

def test_a_scan_that_restoration_leaves_as_it_is_gets_the_highest_value():
    assert restoration_db(modalities(), modalities(), BODY) == [UNCHANGED, UNCHANGED]


@pytest.mark.parametrize("noise", [0.2, 0.02])
def test_noise_that_was_taken_away_is_told_in_db_and_of_its_modality_only(noise):
    torch.manual_seed(0)
    clean = modalities()
    seen = clean.clone()
    seen[1, BODY] += noise * seen[1, BODY].std() * torch.randn(int(BODY.sum()))
    t1, flair = restoration_db(clean, seen, BODY)
    assert t1 == UNCHANGED
    assert flair == pytest.approx(-20 * math.log10(noise), abs=1)


def test_what_happens_outside_of_the_body_does_not_count():
    restored = modalities()
    restored[:, ~BODY] += 10
    assert restoration_db(restored, modalities(), BODY) == [UNCHANGED, UNCHANGED]


def test_a_modality_that_is_not_there_has_no_value():
    seen = modalities()
    seen[0] = 0
    assert restoration_db(modalities(), seen, BODY)[0] is None


# ---- how sure -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("regions", [False, True])
def test_entropy_is_zero_if_the_network_is_sure_and_one_if_it_knows_nothing(regions):
    assert entropy(torch.tensor([[-60.0, 60], [60, -60], [-60, -60]]), regions).max() < 1e-6
    torch.testing.assert_close(entropy(torch.zeros(3, 4), regions), torch.ones(3 if regions else 1, 4))


@pytest.mark.parametrize("regions", [False, True])
def test_entropy_is_that_of_the_voxels_of_a_label(regions):
    logits = torch.full((2 if regions else 3, 2, 2, 2), -60.0)
    if not regions:
        logits[0] = 60.0
    first, second = logits[-2], logits[-1]
    first[0, 0, 0], first[0, 0, 1] = 60, 60.0
    second[1, 1, 1] = 1.0  # the second label is here, without being sure
    if not regions:
        logits[0, 0, 0], logits[0, 1, 1, 1] = -60, 0.0
    found = label_confidence(logits, torch.tensor([[1, 0], [3, 2]]), ["core", "rim"], 0.5, regions)
    assert found["core"]["entropy"] == pytest.approx(0, abs=1e-6) and found["core"]["volume_ml"] == 1
    p = 1 / (1 + math.exp(-1))
    expected = -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2 if regions else 3)
    assert found["rim"]["entropy"] == pytest.approx(expected, abs=1e-5) and found["rim"]["volume_ml"] == 0.5
    assert [found[name]["interval_ml"] for name in found] == [[0.5, 1.5], [0, 1]]


def test_a_label_that_was_not_found_has_no_entropy_and_one_pass_has_no_interval():
    found = label_confidence(torch.tensor([5.0, -5]).reshape(2, 1, 1, 1), torch.tensor([[0]]), ["lesion"], 1, False)
    assert found == {"lesion": {"volume_ml": 0, "interval_ml": None, "entropy": None}}
    assert "no lesion" in in_words("a", {"passes": 1, "labels": found})


@pytest.mark.parametrize("sizes", [[3, 4, 8], [100, 50], [1, 0]])
def test_the_interval_holds_the_volume_and_is_as_wide_in_proportion_as_the_passes(sizes):
    logits = torch.tensor([-5.0, 5]).reshape(2, 1, 1, 1).expand(2, 4, 5, 6)
    found = label_confidence(logits, torch.tensor(sizes)[:, None], ["lesion"], 0.1, False)["lesion"]
    low, high = found["interval_ml"]
    assert low <= found["volume_ml"] <= high and found["volume_ml"] == pytest.approx(12)
    assert (high - low) / (high + low) == pytest.approx((max(sizes) - min(sizes)) / (max(sizes) + min(sizes)))


def whole_passes(network, x: torch.Tensor, regions: bool = False) -> list[list[int]]:
    """Voxels of every label in every pass through an image of one tile."""
    sizes = []
    for axes in ((), (2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4)):
        with torch.no_grad():
            sizes.append(labels_in(network(x[None].flip(axes)).flip(axes)[0], regions).flatten(1).sum(1).tolist())
    return sizes


@pytest.mark.parametrize("regions", [False, True])
def test_the_passes_through_one_tile_are_counted_exactly(regions):
    plans = make_plans()
    network, x = network_for(plans), torch.randn(2, 16, 16, 16)
    predictor = predictor_for(plans, network)
    if regions:
        predictor.label_manager = plans.get_label_manager(DATASET_JSON | {
            "labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]})
    sizes = predictor.predict_everything(x)[2].tolist()
    assert sizes == whole_passes(network, x, regions)
    assert len({tuple(size) for size in sizes}) > 1


class MarksBright(torch.nn.Module):
    """Sees a lesion wherever the first modality is positive."""

    def forward(self, x):
        return torch.cat((-x[:, :1], x[:, :1]), 1)


@pytest.mark.parametrize("shape", [(40, 37, 21), (16, 16, 16), (11, 30, 16)])
@pytest.mark.parametrize("mirror", [True, False])
def test_every_voxel_of_an_image_is_counted_once_in_every_pass_and_padding_never(shape, mirror):
    plans = make_plans(settings=None)
    x = torch.randn(2, *shape)
    predictor = predictor_for(plans, MarksBright(), use_mirroring=mirror)
    _, images, sizes = predictor.predict_everything(x)
    assert images is None
    assert sizes.tolist() == [[int((x[0] > 0).sum())]] * (8 if mirror else 1)


def test_slices_of_a_2d_configuration_are_counted_each_in_four_passes():
    plans = make_plans(patch_size=(16, 16), spacing=(1.0, 1.0), settings=None)
    x = torch.randn(2, 5, 30, 20)
    sizes = predictor_for(plans, MarksBright()).predict_everything(x)[2]
    assert sizes.tolist() == [[int((x[0] > 0).sum())]] * 4


def test_a_voxel_belongs_to_the_tile_with_the_nearest_centre():
    tiles = [(slice(None), slice(start, start + 8)) for start in (0, 4, 7)]
    seen = []
    for tile in tiles:
        sizes = LabelSizes(tiles, [slice(0, 15)], [], regions=True)
        for voxel in range(8):
            logits = torch.full((1, 1, 8), -1.0)
            logits[..., voxel] = 1
            sizes._sizes = [0]
            sizes.add(tile, 0, logits)
            if sizes.result().item():
                seen.append((tile[1].start, tile[1].start + voxel))
    centres = {0: 3.5, 4: 7.5, 7: 10.5}
    assert [voxel for _, voxel in seen] == list(range(15))
    assert all(abs(voxel - centres[tile]) == min(abs(voxel - c) for c in centres.values()) for tile, voxel in seen)


def test_folds_are_passes_too():
    plans = make_plans()
    network, x = network_for(plans), torch.randn(2, 16, 16, 16)
    predictor = predictor_for(plans, network, use_mirroring=False)
    predictor.list_of_parameters = [predictor.list_of_parameters[0],
                                    {k: -v for k, v in predictor.list_of_parameters[0].items()}]
    sizes = predictor.predict_everything(x)[2]
    assert sizes.shape == (2, 1) and sizes[0] != sizes[1]


# ---- beside a prediction ------------------------------------------------------------------------------------------

def predict(folder, cls=RMRPredictor, settings_of_plans=None, **options):
    plans = make_plans(**(settings_of_plans or {}))
    predictor = predictor_for(plans, network_for(plans), cls, **options)
    predictor.predict_from_files_sequential([oblique_case(folder)], [str(folder / "out" / "case")])
    return predictor


def test_a_prediction_writes_its_confidence_and_tells_it(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    predictor = predict(tmp_path)
    record = json.loads((tmp_path / "out" / "confidence" / "case.json").read_text())
    assert record == predictor.confidences[0]
    assert record["passes"] == 8 and set(record["restoration_db"]) == {"T1", "FLAIR"}
    assert all(0 < db < UNCHANGED for db in record["restoration_db"].values())
    assert in_words("case case", record) in capsys.readouterr().out


def test_volumes_are_those_of_the_file(tmp_path):
    """But for the way from the network's grid to the file's."""
    (tmp_path / "out").mkdir()
    for transpose in ((0, 1, 2), (2, 0, 1)):
        spacing = np.array((2.5, 1.1, 0.9))[list(transpose)].tolist()
        record = predict(tmp_path, settings_of_plans={"transpose": transpose, "spacing": spacing}).confidences[0]
        image = sitk.ReadImage(str(tmp_path / "out" / "case.nii.gz"))
        voxels = int((sitk.GetArrayFromImage(image) == 1).sum())
        assert voxels > 100
        assert record["labels"]["lesion"]["volume_ml"] == pytest.approx(voxels * 2.5 * 1.1 * 0.9 / 1000, rel=1e-3)


def test_a_model_without_restoration_tells_how_sure_it_is_and_no_more(tmp_path):
    (tmp_path / "out").mkdir()
    plans = make_plans(settings=None)
    torch.manual_seed(0)
    network = nnUNetTrainer.build_network_architecture(plans, plans.get_configuration("test"), 2, 2, False)
    predictor = predictor_for(plans, network)
    predictor.predict_from_files_sequential([oblique_case(tmp_path)], [str(tmp_path / "out" / "case")])
    record = json.loads((tmp_path / "out" / "confidence" / "case.json").read_text())
    assert set(record) == {"passes", "labels"} and record["labels"]["lesion"]["interval_ml"] is not None


def test_segmentation_and_fused_image_are_what_they_are_without(tmp_path, monkeypatch):
    for folder in ("with", "without", "stock"):
        (tmp_path / folder / "out").mkdir(parents=True)
    predict(tmp_path / "with")
    predict(tmp_path / "stock", nnUNetPredictor)
    monkeypatch.setattr(LabelSizes, "add", lambda *_: None)
    monkeypatch.setattr(LabelSizes, "result", lambda _: torch.zeros(1, 1))
    monkeypatch.setattr(RMRPredictor, "confidence", lambda *_: {"passes": 1, "labels": {}})
    predict(tmp_path / "without")
    files = {name: (tmp_path / name / "out" / "case.nii.gz").read_bytes() for name in ("with", "without", "stock")}
    assert len(set(files.values())) == 1
    assert len({(tmp_path / name / "out" / "fused" / "case.nii.gz").read_bytes() for name in ("with", "without")}) == 1


def test_what_other_cases_have_is_left_and_a_file_that_can_not_be_written_is_reported_once(tmp_path):
    (tmp_path / "out" / "confidence" / "case.json").mkdir(parents=True)
    (tmp_path / "out" / "confidence" / "other.json").write_text("{}")
    with pytest.raises(RuntimeError, match=r"1 case\(s\).*\n.*case: no confidence: .*case.json"):
        predict(tmp_path)
    assert (tmp_path / "out" / "case.nii.gz").exists()
    assert {f.name for f in (tmp_path / "out" / "confidence").iterdir()} == {"case.json", "other.json"}
    (tmp_path / "out" / "confidence" / "case.json").rmdir()
    predict(tmp_path)
    assert (tmp_path / "out" / "confidence" / "other.json").read_text() == "{}"


def test_from_arrays_it_comes_in_the_order_of_the_cases_and_none_is_that_of_another():
    plans = make_plans()
    predictor = predictor_for(plans, network_for(plans))
    image = np.random.default_rng(0).normal(100, 20, (2, 16, 16, 16)).astype(np.float32)
    predictor.predict_single_npy_array(image, {"spacing": (1.0, 1.0, 1.0)})
    small = predictor.confidences[0]["labels"]["lesion"]["volume_ml"]
    predictor.predict_single_npy_array(image, {"spacing": (2.0, 2.0, 2.0)})
    assert len(predictor.confidences) == 1
    assert predictor.confidences[0]["labels"]["lesion"]["volume_ml"] != small
