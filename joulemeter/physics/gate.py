"""A trigger line beside what the host knows: which of its edges belong to the workload's windows.

A board pulses its line at boot, in warm-ups and in trials too. Where the host stamped the windows it asked for, only
edges within them count, and each window must have the edges that its form wants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Stream
from joulemeter.caveat import Code, doubt
from joulemeter.errors import DataError
from joulemeter.physics.stamps import Found, Span

FORMS = ("high", "low", "falling-pairs")
# Beside what is known of the clocks: a stamp is taken just beside the edge that it belongs to.
SLACK_S = 2e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Windows that the host stamped, in stream time, and how far outside of them their edges may seem to lie."""

    windows: Sequence[Span]
    margin_s: float


def gate(found: Found, falls_ns: NDArray[np.float64], expected: Expected, form: str) -> Found:
    """Of `found`, what fits the expected windows; `falls_ns` are the falling edges. Forms not in FORMS stay whole.

    Raises DataError when none fits.
    """
    if form not in FORMS:
        return found
    if form == "falling-pairs":
        # What the pairing by count, from the first edge on, had to say is void.
        found = replace(found, rejected={}, caveats=[])
        kept, misfits, outside = _pairs(falls_ns, expected)
    else:
        kept, misfits, outside = _pulses(found.spans, expected)
    rejected, caveats = dict(found.rejected), list(found.caveats)
    if outside:
        rejected["outside-the-run"] = outside
    if misfits:
        rejected["edges-do-not-fit"] = misfits
        caveats.append(
            doubt(
                Code.MISSING_EDGES,
                f"In {misfits} of {len(expected.windows)} windows that the host asked for, the line did not have the "
                "edges that it should; they were left out. Check the trigger wire and --debounce.",
                misfits=misfits,
            )
        )
    if not kept:
        raise DataError(
            f"The line's edges fit none of the {len(expected.windows)} windows that the host asked for.",
            "Check the trigger wire and its form, or use --trigger host.",
        )
    return replace(found, spans=kept, rejected=rejected, caveats=caveats, missed=misfits)


def _pulses(pulses: Sequence[Span], expected: Expected) -> tuple[list[Span], int, int]:
    """Spans, windows that do not fit, pulses outside: one pulse for a whole window or one for each inference."""
    middles = np.array([(pulse.start_ns + pulse.stop_ns) / 2 for pulse in pulses])
    kept: list[Span] = []
    misfits = inside = 0
    for window, reach in zip(expected.windows, _reaches(middles, expected), strict=True):
        within, count = pulses[reach], window.inferences or 1
        inside += len(within)
        if len(within) == 1:
            kept.append(replace(within[0], inferences=count, label=window.label))
        elif len(within) == count:
            kept += [replace(pulse, inferences=1, label=window.label) for pulse in within]
        else:
            misfits += 1
    return kept, misfits, max(0, len(pulses) - inside)


def _pairs(falls_ns: NDArray[np.float64], expected: Expected) -> tuple[list[Span], int, int]:
    """Spans, windows that do not fit, pairs outside: two falling edges in each window."""
    kept: list[Span] = []
    inside = 0
    for window, reach in zip(expected.windows, _reaches(falls_ns, expected), strict=True):
        within = falls_ns[reach]
        inside += len(within)
        if len(within) == 2:
            start, stop = np.rint(within).astype(int).tolist()
            kept.append(replace(window, start_ns=start, stop_ns=stop))
    return kept, len(expected.windows) - len(kept), max(0, len(falls_ns) - inside) // 2


def _reaches(times_ns: NDArray[np.float64], expected: Expected) -> list[slice]:
    """For each window the times that belong to it: within the margin, and nearer to it than to its neighbours."""
    starts = np.array([window.start_ns for window in expected.windows], dtype=np.float64)
    stops = np.array([window.stop_ns for window in expected.windows], dtype=np.float64)
    half_gaps = np.maximum(starts[1:] - stops[:-1], 0) / 2
    margin_ns = expected.margin_s * 1e9
    inner = np.minimum(half_gaps, margin_ns)
    first = np.searchsorted(times_ns, starts - np.append(margin_ns, inner))
    last = np.searchsorted(times_ns, stops + np.append(inner, margin_ns))
    return [slice(int(begin), int(end)) for begin, end in zip(first, last, strict=True)]


def expect(stream: Stream, windows: Sequence[Span], u_stamp_s: float) -> Expected | None:
    """None where there is nothing to expect, or the clocks were never related."""
    if not windows or stream.timebase.monotonic_ns is None:
        return None
    u_clock_s = stream.timebase.u_host_at(windows[-1].stop_ns)
    if u_clock_s is None:
        return None
    return Expected(windows=windows, margin_s=SLACK_S + 4 * math.hypot(u_clock_s, u_stamp_s))
