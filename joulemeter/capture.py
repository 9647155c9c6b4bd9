"""The nouns of a recording.

A *channel* is one measured quantity of one instrument. A *stream* is what one instrument recorded: a *header*
(who measured, how to read the bytes) and *blocks* of samples counted by the instrument itself. A *timebase* turns a
sample index into time; time never comes from when bytes arrived. A *gap* is a known hole. An *event* is a label
stamped by something other than the stream. A *recording* is one or more streams with the events beside them.

Arrays are one-dimensional; float64 for quantities, uint8 for digital lines (bit k = line k), ranges and status.
Times are integer nanoseconds in *stream time*: since the beginning of sample 0, on the instrument's own clock.
Spans are half open. Everything is in SI units; the unit is the suffix of every scalar name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from joulemeter.caveat import Caveat

Array = NDArray[Any]

HEADER_SCHEMA = "joulemeter.stream/1"


class Basis(StrEnum):
    """Where a number comes from."""

    MEASURED = "measured"
    DERIVED = "derived"
    SET = "set"
    DECLARED = "declared"
    ASSUMED = "assumed"
    ESTIMATED = "estimated"
    SIMULATED = "simulated"
    PUBLISHED = "published"
    UNAVAILABLE = "unavailable"


class Quantity(StrEnum):
    CURRENT = "current"
    VOLTAGE = "voltage"
    POWER = "power"
    ENERGY = "energy"
    CHARGE = "charge"
    DIGITAL = "digital"
    TEMPERATURE = "temperature"
    RANGE = "range"
    SIGNAL = "signal"  # a voltage that marks something and feeds nothing


class Kind(StrEnum):
    """What one sample stands for, which decides how it is integrated."""

    MEAN = "mean"  # mean over the sample interval: summed exactly
    INSTANT = "instant"  # value at an instant: trapezoid
    CUMULATIVE = "cumulative"  # running total: differenced
    STATE = "state"  # holds until it changes


class Distribution(StrEnum):
    NORMAL = "normal"
    RECTANGULAR = "rectangular"


class Status(IntFlag):
    """Per-sample marks."""

    GOOD = 0
    ALTERED = 1  # replaced by a filter; the true value was not observed
    CLIPPED = 2  # at the end of the range; the true value is at least this
    INVALID = 4  # not a measurement; value is NaN


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One term of an accuracy statement.

    `value` is the half-width when rectangular and the standard uncertainty when normal (JCGM 100, 4.3).
    `dof` are the degrees of freedom; None stands for infinitely many.
    """

    value: float
    distribution: Distribution = Distribution.RECTANGULAR
    dof: float | None = None

    @property
    def standard(self) -> float:
        """The standard uncertainty: value / sqrt(3) when rectangular (JCGM 100, 4.3.7)."""
        return self.value / 3**0.5 if self.distribution is Distribution.RECTANGULAR else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What the instrument may be wrong by in one range: gain as a ratio, offset in the channel's unit.

    The offset of a counter of energy or charge is that of the power or current it adds up, in W or A.
    """

    range: int | None
    gain: Limit
    offset: Limit
    source: str
    verified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """What stands between the device and the instrument and scales every value: a shunt, an amplifier, a probe.

    `limit` is a ratio.
    """

    name: str
    limit: Limit
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One measured quantity.

    `lines` names the bits of a DIGITAL channel, lowest bit first. A CUMULATIVE counter starts over at `wrap` and moves
    only every `refresh_s`; `refresh_s` is also how old a reading of a slow meter may be. `falls_only`: the meter does
    not show lines but reports their falling edges; a line is then low in the sample beside which an edge was reported,
    to one sample before or after, and high in all others whatever it really was. A `witness` counts by other means what
    another channel measures: it is compared with that one and never reported in its place. A `loss` is power that the
    measuring set-up takes itself, kept apart from the device's. `basis` is where its values come from. `delay_s` is how
    much later than the device it shows what happens, which is taken out of windows, and `u_delay` what that may be
    wrong by, in seconds.
    """

    name: str
    quantity: Quantity
    unit: str
    kind: Kind
    accuracy: tuple[Accuracy, ...] = ()
    lines: tuple[str, ...] = ()
    wrap: float | None = None
    refresh_s: float | None = None
    falls_only: bool = False
    witness: bool = False
    loss: bool = False
    basis: Basis = Basis.MEASURED
    factors: tuple[Factor, ...] = ()
    delay_s: float = 0.0
    u_delay: Limit | None = None

    @property
    def aside(self) -> bool:
        """Whether it stands beside what is reported."""
        return self.witness or self.loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Voltage:
    """The voltage that turns current into power where no channel measures it."""

    volts: float
    basis: Basis
    limit: Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The host's clocks at stream time 0, of a stream that is stamped and so need not be related by its arrival.

    `u_s` is the relation's standard uncertainty there; `u_drift_ppm` is 0 where the host's own clock stamps the stream.
    """

    monotonic_ns: int
    utc_ns: int
    u_s: float
    u_drift_ppm: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Everything needed to read a stream's bytes again, written before the first sample.

    `wire` names the byte format with its version and `parameters` holds what its decoder needs (calibration,
    supply, filter). `word_bytes` is the size of one sample on the wire. `loss_modulo` says that the instrument's
    sample counter wraps there, so that its own count of lost samples is known only modulo this number.
    `clock` is the limit of the sample clock as a ratio. `epoch` None: the host's clock is related by the arrivals.
    `triggered`: it watches only while it is armed, in records; what lies between them is unseen and not lost, it may
    wait for long, and the host's clock is not related.
    """

    instrument: str
    model: str
    wire: str
    rate_hz: float
    word_bytes: int
    channels: tuple[Channel, ...]
    loss_modulo: int | None = None
    schema: str = HEADER_SCHEMA
    serial: str | None = None
    firmware: str | None = None
    address: str | None = None
    simulated: bool = False
    triggered: bool = False
    clock: Limit = field(default_factory=lambda: Limit(value=50e-6))
    epoch: Epoch | None = None
    voltage: Voltage | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()

    def channel(self, quantity: Quantity) -> Channel | None:
        """The first channel of that quantity that does not stand aside, or None."""
        return next((one for one in self.channels if one.quantity is quantity and not one.aside), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The host's clocks when `received_bytes` of the stream had arrived: an upper bound on when they were made."""

    received_bytes: int
    monotonic_ns: int
    utc_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timebase:
    """Sample index <-> stream time by counting; host clock by the anchors' fit.

    `monotonic_ns` and `utc_ns` are the host's clocks at the beginning of sample 0, None where nobody looked.
    `u_host_s` is the standard uncertainty of that relation at the stream time `reference_ns`; away from it the
    uncertainty of the drift adds to it (`u_host_at`). `drift_ppm` None: not measured, taken as zero, and `u_drift_ppm`
    is then what the limit of the sample clock leaves open.
    """

    rate_hz: float
    monotonic_ns: int | None = None
    utc_ns: int | None = None
    drift_ppm: float | None = None
    u_host_s: float | None = None
    u_drift_ppm: float | None = None
    reference_ns: int = 0

    def time_ns(self, index: float) -> int:
        return round(index * 1e9 / self.rate_hz)

    def index(self, time_ns: float) -> float:
        """Fractional sample index of a stream time."""
        return time_ns * self.rate_hz / 1e9

    def from_monotonic(self, monotonic_ns: int) -> int:
        """Stream time of a host monotonic stamp. Raises ValueError when the clocks were never related."""
        if self.monotonic_ns is None:
            raise ValueError("this stream was never related to the host's clock")
        return round((monotonic_ns - self.monotonic_ns) * (1 + (self.drift_ppm or 0.0) * 1e-6))

    def u_host_at(self, time_ns: float) -> float | None:
        """Standard uncertainty, in seconds, of a host stamp placed at this stream time; None where nobody knows."""
        if self.u_host_s is None:
            return None
        return math.hypot(self.u_host_s, (self.u_drift_ppm or 0.0) * 1e-6 * (time_ns - self.reference_ns) * 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Consecutive samples. `first_index` counts lost samples too; `lost_before` of them precede this block.

    `data` maps channel names to (n,) arrays; `status` is (n,) uint8 of Status bits, or None where all are good.
    `consumed` is the byte count of the raw stream up to the end of this block, from its beginning. `times_ns` (n,)
    int64 is the stream time of each sample of an instrument that is polled and so not evenly spaced; None: by counting.
    """

    first_index: int
    data: Mapping[str, Array]
    lost_before: int = 0
    status: NDArray[np.uint8] | None = None
    consumed: int = 0
    times_ns: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.data.values())))


# The cause of a gap in which nobody was to look.
UNSEEN = "unseen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """`lost` samples are missing before sample `index`. `doubt` is how many more or fewer it could be."""

    index: int
    lost: int
    doubt: int = 0
    cause: str = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A label stamped in stream time or host time. `u_s` is the stamp's standard uncertainty."""

    label: str
    source: str
    time_ns: int | None = None
    monotonic_ns: int | None = None
    u_s: float | None = None
    data: dict[str, Any] = field(default_factory=dict)


class Stream(Protocol):
    """What one instrument recorded. `length` counts every sample, lost ones included."""

    @property
    def name(self) -> str: ...
    @property
    def header(self) -> Header: ...
    @property
    def timebase(self) -> Timebase: ...
    @property
    def length(self) -> int: ...
    @property
    def gaps(self) -> Sequence[Gap]: ...
    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """Blocks that cover [start, stop) in order; they may begin earlier and end later."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayStream:
    """A stream held in memory: what file readers return. `status` and `times_ns` as in Block."""

    name: str
    header: Header
    timebase: Timebase
    data: Mapping[str, Array]
    status: NDArray[np.uint8] | None = None
    gaps: tuple[Gap, ...] = ()
    times_ns: NDArray[np.int64] | None = None

    @property
    def length(self) -> int:
        return len(next(iter(self.data.values()))) + sum(gap.lost for gap in self.gaps)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        del start, stop
        held = len(next(iter(self.data.values())))
        at = lost = pending = 0
        for gap in (*self.gaps, Gap(index=self.length, lost=0)):
            until = min(gap.index - lost - gap.lost, held)
            if until > at:
                yield Block(
                    first_index=at + lost,
                    data={name: values[at:until] for name, values in self.data.items()},
                    lost_before=pending,
                    status=None if self.status is None else self.status[at:until],
                    times_ns=None if self.times_ns is None else self.times_ns[at:until],
                )
                pending = 0
            at, lost, pending = until, lost + gap.lost, pending + gap.lost


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A stream with a header, a clock relation or samples of its own; what is None is as in the stream."""

    stream: Stream
    own_header: Header | None = None
    own_timebase: Timebase | None = None
    change: Callable[[Iterator[Block]], Iterator[Block]] | None = None

    @property
    def name(self) -> str:
        return self.stream.name

    @property
    def header(self) -> Header:
        return self.own_header or self.stream.header

    @property
    def timebase(self) -> Timebase:
        return self.own_timebase or self.stream.timebase

    @property
    def length(self) -> int:
        return self.stream.length

    @property
    def gaps(self) -> Sequence[Gap]:
        return self.stream.gaps

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        blocks = self.stream.blocks(start, stop)
        return blocks if self.change is None else self.change(blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One measurement session: its streams, the events beside them, and what was written about it first.

    `meta` is the run.json of a run directory, or what a reader found: created, command, host, note, device,
    workload, inferences_per_window. `trigger` is how its windows are found when nobody says otherwise
    (INTERFACE: `d0`, `host`, `events`, `events:falling-pairs`).
    """

    name: str
    streams: tuple[Stream, ...]
    trigger: str | None = None
    events: tuple[Event, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()
