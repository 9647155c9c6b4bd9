"""Text from files and devices on its way to a page."""

from __future__ import annotations

import re
import unicodedata

_UNSEEN = {"Cc", "Cf", "Cs"}  # controls, direction overrides and other formats, halves of surrogate pairs
_ALLOWED = {"\n", "\t"}


def visible(text: object) -> str:
    """`text` with every character that hides, reorders or cannot be written replaced by U+FFFD."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(letter) in _UNSEEN and letter not in _ALLOWED else letter
        for letter in str(text)
    )


def typeset(quantity: str) -> str:
    """A quantity as `units` prints it, for a person: with µ, and never broken at the end of a line."""
    return re.sub(r"(?<=\d )u(?=\S)", "µ", quantity).replace(" ", "\N{NO-BREAK SPACE}")


def plain(text: object, most: int = 60) -> str:
    """`text` as plotly.js shows it letter by letter: no tags, no links, no more than `most` characters."""
    whole = visible(text)
    short = whole if len(whole) <= most else whole[: most - 1] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
