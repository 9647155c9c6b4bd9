"""What marks an inference, as the user names it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from joulemeter import units
from joulemeter.errors import UsageError

FORMS = {
    "high": "window while the line is high",
    "low": "window while the line is low",
    "rising": "window from each rising edge to the next",
    "falling": "window from each falling edge to the next",
    "falling-pairs": "falling edges: a set-up pulse, then start and stop of each window (EEMBC)",
    "pairs": "stamps that say begin and end",
    "steps": "windows told from the power alone",
    "above": "the same, of higher power than around them",
    "below": "the same, of lower power than around them",
    "whole": "each record of a triggered instrument, which begins and ends with the inference",
}
STAMPED = ("host", "serial", "stdout")
# What a meter that reports falling edges only can show.
FALLS = ("falling", "falling-pairs")
LINE_FORMS = ("high", "low", "rising", "falling", "falling-pairs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """`source` is the name of a line or channel, or host, serial, stdout, events, shape or records; `form` is of FORMS.

    A part of the host's inference has the source "host:NAME". `level` is the threshold of a channel in its own unit,
    `words` the texts that begin and end a window in the device's or the program's output.
    """

    source: str
    form: str
    level: float | None = None
    words: tuple[str, str] | None = None

    @property
    def digital(self) -> bool:
        return self.level is None and self.form in LINE_FORMS

    @property
    def countable(self) -> bool:
        """Whether its windows can be counted while they are recorded."""
        return self.digital or self.level is not None or self.source == "records"

    @property
    def stamped(self) -> bool:
        """Whether it is found in stamps of the host's clock."""
        return self.source.partition(":")[0] in STAMPED

    def __str__(self) -> str:
        at = "" if self.level is None else f"@{self.level:g}V"
        form = f":{','.join(self.words)}" if self.words else f":{self.form}"
        return f"{self.source}{at}{'' if form in (':high', ':pairs', ':steps', ':whole') else form}"


_SYNTAX = re.compile(r"(d\d+|c\d+@[^:]+|host|serial|stdout|events|shape|records)(?::(.+))?")
_FORMS = {
    "host": ("pairs",),
    "serial": ("pairs",),
    "stdout": ("pairs",),
    "events": ("pairs", "falling-pairs"),
    "shape": ("steps", "above", "below"),
    "records": ("whole",),
}


def parse_trigger(text: str) -> Trigger:
    """Raises UsageError for a trigger that does not exist."""
    match = _SYNTAX.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{text!r} is not a trigger.",
            "Triggers are d0, d0:low, d0:rising, d0:falling-pairs, c1@1.65V, host, serial, stdout, events, shape and "
            "records.",
        )
    source, form = match[1], match[2]
    if source == "host" and form is not None and form not in FORMS:
        return Trigger(source=f"host:{form}", form="pairs")
    if source in ("serial", "stdout") and form is not None:
        begin, comma, end = form.partition(",")
        if not comma or not begin or not end:
            raise UsageError(
                f"{text!r} does not name two texts.", f"Write {source}:BEGIN,END with the words of both lines."
            )
        return Trigger(source=source, form="pairs", words=(begin, end))
    allowed = _FORMS.get(source, LINE_FORMS)
    form = form or allowed[0]
    if form not in allowed:
        raise UsageError(f"{text!r}: {source} has no form {form!r}.", f"Forms of {source}: {', '.join(allowed)}.")
    name, at, level = source.partition("@")
    return Trigger(source=name, form=form, level=units.parse(level, "V") if at else None)
