"""A segmentation, and what nnU-Net writes beside it, is there as a whole or not at all."""

import os
import resource
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_rmr.files.whole_files import is_whole
from nnunetv2_rmr.inference import export as module
from nnunetv2_rmr.inference.export import export_segmentation

PLANS = SimpleNamespace()


@pytest.fixture
def nnunets_export(monkeypatch):
    """nnU-Net's export replaced by one that writes noise, which does not compress, twice."""
    def export(logits, properties, configuration, plans, dataset_json, file, save_probabilities):
        noise = np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.uint8)
        if save_probabilities:
            np.savez_compressed(file + ".npz", probabilities=noise[:20])
        sitk.WriteImage(sitk.GetImageFromArray(noise), file + dataset_json["file_ending"])

    monkeypatch.setattr(module, "export_prediction_from_logits", export)


def export(folder: Path, ending: str = ".nii.gz") -> None:
    export_segmentation(np.zeros(1), {}, None, PLANS, {"file_ending": ending}, str(folder / "case"), True)


def test_all_files_appear_and_nothing_else(tmp_path, nnunets_export):
    export(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {"case.nii.gz", "case.npz"}


def test_an_archive_with_a_hole_is_not_whole(tmp_path):
    file = tmp_path / "case.npz"
    np.savez_compressed(file, probabilities=np.random.default_rng(0).integers(0, 255, 5000).astype(np.uint8))
    assert is_whole(file)
    content = bytearray(file.read_bytes())
    content[2000:2500] = bytes(500)  # its end, which lists what is in it, is there
    file.write_bytes(content)
    assert not is_whole(file)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("kilobytes", [40, 60])  # of a file; probabilities have 32, the segmentation 64
def test_a_full_disk_leaves_what_was_there_before(tmp_path, nnunets_export, ending, kilobytes):
    old = tmp_path / f"case{ending}"
    old.write_bytes(b"old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 ** 10 * kilobytes, limit[1]))
    try:
        with pytest.raises((OSError, RuntimeError)):
            export(tmp_path, ending)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [f.name for f in tmp_path.iterdir()] == [old.name] and old.read_bytes() == b"old"


def test_what_stands_in_the_way_is_said_and_stays(tmp_path, nnunets_export):
    (tmp_path / "case.nii.gz").mkdir()
    with pytest.raises(OSError, match=r"case\.nii\.gz"):
        export(tmp_path)
    assert os.path.isdir(tmp_path / "case.nii.gz")


@pytest.mark.parametrize("name", ["case.nii.gz", "case.nii", "case.npz", "case.nrrd", "case.mha"])
def test_half_a_file_is_not_done(tmp_path, name):
    file = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 20)).astype(np.uint8)
    if name.endswith("npz"):
        np.savez_compressed(file, probabilities=noise)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(noise), str(file))
    assert is_whole(file)
    content = file.read_bytes()
    for length in (0, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        assert not is_whole(file), f"{length} of {len(content)} bytes"
    file.unlink()
    assert not is_whole(file)
