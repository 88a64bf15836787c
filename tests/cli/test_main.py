"""The commands as a user meets them: output, one line of error, exit code, no traceback."""

import gc
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers
from conftest import SIZES, make_rows, save_tokenizer, uncovered, write_csv

from textlora.cli.main import main
from textlora.data.tables import read_rows

ROWS = make_rows(40, seed=11)
TINY = (
    "training.epochs=2",
    "training.batch_size=8",
    "training.learning_rate=0.01",
    'adapter.targets={all = ["query", "value", "ffn"]}',
)


@pytest.fixture
def run_command(capfd):
    """Run a command in this process: exit code, stdout, stderr."""

    def run(*words):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        captured = capfd.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def refuse(run_command):
    """Run a command that must fail: its one line of error."""

    def run(code, *words):
        found, out, err = run_command(*words)
        assert (found, out) == (code, ""), err
        (line,) = err.strip().splitlines()
        assert line.startswith("textlora: ")
        return line

    return run


def training_words(tiny_bert, data, out, *changes):
    sets = [word for change in (*TINY, *changes) for word in ("--set", change)]
    return ["train", "--recipe", "quickstart", "--model", tiny_bert, "--data", data,
            "--out", out, *sets]  # fmt: skip


def test_train_evaluate_predict(run_command, tiny_bert, data_folder, tmp_path):
    run = tmp_path / "run"
    code, out, err = run_command(*training_words(tiny_bert, data_folder, run))
    assert code == 0, err
    for part in ("validation:", "test: 60 texts", "accuracy", "most often taken for", "sport"):
        assert part in out
    assert "epoch 2.00" in err
    # Told before the first step, and what was found in the data is in the report.
    assert err.index("an epoch here") < err.index("step ")
    assert json.loads((run / "datacheck.json").read_text())["splits"][0]["name"] in (
        "train",
        "test",
    )
    assert "is not stored" not in (run / "report.html").read_text()
    code, out, _ = run_command("evaluate", run, "--data", data_folder, "--out", tmp_path / "eval")
    assert code == 0
    assert "test: 60 texts" in out
    assert (tmp_path / "eval" / "visualizations" / "confusion_matrix.png").stat().st_size > 5_000
    target = tmp_path / "out.csv"
    words = ["predict", run, "--input", data_folder / "test.csv", "--output", target]
    code, out, _ = run_command(*words)
    assert (code, out) == (0, f"60 rows  {target}\n")
    assert target.read_text().startswith("ID,Label,LabelText,Confidence\n0,")


def test_the_report_of_a_run_without_a_test_split_is_of_validation(run_command, tiny_run, tmp_path):
    run, page = tmp_path / "run", tmp_path / "page.html"
    shutil.copytree(tiny_run, run)
    (run / "predictions" / "test.jsonl").unlink()
    stored = json.loads((run / "evaluation.json").read_text())
    kept = [item for item in stored["evaluations"] if item["split"] == "validation"]
    (run / "evaluation.json").write_text(json.dumps({**stored, "evaluations": kept}))
    assert run_command("report", run, "--out", page) == (0, f"report        {page}\n", "")
    assert "validation" in page.read_text().split("</title>")[0]
    (run / "evaluation.json").write_text(json.dumps({**stored, "evaluations": []}))
    code, _, err = run_command("report", run, "--out", page)
    assert code > 0
    assert err.count("\n") == 1
    assert "it holds none" in err


def test_a_page_about_several_runs_does_not_replace_that_of_one(refuse, tiny_run):
    before = (tiny_run / "report.html").read_bytes()
    assert "--out: missing; name the file" in refuse(2, "report", tiny_run, tiny_run)
    assert (tiny_run / "report.html").read_bytes() == before


