"""The campaign in small: it works, and what it is to find is found."""

from pathlib import Path

import numpy as np
import pytest
import tiny
from campaign.commands import Ground
from campaign.damaged_folders import damaged_folders
from campaign.kills import kills
from campaign.outputs import differences, leavings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ground(nnunet, trained) -> Ground:
    return Ground(Path(nnunet["nnUNet_results"]).parent)


def test_damaged_files_and_kills_in_small(ground, tmp_path):
    corrupt, = (command for command in ground.commands() if command.name == "corrupt")
    outcomes = [kills(ground, corrupt, 2, tmp_path / "killed"), *damaged_folders(ground, 6, tmp_path / "damaged")]
    assert [finding for outcome in outcomes for finding in outcome.findings] == []
    assert len(outcomes) == 7 and outcomes[0].number_fine == 2
    assert all(outcome.number_fine + outcome.number_refused == 6 for outcome in outcomes[1:])


def test_half_files_and_other_results_are_found(tmp_path):
    tiny.write_image(np.random.default_rng(0).random((4, 5, 6)), tmp_path / "a.nii.gz")
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / ".123456-1.tmp.c.nii.gz").write_text("being written")
    wanted, broken = leavings(tmp_path)
    assert set(wanted) == {"a.nii.gz", "b.json"} and not broken
    whole = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(whole[:-20])
    (tmp_path / "b.json").write_text("{")
    found, broken = leavings(tmp_path)
    assert not found and [line.split()[0] for line in broken] == ["a.nii.gz", "b.json"]
    tiny.write_image(np.zeros((4, 5, 6)), tmp_path / "a.nii.gz")
    (tmp_path / "b.json").unlink()
    assert sorted(differences(leavings(tmp_path)[0], wanted)) == ["a.nii.gz is another one", "b.json is missing"]
