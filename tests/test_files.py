import pytest

from textlora.files import (
    compute_sha256,
    describe_files,
    find_damage,
    replace_folder,
    write_atomically,
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
    for name in ("staged", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    replace_folder(tmp_path / "staged", tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["staged"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


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


def test_the_digest_is_sha256(tmp_path):
    (tmp_path / "abc").write_text("abc")
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert compute_sha256(tmp_path / "abc") == expected
