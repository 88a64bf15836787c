import pytest

from textlora.errors import shorten_message


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (OSError("no space\non this disk"), "no space"),
        (RuntimeError("\n  mat1 and mat2 differ"), "mat1 and mat2 differ"),
        (RuntimeError(), "RuntimeError"),
        (ValueError("x" * 999), "x" * 200),
    ],
)
def test_a_message_of_another_library_becomes_a_part_of_one_line(error, short):
    assert shorten_message(error) == short
