import subprocess
import sys

import pytest

from textlora.system.files import (
    compute_sha256,
    describe_files,
    find_damage,
    lock_folder,
    stage_folder,
    write_atomically,
    write_file,
    write_json,
)


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, "old")
    write_atomically(path, "new é")
    assert path.read_text("utf-8") == "new é"
    assert list(tmp_path.iterdir()) == [path]


def test_a_fault_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == '{\n  "a": 1\n}\n'


def test_a_folder_replaces_an_older_one(tmp_path):
    for name in ("old", "new"):
        with stage_folder(tmp_path / "target") as staged:
            write_file(staged / name, name.encode())
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_an_error_while_a_folder_is_filled_leaves_the_older_one(tmp_path):
    with stage_folder(tmp_path / "target") as staged:
        write_file(staged / "old", b"old")
    with pytest.raises(KeyboardInterrupt), stage_folder(tmp_path / "target"):
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_link_is_replaced_and_never_followed(tmp_path):
    (tmp_path / "outside").write_text("kept")
    for name in ("file", ".file.partial"):
        (tmp_path / name).symlink_to(tmp_path / "outside")
    write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert not (tmp_path / "file").is_symlink()
    (tmp_path / ".target.partial").symlink_to(tmp_path, target_is_directory=True)
    with stage_folder(tmp_path / "target") as staged:
        write_file(staged / "a", b"a")
    assert (tmp_path / "outside").read_text() == "kept"
    assert (tmp_path / "target" / "a").read_bytes() == b"a"


def test_a_lock_holds_out_others_and_ends_with_its_process(tmp_path):
    code = (
        "import sys, os, pathlib; from textlora.system.files import lock_folder\n"
        "with lock_folder(pathlib.Path(sys.argv[1])):\n"
        "    print('in', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"in\n"
        with pytest.raises(BlockingIOError, match=f"^{holder.pid}$"), lock_folder(tmp_path):
            pass
        holder.kill()
    with lock_folder(tmp_path), pytest.raises(BlockingIOError), lock_folder(tmp_path):
        pass


def test_every_kind_of_damage_is_named(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(f"content of {name}")
    described = describe_files(tmp_path, ["a", "b", "c"])
    assert find_damage(tmp_path, described) is None
    (tmp_path / "c").write_text("content of C")
    assert find_damage(tmp_path, described) == "c was changed (its SHA-256 differs)"
    (tmp_path / "b").write_text("short")
    assert find_damage(tmp_path, described) == "b has 5 bytes, expected 12"
    (tmp_path / "a").unlink()
    assert find_damage(tmp_path, described) == "a is missing"
    (tmp_path / "a").symlink_to("/etc/hostname")
    assert find_damage(tmp_path, described) == "a leads out of the folder"


def test_the_digest_is_sha256(tmp_path):
    (tmp_path / "abc").write_text("abc")
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert compute_sha256(tmp_path / "abc") == expected
