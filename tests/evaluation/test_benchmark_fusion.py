"""What the benchmark says about fused images: facts of the clean case, and restoration of what they aim at."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_rmr.evaluation.benchmark.fusion import CaseFusion, summarise_fusion
from nnunetv2_rmr.evaluation.benchmark.job import Benchmark
from nnunetv2_rmr.evaluation.benchmark.run import LabelledCases, run_case
from nnunetv2_rmr.evaluation.benchmark.summary import tables
from nnunetv2_rmr.evaluation.image_folder import ImageFolder
from nnunetv2_rmr.evaluation.scan_degradations.conditions import CLEAN, Condition, apply

NOISE, MISSING = Condition("noise", 3), Condition("missing", 1, "T1")
FLAIR = tiny.CHANNELS.index("FLAIR")


def flair(images: np.ndarray) -> np.ndarray:
    return images[FLAIR]


def mean(images: np.ndarray) -> np.ndarray:
    return images.mean(0)


@dataclass
class FakeModel:
    """Its fused image is that of `fuse`, its segmentation empty."""

    fuse: Callable
    name: str = "rmr"
    target: Callable = lambda images, spacing: flair(images)
    fuses: bool = True
    reference: int = FLAIR
    channels: tuple = tiny.CHANNELS
    device: torch.device = torch.device("cpu")
    seen: list = field(default_factory=list)

    def predict(self, images, properties, *, fuse):
        self.seen.append(images)
        return np.zeros(images.shape[1:], np.uint8), self.fuse(images).astype(np.float32) if fuse else None


@pytest.fixture
def case(tmp_path) -> ImageFolder:
    """Each modality has stripes of its own, in a third of the head; FLAIR shows the lesion best."""
    rng = np.random.default_rng(0)
    images, label = tiny.tiny_case(rng)
    body = images[0] > 0
    for c in range(3):
        image = 100 + rng.normal(0, 1, body.shape) + 5 * (c + 1) * (label > 0) + 10 * (label > 1)
        image[:, 9 * c:9 * c + 9, ::4] += 40
        tiny.write_image(np.where(body, image, 0).astype(np.float32), tmp_path / f"a_{c:04d}.nii.gz")
    tiny.write_image(label, tmp_path / "a.nii.gz")
    return ImageFolder(tmp_path, ".nii.gz", tiny.CHANNELS, ("a",), SimpleITKIO)


def records(case: ImageFolder, out: Path, *models: FakeModel, planned=(CLEAN, NOISE),
            ignore: int | None = None) -> list[dict]:
    labels = {"whole": (1, 2), "core": 2} if ignore is None else {"oedema": 1}
    run_case("a", LabelledCases(case, case.folder, labels, ignore, 2.0, 0), models, planned, out, lambda n: None)
    lines = (out / "records" / "a.jsonl").read_text().splitlines()

    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_a_copy_is_named_and_the_gradient_fusion_beside_it_is_none(case, tmp_path):
    clean, noise = records(case, tmp_path, FakeModel(flair))
    assert clean["fusion"]["copy_of"] == "FLAIR" and set(clean["fusion"]["contrast"]) == {"whole", "core"}
    copy = clean["fusion_baselines"]["copy of FLAIR"]
    assert copy["copy_of"] == "FLAIR" and copy["own_edges"] == pytest.approx(clean["fusion"]["own_edges"], abs=1e-4)
    assert copy["own_edges"]["FLAIR"] > 0.9 and copy["own_edges"]["T1"] < 0.05
    gradient = clean["fusion_baselines"]["gradient"]
    assert gradient["copy_of"] is None and min(gradient["own_edges"].values()) > 0.5
    assert "fusion" not in noise


def test_a_stable_but_wrong_image_is_not_called_restored(case, tmp_path):
    clean_images = SimpleITKIO().read_images(case.files("a"))[0]
    wrong = clean_images[FLAIR] + 20
    clean, noise = records(case, tmp_path, FakeModel(lambda images: wrong))
    low, high = np.quantile(clean_images[FLAIR][clean_images.any(0)], (0.001, 0.999))
    expected = 20 * np.log10((high - low) / 20)
    assert noise["fused_PSNR"] == pytest.approx(expected, abs=1e-3)  # equal to its own clean image: infinite
    assert clean["fused_PSNR"] == pytest.approx(expected, abs=1e-3) and clean["degraded_PSNR"] is None


def test_restoration_is_measured_beside_what_the_degraded_images_give(case, tmp_path):
    *_, noise = records(case, tmp_path, FakeModel(flair))
    assert noise["fused_PSNR"] == noise["degraded_PSNR"] and 0 < noise["degraded_PSNR"] < 40
    assert noise["fused_SSIM"] == noise["degraded_SSIM"] < 1


def test_every_model_is_measured_against_its_own_target(case, tmp_path):
    other = FakeModel(flair, "other", target=lambda images, spacing: mean(images))
    of_model = {r["model"]: r for r in records(case, tmp_path, FakeModel(flair), other) if r["corruption"] == "noise"}
    assert of_model["rmr"]["fused_PSNR"] == of_model["rmr"]["degraded_PSNR"]
    assert of_model["other"]["fused_PSNR"] < of_model["other"]["degraded_PSNR"] - 1


def test_resuming_predicts_nothing_twice(case, tmp_path):
    records(case, tmp_path, FakeModel(mean), planned=(CLEAN,))
    again = FakeModel(mean)
    *_, noise = records(case, tmp_path, again)
    assert len(again.seen) == 1 and noise["fused_PSNR"] > 0


def test_what_can_not_be_measured_is_said_and_costs_no_score(case, tmp_path):
    clean, _ = records(case, tmp_path, FakeModel(lambda images: 0 * images[0]))
    assert clean["fusion"] is None and "contrast" in clean["fusion_error"] and set(clean["scores"]) == {"whole", "core"}
    found = summarise_fusion([clean], ["rmr"])
    assert found["models"]["rmr"]["cases"] == 0 and found["models"]["rmr"]["problems"][0].startswith("a: ")


def test_models_without_fused_images_and_missing_modalities_have_no_facts(case, tmp_path):
    found = records(case, tmp_path, FakeModel(mean, "vanilla", fuses=False), FakeModel(mean),
                    planned=(CLEAN, MISSING))
    assert [(r["model"], r["corruption"]) for r in found if "fusion" in r] == [("rmr", "clean")]


def test_ignored_voxels_do_not_count_for_contrast_but_for_edges(case, tmp_path):
    label = SimpleITKIO().read_seg(str(case.folder / "a.nii.gz"))[0][0]
    images = SimpleITKIO().read_images(case.files("a"))[0]
    body = images.any(0)

    def facts(labelled: np.ndarray) -> dict:
        return CaseFusion(images, tiny.CHANNELS, body, labelled, {"oedema": label == 1}, (1, 1, 1)).facts(mean(images))

    everything, without_core = facts(np.ones_like(body)), facts(label != 2)
    assert everything["own_edges"] == without_core["own_edges"]
    assert everything["contrast"]["oedema"]["relative"] != without_core["contrast"]["oedema"]["relative"]
    clean, _ = records(case, tmp_path, FakeModel(mean), ignore=2)
    assert clean["fusion"]["contrast"]["oedema"]["relative"] == without_core["contrast"]["oedema"]["relative"]


def test_a_slice_is_measured_as_a_slice():
    rng = np.random.default_rng(0)
    images = 100 + rng.normal(0, 1, (3, 1, 64, 64)).astype(np.float32)
    for c in range(3):
        images[c, :, 21 * c:21 * c + 21, ::4] += 40
    lesion = np.zeros((1, 64, 64), bool)
    lesion[:, 30:36, 30:36] = True
    fusion = CaseFusion(images, tiny.CHANNELS, np.ones_like(lesion), np.ones_like(lesion), {"whole": lesion},
                        (999, 1, 1))
    found = fusion.facts(images[0])
    assert found["copy_of"] == "T1" and found["own_edges"]["T1"] > 0.9 and "whole" in found["contrast"]
    assert fusion.baselines(FLAIR)["gradient"]["copy_of"] is None


# ----------------------------------------------------------------------------------------------------------- summary

def of_case(case: str, copy: str | None, own: float | None, contrast: dict[str, float | None], model="rmr") -> dict:
    facts = {"own_edges": {"T1": own, "FLAIR": 0.9}, "copy_of": copy,
             "contrast": {region: {"relative": value, "best": "FLAIR"} for region, value in contrast.items()}}
    gradient = {"own_edges": {"T1": 0.5, "FLAIR": 0.6}, "copy_of": None, "contrast": {}}
    return {"model": model, "corruption": "clean", "case": case, "fusion": facts,
            "fusion_baselines": {"gradient": gradient}}


def test_summary_has_means_of_own_edges_and_of_every_cases_smallest_contrast():
    found = summarise_fusion([of_case("a", "FLAIR", 0.1, {"whole": 0.9, "core": -0.2}),
                              of_case("b", None, None, {"whole": 0.6, "core": None})], ["rmr"])
    entry = found["models"]["rmr"]
    assert entry["own_edges"] == {"T1": pytest.approx(0.1), "FLAIR": pytest.approx(0.9)}
    assert entry["smallest_contrast"] == pytest.approx(0.2) and entry["copy_of"] == {"FLAIR": 1}
    assert entry["copy"] == "This is a copy of FLAIR in 1 of 2 cases." and entry["verdict"].endswith(entry["copy"])
    assert found["baselines"]["gradient"]["own_edges"]["T1"] == 0.5
    assert found["baselines"]["gradient"]["copy"] is None


def test_summary_compares_on_the_cases_that_all_have():
    failed = {"model": "b", "corruption": "clean", "case": "2", "fusion": None, "fusion_error": "no contrast"}
    found = summarise_fusion([of_case("1", None, 0.2, {}, "a"), of_case("2", None, 0.8, {}, "a"),
                              of_case("1", None, 0.4, {}, "b"), failed], ["a", "b"])
    assert {name: entry["cases"] for name, entry in found["models"].items()} == {"a": 1, "b": 1}
    assert found["models"]["a"]["own_edges"]["T1"] == 0.2 and found["models"]["b"]["problems"] == ["2: no contrast"]
    assert found["baselines"]["gradient"]["cases"] == 1


def test_records_of_an_older_version_are_not_measured(case, tmp_path):
    clean, noise = records(case, tmp_path, FakeModel(mean))
    for record in (clean, noise):
        for key in ("fusion", "fusion_baselines", "restored_to"):
            record.pop(key, None)
    found = summarise_fusion([clean, noise], ["rmr"])
    assert found == {"models": {"rmr": {"cases": 0, "verdict": None, "copy": None, "copy_of": {}, "own_edges": {},
                                        "smallest_contrast": pytest.approx(float("nan"), nan_ok=True),
                                        "problems": []}}, "baselines": {}}
    _, cases = tables([clean, noise])
    assert cases.fused_PSNR.isna().all() and cases.image_difference.notna().any()


def test_an_unknown_degradation_does_not_pass_for_the_clean_images():
    with pytest.raises(ValueError, match="nosie"):
        apply(Condition("nosie", 3), np.ones((1, 4, 4, 4)), (1, 1, 1), "case", ["T1"], 0)


def test_labels_that_are_none_are_told_before_anything_is_predicted(case, tmp_path, capsys):
    for c in range(3):
        shutil.copy(case.file("a", c), case.file("b", c))
    tiny.write_image(np.full((4, 5, 6), 0.5, np.float32), tmp_path / "b.nii.gz")
    said = []
    benchmark = object.__new__(Benchmark)
    benchmark.part, benchmark.planned, benchmark.options = ("a", "b"), [CLEAN], SimpleNamespace(out=tmp_path / "out")
    benchmark.cases = LabelledCases(replace(case, cases=("a", "b")), tmp_path, {"core": 2, "rest": 1}, None, 2.0, 0)
    benchmark.models = [FakeModel(lambda images: said.append(capsys.readouterr().err) or mean(images))]
    benchmark.run(lambda n: None)
    assert len(said) == 1 and "b can not be scored and is not predicted: " in said[0] and "no integer value" in said[0]


def test_of_what_nobody_has_thought_of_the_traceback_is_told(case, tmp_path, capsys):
    def forget(images):
        raise KeyError("forgotten")

    assert records(case, tmp_path, FakeModel(forget))[0]["error"] == "KeyError: 'forgotten'"
    assert "in forget" in capsys.readouterr().err


def test_memory_that_does_not_suffice_is_no_fault_of_the_files(case, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(SimpleITKIO, "read_images", fail)
    with pytest.raises(MemoryError):
        case.read("a")
