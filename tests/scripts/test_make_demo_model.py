import subprocess
import sys

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


@pytest.mark.slow
def test_the_script_trains_and_packs_what_the_command_takes(tmp_path):
    # a process of its own, because the demo sets nnU-Net's environment variables
    code = f"""
import sys
from functools import partial
sys.path.insert(0, {str(tiny.ROOT / "benchmarks")!r})
import make_demo_model
make_demo_model.CASE = "phantom_005"
make_demo_model.DemoOptions = partial(make_demo_model.DemoOptions, cases=5, test_cases=1, epochs=1, iterations=2,
                                      validation_iterations=1, spacing_mm=4, patch_size=(24, 24, 24), features=6,
                                      stages=3)
sys.argv[1:] = ["-o", {str(tmp_path / "demo")!r}, "--into", {str(tmp_path)!r}]
make_demo_model.main()
import torch
from nnunetv2_rmr.inference.predict import predict
from nnunetv2_rmr.inference.predictor import RMRPredictor
predictor = RMRPredictor(device=torch.device("cpu"), use_mirroring=False)
predictor.initialize_from_trained_model_folder({str(tmp_path / "model")!r}, (0,))
files = sorted(make_demo_model.Path({str(tmp_path)!r}, "images").iterdir())
assert predict(predictor, files).fused.any() and len(files) == 3
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "labels" / "phantom_005.nii.gz").is_file()