def test_json_is_one_object_and_nothing_else(run_command, tiny_run, data_folder, tmp_path):
    commands = {
        "plan": ["plan"],
        "evaluate": ["evaluate", tiny_run, "--data", data_folder],
        "predict": ["predict", tiny_run, "--input", data_folder / "test.csv",
                    "--output", tmp_path / "out.csv"],
        "compare": ["compare", tiny_run, tiny_run],
        "explain": ["explain", tiny_run, "the coach of a team"],
        "report": ["report", tiny_run, tiny_run, "--out", tmp_path / "report.html"],
        "doctor": ["doctor"],
    }  # fmt: skip
    results = {}
    for name, words in commands.items():
        code, out, err = run_command(*words, "--json")
        assert (code, err) == (0, ""), name
        results[name] = json.loads(out)
    assert results["plan"]["trainable"] == 814_852
    assert results["evaluate"]["scores"]["num_texts"] == 60
    assert results["predict"]["rows"] == 60
    assert results["compare"]["agreement"] == 1.0
    assert results["report"]["bytes"] == (tmp_path / "report.html").stat().st_size
    assert [item["word"] for item in results["explain"]["words"]][1] == "coach"
    assert results["doctor"]["embedded_model"].startswith("ok")


def test_plan_prints_the_published_counts_without_a_network(run_command, no_sockets):
    code, out, _ = run_command("plan")
    assert code == 0
    assert "814,852 of 125,463,560 parameters trained (0.6495%)" in out
    assert "593,668" in out
    assert no_sockets == []


def test_doctor_and_version_and_help(run_command):
    code, out, _ = run_command("doctor")
    assert code == 0
    for part in ("torch", "threads", "embedded:minilm", "cached models"):
        assert part in out
    assert run_command("--version")[1].strip() == "0.1.0"
    assert "train" in run_command("--help")[1]


def test_evaluation_stays_the_same_whoever_asks(run_command, tiny_run, data_folder):
    stored = json.loads((tiny_run / "evaluation.json").read_text())["evaluations"][-1]
    _, out, _ = run_command("evaluate", tiny_run, "--json")
    again = json.loads(out)
    assert again["scores"] == stored["scores"]
    assert not again["chose_checkpoint"]
    _, out, _ = run_command("evaluate", tiny_run, "--data", data_folder / "test.csv", "--json")
    assert json.loads(out)["scores"] == stored["scores"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian"], ["trian", "see textlora --help"]),
        (["train", "--epochs", "3"], ["--epochs", "see textlora train --help"]),
        (["check", "--data", "a.csv"], ["--data", "see textlora check --help"]),
        (["train", "--resume", "maybe"], ["maybe"]),
        (["train", "--recipe", "nowhere.toml"], ["nowhere.toml", "reference"]),
        (["train", "--set", "adapter.rnak=8"], ["rnak", "rank, alpha, targets"]),
        (["train", "--set", "adapter.rank=-8"], ["adapter.rank", "-8"]),
        (["predict"], ["RUN"]),
        (["predict", "run", "--input", "in.csv"], ["run"]),
        (["plan", "--num-labels", "1"], ["--num-labels"]),
    ],
)
def test_usage_errors_exit_with_2(refuse, words, parts):
    code = 4 if words[:2] == ["predict", "run"] else 2
    if code == 4:
        words = [*words, "--output", "out.csv"]
    line = refuse(code, *words)
    for part in parts:
        assert part in line


def test_no_command_shows_the_help_and_no_error(run_command):
    code, out, err = run_command()
    assert (code, err) == (2, "")
    assert "check" in out


def test_input_without_output_is_a_usage_error(refuse, tiny_run):
    assert "--output: missing" in refuse(2, "predict", tiny_run, "--input", "in.csv")


def rows_of(*labels):
    return [(f"goal match number {index}", label) for index, label in enumerate(labels)]


def no_text_column(folder):
    (folder / "d.csv").write_text("a,label\nx,y\nz,w\n")
    return "no text column; it has 'a', 'label'"


def empty_file(folder):
    (folder / "d.csv").write_text("")
    return "has no rows"


def one_class(folder):
    write_csv(folder / "d.csv", rows_of("a", "a", "a"))
    return "one class only, 'a'"


def single_example(folder):
    write_csv(folder / "d.csv", rows_of("a", "a", "a", "b"))
    return "label 'b' has 1 example"


def unlabelled_row(folder):
    write_csv(folder / "d.csv", rows_of("a", "a", "", "b"))
    return "d.csv:4: no label"


