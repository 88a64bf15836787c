"""The same files on a local Ray cluster: the same bytes, also when a worker is killed."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import make_rows

from textlora.errors import DataError, Interrupted, SettingsError
from textlora.prediction.file_prediction import predict_files
from textlora.prediction.output_columns import FileOptions
from textlora.prediction.predictor import Predictor

pytest.importorskip("ray", reason="needs the extra ray")
from textlora.prediction.ray_engine import RayEngine

# Ray leaves sockets and processes to the interpreter's end.
pytestmark = pytest.mark.filterwarnings("ignore")
CHUNK = 100
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


@pytest.fixture(scope="module")
def cluster():
    """Skips where Ray itself cannot run, as in a sandbox without shared memory."""
    words = "import ray; ray.init('local', include_dashboard=False)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", words],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, **LOOPBACK},
        )
    except subprocess.TimeoutExpired:
        pytest.skip("Ray does not start on this machine within two minutes")
    if done.returncode:
        pytest.skip(f"Ray does not start on this machine: {done.stderr.strip()[-200:]}")


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run)


@pytest.fixture
def source(tmp_path):
    rows = [f'"{text} {number}",{number}' for number, (text, _) in enumerate(make_rows(1_500))]
    rows[120] = '"",120'  # no text
    rows[130] = '"goal",130,left over'  # cannot be read
    path = tmp_path / "in.csv"
    path.write_text("\n".join(["text,note", *rows]) + "\n")
    return path


def find_workers():
    """Process ids of the workers that hold a classifier."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
        except OSError:
            continue  # it has just ended
        if words.startswith(b"ray::") and b"_Worker" in words:
            found.append(int(folder.name))
    return found


def find_listeners():
    """Addresses and ports that are listened on, as the kernel writes them."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {fields[1] for fields in lines if fields[3] == "0A"}


def predict(predictor, source, target, engine=None, **options):
    settings = FileOptions(chunk_rows=CHUNK, keep_columns=True, **options)
    return predict_files(predictor, [source], target, settings, engine=engine)


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_loses_nothing_and_doubles_nothing(
    predictor, tiny_run, source, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # of another cluster, which is left alone
    local, far = tmp_path / "local.csv", tmp_path / "far.csv"
    expected = predict(predictor, source, local)
    engine, killed, before, opened = RayEngine(tiny_run, "torch", None), [], find_listeners(), set()

    def kill_after_the_second(*arguments):
        for count, answer in enumerate(engine(*arguments)):
            if count == 2:
                opened.update(find_listeners() - before)
                for process in find_workers():
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
            yield answer

    found = predict(predictor, source, far, kill_after_the_second)
    assert killed
    # Nobody but this machine can connect: 127.0.0.1, also as an address of IPv6.
    assert opened
    assert all(address.partition(":")[0].endswith("0100007F") for address in opened), opened
    assert far.read_bytes() == local.read_bytes()
    rejects = (tmp_path / name for name in ("local.csv.rejects.jsonl", "far.csv.rejects.jsonl"))
    assert len({path.read_bytes() for path in rejects}) == 1
    assert (found.rows, found.empty, found.unreadable) == (1_500, 1, 1)
    assert found.truncated == expected.truncated


@pytest.mark.usefixtures("cluster")
def test_what_was_begun_there_is_continued_here(predictor, tiny_run, source, tmp_path):
    whole, target = tmp_path / "whole.csv", tmp_path / "out.csv"
    predict(predictor, source, whole, shard=(2, 2))

    def stop_at_the_third(*arguments):
        for count, answer in enumerate(RayEngine(tiny_run, "torch", None)(*arguments)):
            if count == 3:
                raise Interrupted("stopped")
            yield answer

    with pytest.raises(Interrupted):
        predict(predictor, source, target, stop_at_the_third, shard=(2, 2))
    found = predict(predictor, source, target, shard=(2, 2))
    assert found.resumed == 3 * CHUNK
    assert target.read_bytes() == whole.read_bytes()


@pytest.fixture(scope="module")
def head(cluster):
    """The address of a cluster that asks for a token, as `ray start` makes one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"]
    words.append("--include-dashboard=false")
    with tempfile.TemporaryDirectory(prefix="ray") as folder, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *words, f"--temp-dir={folder}"],
            env={**os.environ, **LOOPBACK, **TOKEN}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            for _ in range(1200):
                log.seek(0)
                if b"Ray runtime started" in log.read() or process.poll() is not None:
                    break
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize("token", [TOKEN, {}])
def test_a_cluster_that_runs_already_gives_the_same_bytes(token, head, tiny_run, source, tmp_path):
    """In a process of its own: Ray reads how it is to connect once."""
    environment = {**os.environ, **LOOPBACK, "RAY_AUTH_MODE": "disabled", **token}
    words = ["predict", str(tiny_run), "--input", str(source), "--output"]
    command = [sys.executable, "-m", "textlora", *words]
    far = [*command, str(tmp_path / "far.csv"), "--engine", "ray", "--ray-address", head]
    done = subprocess.run(far, env=environment, capture_output=True, text=True, check=False)
    if not token:
        assert done.returncode == 2
        assert f"no cluster at {head}" in done.stderr
        assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN if it asks for a token" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    subprocess.run([*command, str(tmp_path / "local.csv")], capture_output=True, check=True)
    assert (tmp_path / "far.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_stdin_cannot_be_read_elsewhere(predictor, tiny_run):
    with pytest.raises(SettingsError, match="cannot be read by --engine ray; name a file"):
        next(RayEngine(tiny_run, "torch", None)([Path("-")], FileOptions(), frozenset()))


def test_an_address_without_a_cluster_is_told(tiny_run, source, tmp_path):
    engine = RayEngine(tiny_run, "torch", "127.0.0.1:1")
    with pytest.raises(SettingsError, match="no cluster at 127.0.0.1:1"):
        next(engine([source], FileOptions(), frozenset()))


def test_a_token_that_is_not_there_is_told(tiny_run, source, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        words = ["predict", str(tiny_run), "--input", str(source), "--output", "out.csv"]
        environment = {**os.environ, **LOOPBACK, "RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
        environment.pop("RAY_AUTH_TOKEN", None)
        done = subprocess.run(
            [sys.executable, "-m", "textlora", *words, "--engine", "ray", "--ray-address", address],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_file_is_told_before_a_cluster_is_started(predictor, tiny_run, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        predict(
            predictor, tmp_path / "no.csv", tmp_path / "out.csv", RayEngine(tiny_run, "torch", None)
        )


def test_without_the_extra_the_message_says_how_to_get_it(tiny_run, source, tmp_path):
    words = ["predict", str(tiny_run), "--input", str(source), "--output", str(tmp_path / "o.csv")]
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from textlora.cli.main import main\n"
        f"main({[*words, '--engine', 'ray']!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("textlora: --engine: Ray is not installed; run pip install")
