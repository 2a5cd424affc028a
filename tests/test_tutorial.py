"""The notebook docs/tutorial.ipynb: a newcomer can run it, and it was run."""

import re

import pytest
import tiny

NOTEBOOK = tiny.ROOT / "docs" / "tutorial.ipynb"
nbformat = pytest.importorskip("nbformat")


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, 4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cells) -> str:
    return "".join(output.get("text", "") for cell in cells for output in cell.outputs)


def test_it_was_run_and_tells_nothing_of_the_machine(notebook):
    assert any("image/png" in output.get("data", {}) for cell in code(notebook) for output in cell.outputs)
    dice = re.findall(r"^(?:imagesTs|noise_4) (\S+) (\S+)$", printed(code(notebook)), re.M)
    assert len(dice) == 2 and all(float(score) > 0.5 for scores in dice for score in scores)
    assert not re.search(r"/(home|root|tmp|Users)/", nbformat.writes(notebook))


@pytest.mark.slow
def test_it_runs_from_the_first_cell_to_the_last(notebook, tmp_path, monkeypatch):
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    trainer, = (cell for cell in code(notebook) if "nnUNetTrainerRMR_tutorial(" in cell.source)
    assert "= 10, 30, 3" in trainer.source
    trainer.source = trainer.source.replace("= 10, 30, 3", "= 10, 2, 1")  # what is learned is no matter here
    prediction, = (cell for cell in code(notebook) if "-f 0 -device cpu" in cell.source)
    prediction.source = prediction.source.replace("-device cpu", "-device cpu --disable_tta")
    client.NotebookClient(notebook, timeout=900, kernel_name="python3",
                          resources={"metadata": {"path": str(tmp_path)}}).execute()
    fused = tmp_path / "tutorial" / "predicted" / "noise_4" / "fused" / "P08.nii.gz"
    assert fused.is_file() and (tmp_path / "tutorial" / "view.html").is_file()
