"""Two meters on one load: do they agree within what each claims, and how far apart are their clocks.

The offset between the clocks comes from the shape of the power itself; energies are then compared over the same spans
of time. The verdict is the E_n number of ISO 13528:2022, 9.7 (ISO/IEC 17043): the difference over the root sum of
squares of both expanded uncertainties; up to 1 the meters agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from joulemeter.capture import Basis, Quantity, Stream
from joulemeter.errors import DataError, UsageError
from joulemeter.physics.envelope import envelope
from joulemeter.physics.integrate import integrate
from joulemeter.physics.lag import Offset, find_offset, host_offset_s
from joulemeter.physics.stats import summarise
from joulemeter.physics.uncertainty import budget
from joulemeter.result import Term
from joulemeter.units import show, show_duration
from joulemeter.window import Role, Window, WindowEnergy

# Without windows the common time is cut into so many.
SEGMENTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """`difference_w` is mean power of b less that of a over `windows` common spans of `duration_s` in all.

    `u_difference_w` is its standard uncertainty, of which `u_random_w` is the scatter from span to span; `en` the E_n
    number. Both are None, with a `reason`, where a meter states no accuracy. `cancelled` names terms that both share.
    """

    a: str
    b: str
    power_a_w: float
    power_b_w: float
    difference_w: float
    u_random_w: float | None
    u_a_w: float | None
    u_b_w: float | None
    u_difference_w: float | None
    en: float | None
    reason: str | None
    windows: int
    duration_s: float
    offset: Offset | None
    cancelled: tuple[str, ...]
    verdict: str

    @property
    def relative(self) -> float:
        """The difference as a share of the mean of both."""
        return 2 * self.difference_w / (self.power_a_w + self.power_b_w)

    @property
    def difference_j(self) -> float:
        return self.difference_w * self.duration_s


def agree(
    a: Stream,
    b: Stream,
    windows: Sequence[Window] = (),
    *,
    offset_s: float | None = None,
    search_s: float | None = None,
) -> Agreement:
    """Compare two streams recorded together on one load.

    `windows` are in the stream time of `a`; without them the common time is cut into equal spans. `offset_s` is the
    difference of the clocks where it is known, else it is found within `search_s` of what the host's clock says (None:
    a tenth of the recording). Where the load gives no shape to find it by, the host's word is taken.

    Raises DataError where the streams have no time in common, UsageError where one has no power.
    """
    for stream in (a, b):
        if stream.header.triggered:
            raise UsageError(
                f"The records of {stream.name} were never related to the host's clock.",
                "Record with each meter by itself, and compare the results: joulemeter compare A B.",
            )
        if envelope(stream, 1).unit != "W":
            raise UsageError(f"{stream.name} holds no power: its voltage is unknown.", "Give its voltage first.")
    found = None if offset_s is not None else find_offset(a, b, search_s)
    shift_s = offset_s if offset_s is not None else found.offset_s if found else host_offset_s(a, b) or 0.0
    u_shift_s = found.u_s if found else 0.0
    spans = list(windows) or _segments(a, b, shift_s)
    moved = [_moved(span, found.at(_middle_s(span)) if found else shift_s, u_shift_s) for span in spans]
    pairs = [
        (one, other)
        for one, other in zip(integrate(a, spans), integrate(b, moved), strict=True)
        if _whole(one, a) and _whole(other, b)
    ]
    if not pairs:
        raise DataError(
            f"{a.name} and {b.name} have no whole window in common.", "Record both at the same time on one load."
        )
    return _compare(a, b, pairs, found)


def _moved(span: Window, shift_s: float, u_s: float) -> Window:
    shift_ns = round(shift_s * 1e9)
    return replace(
        span,
        start_ns=span.start_ns + shift_ns,
        stop_ns=span.stop_ns + shift_ns,
        u_edge_s=math.hypot(span.u_edge_s, u_s),
    )


def _middle_s(span: Window) -> float:
    return (span.start_ns + span.stop_ns) / 2e9


def _whole(one: WindowEnergy, stream: Stream) -> bool:
    inside = one.window.start_ns >= 0 and one.window.stop_ns <= stream.timebase.time_ns(stream.length)
    return inside and one.energy_j is not None and not one.missing_s


def _segments(a: Stream, b: Stream, shift_s: float) -> list[Window]:
    start_s, stop_s = _common(a, b, shift_s)
    edges = np.linspace(start_s, stop_s, SEGMENTS + 1)
    return [
        Window(start_ns=round(x * 1e9), stop_ns=round(y * 1e9), index=k, role=Role.PHASE)
        for k, (x, y) in enumerate(pairwise(edges.tolist()))
    ]


def _length_s(stream: Stream) -> float:
    return stream.timebase.time_ns(stream.length) * 1e-9


def _common(a: Stream, b: Stream, shift_s: float) -> tuple[float, float]:
    start_s, stop_s = max(0.0, -shift_s), min(_length_s(a), _length_s(b) - shift_s)
    if stop_s <= start_s:
        raise DataError(f"{a.name} and {b.name} have no time in common.", "Record both at the same time.")
    # A border on a sample of either meter is no longer exact after the shift.
    margin = min(2 / min(a.timebase.rate_hz, b.timebase.rate_hz), (stop_s - start_s) / 100)
    return start_s + margin, stop_s - margin


def _compare(
    a: Stream, b: Stream, pairs: Sequence[tuple[WindowEnergy, WindowEnergy]], offset: Offset | None
) -> Agreement:
    ones, others = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    duration_s = math.fsum(one.window.duration_s for one in ones)
    power_a = math.fsum(one.energy_j or 0.0 for one in ones) / duration_s
    power_b = math.fsum(other.energy_j or 0.0 for other in others) / duration_s
    mean_s = duration_s / len(pairs)
    differences = summarise([((other.energy_j or 0.0) - (one.energy_j or 0.0)) / mean_s for one, other in pairs])
    u_random = None
    if differences.stdev is not None and differences.effective is not None:
        drift = 0.0 if differences.drift is None else differences.drift / math.sqrt(12)
        u_random = math.hypot(differences.stdev / math.sqrt(differences.effective), drift)
    shared = _shared(a, b)
    count = sum(one.window.inferences for one in ones)
    u_a, u_b = (_u_power(part, stream, shared, count, duration_s) for part, stream in ((ones, a), (others, b)))
    difference, u, en, reason = power_b - power_a, None, None, None
    if u_a is None or u_b is None:
        reason = f"the accuracy of {(a if u_a is None else b).name} is not known"
    else:
        u = math.sqrt(u_a**2 + u_b**2 + (u_random or 0.0) ** 2)
        en = abs(difference) / (2 * u) if u else None
    return Agreement(
        a=a.name,
        b=b.name,
        power_a_w=power_a,
        power_b_w=power_b,
        difference_w=difference,
        u_random_w=u_random,
        u_a_w=u_a,
        u_b_w=u_b,
        u_difference_w=u,
        en=en,
        reason=reason,
        windows=len(pairs),
        duration_s=duration_s,
        offset=offset,
        cancelled=shared,
        verdict=_verdict(a.name, b.name, (power_a + power_b) / 2, difference, u, en, reason, offset),
    )


def _shared(a: Stream, b: Stream) -> tuple[str, ...]:
    """A voltage that was only stated, the same to both, is wrong in both alike."""
    one, other = a.header.voltage, b.header.voltage
    stated = all(
        stream.header.channel(Quantity.POWER) is None and stream.header.channel(Quantity.VOLTAGE) is None
        for stream in (a, b)
    )
    same = one is not None and other is not None and one.volts == other.volts and one.basis is not Basis.MEASURED
    return ("voltage",) if stated and same else ()


def _u_power(
    windows: Sequence[WindowEnergy], stream: Stream, shared: Sequence[str], count: int, duration_s: float
) -> float | None:
    """Systematic standard uncertainty of the mean power; None where the meter states no accuracy."""
    spread = summarise([(window.energy_j or 0.0) / window.window.inferences for window in windows])
    terms: Sequence[Term] = [
        term for term in budget(windows, stream.header, spread) if not term.random and term.term not in shared
    ]
    if not any(term.term.startswith("gain") for term in terms):
        return None
    return math.sqrt(math.fsum(term.contribution_j**2 for term in terms)) * count / duration_s


def _verdict(
    a: str,
    b: str,
    mean_w: float,
    difference_w: float,
    u_w: float | None,
    en: float | None,
    reason: str | None,
    offset: Offset | None,
) -> str:
    relative = f" ({difference_w / mean_w:+.2%})" if mean_w else ""
    size = f"{b} reads {show(abs(difference_w), 'W', 3)}{relative} {'above' if difference_w >= 0 else 'below'} {a}"
    if u_w is None or en is None:
        text = f"{size}; whether that is agreement cannot be said, for {reason or 'nothing is known of either error'}."
    elif en <= 1:
        text = f"They agree: {size}, within ± {show(2 * u_w, 'W', 2)} (k = 2), E_n {en:.2f}."
    else:
        text = (
            f"They disagree: {size}, outside ± {show(2 * u_w, 'W', 2)} (k = 2), E_n {en:.2f}. One of them is wrong by "
            "more than it claims: check wiring and ranges, then calibrate both on a known resistor."
        )
    if offset is not None:
        text += f" The clock of {b} is {show_duration(abs(offset.offset_s))} "
        text += f"{'ahead of' if offset.offset_s >= 0 else 'behind'} that of {a}, to ± {show_duration(2 * offset.u_s)}."
        if offset.rival_s is not None:
            text += f" An offset of {show(offset.rival_s, 's')} fits nearly as well: the load repeats itself."
    return text
