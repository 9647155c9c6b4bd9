"""A simulated device with a shunt and probes in front of a simulated oscilloscope.

It makes codes, as a converter would; how these travel is the personality's business. What it knows it takes from the
drawn load and from the settings of the front end alone.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from joulemeter.scope.frontend import FrontEnd
from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import ScpiDevice

Float = NDArray[np.float64]
Codes = NDArray[np.int16]

# The trigger line is looked at so often while it is waited for, and then at the sample rate.
WATCH_HZ = 1e6
SUPPLY_V = 3.3
# So many of these looks are taken at once.
LOOK = 1 << 16
# From the end of a record until the next one can be triggered.
DEAD_S = 2e-6
# A board that is simulated beside it may still be writing down what it did just now.
LAG_S = 0.01
# Samples that are made between two looks at what the host says, and in one go.
AT_ONCE, PIECE = 1 << 18, 1 << 17
# What such an input adds by itself: within what the makers allow.
OFFSET_DIVISIONS = 0.03
NOISE_DIVISIONS = 0.03


@dataclass(slots=True)
class Channel:
    """An input's controls, as the personality has them; volts are at the probe's tip."""

    on: bool = False
    volts_per_div: float = 1.0
    centre_v: float = 0.0
    attenuation: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A record: when it was triggered on the device's clock, when its first sample was taken, codes by channel."""

    trigger_s: float
    first_s: float
    codes: Mapping[int, Codes]


@dataclass(slots=True)
class Timebase:
    rate_hz: float = 1e6
    points: int = 1000
    before: int = 500


class Bench:
    """What the inputs of the oscilloscope are connected to."""

    def __init__(self, draw: Draw, front: FrontEnd, seed: int = 7) -> None:
        self._draw = draw.from_time(0.0)
        self._front = front
        self._random = np.random.default_rng(seed)

    def volts(self, number: int, first: int, count: int, rate_hz: float) -> Float:
        """At the tip of that input's probe, from sample `first` on; an open input sees nothing."""
        front = self._front
        if number == front.trigger:
            states = self._draw.lines(first, count, rate_hz)
            return np.where(states & 1, front.high_v, 0.0)
        current = self._draw.mean_current_a(first, count, rate_hz)
        if number == front.current:
            return current * front.volts_per_ampere
        if number == front.voltage:
            supply_v = front.declared_v or SUPPLY_V
            return supply_v - (0.0 if front.at_supply else 1.0) * current * front.ohm
        return np.zeros(count)

    def trigger_after(self, start_s: float, stop_s: float, rate_hz: float, *, rising: bool) -> float | None:
        """When the trigger line next changes that way in [start, stop)."""
        first, last = round(start_s * WATCH_HZ), round(stop_s * WATCH_HZ)
        at = None
        while at is None:
            count = min(last - first, LOOK)
            if count < 2:
                return None
            at = self._edge(first, count, WATCH_HZ, rising=rising)
            # The edge may lie between two looks.
            first += count - 1
        if rate_hz <= WATCH_HZ:
            return at / WATCH_HZ
        fine = int((at - 1.5) / WATCH_HZ * rate_hz)
        found = self._edge(fine, int(3 * rate_hz / WATCH_HZ) + 2, rate_hz, rising=rising)
        return at / WATCH_HZ if found is None else found / rate_hz

    def _edge(self, first: int, count: int, rate_hz: float, *, rising: bool) -> int | None:
        high = (self._draw.lines(first, count, rate_hz) & 1).astype(np.int8)
        where = np.flatnonzero(np.diff(high) == (1 if rising else -1))
        return first + int(where[0]) + 1 if len(where) else None

    def shot(
        self, trigger_s: float, base: Timebase, channels: Mapping[int, Channel], codes_per_div: float, limit: int
    ) -> Generator[int, None, Shot]:
        """The record around a trigger, as codes from -limit - 1 to limit with 0 in the middle of the screen.

        It yields how many samples it has made since it last did, for long records take a while.
        """
        first = round(trigger_s * base.rate_hz) - base.before
        taken: dict[int, Codes] = {
            number: np.empty(base.points, np.int16) for number, channel in channels.items() if channel.on
        }
        for start in range(0, base.points, PIECE):
            count = min(PIECE, base.points - start)
            for number, codes in taken.items():
                channel = channels[number]
                volts = self.volts(number, first + start, count, base.rate_hz)
                noise = self._random.normal(OFFSET_DIVISIONS, NOISE_DIVISIONS, count)
                divisions = (volts - channel.centre_v) / channel.volts_per_div + noise
                codes[start : start + count] = np.clip(np.rint(divisions * codes_per_div), -limit - 1, limit)
            yield count
        return Shot(trigger_s=trigger_s, first_s=first / base.rate_hz, codes=taken)


@dataclass(slots=True)
class Sweep:
    """The acquisition: armed since, records wanted, records taken."""

    armed_s: float | None = None
    wanted: int = 1
    shots: list[Shot] = field(default_factory=list)


class ScopeSimulator(ScpiDevice):
    """What all simulated oscilloscopes do between two commands. A personality sets `codes_per_div` and `limit`.

    `late_s` is how much later than told it is really armed.
    """

    codes_per_div = 25.0
    limit = 127
    inputs = 4
    late_s = 0.0

    def __init__(self, draw: Draw, front: FrontEnd) -> None:
        super().__init__()
        self.bench = Bench(draw, front)
        self.base = Timebase()
        self.channels = {number: Channel() for number in range(1, self.inputs + 1)}
        self.rising = True
        self.sweep = Sweep()
        self._held: list[Shot] = []
        self._searched_s = 0.0
        self._making: Generator[int, None, Shot] | None = None

    @property
    def armed(self) -> bool:
        return self.sweep.armed_s is not None

    @property
    def held(self) -> list[Shot]:
        """What can be read: the last acquisition that was triggered, also after one that was not."""
        return self.sweep.shots or self._held

    def arm(self, records: int) -> None:
        self._held = self.held
        self.sweep = Sweep(armed_s=self.now_s + self.late_s, wanted=records)
        self._making = None
        # What precedes the trigger has to be taken first.
        self._searched_s = self.now_s + self.late_s + self.base.before / self.base.rate_hz

    def halt(self) -> None:
        self.sweep.armed_s = None
        self._making = None

    def busy(self) -> bool:
        return self.armed

    def advance(self, now_s: float) -> None:
        now_s -= LAG_S
        after_s = (self.base.points - self.base.before) / self.base.rate_hz
        # A host that asks something is answered in between, however much is due.
        made = 0
        while self.armed and made < AT_ONCE:
            if self._making is None:
                at = self.bench.trigger_after(self._searched_s, now_s, self.base.rate_hz, rising=self.rising)
                if at is None:
                    # The last step is looked at again, for the edge may lie on it.
                    self._searched_s = max(self._searched_s, now_s - 2 / WATCH_HZ)
                    return
                if at + after_s > now_s:
                    return
                self._making = self.bench.shot(at, self.base, self.channels, self.codes_per_div, self.limit)
            try:
                made += next(self._making)
            except StopIteration as whole:
                self._making = None
                self.sweep.shots.append(whole.value)
                self._searched_s = whole.value.trigger_s + after_s + DEAD_S
                if len(self.sweep.shots) >= self.sweep.wanted:
                    self.sweep.armed_s = None
