import pytest
import tiny
import torch

from nnunetv2_rmr.cli.predict_demo import MODEL

CHECKPOINT = "fold_0/checkpoint_final.pth"


def test_a_packed_model_has_the_same_weights_each_once_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tiny.ROOT / "benchmarks"))
    from make_demo_model import strip

    small = torch.load(MODEL / CHECKPOINT, weights_only=True)
    single = {weight.data_ptr(): weight.float() for weight in small["network_weights"].values()}
    weights = {name: single[weight.data_ptr()] for name, weight in small["network_weights"].items()}
    (tmp_path / "full" / "fold_0").mkdir(parents=True)
    torch.save(small | {"network_weights": weights, "optimizer_state": torch.zeros(10**6)},
               tmp_path / "full" / CHECKPOINT)
    for file in ("plans.json", "dataset.json"):
        (tmp_path / "full" / file).write_bytes((MODEL / file).read_bytes())
    strip(tmp_path / "full", tmp_path / "packed")
    packed = torch.load(tmp_path / "packed" / CHECKPOINT, weights_only=True)
    assert packed.keys() == small.keys()
    assert all(torch.equal(packed["network_weights"][name], weight)
               for name, weight in small["network_weights"].items())
    assert (tmp_path / "packed" / CHECKPOINT).stat().st_size == pytest.approx((MODEL / CHECKPOINT).stat().st_size,
                                                                              rel=0.05)
    assert (tmp_path / "packed" / "plans.json").is_file() and (tmp_path / "packed" / "dataset.json").is_file()
