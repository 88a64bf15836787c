import pytest

from textlora.data.cleaning import clean_text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  a  b ", "a b"),
        ("a\nb\r\n\tc\u00a0\u2003d\u2028e", "a b c d e"),
        ("", ""),
        (" \t\u3000\n", ""),
        ("half \ud83d a pair", "half ? a pair"),
        ("Zürich 東京 🚀", "Zürich 東京 🚀"),
        ("it #39;s &lt;b&gt; AT&amp;T", "it #39;s &lt;b&gt; AT&amp;T"),
    ],
)
def test_cleaning_touches_white_space_and_half_pairs_only(text, clean):
    assert clean_text(text) == clean


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        ("the world #39;s best", "the world 's best"),
        ("he said quot;no quot; twice", 'he said "no " twice'),
        ("AT amp;T", "AT &T"),
        ("amp;quotso amp;quot;", '"so "'),
        ("AT&amp;T and AT&amp;amp;T, &amp;quot;so&amp;quot;", 'AT&T and AT&T, "so"'),
        ("&lt;b&gt;bold&lt;/b&gt; &lt;br /&gt;words", "bold words"),
        ('<a href="x">link</a> <STRONG>loud</STRONG>', "link loud"),
        ("5 &lt; 6 &gt; 4", "5 < 6 > 4"),
        ("C#39; item#5; nothing", "C#39; item#5; nothing"),
        ("a lt; b nbsp; c", "a < b c"),
        ("half #55357; a pair", "half \ufffd a pair"),
        ("an <unknown> tag", "an <unknown> tag"),
    ],
)
def test_broken_entities_are_repaired_on_request(text, repaired):
    assert clean_text(text, repair_entities=True) == repaired


@pytest.mark.parametrize("repair", [False, True])
def test_cleaning_twice_changes_nothing_more(repair):
    texts = [" a  b ", "half \ud83d pair", "it #39;s quot;so quot;", "&lt;b&gt;x&lt;/b&gt;"]
    for text in texts:
        once = clean_text(text, repair_entities=repair)
        assert clean_text(once, repair_entities=repair) == once
