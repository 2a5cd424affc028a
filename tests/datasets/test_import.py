"""nnUNetv2_rmr_import: what becomes of a folder of cases, and what is refused."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tiny
from killed import killed_while_writing
from two_places import move_qform

from nnunetv2_rmr.cli.import_dataset import main
from nnunetv2_rmr.datasets import inspect_case
from nnunetv2_rmr.datasets.cases import LABEL, find_cases, safe_case_id
from nnunetv2_rmr.datasets.labels import default_class_order, labels_for_dataset_json, merged_labels
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.volumes import Grid, read_volume

BRATS = tiny.ROOT.parent / "shared" / "data" / "brats2021"
SHAPE = (6, 7, 8)  # z, y, x
BRATS_REGIONS = {"whole_tumor": (1, 2, 3), "tumor_core": (2, 3), "enhancing_tumor": (3,)}
BRATS_OPTIONS = ("--map", "1=2", "2=1", "4=3", "--regions", "whole_tumor=1,2,3", "tumor_core=2,3", "enhancing_tumor=3")
# Rotated by 30 degrees about z: no axis but z is aligned.
OBLIQUE = (np.cos(np.pi / 6), -0.5, 0.0, 0.5, np.cos(np.pi / 6), 0.0, 0.0, 0.0, 1.0)


# ---------------------------------------------------------------- helpers

def write(array: np.ndarray, path: Path, spacing=(1.0, 1.0, 2.0), origin=(-10.0, 5.5, 3.0), direction=None) -> Path:
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing(spacing[:array.ndim])
    image.SetOrigin(origin[:array.ndim])
    if direction is not None:
        image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def pixels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def random_image(seed: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def label_with(*values: float, shape=SHAPE, dtype=np.uint8) -> np.ndarray:
    label = np.zeros(shape, dtype)
    label.flat[:len(values)] = values
    return label


def make_case(folder: Path, case: str, seed: int, ending=".nii.gz", flat=False, values=(1, 2), **grid) -> Path:
    """T1, FLAIR and seg of one case, in a folder of its own or side by side with others."""
    place = folder if flat else folder / case
    shape = grid.pop("shape", SHAPE)
    write(random_image(2 * seed, shape), place / f"{case}_t1{ending}", **grid)
    write(random_image(2 * seed + 1, shape), place / f"{case}_flair{ending}", **grid)
    write(label_with(*values, shape=shape), place / f"{case}_seg{ending}", **grid)
    return place


@pytest.fixture
def source(tmp_path) -> Path:
    """Two good cases, a folder each."""
    for seed, case in enumerate(["A", "B"]):
        make_case(tmp_path / "source", case, seed)
    return tmp_path / "source"


@pytest.fixture(autouse=True)
def no_nnunet_folders(monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)


def base(source: Path) -> list[str]:
    return ["-i", str(source), "-o", str(source.parent / "raw"), "-d", "7", "-n", "Test", "-np", "1"]


def arguments(source: Path, *options, ending=".nii.gz") -> list[str]:
    return [*base(source), "--modality", f"T1=*_t1{ending}", f"FLAIR=*_flair{ending}",
            "--label", f"*_seg{ending}", *map(str, options)]


def run(source: Path, *options, **kwargs) -> Path:
    main(arguments(source, *options, **kwargs))
    return source.parent / "raw" / "Dataset007_Test"


def refusal(source: Path, *options, **kwargs) -> str:
    """The message with which the import is refused, after checking that it left nothing behind."""
    raw = source.parent / "raw"
    before = sorted(raw.rglob("*")) if raw.exists() else []
    with pytest.raises(SystemExit) as stopped:
        main(arguments(source, *options, **kwargs))
    assert (sorted(raw.rglob("*")) if raw.exists() else []) == before
    return str(stopped.value)


def refusal_with_changes(source: Path) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments(source))
    return str(stopped.value)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------- layouts and case ids

def test_folder_per_case(source):
    out = run(source)
    assert names(out / "imagesTr") == ["A_0000.nii.gz", "A_0001.nii.gz", "B_0000.nii.gz", "B_0001.nii.gz"]
    assert names(out / "labelsTr") == ["A.nii.gz", "B.nii.gz"]
    assert names(out) == ["dataset.json", "imagesTr", "labelsTr"]
    np.testing.assert_array_equal(pixels(out / "imagesTr" / "B_0001.nii.gz"), random_image(3))


def test_flat_folder_takes_the_case_id_from_the_star(tmp_path):
    for seed, case in enumerate(["A", "B"]):
        make_case(tmp_path / "source", case, seed, flat=True)
    assert names(run(tmp_path / "source") / "labelsTr") == ["A.nii.gz", "B.nii.gz"]


def test_patterns_may_name_subfolders(tmp_path):
    for folder in ("t1", "flair", "seg"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "A.nii.gz").touch()
    cases, _ = find_cases(tmp_path, {"T1": "t1/*.nii.gz", "FLAIR": "flair/*.nii.gz", LABEL: "seg/*.nii.gz"})
    assert [c.id for c in cases] == ["A"]
    assert cases[0].files["T1"] == [tmp_path / "t1" / "A.nii.gz"]


@pytest.mark.parametrize(("pattern", "closed"), [("t1.nii.gz", "B"), ("*/anat/*.nii.gz", "B/anat")])
def test_a_folder_that_can_not_be_read_is_named_and_not_passed_over(tmp_path, monkeypatch, pattern, closed):
    for folder in ("A", "A/anat", "B", "B/anat"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t1.nii.gz").touch()
    scandir = os.scandir

    def refusing(path="."):
        if Path(path) == tmp_path / closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError, match=closed):
        find_cases(tmp_path, {"T1": pattern})


def test_the_more_specific_pattern_gets_the_file(tmp_path):
    for name in ("t1.nii.gz", "t1ce.nii.gz", "seg.nii.gz"):
        (tmp_path / "A").mkdir(exist_ok=True)
        (tmp_path / "A" / name).touch()
    (case,), _ = find_cases(tmp_path, {"T1": "*t1*", "T1ce": "*t1ce*", LABEL: "*seg*"})
    assert {name: [f.name for f in fs] for name, fs in case.files.items()} == {
        "T1": ["t1.nii.gz"], "T1ce": ["t1ce.nii.gz"], LABEL: ["seg.nii.gz"]}


def test_hidden_files_are_not_cases(source):
    (source / ".DS_Store").touch()
    (source / "A" / "._A_t1.nii.gz").touch()
    assert len(names(run(source) / "labelsTr")) == 2


def test_files_in_both_layouts_need_a_choice(source):
    make_case(source, "C", 5, flat=True)
    assert "--layout" in refusal(source)
    assert names(run(source, "--layout", "folders") / "labelsTr") == ["A.nii.gz", "B.nii.gz"]


def test_a_bids_folder_is_imported_as_it_is(tmp_path):
    source = tmp_path / "source"
    for seed, (subject, visit) in enumerate([("01", "a"), ("01", "b"), ("02", "a")]):
        place, stem = source / f"sub-{subject}" / f"ses-{visit}" / "anat", f"sub-{subject}_ses-{visit}"
        write(random_image(2 * seed), place / f"{stem}_T1w.nii.gz")
        write(random_image(2 * seed + 1), place / f"{stem}_FLAIR.nii.gz")
        write(label_with(1, 2), source / "derivatives" / f"sub-{subject}" / f"ses-{visit}" / f"{stem}_dseg.nii.gz")
    main([*base(source), "--modality", "T1=sub-*/ses-*/anat/*_T1w.nii.gz", "FLAIR=sub-*/ses-*/anat/*_FLAIR.nii.gz",
          "--label", "derivatives/sub-*/ses-*/*_dseg.nii.gz"])
    out = tmp_path / "raw" / "Dataset007_Test"
    assert names(out / "labelsTr") == ["sub-01_ses-a.nii.gz", "sub-01_ses-b.nii.gz", "sub-02_ses-a.nii.gz"]
    np.testing.assert_array_equal(pixels(out / "imagesTr" / "sub-02_ses-a_0001.nii.gz"), random_image(5))


def test_patterns_that_do_not_say_where_the_case_id_is_are_named(tmp_path):
    make_case(tmp_path / "source", "A", 0, flat=True)
    with pytest.raises(SystemExit, match=r"several \*.* none in --modality T1=\*_t1\*\.nii\.gz"):
        main([*base(tmp_path / "source"), "--modality", "T1=*_t1*.nii.gz", "FLAIR=*_flair.nii.gz", "--label",
              "*_seg.nii.gz"])


def test_negative_label_values_can_be_mapped_as_the_message_says(source):
    write(label_with(-1, 1, dtype=np.int16), source / "A" / "A_seg.nii.gz")
    out = run(source, "--map", "-1=1", "1=2", "2=1")
    assert sorted(np.unique(pixels(out / "labelsTr" / "A.nii.gz")).tolist()) == [0, 1, 2]


def test_labels_that_can_not_be_read_are_the_only_thing_said_of_labels(source):
    for case in ("A", "B"):
        (source / case / f"{case}_seg.nii.gz").write_bytes(b"no image")
    message = refusal(source)
    assert "A_seg.nii.gz" in message and "B_seg.nii.gz" in message and "nothing to learn" not in message


def test_what_killed_imports_left_is_removed_and_a_data_set_killed_while_replaced_is_there_again(source):
    out = run(source)
    killed_while_writing(out)
    assert len(names(out.parent)) == 2
    out.rename(out.with_name(f".{out.name}.replaced"))
    assert "exists already" in refusal_with_changes(source)
    assert names(out.parent) == [out.name] and (out / "dataset.json").exists()
    run(source, "--overwrite")
    assert names(out.parent) == [out.name]


def test_sheared_axes_are_named_with_what_to_do(source):
    file = source / "A" / "A_t1.nii.gz"
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    affine[0, 1] = 0.1
    image = nibabel.Nifti1Image(np.ones(SHAPE[::-1], np.float32), None)
    image.set_sform(affine, 1)
    image.set_qform(None, 0)
    nibabel.save(image, file)
    message = refusal(source)
    assert "A_t1.nii.gz: its axes are not at right angles" in message and "resample_to_output" in message


def test_a_link_to_itself_is_named(source):
    (source / "A" / "A_t1.nii.gz").unlink()
    (source / "A" / "A_t1.nii.gz").symlink_to("A_t1.nii.gz")
    message = refusal(source)
    assert "A_t1.nii.gz: can not be read" in message and "1 of 2 cases" in message


def test_flat_patterns_need_one_star(tmp_path):
    make_case(tmp_path / "source", "A", 0, flat=True)
    message = refusal(tmp_path / "source", "--label", "A_seg.nii.gz")
    assert "one is needed" in message and "A_seg.nii.gz" in message


@pytest.mark.parametrize(("given", "safe"), [
    ("BraTS2021_00001", "BraTS2021_00001"), ("patient 1", "patient_1"), ("a/b", "a_b"), ("1.2.840", "1.2.840"),
    (".hidden", "hidden"), ("case_seg", "case-seg"), ("Größe", "Gr_e"),
])
def test_case_ids_are_made_safe(given, safe):
    assert safe_case_id(given) == safe


def test_renamed_cases_are_recorded_and_told(tmp_path, capsys):
    make_case(tmp_path / "source", "patient 1", 0)
    out = run(tmp_path / "source")
    assert names(out / "labelsTr") == ["patient_1.nii.gz"]
    assert json.loads((out / "dataset.json").read_text())["nnunetv2_rmr_import"]["renamed_cases"] == {
        "patient_1": "patient 1"}
    assert "patient 1 -> patient_1" in capsys.readouterr().out


# ---------------------------------------------------------------- refused arguments

def test_one_modality_is_refused(source, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["-i", str(source), "-o", str(source), "-d", "7", "-n", "Test", "--modality", "T1=*", "--label", "*_seg*"])
    assert stopped.value.code == 2
    assert "at least two modalities" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "part"), [
    (("-d", "1000"), "'1000'"), (("-d", "0"), "'0'"), (("-n", "a b"), "'a b'"), (("--map", "4"), "'4'"),
    (("--map", "4=x"), "'4=x'"), (("--map", "4=3", "4=2"), "4 is given twice"), (("--labels", "tumor=-1"), "'-1'"),
    (("--regions", "a=1,b"), "'b'"), (("--modality", "T1=*x"), "T1 is given twice"),
    (("--resample_to", "CT"), "CT"), (("-np", "0"), "'0'"),
])
def test_wrong_arguments_are_named(source, capsys, options, part):
    with pytest.raises(SystemExit) as stopped:
        main(arguments(source, *options))
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert part in message and options[0] in message


def test_output_folder_comes_from_nnunet_raw_or_is_asked_for(source, monkeypatch, capsys):
    without_o = arguments(source)
    del without_o[2:4]
    with pytest.raises(SystemExit):
        main(without_o)
    assert "nnUNet_raw is not set" in capsys.readouterr().err
    monkeypatch.setenv("nnUNet_raw", str(source.parent / "elsewhere"))
    main(without_o)
    assert (source.parent / "elsewhere" / "Dataset007_Test" / "dataset.json").is_file()
    assert "export nnUNet_raw" not in capsys.readouterr().out


def test_missing_folder_is_named(tmp_path):
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


def test_a_pattern_without_any_file_is_named_with_what_is_there(source):
    message = refusal(source, "--label", "*_label.nii.gz")
    assert "--label *_label.nii.gz" in message and "A/A_flair.nii.gz" in message


def test_a_file_for_two_equal_patterns_is_refused(source):
    assert "matches two patterns" in refusal(source, "--modality", "T2=?_t1.nii.gz")


def test_unknown_test_case_is_named(source):
    assert "--test_cases nobody" in refusal(source, "--test_cases", "nobody")


def test_usage_errors_leave_status_1_and_no_traceback(source):
    code = f"from nnunetv2_rmr.cli.import_dataset import main; main({arguments(source, '--label', 'x*')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "--label x*" in done.stderr


def test_help_imports_nothing_heavy():
    code = ("import sys\nfrom nnunetv2_rmr.cli.import_dataset import main\n"
            "try: main(['--help'])\nexcept SystemExit: pass\n"
            "assert not {'SimpleITK', 'numpy', 'torch', 'nnunetv2'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# ---------------------------------------------------------------- bad cases

def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def overwrite(path: Path, array: np.ndarray, **grid) -> None:
    write(array, path, **grid)


BAD_INPUTS = {
    "missing modality": (lambda c: (c / "C_flair.nii.gz").unlink(), "modality FLAIR missing"),
    "missing label": (lambda c: (c / "C_seg.nii.gz").unlink(), "label missing"),
    "truncated image": (lambda c: truncate(c / "C_t1.nii.gz"), "C_t1.nii.gz: can not be read"),
    "empty file": (lambda c: (c / "C_t1.nii.gz").write_bytes(b""), "C_t1.nii.gz: can not be read"),
    "not an image": (lambda c: (c / "C_t1.nii.gz").write_text("hello"), "C_t1.nii.gz: can not be read"),
    "four dimensions": (lambda c: overwrite(c / "C_t1.nii.gz", random_image(9, (2, *SHAPE)), spacing=(1, 1, 1, 1),
                                            origin=(0, 0, 0, 0)), "4 dimensions"),
    "two dimensions among 3D": (lambda c: make_case(c.parent, "C", 9, shape=(7, 8)), "the images are 2D"),
    "several values per voxel": (lambda c: sitk.WriteImage(sitk.GetImageFromArray(random_image(9, (*SHAPE, 3)), True),
                                                           str(c / "C_t1.nii.gz")), "several values per voxel"),
    "a header that places the image twice": (lambda c: move_qform(c / "C_t1.nii.gz", 11),
                                              "C_t1.nii.gz: by its sform it lies up to 11 mm from"),
    "other size": (lambda c: overwrite(c / "C_flair.nii.gz", random_image(9, (6, 7, 9))), "size 9 x 7 x 6"),
    "other spacing": (lambda c: overwrite(c / "C_flair.nii.gz", random_image(9), spacing=(1, 1, 2.2)), "spacing (mm)"),
    "other origin": (lambda c: overwrite(c / "C_seg.nii.gz", label_with(1, 2), origin=(-9, 5.5, 3)), "origin (mm) -9 "),
    "other direction": (lambda c: overwrite(c / "C_flair.nii.gz", random_image(9), direction=OBLIQUE), "direction"),
    "undeclared label value": (lambda c: overwrite(c / "C_seg.nii.gz", label_with(1, 7, 7)),
                               "7 (2 voxels); declared are 0 1 2. Change values with --map"),
    "negative label value": (lambda c: overwrite(c / "C_seg.nii.gz", label_with(-1, dtype=np.int16)), "-1 (1 voxels)"),
    "label value that is no integer": (lambda c: overwrite(c / "C_seg.nii.gz", label_with(1, 1.5, dtype=np.float32)),
                                       "no integer value (for example 1.5)"),
    "label with NaN": (lambda c: overwrite(c / "C_seg.nii.gz", label_with(1, np.nan, dtype=np.float32)), "NaN"),
    "NaN": (lambda c: overwrite(c / "C_t1.nii.gz", label_with(1, np.nan, np.inf, dtype=np.float32)),
            "2 voxels are NaN or infinite"),
    "constant image": (lambda c: overwrite(c / "C_t1.nii.gz", np.full(SHAPE, 5, np.int16)), "every voxel is 5"),
    "same image under two ids": (lambda c: overwrite(c / "C_t1.nii.gz", random_image(0).astype(np.float32)),
                                 "same content as the T1 image of case A"),
    "same image for two modalities": (lambda c: shutil.copy(c / "C_t1.nii.gz", c / "C_flair.nii.gz"),
                                      "same content as the T1 image of the same case"),
    "two files for one pattern": (lambda c: shutil.copy(c / "C_t1.nii.gz", c / "again_t1.nii.gz"),
                                  "*_t1.nii.gz matches 2 files"),
}


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_bad_input_is_refused(source, kind):
    spoil, part = BAD_INPUTS[kind]
    spoil(make_case(source, "C", 9))
    message = refusal(source, "--labels", "edema=1", "core=2")
    assert part in message
    assert message.splitlines()[0].endswith("1 of 3 cases can not be imported; nothing was written.")
    assert "--skip_bad_cases" in message


def test_all_problems_of_all_cases_are_reported_at_once(source):
    spoilt = {}
    for i, (kind, (spoil, part)) in enumerate(BAD_INPUTS.items()):
        case = make_case(source, "C", 10 + i)
        spoil(case)
        for file in sorted(case.iterdir()):  # the recipes know one case name
            file.rename(file.with_name(file.name.replace("C_", f"D{i}_")))
        case.rename(source / f"D{i}")
        spoilt[f"D{i}"] = (kind, part.replace("C_", f"D{i}_"))
    (source / "D0" / "D0_seg.nii.gz").unlink()  # two problems in one case
    message = refusal(source, "--labels", "edema=1", "core=2")
    blocks = {b.splitlines()[0].strip(): b for b in ("\n" + message).split("\n  D")[1:]}
    for case, (kind, part) in spoilt.items():
        assert part in blocks[case[1:]], kind
    assert "modality FLAIR missing" in blocks["0"] and "label missing" in blocks["0"]
    assert f"{len(spoilt)} of {len(spoilt) + 2} cases" in message


def test_two_cases_with_one_id_are_refused(source):
    make_case(source, "C 1", 5)
    make_case(source, "C_1", 6)
    message = refusal(source)
    assert "2 of 4 cases" in message and message.count("duplicate case") == 2


def test_bad_cases_can_be_skipped(source, capsys):
    (make_case(source, "C", 9) / "C_t1.nii.gz").unlink()
    out = run(source, "--skip_bad_cases")
    assert names(out / "labelsTr") == ["A.nii.gz", "B.nii.gz"]
    assert json.loads((out / "dataset.json").read_text())["numTraining"] == 2
    text = capsys.readouterr().out
    assert "skipped C" in text and "modality T1 missing" in text


def test_a_case_that_fails_as_nobody_has_thought_of_stops_no_other(source, capsys, monkeypatch):
    left = [ValueError("nobody has thought of this")]

    def fails(image, spacing):
        if left:
            raise left.pop()
        return coarse(image, spacing)

    coarse = inspect_case.misregistration.coarse
    monkeypatch.setattr(inspect_case.misregistration, "coarse", fails)
    make_case(source, "C", 9)
    assert names(run(source, "--skip_bad_cases") / "labelsTr") == ["B.nii.gz", "C.nii.gz"]
    told = capsys.readouterr()
    assert "A_t1.nii.gz: can not be checked (ValueError: nobody has thought of this)" in told.out
    assert "Traceback" in told.err


def test_of_two_equal_cases_the_one_without_other_problems_is_kept(source):
    for file in (source / "A").iterdir():
        shutil.copy(file, make_case(source, "C", 9) / file.name.replace("A_", "C_"))
    (source / "A" / "A_seg.nii.gz").unlink()
    assert names(run(source, "--skip_bad_cases") / "labelsTr") == ["B.nii.gz", "C.nii.gz"]


def test_skipping_all_cases_is_refused(source):
    for case in "AB":
        (source / case / f"{case}_seg.nii.gz").unlink()
    make_case(source, "C", 9)
    truncate(source / "C" / "C_t1.nii.gz")
    assert "3 of 3 cases" in refusal(source, "--skip_bad_cases")


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha", ".gipl"])
def test_truncation_is_noticed_in_every_format(tmp_path, ending):
    path = write(random_image(0, (20, 20, 20)), tmp_path / f"x{ending}")
    read_volume(path)
    os.truncate(path, path.stat().st_size * 9 // 10)
    with pytest.raises(BadCaseError, match=r"truncated|can not be read"):
        read_volume(path)


def test_a_crash_while_writing_leaves_nothing(source, monkeypatch):
    def crash(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setitem(inspect_case.LINKS, "copy", crash)
    assert "No space left on device" in refusal(source)
    assert not list((source.parent / "raw").iterdir())


# ---------------------------------------------------------------- labels and regions

def test_labels_found_become_names(source):
    info = json.loads((run(source) / "dataset.json").read_text())
    assert info["labels"] == {"background": 0, "label_1": 1, "label_2": 2}
    assert info["channel_names"] == {"0": "T1", "1": "FLAIR"}
    assert info["numTraining"] == 2 and info["file_ending"] == ".nii.gz" and "regions_class_order" not in info


def test_map_replaces_all_values_at_once(tmp_path):
    make_case(tmp_path / "source", "A", 0, values=(1, 2, 4))
    out = run(tmp_path / "source", "--map", "1=2", "2=1", "4=3", "--labels", "edema=1", "necrosis=2", "enhancing=3")
    np.testing.assert_array_equal(pixels(out / "labelsTr" / "A.nii.gz"), label_with(2, 1, 3))
    info = json.loads((out / "dataset.json").read_text())
    assert info["labels"] == {"background": 0, "edema": 1, "necrosis": 2, "enhancing": 3}
    assert info["nnunetv2_rmr_import"]["label_map"] == {"1": 2, "2": 1, "4": 3}


def test_gap_in_the_found_values_suggests_a_map(tmp_path):
    make_case(tmp_path / "source", "A", 0, values=(1, 2, 4))
    assert "--map 4=3" in refusal(tmp_path / "source")


def test_rounding_errors_of_float_labels_are_removed(source):
    write(label_with(1, 1.0001, 2, dtype=np.float32), source / "A" / "A_seg.nii.gz")
    label = pixels(run(source) / "labelsTr" / "A.nii.gz")
    np.testing.assert_array_equal(label, label_with(1, 1, 2))


def test_brats_regions(tmp_path):
    make_case(tmp_path / "source", "A", 0, values=(1, 2, 4))
    info = json.loads((run(tmp_path / "source", *BRATS_OPTIONS) / "dataset.json").read_text())
    assert info["labels"] == {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing_tumor": 3}
    assert info["regions_class_order"] == [1, 2, 3]


@pytest.mark.parametrize(("regions", "order"), [
    (BRATS_REGIONS, [1, 2, 3]),
    ({"whole": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}, [2, 1, 3]),  # BraTS with 4=3 only
    ({"organ": (1, 2), "tumour": (2,)}, [1, 2]),
    ({"both": (1, 2), "left": (1,), "right": (2,)}, [1, 1, 2]),
])
def test_default_class_order_brings_every_label_back_through_nnunet(regions, order):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    assert default_class_order(regions) == order
    assert merged_labels(regions, order) == {}
    manager = LabelManager(labels_for_dataset_json(None, regions, None), order)
    labels = np.arange(max(map(max, regions.values())) + 1)
    probabilities = np.stack([np.isin(labels, values) for values in regions.values()]).astype(np.float32)
    np.testing.assert_array_equal(manager.convert_probabilities_to_segmentation(probabilities), labels)


def test_labels_in_the_same_regions_are_told_to_merge():
    assert merged_labels({"whole": (1, 2, 3), "enhancing": (3,)}, [1, 3]) == {2: 1}


@pytest.mark.parametrize(("regions", "order", "part"), [
    ({"whole": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}, [1, 2, 3], "label 1 (in whole core) would be written"),
    ({"enhancing": (3,), "whole": (1, 2, 3)}, [3, 1], "list larger regions first"),
    ({"a": (1, 2), "b": (2, 3)}, [1, 3], "overlap without one containing the other"),
    (BRATS_REGIONS, [1, 2], "2 labels for 3 regions"),
    (BRATS_REGIONS, [1, 2, 4], "no region"),
])
def test_class_orders_that_contradict_the_regions_are_refused(regions, order, part):
    with pytest.raises(BadCaseError) as refused:
        merged_labels(regions, order)
    assert part in str(refused.value)


@pytest.mark.parametrize(("labels", "regions", "ignore", "part"), [
    ({"a": 1}, {"b": (1, 2)}, None, "exclude each other"),
    (None, {"a": (1,), "b": (2,)}, None, "use --labels"),
    ({"a": 1, "b": 3}, None, None, "--map 3=2"),
    ({"background": 1}, None, None, "reserves this name"),
    ({"a": 1}, None, 255, "--map 255=2 --ignore_label 2"),
])
def test_labels_nnunet_can_not_use_are_refused(labels, regions, ignore, part):
    with pytest.raises(BadCaseError) as refused:
        labels_for_dataset_json(labels, regions, ignore)
    assert part in str(refused.value)


def test_images_taken_for_labels_do_not_flood_the_message(source):
    write(np.arange(0, 2 * 336, 2, dtype=np.int16).reshape(SHAPE), source / "A" / "A_seg.nii.gz")
    for options in ((), ("--labels", "a=1", "b=2")):
        assert len(refusal(source, *options)) < 1000


def test_ignore_label(source):
    info = json.loads((run(source, "--labels", "tumor=1", "--ignore_label", "2") / "dataset.json").read_text())
    assert info["labels"] == {"background": 0, "tumor": 1, "ignore": 2}


def test_class_order_without_regions_is_refused(source):
    assert "--regions_class_order needs --regions" in refusal(source, "--regions_class_order", "1", "2")


# ---------------------------------------------------------------- test cases

def test_test_cases_go_to_their_own_folders_with_or_without_label(source):
    (make_case(source, "C", 9) / "C_seg.nii.gz").unlink()
    out = run(source, "--test_cases", "B", "C")
    assert names(out / "imagesTr") == ["A_0000.nii.gz", "A_0001.nii.gz"]
    assert names(out / "imagesTs") == ["B_0000.nii.gz", "B_0001.nii.gz", "C_0000.nii.gz", "C_0001.nii.gz"]
    assert names(out / "labelsTs") == ["B.nii.gz"]
    assert json.loads((out / "dataset.json").read_text())["numTraining"] == 1


def test_cases_without_label_may_become_test_cases(source):
    (source / "B" / "B_seg.nii.gz").unlink()
    out = run(source, "--unlabelled_as_test")
    assert names(out / "imagesTs") == ["B_0000.nii.gz", "B_0001.nii.gz"] and not (out / "labelsTs").exists()


def test_cases_without_label_go_to_imagesun(source):
    (source / "B" / "B_seg.nii.gz").unlink()
    out = run(source, "--unlabelled", str(source))
    assert names(out / "imagesUn") == ["B_0000.nii.gz", "B_0001.nii.gz"] and names(out / "labelsTr") == ["A.nii.gz"]
    assert json.loads((out / "dataset.json").read_text())["numTraining"] == 1


def test_scans_of_another_folder_go_to_imagesun_whether_or_not_they_have_a_label(source, tmp_path):
    for seed, case in ((7, "C"), (8, "D")):
        make_case(tmp_path / "more", case, seed)
    (tmp_path / "more" / "D" / "D_seg.nii.gz").unlink()
    out = run(source, "--unlabelled", str(tmp_path / "more"))
    assert names(out / "imagesUn") == ["C_0000.nii.gz", "C_0001.nii.gz", "D_0000.nii.gz", "D_0001.nii.gz"]
    assert names(out / "labelsTr") == ["A.nii.gz", "B.nii.gz"] and not (out / "labelsUn").exists()


def test_an_unlabelled_scan_of_a_labelled_case_is_refused(source, tmp_path):
    shutil.copytree(source / "A", tmp_path / "more" / "A")
    said = refusal(source, "--unlabelled", str(tmp_path / "more"))
    assert "duplicate case" in said and "has the same content as the T1 image of case A" in said


def test_a_folder_of_unlabelled_scans_that_is_not_there_is_named(source, tmp_path):
    assert f"--unlabelled {tmp_path / 'no'}: there is no such folder" in refusal(source, "--unlabelled",
                                                                               str(tmp_path / "no"))


def test_only_test_cases_is_refused(source):
    assert "none is left for training" in refusal(source, "--test_cases", "A", "B")


# ---------------------------------------------------------------- grids

@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_an_oblique_grid_is_kept_in_copied_and_in_rewritten_files(tmp_path, ending):
    case = make_case(tmp_path / "source", "A", 0, ending, spacing=(0.7, 0.9, 3.3), origin=(-91.3, 12.7, 40.1),
                     direction=OBLIQUE)
    out = run(tmp_path / "source", "--map", "1=2", "2=1", ending=ending)
    before = Grid.of(sitk.ReadImage(str(case / f"A_t1{ending}")))
    for file in (*(out / "imagesTr").iterdir(), *(out / "labelsTr").iterdir()):
        assert file.name.endswith(ending)
        after = Grid.of(sitk.ReadImage(str(file)))
        assert after.size == before.size
        np.testing.assert_allclose(after.corners(), before.corners(), atol=1e-4)
        assert after.looks_equal_to_nnunet(before), before.difference(after)


def test_headers_that_differ_by_rounding_are_made_equal(source):
    write(random_image(1), source / "A" / "A_flair.nii.gz", origin=(-10.004, 5.5, 3.0))
    out = run(source)
    first, second = (sitk.ReadImage(str(out / "imagesTr" / f"A_000{i}.nii.gz")) for i in range(2))
    assert Grid.of(first) == Grid.of(second)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(second), random_image(1))


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_resampling_brings_images_and_label_to_the_named_modality(source, interpolation):
    fine = {"spacing": (0.5, 0.5, 1.0), "origin": (-10.25, 5.25, 2.5)}  # the same box in voxels of half the edge
    write(random_image(1, (12, 14, 16)), source / "A" / "A_flair.nii.gz", **fine)
    big = np.zeros((12, 14, 16), np.uint8)
    big[4:8, 4:8, 4:8], big[5:7, 5:7, 5:7] = 1, 2
    write(big, source / "A" / "A_seg.nii.gz", **fine)
    assert "--resample_to" in refusal(source)
    out = run(source, "--resample_to", "T1", "--interpolation", interpolation)
    t1, flair, label = (sitk.ReadImage(str(out / p)) for p in
                        ("imagesTr/A_0000.nii.gz", "imagesTr/A_0001.nii.gz", "labelsTr/A.nii.gz"))
    assert Grid.of(t1).looks_equal_to_nnunet(Grid.of(flair)) and Grid.of(t1).looks_equal_to_nnunet(Grid.of(label))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(t1), random_image(0))
    values = sitk.GetArrayFromImage(flair)
    assert values.min() >= 0 and values.max() <= 1000
    assert set(np.unique(sitk.GetArrayFromImage(label))) == {0, 1, 2}


def test_the_named_modality_may_be_any(source):
    fine = {"spacing": (0.5, 0.5, 1.0), "origin": (-10.25, 5.25, 2.5)}
    write(random_image(1, (12, 14, 16)), source / "A" / "A_flair.nii.gz", **fine)
    out = run(source, "--resample_to", "FLAIR")
    assert pixels(out / "imagesTr" / "A_0000.nii.gz").shape == (12, 14, 16)
    assert pixels(out / "labelsTr" / "A.nii.gz").shape == (12, 14, 16)


def test_linear_resampling_keeps_a_ramp(source):
    x = np.broadcast_to(np.arange(16, dtype=np.float32), (12, 14, 16))
    write(x + 0.0, source / "A" / "A_flair.nii.gz", spacing=(0.5, 0.5, 1.0), origin=(-10.25, 5.25, 2.5))
    flair = pixels(run(source, "--resample_to", "T1") / "imagesTr" / "A_0001.nii.gz")
    np.testing.assert_allclose(flair[2, 3], 2 * np.arange(8) + 0.5, atol=1e-4)


def test_no_common_field_of_view_is_refused(source):
    write(random_image(1), source / "A" / "A_flair.nii.gz", origin=(500, 0, 0))
    write(label_with(1, 2), source / "B" / "B_seg.nii.gz", origin=(500, 0, 0))
    message = refusal(source, "--resample_to", "T1")
    assert "shows nothing inside the field of view of T1" in message and "no label is left" in message


def test_2d_images_are_imported(tmp_path):
    for seed, case in enumerate(["A", "B"]):
        make_case(tmp_path / "source", case, seed, shape=(7, 8))
    out = run(tmp_path / "source")
    assert pixels(out / "imagesTr" / "A_0000.nii.gz").shape == (7, 8)


# ---------------------------------------------------------------- files

def test_unchanged_files_are_copied_byte_by_byte(source):
    out = run(source)
    for new, old in (("imagesTr/A_0000.nii.gz", "A/A_t1.nii.gz"), ("labelsTr/A.nii.gz", "A/A_seg.nii.gz")):
        assert (out / new).read_bytes() == (source / old).read_bytes()
        assert not (out / new).is_symlink() and (out / new).stat().st_nlink == 1


def test_a_map_that_changes_nothing_leaves_the_label_as_it_is(source):
    out = run(source, "--map", "4=3", "--labels", "a=1", "b=2", "c=3")
    assert (out / "labelsTr" / "A.nii.gz").read_bytes() == (source / "A" / "A_seg.nii.gz").read_bytes()


@pytest.mark.parametrize("link", ["hard", "sym"])
def test_links_are_made_for_unchanged_files_only(source, link, monkeypatch):
    monkeypatch.chdir(source.parent)  # a relative -i must not give relative links
    out = run(Path("source"), "--map", "1=2", "2=1", "--link", link)
    image, label = out / "imagesTr" / "A_0000.nii.gz", out / "labelsTr" / "A.nii.gz"
    assert image.samefile(source / "A" / "A_t1.nii.gz") and image.is_symlink() == (link == "sym")
    assert not label.is_symlink() and label.stat().st_nlink == 1
    np.testing.assert_array_equal(pixels(source / "A" / "A_seg.nii.gz"), label_with(1, 2))


def test_mixed_formats_become_nifti(tmp_path):
    for seed, (case, ending) in enumerate([("A", ".nrrd"), ("B", ".nii.gz")]):
        make_case(tmp_path / "source", case, seed, ending)
    main([*base(tmp_path / "source"), "--modality", "T1=*_t1.n*", "FLAIR=*_flair.n*", "--label", "*_seg.n*"])
    out = tmp_path / "raw" / "Dataset007_Test"
    assert names(out / "imagesTr") == [f"{c}_000{i}.nii.gz" for c in "AB" for i in range(2)]
    np.testing.assert_array_equal(pixels(out / "imagesTr" / "A_0001.nii.gz"), random_image(1))


def test_header_and_data_files_become_one_file(tmp_path):
    make_case(tmp_path / "source", "A", 0, ".mhd")
    out = run(tmp_path / "source", ending=".mhd")
    assert names(out / "labelsTr") == ["A.nii.gz"]
    np.testing.assert_array_equal(pixels(out / "imagesTr" / "A_0000.nii.gz"), random_image(0))


def test_existing_data_set_is_refused_unless_overwritten(source):
    out = run(source)
    assert "exists already" in refusal(source)
    make_case(source, "C", 9)
    assert run(source, "--overwrite") == out
    assert len(names(out / "labelsTr")) == 3
    assert names(out.parent) == [out.name]


def test_after_an_overwrite_what_nnunet_made_of_the_earlier_data_is_named(source, monkeypatch, capsys):
    run(source)
    preprocessed = source.parent / "preprocessed"
    (preprocessed / "Dataset007_Test").mkdir(parents=True)
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    run(source, "--overwrite")
    assert f"{preprocessed / 'Dataset007_Test'} stems from an earlier import: remove it" in capsys.readouterr().out


def test_failed_overwrite_keeps_the_old_data_set(source):
    out = run(source)
    (source / "B" / "B_t1.nii.gz").unlink()
    refusal(source, "--overwrite")
    assert len(names(out / "labelsTr")) == 2


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results", None])
def test_an_id_in_use_under_another_name_is_refused(source, monkeypatch, variable):
    folder = source.parent / ("raw" if variable is None else variable)
    (folder / "Dataset007_Other").mkdir(parents=True)
    if variable:
        monkeypatch.setenv(variable, str(folder))
    assert "Dataset007_Other" in refusal(source, "--overwrite")


def test_a_data_set_is_not_imported_over_itself(source):
    out = run(source)
    shutil.copytree(source, out / "source")
    with pytest.raises(SystemExit, match="lies inside"):
        main([*arguments(source), "-i", str(out / "source"), "--overwrite"])
    assert len(names(out / "labelsTr")) == 2


def test_several_processes_give_the_same_data_set(source):
    one = {p.relative_to(source.parent): p.read_bytes() for p in run(source).rglob("*") if p.is_file()}
    two = {p.relative_to(source.parent): p.read_bytes() for p in run(source, "--overwrite", "-np", "2").rglob("*")
           if p.is_file()}
    assert one == two


def test_summary_says_what_was_imported_and_what_comes_next(source, capsys):
    make_case(source, "C", 9, values=(1,))
    main([*base(source), "--modality", "CT=*_flair.nii.gz", "CT_late=*_t1.nii.gz", "--label", "*_seg.nii.gz",
          "--test_cases", "B", "--labels", "edema=1", "core=2"])
    text = capsys.readouterr().out
    assert "2 training cases, 1 test cases (1 with label)" in text
    assert "8 x 7 x 6 (3 cases)" in text and "1 x 1 x 2 (3 cases)" in text
    assert "label core = 2: 1 voxels, in 1 of 2 training cases" in text
    assert "CT: nnU-Net normalises it by CTNormalization" in text
    assert "CT_late: nnU-Net normalises it by ZScoreNormalization" in text and "only for the exact name CT" in text
    assert "export nnUNet_raw=" in text
    assert text.splitlines()[-1] == ("Next: nnUNetv2_plan_and_preprocess -d 7 --verify_dataset_integrity"
                                     "  (-c 3d_fullres: of all configurations only this one)")


# ---------------------------------------------------------------- nnU-Net agrees

def verify(folder: Path, monkeypatch, capsys) -> str:
    """nnU-Net's own check, with threads for its processes: each of those would import torch."""
    from nnunetv2.experiment_planning import verify_dataset_integrity as module
    from nnunetv2.utilities import utils
    monkeypatch.setattr(multiprocessing, "get_context", lambda _=None: SimpleNamespace(Pool=ThreadPool))
    monkeypatch.setattr(utils, "Pool", ThreadPool)
    capsys.readouterr()
    module.verify_dataset_integrity(str(folder), 1)
    return capsys.readouterr().out


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_nnunet_accepts_the_data_set(tmp_path, monkeypatch, capsys, ending):
    for seed, case in enumerate(["patient 1", "1.2.840.5", "case_0000"]):
        make_case(tmp_path / "source", case, seed, ending, values=(1, 2, 4), direction=OBLIQUE)
    text = verify(run(tmp_path / "source", *BRATS_OPTIONS, ending=ending), monkeypatch, capsys)
    assert "verify_dataset_integrity Done" in text
    assert "mismatch" not in text and "WARNING" not in text


