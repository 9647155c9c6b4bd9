"""What both dialects of Siglent have in common."""

from __future__ import annotations

import math

import numpy as np

from joulemeter.errors import DataError, UsageError
from joulemeter.scope.setup import Setup
from joulemeter.scpi import Scpi

from . import wire

# How far from its place the trigger may be, as a share of the record.
AROUND = 0.01
# Controls are rounded to their own steps.
SAME = 0.02


def ask(scpi: Scpi, query: str, *, retries: int | None = None) -> float:
    """A number with whatever unit and header. Raises IncompleteError, DataError."""
    return wire.quantity(scpi.ask(query, retries=retries))


def must(scpi: Scpi, query: str, wanted: float, what: str) -> float:
    """The setting as read back. Raises UsageError where it is another than asked for."""
    got = ask(scpi, query)
    if not math.isclose(got, wanted, rel_tol=SAME, abs_tol=1e-12):
        raise UsageError(
            f"The oscilloscope at {scpi.address} sets {what} to {got:g}, not {wanted:g}.",
            "Choose another --set rate, record, peak, or attenuation.",
        )
    return got


def check_inputs(scpi: Scpi, wanted: Setup, there: int) -> None:
    """Raises UsageError for a channel that it has not."""
    most = max(one.number for one in wanted.inputs)
    if most > there:
        raise UsageError(
            f"The oscilloscope at {scpi.address} has {there} channels, not c{most}.",
            "Choose others with --set current, trigger and voltage.",
        )


def check_trigger(part: bytes, before: int, level_v: float) -> None:
    """Raises DataError where the line does not cross the level at the place that the settings say.

    The sign of the delay and the scale have been read about and not tried: a record that is shifted or scaled wrongly
    shall not pass.
    """
    volts = wire.trace(part).volts
    room = max(round(AROUND * len(volts)), 3)
    near = volts[max(before - room, 0) : before + room + 1]
    if not len(near) or np.min(near) > level_v or np.max(near) < level_v:
        raise DataError(
            f"The trigger line does not cross {level_v:g} V at sample {before}, where the trigger should be.",
            "Leave the oscilloscope's controls alone while it records. If nobody touched them, report it with the "
            "model and its firmware.",
        )
