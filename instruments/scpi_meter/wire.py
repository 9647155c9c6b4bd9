"""Answers in text, and what they say. Pure functions.

A payload is what the instrument answered at one time, one line for each question, padded with zero bytes. An answer is
one or more numbers with commas or semicolons between them (IEEE 488.2, 8.7: NR1, NR2 or NR3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = "scpi-answers/1"
# Longer than any reading of a meter; what is longer is something else, and a number must never be cut short.
ANSWER_BYTES = 256
# What a payload says when an answer did not fit.
TOO_LONG = b"?"

# SCPI-99, volume 1, 7.2.1: 9.9E37 is infinity, here an overload, and 9.91E37 not a number.
_NO_NUMBER = 9.9e37 * (1 - 1e-6)
_WORDS = ("NAN", "INF", "+INF", "-INF", "INFINITY")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_BETWEEN = re.compile("[,;]")
# Anything else is a disturbance, wherever it stands.
_PLAIN = re.compile(r"[\t\n\r -~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a reading stands: which answer, which of its fields, both from 0, and SI units per unit of it."""

    answer: int
    field: int
    scale: float


def places(listed: Sequence[Sequence[Any]]) -> tuple[Place, ...]:
    """As a header lists them: [answer, field, scale]."""
    return tuple(Place(answer=int(answer), field=int(field), scale=float(scale)) for answer, field, scale in listed)


def number(text: str, not_measured: Collection[str] = ()) -> float | None:
    """One field of an answer; NaN where the instrument says that there is no reading, None where it is spoilt."""
    word = text.strip().upper()
    if word in _WORDS or word in not_measured:
        return math.nan
    if not _NUMBER.fullmatch(word):
        return None
    value = float(word)
    return math.nan if abs(value) >= _NO_NUMBER else value


def reader(where: Sequence[Place], not_measured: Collection[str]) -> Callable[[bytes], tuple[float, ...] | None]:
    """What makes values in SI units of a payload: None of a spoilt one, NaN where there is no reading."""
    words = {word.strip().upper() for word in not_measured}
    asked = 1 + max(place.answer for place in where)

    def values(payload: bytes) -> tuple[float, ...] | None:
        text = payload.rstrip(b"\0").decode("latin-1")
        answers = text.split("\n")
        if len(answers) != asked or not _PLAIN.fullmatch(text):
            return None
        found = []
        for place in where:
            fields = _BETWEEN.split(answers[place.answer])
            value = number(fields[place.field], words) if place.field < len(fields) else None
            if value is None:
                return None
            found.append(value * place.scale)
        return tuple(found)

    return values


def pack(answers: Sequence[str], room: int) -> bytes:
    """The payload of these answers, of at most `room` bytes."""
    payload = "\n".join(answers).encode("latin-1", "replace")
    return payload if len(payload) <= room else TOO_LONG


def is_on(text: str, mask: int | None = None) -> bool | None:
    """Whether an output is on, by its answer: 0 or 1, OFF or ON, or a number of bits; None if that cannot be told."""
    word = text.strip().strip('"').upper()
    if mask is not None:
        try:
            return bool(int(word, 0) & mask)
        except ValueError:
            return None
    return {"1": True, "ON": True, "+1": True, "0": False, "OFF": False, "+0": False}.get(word)


def complaint(text: str) -> str | None:
    """An answer to the question for errors: None where there is none, else what it says.

    `+0,"No error"`, `0  No Error` and `No error` all occur.
    """
    code = re.match(r'\s*"?([+-]?\d+)', text)
    if code is not None:
        return text.strip() if int(code[1]) else None
    return None if "no error" in text.lower() else text.strip()
