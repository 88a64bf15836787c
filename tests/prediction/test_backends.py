"""OpenVINO beside torch: the same answers, kept beside the run, refused where labels change."""

import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import FAMILIES, make_rows, save_encoder, tiny_recipe, write_csv

from textlora.errors import ModelError, SettingsError
from textlora.model import encoder, encoder_files
from textlora.model.batching import TokenizedTexts
from textlora.model.engine import Engine
from textlora.model.torch_backend import TorchBackend, compute_logits
from textlora.prediction import openvino_conversion
from textlora.prediction.openvino_backend import OpenVinoBackend
from textlora.prediction.openvino_conversion import convert
from textlora.prediction.predictor import Predictor
from textlora.settings import ModelSettings

pytest.importorskip("openvino", reason="needs the extra openvino")

# Sums of float32 in another order.
FLOAT32_TOLERANCE = 1e-5
TEXTS = [text for text, _ in make_rows(200, seed=5)]


class Messages(list):
    """A reporter that keeps what it is told."""

    say = list.append

    def __bool__(self):
        return True


def load_model(folder, labels=("a", "b", "c")):
    files = encoder_files.locate_encoder(ModelSettings(name=str(folder)))
    torch.manual_seed(3)
    return encoder.load_encoder(files, labels).model.eval()


def make_tokens(lengths, seed=0):
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = random.integers(2, 64, offsets[-1]).astype(np.int32)
    return TokenizedTexts(ids, offsets, np.zeros(len(lengths), np.bool_))


