"""A long output: chunks that are on disk stay, the file appears whole."""

import json
import os
import subprocess
import sys

import pytest

from textlora.errors import DataError, SettingsError
from textlora.prediction.chunk_file import ChunkFile, name_rejects

KEY = {"model": "m", "input": [["a.csv", 10]], "limit": 1}


def open_file(folder, key=KEY, resume="auto"):
    return ChunkFile(folder / "out.csv", None, key, resume)


def write(folder, numbers, finish=True, **options):
    with open_file(folder, **options) as out:
        for number in numbers:
            if out.is_due(number):
                out.append(
                    number, f"chunk {number}\n".encode(), b"bad\n" * (number % 2), {"rows": 2}
                )
        if finish:
            out.finish()
        return out


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_it_is_whole_and_nothing_else_is_left(tmp_path):
    folder = tmp_path / "new" / "er"
    with open_file(folder) as out:
        out.append(0, b"a", b"", {})
        assert not (folder / "out.csv").exists()
        out.finish()
    assert (folder / "out.csv").read_bytes() == b"a"
    assert names(folder) == ["out.csv"]


def test_an_older_file_stays_until_then(tmp_path):
    (tmp_path / "out.csv").write_text("old")
    write(tmp_path, [0, 1], finish=False)
    assert (tmp_path / "out.csv").read_text() == "old"
    write(tmp_path, [0, 1])
    assert (tmp_path / "out.csv").read_text() == "chunk 0\nchunk 1\n"
    assert (tmp_path / "out.csv.rejects.jsonl").read_text() == "bad\n"


def test_a_file_that_was_named_for_rejects_is_written_at_any_rate(tmp_path):
    with ChunkFile(tmp_path / "out.csv", tmp_path / "bad.jsonl", {}, "auto") as out:
        out.append(0, b"a", b"", {})
        out.finish()
    assert names(tmp_path) == ["bad.jsonl", "out.csv"]
    assert (tmp_path / "bad.jsonl").read_bytes() == b""


def test_rejects_of_an_older_output_go(tmp_path):
    write(tmp_path, [0, 1])
    write(tmp_path, [0, 2])
    assert names(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("cut", ["", "journal", "partial", "rejects"])
def test_what_is_there_is_kept_and_what_is_torn_is_written_again(tmp_path, cut):
    write(tmp_path, [0, 1, 2, 3], finish=False)
    if cut == "journal":
        path = tmp_path / ".out.csv.journal"
        path.write_bytes(path.read_bytes()[:-9])
    elif cut == "partial":
        os.truncate(tmp_path / ".out.csv.partial", 28)
    elif cut == "rejects":
        os.truncate(tmp_path / ".out.csv.rejects.jsonl.partial", 5)
    else:  # written, but not noted
        with (tmp_path / ".out.csv.partial").open("ab") as stream:
            stream.write(b"half a chu")
    with open_file(tmp_path) as out:
        assert [chunk.number for chunk in out.chunks] == [0, 1, 2, 3][: 3 if cut else 4]
        assert out.counts["rows"] == 2 * len(out.chunks)
    write(tmp_path, range(5))
    assert (tmp_path / "out.csv").read_text() == "".join(f"chunk {n}\n" for n in range(5))
    assert (tmp_path / "out.csv.rejects.jsonl").read_text() == "bad\n" * 2


def test_another_key_is_refused_with_the_difference(tmp_path):
    write(tmp_path, [0], finish=False)
    with pytest.raises(SettingsError, match="the classifier has changed.*--resume never"):
        write(tmp_path, [0], key={**KEY, "model": "n"})
    with pytest.raises(SettingsError, match=r"\(limit was 1, is 2\)"):
        write(tmp_path, [0], key={**KEY, "limit": 2})
    write(tmp_path, [1], key={**KEY, "model": "n"}, resume="never")
    assert (tmp_path / "out.csv").read_text() == "chunk 1\n"


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b'{"model": "m"', b"\xff\n"])
def test_a_damaged_journal_is_begun_anew_or_refused(tmp_path, content):
    write(tmp_path, [0], finish=False)
    (tmp_path / ".out.csv.journal").write_bytes(content)
    if content == b"[]\n":
        with pytest.raises(SettingsError):
            write(tmp_path, [0, 2])
        return
    write(tmp_path, [0, 2])
    assert (tmp_path / "out.csv").read_text() == "chunk 0\nchunk 2\n"


def test_two_processes_never_write_one_file(tmp_path):
    with open_file(tmp_path) as out:
        out.append(0, b"a", b"", {})
        with pytest.raises(DataError, match=f"process {os.getpid()} is writing it"):
            write(tmp_path, [0])
        out.finish()
    assert (tmp_path / "out.csv").read_bytes() == b"a"


def test_nothing_is_left_of_what_was_not_begun(tmp_path):
    with pytest.raises(KeyError), open_file(tmp_path):
        raise KeyError
    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written.*another place"):
        write(tmp_path / "file", [0])
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(DataError, match="is a folder; name a file"):
        write(tmp_path, [0])


@pytest.mark.skipif(os.name != "posix", reason="limits the size of a file by setrlimit")
def test_a_full_disk_keeps_the_chunks_before(tmp_path):
    script = """
import resource, signal, sys
from pathlib import Path
from textlora.prediction.chunk_file import ChunkFile
from textlora.errors import UnfinishedError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
try:
    with ChunkFile(folder / "out.csv", None, {}, "auto") as out:
        for number in range(5):
            out.append(number, b"x" * 300, b"", {})
except UnfinishedError as error:
    print(error)
"""
    # The limit would also cut the file of the coverage measurement in two.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "out.csv: cannot be written (" in done.stdout
    assert done.stdout.endswith("run the same command again, it continues\n")
    with open_file(tmp_path, key={}) as out:
        assert [chunk.number for chunk in out.chunks] == [0, 1, 2]
        out.append(3, b"y", b"", {})
        out.finish()
    assert (tmp_path / "out.csv").read_bytes() == b"x" * 900 + b"y"


def test_the_key_is_json(tmp_path):
    write(tmp_path, [0], finish=False)
    first = (tmp_path / ".out.csv.journal").read_text().splitlines()[0]
    assert json.loads(first) == KEY


@pytest.mark.parametrize("name", ["out.csv", "a.b.jsonl.gz", "out.parquet"])
def test_each_output_has_rejects_of_its_own(tmp_path, name):
    """`out.csv` and `out.parquet` may be written at the same time."""
    assert name_rejects(tmp_path / name) == tmp_path / f"{name}.rejects.jsonl"


def test_a_chunk_that_answers_other_rows_is_not_kept(tmp_path):
    """Of stdin nobody can tell beforehand whether it says the same again."""
    with ChunkFile(tmp_path / "out.csv", None, {}, "auto") as out:
        out.append(0, b"a", b"", {}, "rows of before")
    with ChunkFile(tmp_path / "out.csv", None, {}, "auto") as out:
        assert not out.is_due(0, "rows of before")
        assert out.is_due(1, "more rows")
        with pytest.raises(SettingsError, match="the input has changed.*--resume never"):
            out.is_due(0, "other rows")