def all_empty(folder):
    write_csv(folder / "d.csv", [("  ", "a"), ("", "b")])
    return "all 2 texts are empty"


def latin_1(folder):
    (folder / "d.csv").write_bytes("text,label\ncafé,a\n".encode("latin-1"))
    return "--set data.encoding=latin-1"


@pytest.mark.parametrize(
    "spoil",
    [no_text_column, empty_file, one_class, single_example, unlabelled_row, all_empty, latin_1],
)
def test_bad_data_exits_with_3(refuse, tiny_bert, tmp_path, spoil):
    reason = spoil(tmp_path)
    words = training_words(tiny_bert, tmp_path / "d.csv", tmp_path / "run")
    assert reason in refuse(3, *words)
    assert not (tmp_path / "run").exists()


def test_missing_data_exits_with_3(refuse, tiny_bert, tmp_path):
    def train(data):
        return refuse(3, *training_words(tiny_bert, data, tmp_path / "run"))

    assert "no such file" in train(tmp_path / "nowhere.csv")
    assert "is no file or folder" in train(tmp_path / "nowhere")
    assert "no split files" in train(tmp_path)
    (tmp_path / "d.doc").write_text("x")
    assert "unknown kind of file '.doc'" in train(tmp_path / "d.doc")
    assert "embedded:headlines" in train("embedded:nothing")


def test_a_label_in_test_that_train_lacks_is_named(refuse, tiny_bert, tmp_path):
    write_csv(tmp_path / "train.csv", make_rows(30))
    write_csv(tmp_path / "test.csv", [("rain", "weather")])
    line = refuse(3, *training_words(tiny_bert, tmp_path, tmp_path / "run"))
    assert "test.csv:2: label 'weather' is unknown to the training split" in line


def test_empty_texts_are_left_out_and_long_ones_counted(run_command, tiny_bert, tmp_path):
    rows = [*make_rows(40), ("", "sport"), ("  ", "money"), ("goal " * 300, "sport")]
    write_csv(tmp_path / "d.csv", rows)
    words = training_words(tiny_bert, tmp_path / "d.csv", tmp_path / "run", "training.epochs=1")
    code, _, err = run_command(*words)
    assert code == 0
    path = tmp_path / "d.csv"
    assert f"2 empty texts left out: {path}:42, {path}:43" in err
    assert "1 texts are longer than 64 tokens and were cut" in err


def test_a_run_that_is_no_run_exits_with_4(refuse, tmp_path, tiny_run, data_folder):
    words = ["predict", tmp_path / "nowhere", "--input", "in.csv", "--output", "out.csv"]
    assert "no such run folder" in refuse(4, *words)
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    weights = copy / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    line = refuse(4, "evaluate", copy, "--data", data_folder)
    assert "adapter/adapter_model.safetensors has" in line


