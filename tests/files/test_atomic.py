"""Files that are whole or not there, and what killed processes leave behind."""

import json
import os
from pathlib import Path

import pytest
from killed import killed_while_writing

from nnunetv2_rmr.files.atomic import remove_leftovers, replacing, temporary_beside, write_json


def test_a_file_is_replaced_as_a_whole_or_stays_as_it_was(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(KeyError), replacing(file) as temporary:
        Path(temporary).write_text("half")
        raise KeyError
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"] and file.read_text() == "old"
    with replacing(file) as temporary:
        Path(temporary).write_text("new")
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"] and file.read_text() == "new"


def test_json_has_null_for_what_is_not_finite(tmp_path):
    write_json({"a": [float("nan"), 0.0], "b": {"c": float("inf")}}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, 0.0], "b": {"c": None}}


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_is_not(tmp_path):
    killed_while_writing(tmp_path / "a.nii.gz")
    left, = tmp_path.iterdir()
    folder = left.with_name(left.name.replace("a.nii.gz", "b"))
    folder.mkdir()
    (folder / "b.nii.gz").touch()
    on_another_machine = left.with_name("." + "f" * 6 + left.name[7:])
    on_another_machine.touch()
    with replacing(tmp_path / "c.nii.gz") as mine:
        open(mine, "w").close()
        remove_leftovers([tmp_path, tmp_path / "nowhere"])
        assert {f.name for f in tmp_path.iterdir()} == {os.path.basename(mine), on_another_machine.name}


def test_temporary_names_keep_the_ending_and_are_hidden(tmp_path):
    name = temporary_beside(tmp_path / "case.nii.gz").name
    assert name.startswith(".") and name.endswith(".nii.gz")
