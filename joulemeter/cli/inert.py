"""Text from files and devices on its way to a terminal, to Markdown, and to a spreadsheet: shown, never obeyed."""

from __future__ import annotations

import re
import unicodedata

_MARKUP = re.compile(r"([\\`*_\[\]#|~$])")
# What a spreadsheet takes for a formula, at the beginning of a cell.
_FORMULA = ("=", "+", "-", "@")


def plain(text: object) -> str:
    """One line without control characters, direction overrides or escapes."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def fitted(text: object, columns: int, *, tail: bool = False) -> str:
    """As `plain`, filled to so many columns of a terminal or cut to them; with `tail` cut in its middle."""
    whole = plain(text)
    if (wide := columns_of(whole)) <= columns:
        return whole + " " * (columns - wide)
    end = first(whole[::-1], (columns - 1) * 2 // 3 if tail else 0)[::-1]
    start = first(whole, columns - 1 - columns_of(end))
    return f"{start}…{end}" + " " * (columns - 1 - columns_of(start) - columns_of(end))


def first(text: str, columns: int) -> str:
    """What of `text` has room in so many columns."""
    kept = ""
    for letter in text:
        if columns_of(kept + letter) > columns:
            break
        kept += letter
    return kept


def columns_of(text: str) -> int:
    """Columns that a terminal gives a text: two for a wide letter, none for a mark on the letter before it."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def markdown(text: object) -> str:
    """Neither markup nor HTML nor a mention nor a link."""
    harmless = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    linkless = _MARKUP.sub(r"\\\1", harmless).replace("@", "&#64;")
    return re.sub(r"(?i)(https?|ftp)://", r"\1&#58;//", linkless).replace("www.", "www&#46;")


def cell(text: object) -> str:
    """A cell of text that no spreadsheet takes for a formula."""
    whole = plain(text)
    return f"'{whole}" if whole.startswith(_FORMULA) else whole