@pytest.fixture
def run(tiny_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    return copy


@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_answers_as_the_model_for_texts_of_every_length(family, tmp_path):
    folder = save_encoder(tmp_path, family)
    model = load_model(folder)
    pad_id = 1 if family == "mpnet" else 0
    tokens = make_tokens(list(range(1, 62)))
    expected = compute_logits(Engine(model, pad_id), tokens)
    graph = convert(model, pad_id, 64, 64)
    found = OpenVinoBackend(graph, "float32", pad_id).compute_logits(tokens)
    assert np.abs(found - expected).max() < FLOAT32_TOLERANCE
    alone = OpenVinoBackend(graph, "float32", pad_id).compute_logits(tokens.take(np.array([0])))
    assert np.abs(alone - expected[:1]).max() < FLOAT32_TOLERANCE


def test_a_graph_that_answers_otherwise_is_refused(tiny_bert, monkeypatch):
    model = load_model(tiny_bert)
    kept = openvino_conversion._Packed.forward

    def forget_a_length(self, token_ids, positions, starts, places, mask, order):
        return kept(self, token_ids, positions, starts, places, mask, order) * int(places.shape[1])

    monkeypatch.setattr(openvino_conversion._Packed, "forward", forget_a_length)
    with pytest.raises(ModelError, match=r"converts this encoder wrongly \(logits differ by"):
        convert(model, 0, 64, 64)


def test_packed_weights_answer_as_plain_ones(tiny_bert):
    tokens = make_tokens(list(range(1, 62)))
    plain = load_model(tiny_bert).to(torch.bfloat16)
    packed = TorchBackend(load_model(tiny_bert), [], torch.bfloat16, 0)
    exact = compute_logits(Engine(load_model(tiny_bert), 0), tokens)
    error = np.abs(compute_logits(Engine(plain, 0), tokens) - exact).max()
    assert np.abs(packed.compute_logits(tokens) - exact).max() < 2 * error


def test_a_converted_classifier_is_kept_beside_the_run(run):
    first, second, third = Messages(), Messages(), Messages()
    torch_answers = Predictor.load(run).predict_proba(TEXTS).values
    made = Predictor.load(run, "openvino", first).predict_proba(TEXTS).values
    kept = Predictor.load(run, "openvino", second).predict_proba(TEXTS).values
    assert (len(first), len(second)) == (1, 0)
    assert (made.argmax(axis=1) == torch_answers.argmax(axis=1)).mean() > 0.99
    assert np.array_equal(made, kept)
    names = {path.name for path in (run / "backends" / "openvino").iterdir()}
    assert names == {"model.xml", "model.bin", "backend.json"}
    # Damaged, it is made again.
    weights = run / "backends" / "openvino" / "model.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    again = Predictor.load(run, "openvino", third).predict_proba(TEXTS).values
    assert len(third) == 1
    assert np.array_equal(made, again)


def test_a_graph_of_another_classifier_is_not_used(run):
    Predictor.load(run, "openvino")
    facts = run / "backends" / "openvino" / "backend.json"
    found = json.loads(facts.read_text())
    found["key"]["classifier"] = "another"
    facts.write_text(json.dumps(found))
    said = Messages()
    Predictor.load(run, "openvino", said)
    assert len(said) == 1


def test_a_run_that_cannot_be_written_is_converted_each_time(run):
    (run / "backends").write_text("in the way")
    said = Messages()
    found = Predictor.load(run, "openvino", said).predict(TEXTS[:3])
    assert len(found) == 3
    assert "not kept" in said[1]


def test_int8_is_probed_on_validation_texts(run):
    predictor = Predictor.load(run, "openvino-int8")
    facts = json.loads((run / "backends" / "openvino-int8" / "backend.json").read_text())
    assert facts["probe"]["texts"] > 10
    assert facts["probe"]["flips"] <= 0.005 * facts["probe"]["texts"]
    assert 0 <= facts["probe"]["margin"] < 1  # 0 where int8 and bf16 lie nearer than any tie
    assert facts["probe"]["again"] <= 0.2 * facts["probe"]["texts"]
    answers = predictor.predict_proba(TEXTS).values
    exact = Predictor.load(run).predict_proba(TEXTS).values
    assert np.array_equal(answers.argmax(axis=1), exact.argmax(axis=1))
    assert not np.array_equal(answers, Predictor.load(run, "openvino").predict_proba(TEXTS).values)
    # The margin that is kept is the one that counts: beyond any lead, torch answers every text.
    path = run / "backends" / "openvino-int8" / "backend.json"
    path.write_text(json.dumps(facts | {"probe": facts["probe"] | {"margin": 1e9}}))
    again = Predictor.load(run, "openvino-int8").predict_proba(TEXTS).values
    assert np.array_equal(again, exact)
    # What changes labels is refused, also when it is already there.
    facts["probe"]["flips"] = facts["probe"]["texts"] // 10
    (run / "backends" / "openvino-int8" / "backend.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match=r"int8 changes .* use --backend openvino"):
        Predictor.load(run, "openvino-int8")


def test_int8_and_bf16_of_a_kept_int8_are_made_from_the_same_weights(run):
    """Where int8 is there and answers by torch as well, openvino is still made from float32."""
    Predictor.load(run, "auto").predict_proba(TEXTS)
    found = Predictor.load(run, "openvino").predict_proba(TEXTS).values
    shutil.rmtree(run / "backends" / "openvino")
    (run / "backends" / "auto.json").unlink()
    Predictor.load(run, "auto").predict_proba(TEXTS)
    again = Predictor.load(run, "openvino").predict_proba(TEXTS).values
    assert np.array_equal(found, again)


def test_int8_that_is_seldom_sure_is_refused(tiny_bert, tmp_path):
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.system.progress import Reporter
    from textlora.training.pipeline import fit_run

    # Calibrated on texts that say nothing, and probed on half a text of one label and half of
    # another: answers near a tie, beyond the range that was seen.
    rows = make_rows(400)
    halves = [f"{one} {two}" for (one, _), (two, _) in itertools.pairwise(rows)]
    probes = [("the", rows[0][1])] * 399 + [(text, rows[0][1]) for text in halves]
    write_csv(tmp_path / "train.csv", rows)
    write_csv(tmp_path / "validation.csv", probes)
    recipe = tiny_recipe(tiny_bert, tmp_path)
    texts = load_labelled_texts(recipe.data)
    fit_run(recipe, texts, tmp_path / "run", resume="never", report=Reporter(quiet=True))
    with pytest.raises(ModelError, match=r"int8 leaves \d+ of \d+ probe texts too close to call"):
        Predictor.load(tmp_path / "run", "openvino-int8")


def test_int8_without_its_validation_texts_says_what_else_there_is(run, tiny_run):
    text = (run / "recipe.toml").read_text()
    source = next(line for line in text.splitlines() if line.startswith("source"))
    (run / "recipe.toml").write_text(text.replace(source, 'source = "/nowhere"'))
    from textlora.runs.run_folder import read_manifest
    from textlora.system.files import describe_files

    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"] = describe_files(run, list(read_manifest(run).files))
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=r"its validation texts are needed .*--backend openvino"):
        Predictor.load(run, "openvino-int8")
    said = Messages()
    assert Predictor.load(run, "auto", said).backend.startswith("torch")
    assert "auto: torch answers" in said[-1]


def test_auto_takes_the_fastest_and_remembers(run):
    first, second = Messages(), Messages()
    chosen = Predictor.load(run, "auto", first).backend
    found = json.loads((run / "backends" / "auto.json").read_text())
    assert found["chosen"] == max(found["rates"], key=found["rates"].get)
    assert chosen.startswith(found["chosen"] + " ")
    assert Predictor.load(run, "auto").backend_name == found["chosen"]
    assert Predictor.load(run, "auto", second).backend == chosen
    assert second == []


def test_nothing_is_sent_anywhere(run, no_sockets):
    Predictor.load(run, "auto").predict(TEXTS[:3])
    assert no_sockets == []


def test_without_the_extra_the_message_says_how_to_get_it(run):
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from textlora.cli.main import main\n"
        f"main(['predict', {str(run)!r}, '--backend', 'openvino'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr == (
        "textlora: --backend: OpenVINO is not installed; run pip install 'textlora[openvino]', or "
        "use --backend torch\n"
    )


