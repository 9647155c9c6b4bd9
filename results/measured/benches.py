"""Simulated benches for coverage.py: meters whose errors are drawn from what their headers state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import (
    Accuracy,
    ArrayStream,
    Basis,
    Channel,
    Distribution,
    Event,
    Header,
    Kind,
    Limit,
    Quantity,
    Recording,
    Timebase,
    Voltage,
)

Float = NDArray[np.float64]
Rng = np.random.Generator

SUPPLY_V = 3.0
# Pulse lengths of real inferences differ a little.
JITTER = 0.002


def draw(rng: Rng, limit: Limit) -> float:
    """A true error from its stated limit.

    A limit with nu degrees of freedom is itself uncertain by 1 / sqrt(2 nu) of it (JCGM 100, G.4.2); its width is then
    drawn too, from a rectangle (JCGM 101, 6.4.3).
    """
    width = limit.value
    if limit.dof is not None:
        width *= 1 + rng.uniform(-1, 1) * math.sqrt(3) / math.sqrt(2 * limit.dof)
    if limit.distribution is Distribution.NORMAL:
        return float(rng.normal(0, width))
    return float(rng.uniform(-width, width))


def reading(header: Header, true: Float, gain: Float | float, offset: Float | float) -> Float:
    """What a meter shows. Makers state gain as a share of the reading: reading - true = gain * reading + offset."""
    if header.parameters.get("gain_of_truth"):
        return true * (1 + gain) + offset
    return (true + offset) / (1 - gain)


@dataclass(frozen=True)
class Board:
    """Pulses of `active_a` between [starts, stops) seconds, `pulse_s` on average, on `idle_a` at a constant voltage."""

    starts: Float
    stops: Float
    pulse_s: float
    active_a: float
    idle_a: float
    volts: float
    length_s: float

    def charge_c(self, t_s: Float) -> Float:
        """Charge drawn in [0, t)."""
        edges = np.concatenate([[0.0], np.ravel(np.column_stack([self.starts, self.stops])), [self.length_s * 2]])
        level = np.full(len(edges) - 1, self.idle_a)
        level[1::2] = self.active_a
        total = np.concatenate([[0.0], np.cumsum(np.diff(edges) * level)])
        return np.interp(t_s, edges, total)

    def high(self, t_s: Float) -> NDArray[np.bool_]:
        after = np.searchsorted(np.ravel(np.column_stack([self.starts, self.stops])), t_s, side="right")
        return after % 2 == 1

    def current_a(self, t_s: Float) -> Float:
        return np.where(self.high(t_s), self.active_a, self.idle_a)


@dataclass(frozen=True, kw_only=True)
class Meter:
    """A kind of instrument: what its header states, its loads and windows, and how it records a board.

    `windows_s` holds the length of a long and a short window, `counts` how many of them one session has.
    """

    name: str
    rate_hz: float
    channels: Callable[[float], tuple[Channel, ...]]
    record: Callable[[Rng, Board, Header], Recording]
    windows_s: tuple[float, float]
    counts: tuple[int, int]
    loads_a: tuple[tuple[float, float], tuple[float, float]]
    stated: Voltage | None = None
    locked: bool = False
    gain_of_truth: bool = False

    def board(self, rng: Rng, *, short: bool, amperes: bool) -> Board:
        span_s, count = self.windows_s[short], self.counts[short]
        if self.locked:
            span_s += rng.uniform(-0.5, 0.5) / self.rate_hz
        lengths = span_s * (1 + JITTER * rng.standard_normal(count))
        pauses = span_s * rng.uniform(0.4, 0.8, count + 1)
        starts = np.cumsum(pauses[:-1]) + np.concatenate([[0.0], np.cumsum(lengths[:-1])])
        if self.locked:
            # Everything falls on the same phase of a sample in each window, another one in each session.
            lengths = np.full(count, span_s)
            period_s = np.round(1.6 * span_s * self.rate_hz) / self.rate_hz
            starts = (0.4 + rng.uniform(0.0, 0.1)) * span_s + period_s * np.arange(count)
        active_a, idle_a = self.loads_a[amperes]
        volts = SUPPLY_V if self.stated is None else self.stated.volts + draw(rng, self.stated.limit)
        return Board(
            starts, starts + lengths, span_s, active_a, idle_a, volts, float(starts[-1] + lengths[-1] + pauses[-1])
        )

    def session(self, rng: Rng, *, short: bool, amperes: bool) -> tuple[Recording, float]:
        """A recording and the true energy per inference."""
        board = self.board(rng, short=short, amperes=amperes)
        header = Header(
            instrument="study",
            model=self.name,
            wire="study/1",
            rate_hz=self.rate_hz,
            word_bytes=8,
            channels=self.channels(board.active_a),
            voltage=self.stated,
            clock=Limit(value=0.0 if self.locked else 50e-6),
            parameters={"gain_of_truth": self.gain_of_truth},
        )
        truth_j = board.volts * board.active_a * board.pulse_s
        return self.record(rng, board, header), truth_j


def accuracy(gain: Limit, offset: float, *, range_: int | None = None, dof: float | None = None) -> Accuracy:
    return Accuracy(
        range=range_, gain=gain, offset=Limit(value=offset, dof=dof), source="drawn for the study", verified=True
    )


def recorded(
    header: Header, data: dict[str, NDArray[np.generic]], trigger: str, events: tuple[Event, ...] = (),
    times_ns: NDArray[np.int64] | None = None,
) -> Recording:  # fmt: skip
    timebase = Timebase(rate_hz=header.rate_hz, monotonic_ns=0, utc_ns=0, u_host_s=1e-4)
    stream = ArrayStream(name="study", header=header, timebase=timebase, data=data, times_ns=times_ns)
    return Recording(name="study", streams=(stream,), trigger=trigger, events=events, meta={"inferences_per_window": 1})


def grid(rng: Rng, board: Board, header: Header) -> Float:
    """True times of the borders of all samples: the clock is off by its draw, and starts at any phase."""
    step_s = (1 + draw(rng, header.clock)) / header.rate_hz
    return (np.arange(int(board.length_s / step_s)) + rng.uniform()) * step_s


def host_marks(board: Board) -> tuple[Event, ...]:
    marks = [(float(t), label) for pair in zip(board.starts, board.stops, strict=True)
             for t, label in zip(pair, ("begin", "end"), strict=True)]  # fmt: skip
    return tuple(Event(label=label, source="host", monotonic_ns=round(t * 1e9)) for t, label in marks)


DIGITAL = Channel(name="digital", quantity=Quantity.DIGITAL, unit="", kind=Kind.STATE, lines=("d0",))


# -- five ranges at 100 kS/s, current only ----------------------------------------------------------------------------

# Nordic PPK2: typical accuracy as one standard deviation, resolution as the limit of the offset.
TOPS_A = (50e-6, 500e-6, 5e-3, 50e-3)
GAINS = (0.10, 0.10, 0.10, 0.10, 0.15)
OFFSETS_A = (0.2e-6, 0.5e-6, 5e-6, 50e-6, 1e-3)
CODES_A = (43e-9, 0.43e-6, 4.3e-6, 46e-6, 1e-3)


def ppk2_channels(active_a: float) -> tuple[Channel, ...]:
    del active_a
    rows = tuple(
        accuracy(Limit(value=gain, distribution=Distribution.NORMAL), offset, range_=k)
        for k, (gain, offset) in enumerate(zip(GAINS, OFFSETS_A, strict=True))
    )
    return (
        Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.MEAN, accuracy=rows),
        Channel(name="range", quantity=Quantity.RANGE, unit="", kind=Kind.STATE),
        DIGITAL,
    )


def ppk2(rng: Rng, board: Board, header: Header) -> Recording:
    borders = grid(rng, board, header)
    mean_a = np.diff(board.charge_c(borders)) / np.diff(borders)
    ranges = np.searchsorted(TOPS_A, mean_a).astype(np.uint8)
    # One reference behind all dividers: the same draw scales with each range's figure.
    gain = np.array(GAINS) * rng.standard_normal()
    offset = np.array([draw(rng, row.offset) for row in header.channels[0].accuracy])
    noise = 2.4 * np.array(CODES_A)[ranges] * rng.standard_normal(len(mean_a))
    read_a = reading(header, mean_a, gain[ranges], offset[ranges]) + noise
    lines = board.high((borders[1:] + borders[:-1]) / 2).astype(np.uint8)
    return recorded(header, {"current": read_a, "range": ranges, "digital": lines}, "d0")


# -- 1 kS/s energy meter ----------------------------------------------------------------------------------------------


def energy_meter_channels(active_a: float) -> tuple[Channel, ...]:
    # ST X-NUCLEO-LPM01A, dynamic mode: "in the range of 2 %", which is weaker than a limit.
    del active_a
    rows = (accuracy(Limit(value=0.02, dof=8), 100e-9 * SUPPLY_V, dof=8),)
    return (Channel(name="power", quantity=Quantity.POWER, unit="W", kind=Kind.MEAN, accuracy=rows), DIGITAL)


def energy_meter(rng: Rng, board: Board, header: Header) -> Recording:
    borders = grid(rng, board, header)
    row = header.channels[0].accuracy[0]
    mean_w = np.diff(board.charge_c(borders)) / np.diff(borders) * board.volts
    noise = 0.003 * board.active_a * board.volts * rng.standard_normal(len(mean_w))
    read_w = reading(header, mean_w, draw(rng, row.gain), draw(rng, row.offset)) + noise
    lines = board.high((borders[1:] + borders[:-1]) / 2).astype(np.uint8)
    return recorded(header, {"power": read_w, "digital": lines}, "d0")


# -- 8-bit scope with a shunt -----------------------------------------------------------------------------------------

DIVISIONS = 8
FULL_V = 8.0  # 1 V per division for the supply and the trigger


def scope_channels(active_a: float) -> tuple[Channel, ...]:
    # Gain of channel and shunt together; the offset after a zero reading in the same setup is 0.05 division.
    full_a = 1.5 * active_a
    gain = Limit(value=math.hypot(0.02, 0.01) / math.sqrt(3), distribution=Distribution.NORMAL)
    return (
        Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.INSTANT,
                accuracy=(accuracy(gain, 0.05 * full_a / DIVISIONS),)),
        Channel(name="voltage", quantity=Quantity.VOLTAGE, unit="V", kind=Kind.INSTANT,
                accuracy=(accuracy(Limit(value=0.02), 0.05 * FULL_V / DIVISIONS),)),
    )  # fmt: skip


def digitised(rng: Rng, header: Header, values: Float, full: float, channel: Channel | None = None) -> Float:
    """What 8 bits make of `values`, with the noise of a front end and the errors of `channel`."""
    step = full / 256
    if channel is not None:
        row = channel.accuracy[0]
        values = reading(header, values, draw(rng, row.gain), draw(rng, row.offset))
    noisy: Float = values + 0.7 * step * rng.standard_normal(len(values))
    return np.round(noisy / step) * step


def scope(rng: Rng, board: Board, header: Header) -> Recording:
    at = grid(rng, board, header)
    full_a = 1.5 * board.active_a
    current_a = digitised(rng, header, board.current_a(at), full_a, header.channels[0])
    voltage_v = digitised(rng, header, np.full(len(at), board.volts), FULL_V, header.channels[1])
    # A trigger that rises and falls in two samples, so that the crossing can be interpolated.
    edges = np.ravel(np.column_stack([board.starts, board.stops]))
    ramp_s = 2 / header.rate_hz
    knots = np.ravel(np.column_stack([edges - ramp_s / 2, edges + ramp_s / 2]))
    rise = 3.3 * np.interp(at, knots, np.tile([0.0, 1.0, 1.0, 0.0], len(board.starts)))
    trigger_v = digitised(rng, header, rise, FULL_V)
    return recorded(
        header, {"current": current_a, "voltage": voltage_v}, "events", tuple(crossings(trigger_v, header.rate_hz))
    )


def crossings(volts: Float, rate_hz: float) -> Iterator[Event]:
    """Begin and end where a trigger channel crosses 1.65 V, interpolated, good to a fiftieth of a sample."""
    high = volts > 1.65
    for k in np.flatnonzero(high[1:] != high[:-1]):
        part = (1.65 - volts[k]) / (volts[k + 1] - volts[k])
        label = "begin" if high[k + 1] else "end"
        yield Event(label=label, source="trigger", time_ns=round((k + part) / rate_hz * 1e9), u_s=0.02 / rate_hz)


# -- USB meter, ten readings a second ---------------------------------------------------------------------------------


def usb_channels(active_a: float) -> tuple[Channel, ...]:
    # UM25C and TC66C: printed figures times ten, floor 0.5 % and 1 %, 8 degrees of freedom.
    del active_a
    return (
        Channel(name="voltage", quantity=Quantity.VOLTAGE, unit="V", kind=Kind.INSTANT,
                accuracy=(accuracy(Limit(value=0.005, dof=8), 2e-3, dof=8),)),
        Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.INSTANT,
                accuracy=(accuracy(Limit(value=0.01, dof=8), 2e-3, dof=8),)),
    )  # fmt: skip


def usb_meter(rng: Rng, board: Board, header: Header) -> Recording:
    count = int(board.length_s * header.rate_hz)
    polls = (np.arange(count) + rng.uniform(0.0, 1.0) + 0.1 * rng.uniform(-1, 1, count)) / header.rate_hz
    columns: dict[str, NDArray[np.generic]] = {}
    for channel, values, digit in zip(
        header.channels, (np.full(count, board.volts), board.current_a(polls)), (1e-3, 1e-4), strict=True
    ):
        row = channel.accuracy[0]
        exact = reading(header, values, draw(rng, row.gain), draw(rng, row.offset))
        columns[channel.name] = np.round((exact + digit * rng.standard_normal(count)) / digit) * digit
    times_ns = np.round(polls * 1e9).astype(np.int64)
    return recorded(header, columns, "host", host_marks(board), times_ns)


# -- energy counter that moves ten times a second ---------------------------------------------------------------------


def counter_channels(active_a: float) -> tuple[Channel, ...]:
    # A counter in a meter of 1 %; the offset is that of the power it adds up.
    rows = (accuracy(Limit(value=0.01), 0.002 * active_a * SUPPLY_V),)
    return (
        Channel(name="energy", quantity=Quantity.ENERGY, unit="J", kind=Kind.CUMULATIVE, accuracy=rows, refresh_s=0.1),
    )


def counter(rng: Rng, board: Board, header: Header) -> Recording:
    """Polled at 25 per second, shows the total of the last refresh."""
    row, count = header.channels[0].accuracy[0], int(board.length_s * header.rate_hz)
    gain, offset_w, phase = draw(rng, row.gain), draw(rng, row.offset), rng.uniform()
    polls = np.arange(count) / header.rate_hz
    refreshed = np.maximum((np.floor(polls / 0.1 + phase) - phase) * 0.1, 0.0)
    total_j = reading(header, board.volts * board.charge_c(refreshed), gain, offset_w * refreshed)
    step_j = 1e-4 * board.active_a * board.volts
    times_ns = np.round(polls * 1e9).astype(np.int64)
    return recorded(header, {"energy": np.floor(total_j / step_j) * step_j}, "host", host_marks(board), times_ns)


METERS = (
    Meter(name="PPK2-like, 100 kS/s, five ranges", rate_hz=100e3, channels=ppk2_channels, record=ppk2,
          windows_s=(10e-3, 0.5e-3), counts=(8, 20), loads_a=((20e-6, 2e-6), (0.3, 5e-3)),
          stated=Voltage(volts=SUPPLY_V, basis=Basis.SET, limit=Limit(value=0.02 * SUPPLY_V + 0.01))),
    Meter(name="energy meter, 1 kS/s", rate_hz=1e3, channels=energy_meter_channels, record=energy_meter,
          windows_s=(0.5, 20e-3), counts=(8, 20), loads_a=((20e-6, 2e-6), (1.0, 0.1))),
    Meter(name="scope and shunt, 8 bit, 100 kS/s", rate_hz=100e3, channels=scope_channels, record=scope,
          windows_s=(5e-3, 0.5e-3), counts=(8, 20), loads_a=((200e-6, 2e-6), (1.0, 0.1))),
    Meter(name="USB meter, 10 S/s polled", rate_hz=10.0, channels=usb_channels, record=usb_meter,
          windows_s=(60.0, 5.0), counts=(8, 20), loads_a=((800e-6, 50e-6), (1.0, 0.3))),
    Meter(name="energy counter, 10 refreshes/s", rate_hz=25.0, channels=counter_channels, record=counter,
          windows_s=(30.0, 3.0), counts=(8, 20), loads_a=((500e-6, 20e-6), (1.0, 0.3))),
)  # fmt: skip