def test_an_output_that_cannot_be_written_exits_with_1(refuse, tiny_bert, data_folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = run_line = refuse_after_messages(tiny_bert, data_folder, tmp_path / "file" / "run")
    assert "cannot be written" in line
    assert run_line.count("\n") == 0


def refuse_after_messages(tiny_bert, data, out):
    words = [str(word) for word in training_words(tiny_bert, data, out)]
    process = subprocess.run(
        [sys.executable, "-m", "textlora", *words], capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    return process.stderr.strip().splitlines()[-1]


def test_a_classifier_that_is_not_at_its_place_yet_is_measured(run_command, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    ignore = shutil.ignore_patterns(".next", "checkpoints")
    shutil.copytree(run, run / ".next", ignore=ignore)
    (run / "recipe.toml").unlink()
    for words in (["evaluate", run], ["compare", run, tiny_run]):
        code, _, err = run_command(*words)
        assert code == 0, err


def test_figures_on_other_data_do_not_replace_those_of_a_run(refuse, tiny_run, data_folder):
    before = (tiny_run / "evaluation.json").read_bytes()
    words = ("evaluate", tiny_run, "--data", data_folder / "test.csv", "--out", tiny_run)
    assert "holds a classifier and its figures; choose another --out" in refuse(2, *words)
    assert (tiny_run / "evaluation.json").read_bytes() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_is_saved_and_continues(tiny_bert, data_folder, tmp_path, number, code):
    run = tmp_path / "run"
    words = [sys.executable, "-m", "textlora"] + [
        str(word) for word in training_words(tiny_bert, data_folder, run, "training.epochs=200")
    ]
    # What is typed again must not throw away what it is to continue.
    start = [*words, "--resume", "never"] if number == signal.SIGINT else words
    process = subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not list((run / "checkpoints").glob("step-*")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)  # another process works; there is nothing to wait on but its file
        sent = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - sent < 10
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    *_, reason, command = err.strip().splitlines()
    assert "all of it saved; run the same command again" in reason
    assert command == f"continue with: textlora {shlex.join(words[3:])}"
    assert not (run / "manifest.json").exists()
    assert list((run / "checkpoints").glob("step-*"))


def test_an_encoder_that_tells_how_it_computes_is_not_heard(tmp_path):
    config = transformers.LongformerConfig(
        **SIZES, vocab_size=64, intermediate_size=64, max_position_embeddings=66,
        attention_window=[8, 8], pad_token_id=1,
    )  # fmt: skip
    encoder = tmp_path / "encoder"
    transformers.AutoModel.from_config(config).save_pretrained(encoder)
    save_tokenizer(encoder, 1)
    data = write_csv(tmp_path / "data.csv", ROWS)
    words = map(str, training_words(encoder, data, tmp_path / "run", "training.epochs=1"))
    process = subprocess.run(
        [sys.executable, "-m", "textlora", *words], capture_output=True, text=True, check=True
    )
    assert "global attention" not in process.stderr
    assert "padding" in process.stderr


def test_a_run_that_is_stopped_before_its_first_step_says_how_it_goes_on(tiny_bert, tmp_path):
    data = write_csv(tmp_path / "data.csv", ROWS)
    words = [str(word) for word in training_words(tiny_bert, data, tmp_path / "run")]
    code = (  # the signal comes while the data is read
        "import signal, sys\n"
        "from textlora.cli import main\n"
        "from textlora.data import sources\n"
        "sources.read_splits = lambda *_, **__: signal.raise_signal(signal.SIGINT)\n"
        "main.main(sys.argv[1:])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert process.returncode == 130
    stopped, command = process.stderr.strip().splitlines()
    assert stopped == "textlora: stopped"
    assert command == f"continue with: textlora {shlex.join(words)}"


def test_help_loads_no_library_that_takes_long():
    heavy = "torch transformers peft datasets sklearn scipy pandas pyarrow matplotlib optuna ray"
    code = (
        "import sys\n"
        "from textlora.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(*sorted(set({heavy!r}.split()) & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stderr.split() == []


def test_debug_shows_the_traceback(run_command, tmp_path):
    code, _, err = run_command("predict", tmp_path / "nowhere", "--debug")
    assert code == 4
    assert "Traceback" in err
    assert err.strip().splitlines()[-1].startswith("textlora: ")


def test_a_reader_that_goes_away_is_no_error_of_ours(tiny_run):
    words = f"{sys.executable} -m textlora plan | true"
    process = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert "Traceback" not in process.stderr


BLOCK = """
import socket
def refuse(*arguments, **_):
    with open({log!r}, "a") as stream:
        stream.write(repr(arguments[1:]) + "\\n")
    raise OSError("sockets are blocked in this test")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def test_a_local_model_and_local_data_open_no_socket(tiny_bert, data_folder, tmp_path):
    """Also not in the process that verifies: both load the same `sitecustomize`."""
    log = tmp_path / "sockets.log"
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(log=str(log)))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    run, parquet = tmp_path / "run", tmp_path / "data"
    parquet.mkdir()
    for split in ("train", "test"):
        rows = [row.values for row in read_rows(data_folder / f"{split}.csv")]
        pq.write_table(pa.Table.from_pylist(rows), parquet / f"{split}-00000-of-00001.parquet")
    commands = [
        ["-c", "import socket; socket.create_connection(('127.0.0.1', 9))"],
        ["-m", "textlora", *map(str, training_words(tiny_bert, parquet, run))],
        ["-m", "textlora", "evaluate", str(run), "--data", str(data_folder)],
        ["-m", "textlora", "predict", str(run)],
        ["-m", "textlora", "doctor"],
    ]
    codes = []
    for words in commands:
        process = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, check=False, env=environment
        )
        codes.append(process.returncode)
    assert codes == [1, 0, 0, 0, 0], process.stderr
    assert len(log.read_text().splitlines()) == 1  # the first command: the block works


def test_training_rows_are_never_taken_for_a_test(run_command, refuse, tiny_bert, tmp_path):
    write_csv(tmp_path / "d.csv", make_rows(60))
    run = tmp_path / "run"
    words = training_words(tiny_bert, tmp_path / "d.csv", run, "training.epochs=1")
    assert run_command(*words)[0] == 0
    assert "has no 'test' split" in refuse(3, "evaluate", run)
    # Nor where the path of its data is written in another way.
    twisted = f"{run}/../d.csv"
    line = refuse(3, "evaluate", run, "--data", twisted)
    assert "the run was trained on it, and it has no 'test' split" in line
    _, out, _ = run_command("evaluate", run, "--split", "validation", "--json")
    result = json.loads(out)
    assert result["chose_checkpoint"]
    stored = json.loads((run / "evaluation.json").read_text())["evaluations"][0]
    assert result["scores"] == stored["scores"]


def pipe(words, content):
    command = [sys.executable, "-m", "textlora", *map(str, words)]
    return subprocess.run(command, input=content, capture_output=True, check=False)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "txt"])
def test_stdin_to_stdout_gives_the_same_as_files(run_command, tiny_run, tmp_path, kind):
    contents = {
        "csv": b"text\ngoal cup\n\xff\ncomet\n",
        "jsonl": b'{"text": "goal cup"}\n{broken\n{"text": "comet"}\n',
        "txt": b"goal cup\n\ncomet\n",
    }
    (tmp_path / f"in.{kind}").write_bytes(contents[kind])
    rejects = tmp_path / "bad.jsonl"
    words = ["predict", tiny_run, "--input", "-", "--output", "-", "--format", kind]
    piped = pipe([*words, "--rejects", rejects], contents[kind])
    out = tmp_path / f"out.{kind}"
    run_command("predict", tiny_run, "--input", tmp_path / f"in.{kind}", "--output", out)
    assert piped.returncode == 0
    assert piped.stdout == out.read_bytes()
    assert b"Traceback" not in piped.stderr
    assert b"1 rows" in piped.stderr
    assert json.loads(rejects.read_text())["row"] == 1


def test_a_pipe_into_a_file_and_a_reader_that_goes_away(tiny_run, tmp_path):
    content = b"goal cup\n" * 3
    words = ["predict", tiny_run, "--input", "-", "--format", "txt", "--output", tmp_path / "o.csv"]
    assert pipe(words, content).returncode == 0
    assert len(list(read_rows(tmp_path / "o.csv"))) == 3


def test_shards_are_predicted_and_joined_by_command(run_command, tiny_run, tmp_path):
    write_csv(tmp_path / "in.csv", make_rows(9))
    for index in (1, 2):
        out = tmp_path / f"part-{index}.csv"
        words = ("predict", tiny_run, "--input", tmp_path / "in.csv", "--output", out)
        assert run_command(*words, "--shard", f"{index}/2")[0] == 0
    joined = tmp_path / "joined.csv"
    words = ("predict", "--merge", "--input", tmp_path / "part-*.csv", "--output", joined, "--json")
    code, out, _ = run_command(*words)
    assert (code, json.loads(out)) == (0, {"output": str(joined), "rows": 9, "shards": 2})
    assert len(list(read_rows(joined))) == 9


def test_what_predict_did_is_told(run_command, refuse, tiny_run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "goal"}\n{"text": ""}\n{\n')
    words = ("predict", tiny_run, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "o.csv")
    code, out, err = run_command(*words)
    assert (code, out) == (0, f"3 rows  {tmp_path / 'o.csv'}\n")
    assert "1 rows have no text; their label is empty, listed in" in err
    assert "1 rows cannot be read" in err
    found = json.loads(run_command(*words, "--json")[1])
    assert (found["rows"], found["empty"], found["unreadable"]) == (3, 1, 1)
    assert found["rows_per_second"] > 0
    assert "in.jsonl:2: no text" in refuse(3, *words, "--strict")


def test_a_flag_that_would_do_nothing_is_refused(refuse, tiny_run, tmp_path):
    out = tmp_path / "out.csv"
    assert "--input: missing for --output" in refuse(2, "predict", tiny_run, "--output", out)
    assert "--input: missing for --shard" in refuse(2, "predict", tiny_run, "--shard", "9/2")
    words = ("predict", tiny_run, "--input", tmp_path, "--output", out)
    assert "without --engine ray" in refuse(2, *words, "--ray-address", "auto")
    words = ("predict", "--merge", "--input", tmp_path, "--output", out)
    assert "--keep-columns: does nothing with --merge" in refuse(2, *words, "--keep-columns")


def test_files_of_a_run_are_no_output(refuse, tiny_run, data_folder):
    before = (tiny_run / "history.jsonl").read_bytes()
    words = ("predict", tiny_run, "--input", data_folder / "test.csv")
    assert "is a file of the run itself" in refuse(
        3, *words, "--output", tiny_run / "history.jsonl"
    )
    assert (tiny_run / "history.jsonl").read_bytes() == before


@pytest.mark.parametrize("flag", ["--recipe", "--model", "--data", "--out"])
def test_names_that_no_file_may_have_are_one_line(
    run_command, tiny_bert, data_folder, tmp_path, flag
):
    words = {"--recipe": "quickstart", "--model": tiny_bert, "--data": data_folder,
             "--out": tmp_path / "run"}  # fmt: skip
    for name in ("x" * 300, "~nobody-of-that-name/x"):
        if flag == "--out" and name[0] == "~":
            continue  # a folder like any other
        given = [word for pair in {**words, flag: name}.items() for word in pair]
        code, out, err = run_command("train", *given)
        assert code in (1, 2, 3, 4)
        assert (out, err.count("textlora: ")) == ("", 1)
        assert err.splitlines()[-1].startswith("textlora: ")  # before it, what the data is like
        assert name[:20] in err


def test_a_terminal_that_cannot_show_a_name_gets_its_number(tiny_run, tmp_path):
    (tmp_path / "in.txt").write_text("a rocket")
    words = [sys.executable, "-m", "textlora", "predict", str(tiny_run), "--input",
             str(tmp_path / "in.txt"), "--output", str(tmp_path / "Größe.csv")]  # fmt: skip
    for more in ([], ["--json", "--resume", "never"]):
        done = subprocess.run(
            [*words, *more], capture_output=True, check=True, text=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
        shown = json.loads(done.stdout)["output"] if more else done.stdout
        assert ("Größe.csv" if more else r"Gr\xf6\xdfe.csv") in shown


def test_predict_needs_a_run_and_a_format(refuse, tiny_run):
    assert "--format" in refuse(3, "predict", tiny_run, "--input", "-", "--output", "-")
    assert "RUN: missing" in refuse(2, "predict")
    assert "--input: missing" in refuse(2, "predict", "--merge")


def stop_prediction(command, journal, number, stdin=None):
    """Send a signal once a chunk is written: exit code, stderr."""
    command = [sys.executable, "-X", "faulthandler", "-m", "textlora", *command]
    pipes = {"stdin": stdin, "stderr": subprocess.PIPE, "text": True, "env": uncovered()}
    with subprocess.Popen(command, **pipes) as process:
        try:
            deadline = time.monotonic() + 60
            while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.01)  # another process works; there is nothing to wait on but its file
            process.send_signal(number)
            process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # says where it hangs
            pytest.fail(process.stderr.read())
        except BaseException:
            process.kill()
            raise
        err = process.stderr.read()
    return process.returncode, err


def test_a_file_of_which_no_row_can_be_read_is_an_error(refuse, tiny_run, tmp_path, capfd):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes("text\nGröße\nÄrger\n".encode("latin-1"))
    with pytest.raises(SystemExit) as caught:
        main(["predict", str(tiny_run), "--input", str(source), "--output", str(target)])
    assert caught.value.code == 3
    err = capfd.readouterr().err
    assert f"2 rows cannot be read; their label is empty, listed in {target}.rejects.jsonl" in err
    line = err.strip().splitlines()[-1]
    assert line.startswith(f"textlora: {source}: no row can be read; the first: {source}:2: byte")
    assert "name another (predict: --encoding, elsewhere" in line


def test_a_stopped_prediction_says_how_it_goes_on(tiny_run, tmp_path):
    texts = [text for text, _ in make_rows(20_000)]
    (tmp_path / "in.txt").write_text("\n".join(f"{t} {n}" for n, t in enumerate(texts)))
    words = ["predict", str(tiny_run), "--input", str(tmp_path / "in.txt"),
             "--output", str(tmp_path / "out.csv")]  # fmt: skip
    code, err = stop_prediction(words, tmp_path / ".out.csv.journal", signal.SIGTERM)
    assert code == 143, err
    assert err == f"textlora: stopped\ncontinue with: textlora {shlex.join(words)}\n"
    command = [sys.executable, "-m", "textlora", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "rows are there; going on" in done.stderr
    assert len(list(read_rows(tmp_path / "out.csv"))) == 20_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.csv"]


def test_a_prediction_that_waits_for_a_pipe_stops_at_once(tiny_run, tmp_path):
    reader, writer = os.pipe()
    lines = "".join(f"{text}\n" for text, _ in make_rows(10_000)).encode()
    feeder = threading.Thread(target=lambda: os.write(writer, lines))  # a pipe holds 64 KiB
    feeder.start()
    words = ["predict", str(tiny_run), "--input", "-", "--format", "txt",
             "--output", str(tmp_path / "out.csv")]  # fmt: skip
    try:
        code, err = stop_prediction(
            words, tmp_path / ".out.csv.journal", signal.SIGINT, stdin=reader
        )
    finally:
        os.close(reader)
        os.close(writer)
        feeder.join()
    assert (code, err.splitlines()[0]) == (130, "textlora: stopped")


def test_an_evaluation_shows_what_it_is_compared_with(run_command, refuse, tiny_run, tmp_path):
    rows = [(text, label, "old" if i % 2 else "new") for i, (text, label) in enumerate(ROWS)]
    path = tmp_path / "other.csv"
    path.write_text("text,label,age\n" + "".join(",".join(row) + "\n" for row in rows))
    words = ["evaluate", tiny_run, "--data", path]
    code, out, err = run_command(*words, "--slice", "age", "--mistakes", "0")
    assert code == 0, err
    for part in ("beside TF-IDF + linear", "calibration error", "accept above", "age", "old"):
        assert part in out
    assert refuse(3, *words, "--slice", "day").endswith("name one that is there with --slice")


def test_two_runs_are_compared_in_words(run_command, refuse, tiny_run, tmp_path):
    code, out, err = run_command("compare", tiny_run, tiny_run)
    assert code == 0, err
    assert "A beside B: no difference shown (+0.0 points" in out
    assert "the same answer to 100.00% of the texts" in out
    assert "no such run folder" in refuse(4, "compare", tiny_run, tmp_path / "none")


def test_an_explanation_lists_words(run_command, refuse, tiny_run):
    code, out, _ = run_command("explain", tiny_run, "the rocket and the probe")
    assert code == 0
    assert "rocket" in out
    assert "space, " in out
    assert "known: money" in refuse(2, "explain", tiny_run, "a rocket", "--label", "weather")


def test_a_precision_becomes_a_confidence(run_command, tiny_run, tmp_path):
    source, target = write_csv(tmp_path / "in.csv", ROWS), tmp_path / "out.csv"
    words = ["predict", tiny_run, "--input", source, "--output", target]
    code, _, err = run_command(*words, "--min-precision", "0.9", "--min-confidence", "0.999999")
    assert code == 0
    assert "labels of less than 100.00% confidence are left empty" in err


def test_data_is_checked_and_repaired_before_training(run_command, refuse, tiny_bert, tmp_path):
    source, out = (
        write_csv(tmp_path / "rows.csv", [*ROWS, ("a cup", ""), ROWS[0]]),
        tmp_path / "out",
    )
    words = ["check", source, "--model", tiny_bert]
    code, shown, err = run_command(*words, "--fix", out)
    assert (code, err) == (3, "")
    assert "error: train: rows without a label: 1" in shown
    assert f"{source}:42: [no label] a cup" in shown
    assert (
        f"{out}/train.csv: 40 rows; rows removed (no label): 1; rows removed (duplicate): 1"
        in shown
    )
    code, shown, _ = run_command("check", out, "--model", tiny_bert)
    assert code == 0
    assert "nothing to complain about" in shown
    assert "exists already" in refuse(3, *words, "--fix", out)
    code, shown, _ = run_command(*words, "--json")
    assert code == 3
    assert json.loads(shown)["splits"][0]["rows"] == 42


@pytest.mark.slow
def test_training_says_first_what_is_wrong_with_the_data(run_command, tiny_bert, tmp_path):
    source = write_csv(
        tmp_path / "rows.csv", [*make_rows(60), ("the same", "sport"), ("the same", "money")]
    )
    changes = ("training.epochs=0.1", "data.validation_share=0.2")
    code, _, err = run_command(*training_words(tiny_bert, source, tmp_path / "run", *changes))
    assert code == 0
    lines = err.splitlines()
    assert lines[0] == "train: 62 rows, sport 34%, money 34%, space 32%"
    assert lines[1] == "warning: train: equal texts with different labels: 2"
    assert lines[2] == f"textlora check {source} shows them"


def test_labels_are_audited_reviewed_and_corrected(run_command, refuse, tiny_bert, tmp_path):
    pytest.importorskip("cleanlab", reason="needs the extra audit")
    rows = make_rows(120, seed=1)
    rows[7] = (rows[7][0], "space" if rows[7][1] != "space" else "money")
    source, review = write_csv(tmp_path / "rows.csv", rows), tmp_path / "review.csv"
    words = ["audit", source, "--model", tiny_bert, "--out", review, "--accept-above", "0.3"]
    code, out, err = run_command(*words)
    assert (code, err) == (0, "")
    command = (
        f"train --recipe quickstart --data {source} --corrections {review} --model {tiny_bert}"
    )
    assert f"textlora {command} --out runs/corrected" in out
    # Which labels a random encoder doubts is chance; that they stand where it says is not.
    for row in read_rows(review):
        text, label = rows[int(row.values["line"]) - 2]
        assert (row.values["text"], row.values["label"]) == (text, label)
    assert "exists already" in refuse(1, *words)
    words = training_words(tiny_bert, source, tmp_path / "run", "training.epochs=0.1")
    code, _, err = run_command(*words, "--corrections", review)
    assert code == 0
    assert f"{review}: " in err
    assert "training labels corrected" in err


def test_an_unknown_tracker_is_refused_before_training(
    run_command, tiny_bert, data_folder, tmp_path
):
    words = training_words(tiny_bert, data_folder, tmp_path / "run")
    code, out, err = run_command(*words, "--track", "neptune")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("textlora: --track: 'neptune' is unknown; known: tensor")
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "passive"),
        ({"OMP_WAIT_POLICY": "active"}, "active"),
        ({"GOMP_SPINCOUNT": "9"}, None),
        ({"KMP_BLOCKTIME": "9"}, None),
    ],
)
def test_threads_that_wait_rest_unless_the_user_says_otherwise(said, expected):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {key: value for key, value in os.environ.items() if key not in names} | said
    code = (
        "import os\nfrom textlora.cli.main import main\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert process.stdout.splitlines()[-1] == str(expected)


def test_a_program_that_calls_a_command_keeps_its_garbage_collector_as_it_was():
    before = gc.get_threshold()
    with pytest.raises(SystemExit):
        main(["--version"])
    assert gc.get_threshold() == before
