import json
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def test_notebook_and_script_are_the_same_text():
    script = jupytext.read(NOTEBOOKS / "model_training.py")
    notebook = nbformat.read(NOTEBOOKS / "model_training.ipynb", as_version=4)
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in script.cells]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs_from_start_to_end(tmp_path):
    notebook = nbformat.read(NOTEBOOKS / "model_training.ipynb", as_version=4)
    (tmp_path / "notebooks").mkdir()
    resources = {"metadata": {"path": str(tmp_path / "notebooks")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    stored = json.loads((tmp_path / "runs" / "notebook" / "evaluation.json").read_text())
    accuracy = stored["evaluations"][-1]["scores"]["accuracy"]
    assert accuracy > 0.7
    texts = json.dumps(notebook)
    assert "814,852 of 125,463,560 = 0.6495%" in texts
    assert f"accuracy {accuracy:.2%}" in texts
