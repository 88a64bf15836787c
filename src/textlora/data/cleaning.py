"""A text as training and prediction read it: the same characters in both."""

import html
import re

_BARE_ENTITY = re.compile(r"(?<![&\w])(?<!amp;)(#\d{2,5}|quot|amp|lt|gt|nbsp|apos);")
_TAG = re.compile(r"</?(?:a|b|i|u|p|br|em|strong|font|span|div|img|h[1-6]|ul|li)\b[^<>]*>", re.I)


def clean_text(text: str, *, repair_entities: bool = False) -> str:
    """Strip, and turn every run of white space into one space.

    With `repair_entities`, entities that lost their ampersand (`#39;`, `quot;`) or were escaped
    twice (`&lt;b&gt;`) become what they stood for, and formatting tags go.
    """
    if repair_entities:
        text = html.unescape(html.unescape(_BARE_ENTITY.sub(r"&\1;", text)))
        text = _TAG.sub(" ", text)
    if not text.isascii():
        # Half a surrogate pair cannot be encoded, by no tokenizer and to no file.
        text = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(text.split())
