"""`nnUNetv2_rmr_fuse`, on files."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiny

from nnunetv2_rmr.cli.fuse import main
from nnunetv2_rmr.evaluation.fusion_baselines import METHODS

SHAPE = (12, 15, 14)
DATA = tiny.ROOT.parent / "shared" / "data"


@pytest.fixture
def images(tmp_path) -> Path:
    """Cases a and b of T1, FLAIR and T2, with zeros around."""
    folder = tmp_path / "imagesTs"
    folder.mkdir()
    for seed, case in enumerate("ab"):
        for i, image in enumerate(np.random.default_rng(seed).uniform(10, 100, (3, *SHAPE)).astype(np.float32)):
            image[:, :2] = image[:, -2:] = 0
            image[:, :, :2] = image[:, :, -2:] = 0
            tiny.write_image(image, folder / f"{case}_{i:04d}.nii.gz", spacing=(1, 2, 3), origin=(5, 6, 7))
    content = {"channel_names": {"0": "T1", "1": "FLAIR", "2": "T2"}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return folder


def run(*arguments) -> None:
    main([str(a) for a in arguments])


def array(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_float_volumes_on_the_inputs_grid_and_zero_outside_the_body(images, tmp_path, method):
    run("-i", images, "-o", tmp_path / "out", "--method", method, "-np", 1)
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["a.nii.gz", "b.nii.gz"]
    fused, source = (sitk.ReadImage(str(f)) for f in (tmp_path / "out" / "a.nii.gz", images / "a_0000.nii.gz"))
    assert fused.GetPixelID() == sitk.sitkFloat32
    for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(fused, geometry)() == getattr(source, geometry)()
    values, body = sitk.GetArrayFromImage(fused), array(images / "a_0000.nii.gz") != 0
    assert not values[~body].any() and values[body].std() > 0


def test_the_reference_modality_is_flair_or_the_one_named(images, tmp_path, capsys):
    run("-i", images, "-o", tmp_path / "x", "--method", "copy", "-np", 1)
    assert "copy of FLAIR" in capsys.readouterr().out
    run("-i", images, "-o", tmp_path / "y", "--method", "copy", "--reference", "T2", "-np", 1)
    for folder, number in (("x", 1), ("y", 2)):
        source = array(images / f"a_{number:04d}.nii.gz")
        body = source != 0
        assert np.corrcoef(array(tmp_path / folder / "a.nii.gz")[body], source[body])[0, 1] > 0.999
    run("-i", images, "-o", tmp_path / "flair", "-np", 1)
    run("-i", images, "-o", tmp_path / "t2", "--reference", "T2", "-np", 1)
    assert not np.allclose(array(tmp_path / "flair" / "a.nii.gz"), array(tmp_path / "t2" / "a.nii.gz"), atol=0.01)


def test_the_spacing_is_that_of_the_arrays_axes(images, tmp_path):
    """The same voxels with their axes (and spacings) in another order give the same volume in that order."""
    turned = tmp_path / "turned"
    turned.mkdir()
    for file in images.iterdir():
        tiny.write_image(np.ascontiguousarray(array(file).transpose(2, 1, 0)), turned / file.name, spacing=(3, 2, 1))
    run("-i", images, "-o", tmp_path / "x", "-np", 1)
    run("-i", turned, "-o", tmp_path / "y", "-np", 1)
    straight, back = array(tmp_path / "x" / "a.nii.gz"), array(tmp_path / "y" / "a.nii.gz").transpose(2, 1, 0)
    np.testing.assert_allclose(straight, back, atol=1e-4)


def test_a_bad_case_is_named_and_does_not_stop_the_others(images, tmp_path):
    tiny.write_image(np.full(SHAPE, 7, np.float32), images / "a_0002.nii.gz", spacing=(1, 2, 3), origin=(5, 6, 7))
    with pytest.raises(SystemExit, match=r"1 case\(s\) could not be fused:\s+a: .*a_0002.nii.gz is constant"):
        run("-i", images, "-o", tmp_path / "out", "-np", 1)
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["b.nii.gz"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["-i", "nowhere"], "-i nowhere: there is no such folder"),
    (["--reference", "PET"], "--reference PET: unknown, or several; the modalities are T1, FLAIR, T2"),
    (["-o", "IMAGES"], "would lie among the images"),
])
def test_what_can_not_work_is_said_at_once(images, tmp_path, arguments, message):
    given = [str(images) if a == "IMAGES" else a for a in arguments]
    with pytest.raises(SystemExit, match=message):
        run("-i", images, "-o", tmp_path / "out", *given)
    assert not (tmp_path / "out").exists()


def test_files_of_an_earlier_run_are_replaced_only_if_asked_to(images, tmp_path):
    run("-i", images, "-o", tmp_path / "out", "-np", 1)
    before = (tmp_path / "out" / "a.nii.gz").read_bytes()
    with pytest.raises(SystemExit, match=r"a.nii.gz.* exist already; --overwrite replaces"):
        run("-i", images, "-o", tmp_path / "out", "--method", "average", "-np", 1)
    assert (tmp_path / "out" / "a.nii.gz").read_bytes() == before
    run("-i", images, "-o", tmp_path / "out", "--method", "average", "-np", 1, "--overwrite")
    assert (tmp_path / "out" / "a.nii.gz").read_bytes() != before


def test_an_unknown_method_is_a_usage_error(images, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        run("-i", images, "-o", tmp_path / "out", "--method", "median")
    assert left.value.code == 2 and "--method" in capsys.readouterr().err


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="no real scans")
@pytest.mark.parametrize(("case", "names", "label", "regions", "least"), [
    ("brats2021/BraTS2021_01478", ("t1", "t1ce", "t2", "flair"), "seg", {"whole": (1, 2, 4), "core": (1, 4),
                                                                        "enhancing": 4}, 0.7),
    ("sarcoma/STS_003", ("CT", "PET", "MR_T1"), "gtv", {"tumour": 1}, 0.6),
    ("glioma/TCGA_CS_4941", ("T1", "T1ce", "FLAIR"), "lesion", {"lesion": 1}, 0.6),
])
def test_on_a_patient_every_region_keeps_its_contrast_and_its_sign(tmp_path, case, names, label, regions, least):
    from nnunetv2_rmr.evaluation.fusion_metrics.evaluate_folder import evaluate_folder
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i, name in enumerate(names):
        (tmp_path / "images" / f"x_{i:04d}.nii.gz").symlink_to(DATA / case / f"{name}.nii.gz")
    (tmp_path / "labels" / "x.nii.gz").symlink_to(DATA / case / f"{label}.nii.gz")
    labels = {"background": 0} | {n: list(v) if isinstance(v, tuple) else v for n, v in regions.items()}
    content = {"channel_names": dict(enumerate(names)), "file_ending": ".nii.gz", "labels": labels}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    run("-i", tmp_path / "images", "-o", tmp_path / "fused", "-np", 1)
    (found,) = evaluate_folder(tmp_path / "fused", tmp_path / "images", labels_folder=tmp_path / "labels",
                               baselines=["copy"])["metric_per_case"]
    assert list(found["relative_contrast"]["fused"]) == list(regions)
    assert min(found["relative_contrast"]["fused"].values()) >= least
    assert found["copy_of"]["fused"] is None
    assert all(found["copy_of"][f"copy of {name}"] == name for name in names)