def test_an_unknown_backend_is_refused(run):
    with pytest.raises(SettingsError, match="got 'tensorrt'; known: torch, openvino"):
        Predictor.load(run, "tensorrt")


def test_a_file_is_not_continued_by_another_backend(run, tmp_path):
    from textlora.errors import Interrupted
    from textlora.prediction.file_prediction import predict_files
    from textlora.prediction.output_columns import FileOptions

    source, target = tmp_path / "in.txt", tmp_path / "out.csv"
    source.write_text("\n".join(TEXTS))
    predictor = Predictor.load(run)
    seen = []

    def stop_at_the_third(texts, check):
        seen.append(texts)
        if len(seen) == 3:
            raise Interrupted("stopped")
        return Predictor.predict(predictor, texts, check)

    predictor.predict = stop_at_the_third
    options = FileOptions(chunk_rows=50)
    with pytest.raises(Interrupted):
        predict_files(predictor, [source], target, options)
    other = Predictor.load(run, "openvino")
    with pytest.raises(SettingsError, match="backend was 'torch bfloat16|backend was 'torch float"):
        predict_files(other, [source], target, options)


def test_a_process_that_opened_and_dropped_backends_survives_a_signal(run):
    """Closed OpenVINO cores leave the stack of signal handlers in freed memory; none is closed."""
    script = (
        "import gc, os, signal, sys\n"
        "from textlora.prediction.predictor import Predictor\n"
        "caught = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: caught.append(1))\n"
        "kept = []\n"
        "for name in ('openvino', 'torch', 'openvino', 'openvino'):\n"
        "    kept.append(Predictor.load(sys.argv[1], name))\n"
        "    kept[-1].predict(['a match'])\n"
        "while kept:\n"
        "    kept.pop(0)\n"
        "    gc.collect()\n"
        "    filled = [bytearray(size) for size in range(64, 70_000, 64)]\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "print(len(caught))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, run], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    assert done.stdout.split() == ["4"]