@pytest.mark.real_data
@pytest.mark.skipif(not BRATS.is_dir(), reason="the BraTS cases of ../shared/data are not there")
def test_real_brats_cases(tmp_path, monkeypatch, capsys):
    for case in ("BraTS2021_01476", "BraTS2021_01480"):
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source" / case).symlink_to(BRATS / case)
    main(["-i", str(tmp_path / "source"), "-o", str(tmp_path), "-d", "101", "-n", "BraTS", "-np", "1", "--link", "sym",
          "--modality", "T1=*t1.nii.gz", "T1ce=*t1ce.nii.gz", "T2=*t2.nii.gz", "FLAIR=*flair.nii.gz",
          "--label", "*seg.nii.gz", *BRATS_OPTIONS, "--test_cases", "BraTS2021_01480"])
    out = tmp_path / "Dataset101_BraTS"
    old, new = pixels(BRATS / "BraTS2021_01476" / "seg.nii.gz"), pixels(out / "labelsTr" / "BraTS2021_01476.nii.gz")
    for before, after in ((0, 0), (1, 2), (2, 1), (4, 3)):
        np.testing.assert_array_equal(old == before, new == after)
    assert (out / "imagesTs" / "BraTS2021_01480_0003.nii.gz").samefile(BRATS / "BraTS2021_01480" / "flair.nii.gz")
    assert "Done" in verify(out, monkeypatch, capsys)
