"""The reference system's own commands, offline: a tiny RoBERTa in place of the real one."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FAMILIES, save_encoder, write_csv
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer, RobertaConfig

from textlora.settings import load_recipe

SOURCE = Path(__file__).parents[1] / "src"


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """Twelve thin layers, so that the recipe's layers 0, 5 and 10 exist."""
    config_class, sizes = FAMILIES["roberta"]
    FAMILIES["roberta-12"] = (config_class, {**sizes, "num_hidden_layers": 12})
    return save_encoder(tmp_path_factory.mktemp("models") / "roberta", "roberta-12")


@pytest.fixture(scope="module")
def project(tmp_path_factory, roberta, data_folder):
    """A working folder in which `src/train.py` has run."""
    folder = tmp_path_factory.mktemp("project")
    words = ["--data", data_folder, "--model", roberta, "--set", "training.epochs=1"]
    return folder, run(folder, "train.py", *words)


def run(folder, script, *words):
    process = subprocess.run(
        [sys.executable, str(SOURCE / script), *map(str, words)],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_training_leaves_model_and_pictures_where_they_are_expected(project):
    folder, output = project
    picture = folder / "results" / "visualizations" / "confusion_matrix.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    for part in ("weighted", "correct/total", "most often taken for"):
        assert part in output
    recipe = load_recipe(str(folder / "models" / "best_model" / "recipe.toml"))
    assert recipe.adapter == load_recipe("reference").adapter


def test_the_saved_model_is_a_peft_adapter_with_its_tokenizer(project, roberta):
    run_folder = project[0] / "models" / "best_model"
    base = AutoModelForSequenceClassification.from_pretrained(roberta, num_labels=3)
    assert isinstance(base.config, RobertaConfig)
    model = PeftModel.from_pretrained(base, str(run_folder), subfolder="adapter")
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.bias) == (36, 32, "none")
    assert config.task_type == "SEQ_CLS"
    assert config.lora_dropout == 0.15
    AutoTokenizer.from_pretrained(run_folder / "adapter")


@pytest.mark.parametrize("kind", ["csv", "txt"])
def test_inference_reads_csv_and_txt(project, tmp_path, kind):
    texts = ["goal of the cup", "bank profit"]
    source = tmp_path / f"in.{kind}"
    if kind == "csv":
        write_csv(source, [(text, "") for text in texts])
    else:
        source.write_text("\n".join(texts) + "\n")
    run(project[0], "inference.py", "--input", source, "--output", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["ID", "Label", "LabelText", "Confidence"]
    assert [row[0] for row in rows] == ["0", "1"]


def test_inference_without_input_shows_examples(project):
    output = run(project[0], "inference.py")
    assert "Central bank holds interest rates" in output
    assert output.count("%") == 6
