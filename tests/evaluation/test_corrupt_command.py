"""nnUNetv2_rmr_corrupt on real files."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from killed import killed_while_writing
from tiny import CHANNELS, tiny_case, write_image

from nnunetv2_rmr.cli import corrupt
from nnunetv2_rmr.evaluation.scan_degradations import SCAN_DEGRADATIONS, degrade_scans, image_difference

GEOMETRY = {"spacing": (0.9, 1.1, 2.0), "origin": (-20.5, 3, 7), "direction": (0, 1, 0, -1, 0, 0, 0, 0, 1)}
SHAPE = (12, 20, 18)


@pytest.fixture
def images(tmp_path) -> Path:
    """Two cases of three modalities, int16 on an oblique grid, with a dataset.json beside the folder."""
    folder = tmp_path / "imagesTs"
    rng = np.random.default_rng(0)
    for case in ("anna", "bert"):
        for channel, array in enumerate(tiny_case(rng, SHAPE)[0]):
            write_image(array.astype(np.int16), folder / f"{case}_{channel:04d}.nii.gz", **GEOMETRY)
    (tmp_path / "dataset.json").write_text(json.dumps({
        "channel_names": {str(i): name for i, name in enumerate(CHANNELS)}, "file_ending": ".nii.gz", "labels": {}}))
    return folder


def run(images: Path, out: Path, *options: str) -> None:
    corrupt.main(["-i", str(images), "-o", str(out), "-np", "1", *options])


def refused(capsys, *arguments) -> str:
    """The message of a command that fails, which is one line without a traceback."""
    with pytest.raises(SystemExit) as left:
        run(*arguments)
    message = left.value.code if isinstance(left.value.code, str) else capsys.readouterr().err
    assert left.value.code != 0
    assert "Traceback" not in message
    return message


def array_of(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def names(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir())


def test_every_combination_gets_a_folder_that_nnunet_can_predict(images, tmp_path):
    out = tmp_path / "out"
    run(images, out, "--corruption", "noise", "gamma", "--severity", "2", "5", "--modality", "all", "FLAIR")
    assert names(out) == sorted(f"{name}_{severity}{modality}" for name in ("noise", "gamma") for severity in (2, 5)
                                for modality in ("", "_FLAIR"))
    for folder in out.iterdir():
        assert names(folder) == ["anna_0000.nii.gz", "anna_0001.nii.gz", "anna_0002.nii.gz", "bert_0000.nii.gz",
                                 "bert_0001.nii.gz", "bert_0002.nii.gz", "corruption.json"]


def test_files_hold_what_degrade_scans_returns_as_float32_on_the_same_grid(images, tmp_path):
    run(images, tmp_path / "out", "--corruption", "noise", "--severity", "3", "--seed", "7")
    for case in ("anna", "bert"):
        clean = np.stack([array_of(images / f"{case}_{c:04d}.nii.gz") for c in range(3)])
        expected = degrade_scans(clean, (2.0, 1.1, 0.9), "noise", 3, case=case, seed=7)
        for c in range(3):
            before = sitk.ReadImage(str(images / f"{case}_{c:04d}.nii.gz"))
            after = sitk.ReadImage(str(tmp_path / "out" / "noise_3" / f"{case}_{c:04d}.nii.gz"))
            assert after.GetPixelID() == sitk.sitkFloat32
            np.testing.assert_array_equal(sitk.GetArrayFromImage(after), expected[c])
            for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                assert getattr(after, what)() == pytest.approx(getattr(before, what)())


@pytest.mark.parametrize("link", ["copy", "hard", "sym"])
def test_modalities_not_asked_for_are_the_same_files(images, tmp_path, link):
    run(images, tmp_path / "out", "--corruption", "blur", "--severity", "1", "--modality", "T2", "--link", link)
    folder = tmp_path / "out" / "blur_1_T2"
    for channel in (0, 2):
        copy, original = (f / f"anna_{channel:04d}.nii.gz" for f in (folder, images))
        assert copy.read_bytes() == original.read_bytes()
        assert copy.is_symlink() == (link == "sym")
        assert copy.samefile(original) == (link != "copy")
    assert not np.array_equal(array_of(folder / "anna_0001.nii.gz"), array_of(images / "anna_0001.nii.gz"))


def test_a_modality_is_degraded_alike_alone_and_with_the_others(images, tmp_path):
    run(images, tmp_path / "out", "--corruption", "ghosting", "--severity", "4", "--modality", "all", "T1")
    together, alone = (array_of(tmp_path / "out" / f / "bert_0000.nii.gz") for f in ("ghosting_4", "ghosting_4_T1"))
    np.testing.assert_array_equal(together, alone)


def test_a_record_says_what_was_done_and_how_much_it_changed(images, tmp_path):
    run(images, tmp_path / "out", "--corruption", "spikes", "--severity", "2", "--modality", "T1")
    record = json.loads((tmp_path / "out" / "spikes_2_T1" / "corruption.json").read_text())
    assert (record["corruption"], record["severity"], record["modality"], record["seed"]) == ("spikes", 2, "T1", 0)
    assert record["parameter"] == SCAN_DEGRADATIONS["spikes"].parameters[1]
    assert record["unit"] == SCAN_DEGRADATIONS["spikes"].unit
    assert record["in_default_training"] is False
    clean, degraded = (array_of(f / "bert_0000.nii.gz") for f in (images, tmp_path / "out" / "spikes_2_T1"))
    difference = record["image_difference"]["bert"]["T1"]
    assert difference == pytest.approx(image_difference(clean, degraded, clean != 0), rel=0.02)  # body: of all three
    assert set(record["image_difference"]["bert"]) == {"T1"}


def test_bad_cases_are_named_and_the_others_done(images, tmp_path, capsys):
    def case(name: str) -> list[Path]:
        files = [images / f"{name}_{c:04d}.nii.gz" for c in range(3)]
        for c, file in enumerate(files):
            file.write_bytes((images / f"anna_{c:04d}.nii.gz").read_bytes())
        return files

    case("missing")[1].unlink()
    truncated = case("truncated")[0]
    truncated.write_bytes(truncated.read_bytes()[:500])
    write_image(np.full(SHAPE, np.nan, np.float32), case("nan")[2], **GEOMETRY)
    write_image(np.ones((3, 4, 5), np.int16), case("grid")[2], **GEOMETRY)
    message = refused(capsys, images, tmp_path / "out", "--corruption", "gamma", "--severity", "1")
    assert "4 case(s)" in message
    for words in (("missing:", "missing_0001.nii.gz"), ("truncated:", "truncated_0000.nii.gz"),
                  ("nan:", "nan_0002.nii.gz", "NaN"), ("grid:", "grid_0002.nii.gz", "size")):
        assert any(all(word in line for word in words) for line in message.splitlines()), (words, message)
    folder = tmp_path / "out" / "gamma_1"
    assert {n[:4] for n in names(folder)} == {"anna", "bert", "corr"}
    assert set(json.loads((folder / "corruption.json").read_text())["image_difference"]) == {"anna", "bert"}


def test_without_dataset_json_modalities_are_called_by_their_numbers(images, tmp_path):
    (tmp_path / "dataset.json").unlink()
    run(images, tmp_path / "out", "--corruption", "anisotropy", "--severity", "5", "--modality", "0002")
    assert names(tmp_path / "out") == ["anisotropy_5_0002"]


def test_the_reader_of_the_dataset_json_is_used(images, tmp_path):
    """NibabelIO reads axes in another order than SimpleITK; the files come out on the same grid nevertheless."""
    dataset = tmp_path / "other.json"
    content = json.loads((tmp_path / "dataset.json").read_text())
    dataset.write_text(json.dumps(content | {"overwrite_image_reader_writer": "NibabelIOWithReorient"}))
    run(images, tmp_path / "out", "--corruption", "gamma", "--severity", "4", "-djfile", str(dataset))
    run(images, tmp_path / "usual", "--corruption", "gamma", "--severity", "4")
    for name in ("anna_0000.nii.gz", "bert_0002.nii.gz"):
        ours, usual = (sitk.ReadImage(str(tmp_path / f / "gamma_4" / name)) for f in ("out", "usual"))
        assert ours.GetDirection() == pytest.approx(usual.GetDirection())
        np.testing.assert_allclose(*(sitk.GetArrayFromImage(i) for i in (ours, usual)), rtol=1e-4)


def test_2d_tiff_and_nifti_data_sets_work(tmp_path):
    import tifffile

    folder = tmp_path / "imagesTs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for channel in range(2):
        tifffile.imwrite(folder / f"a_{channel:04d}.tif", rng.uniform(1, 200, (30, 32)).astype(np.float32))
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "A", "1": "B"}, "file_ending": ".tif"}')
    run(folder, tmp_path / "out", "--corruption", "all", "--severity", "3", "--modality", "B")
    for name in SCAN_DEGRADATIONS:
        degraded = tifffile.imread(tmp_path / "out" / f"{name}_3_B" / "a_0001.tif")
        assert degraded.shape == (30, 32)
        assert np.isfinite(degraded).all()
        assert not np.array_equal(degraded, tifffile.imread(folder / "a_0001.tif"))


def test_3d_tiff_data_sets_work_and_keep_their_spacing(tmp_path):
    import tifffile

    folder = tmp_path / "imagesTs"
    folder.mkdir()
    for channel in range(2):
        tifffile.imwrite(folder / f"a_{channel:04d}.tif",
                         np.random.default_rng(channel).uniform(1, 200, (8, 12, 10)).astype(np.float32))
    (folder / "a.json").write_text('{"spacing": [2.0, 1.0, 1.0]}')
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "A", "1": "B"}, "file_ending": ".tif"}')
    run(folder, tmp_path / "out", "--corruption", "noise", "--severity", "3")
    assert tifffile.imread(tmp_path / "out" / "noise_3" / "a_0001.tif").shape == (8, 12, 10)
    assert json.loads((tmp_path / "out" / "noise_3" / "a.json").read_text()) == {"spacing": [2.0, 1.0, 1.0]}


def test_what_a_killed_run_left_behind_is_not_left_for_nnunet_to_find(images, tmp_path):
    target = tmp_path / "out" / "gamma_1" / "anna_0000.nii.gz"
    killed_while_writing(target)
    leftover, = target.parent.iterdir()
    run(images, tmp_path / "out", "--corruption", "gamma", "--severity", "1", "--overwrite")
    assert not leftover.exists()


def test_existing_copies_are_not_overwritten_unless_asked(images, tmp_path, capsys):
    arguments = (images, tmp_path / "out", "--corruption", "gamma", "--severity", "1")
    run(*arguments)
    kept = (tmp_path / "out" / "gamma_1" / "anna_0000.nii.gz").read_bytes()
    assert "gamma_1 exists already; --overwrite" in refused(capsys, *arguments, "--seed", "1")
    assert (tmp_path / "out" / "gamma_1" / "anna_0000.nii.gz").read_bytes() == kept
    run(*arguments, "--seed", "1", "--overwrite")
    assert json.loads((tmp_path / "out" / "gamma_1" / "corruption.json").read_text())["seed"] == 1


@pytest.mark.parametrize(("options", "message"), [
    (("--corruption", "fog", "--severity", "1"), "fog: unknown; known: noise, blur"),
    (("--corruption", "blur", "--severity", "6"), "invalid choice: '6'"),
    (("--corruption", "blur", "--severity", "0"), "invalid choice: '0'"),
    (("--corruption", "blur", "--severity", "1", "--modality", "PET"), "PET: unknown; the modalities are T1, T2"),
    (("--corruption", "blur", "--severity", "1", "--seed", "-1"), "'-1' is not a whole number from 0"),
    (("--corruption", "blur", "--severity", "1", "-djfile", "nowhere.json"), "nowhere.json")])
def test_wrong_arguments_are_named_and_nothing_is_written(images, tmp_path, capsys, options, message):
    assert message in refused(capsys, images, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_folders_without_images_are_refused(tmp_path, capsys):
    some = ("--corruption", "blur", "--severity", "1")
    assert "no such folder" in refused(capsys, tmp_path / "nowhere", tmp_path / "out", *some)
    (tmp_path / "empty").mkdir()
    assert "CASE_0000.nii.gz" in refused(capsys, tmp_path / "empty", tmp_path / "out", *some)


def test_formats_that_hold_integers_only_are_refused(tmp_path, capsys):
    (tmp_path / "imagesTs").mkdir()
    write_image(np.ones((8, 8), np.uint8), tmp_path / "imagesTs" / "a_0000.png")
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "A"}, "file_ending": ".png"}')
    message = refused(capsys, tmp_path / "imagesTs", tmp_path / "out", "--corruption", "blur", "--severity", "1")
    assert "float32" in message and ".png" in message


def test_missing_torchio_is_told_before_any_work(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchio", None)
    message = refused(capsys, images, tmp_path / "out", "--corruption", "gamma", "motion", "--severity", "1")
    assert "pip install" in message and "benchmark" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_several_processes_write_the_same(images, tmp_path):
    for number in ("1", "2"):
        run(images, tmp_path / number, "--corruption", "motion", "--severity", "3", "-np", number)
    for name in names(tmp_path / "1" / "motion_3"):
        if name.endswith(".nii.gz"):
            one, two = (array_of(tmp_path / number / "motion_3" / name) for number in ("1", "2"))
            # not bit by bit: workers have other numbers of threads, and sums then another order
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-4 * np.abs(one).max())


def test_help_names_every_kind_and_whether_it_is_trained():
    text = corrupt.parser().format_help()
    for name, kind in SCAN_DEGRADATIONS.items():
        line = "trained (in RMR's default training):" if kind.trained else "never trained:"
        assert any(line in part and name in part for part in text.splitlines()), name
