"""Arm, wait by status, fetch, arm again: an oscilloscope as a meter.

A family of oscilloscopes gives a Dialect. A record becomes one frame (frames.py): its number is the sample at which it
begins, counted from when the oscilloscope was first armed, its payload what the instrument sent for each input.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from joulemeter import frames, units
from joulemeter.capture import Basis, Header, Limit, Voltage
from joulemeter.caveat import Caveat, Code, note
from joulemeter.errors import IncompleteError, JouleMeterError
from joulemeter.instrument import Info, Options
from joulemeter.scope.frontend import DECLARED_SHARE, UNSTEADY, FrontEnd
from joulemeter.scope.setup import Family, Granted, Setup, setup
from joulemeter.scpi import Identity, Scpi

# How often an oscilloscope is asked whether it is done.
POLL_S = 0.01
# What takes longer than a moment to fetch is told with its size.
TOLD_BYTES = 1 << 20
# So many samples at least are between two records: some oscilloscopes send a few more than they say.
APART = 64
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One waveform of each input. `after_s` is when it was triggered, since the first one of its acquisition.

    None where the instrument does not tell it: then only the order of the records is known.
    """

    after_s: float | None
    parts: Sequence[bytes]


class Dialect(Protocol):
    """What a family of oscilloscopes says. All methods raise IncompleteError when it no longer answers."""

    scpi: Scpi

    def configure(self, wanted: Setup) -> Granted:
        """Set it up, and what it made of it. Raises UsageError for what it refuses."""
        ...

    def arm(self) -> None:
        """Begin an acquisition; returns once it waits for the trigger."""
        ...

    def done(self) -> bool:
        """Whether all records of the acquisition are there; asks once and waits for nothing."""
        ...

    def halt(self) -> None:
        """End the acquisition; whole records are kept."""
        ...

    def fetch(self) -> Iterator[Record]:
        """The records of the acquisition, oldest first; none where there was no trigger."""
        ...

    def restore(self) -> None:
        """Leave it running for people."""
        ...


def pack_parts(parts: Sequence[bytes]) -> bytes:
    return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))


def unpack_parts(payload: bytes) -> list[bytes]:
    """Raises struct.error for bytes that are none."""
    parts, at = [], 0
    while at < len(payload):
        (length,) = _LENGTH.unpack_from(payload, at)
        parts.append(payload[at + _LENGTH.size : at + _LENGTH.size + length])
        at += _LENGTH.size + length
    return parts


class ScopeDriver:
    """See instrument.Driver. `read` takes as long as the transfer of a record does; Ctrl-C is heard in between."""

    def __init__(
        self,
        dialect: Dialect,
        identity: Identity,
        info: Info,
        family: Family,
        options: Options,
        *,
        simulated: bool,
        parameters: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Raises UsageError for settings that cannot be."""
        self._dialect, self._identity, self._info, self._family = dialect, identity, info, family
        self._settings = info.chosen(options)
        self.front = FrontEnd.of(self._settings, options)
        self._wanted = setup(self._settings, self.front, family)
        self._wait_s = units.parse_positive(self._settings["wait"], "s")
        self._simulated = simulated
        self._parameters = parameters
        self._granted: Granted | None = None
        self._coming: Iterator[bytes] = iter(())
        self._zero = self._armed_at = 0.0
        self._armed = self._closed = False
        self._next = 0
        self._doing = ""
        dialect.scpi.progress = self._transferred

    def start(self) -> Header:
        self._granted = self._dialect.configure(self._wanted)
        header = self._header(self._granted)
        self._zero = time.monotonic()
        self._next = 0
        self._arm()
        return header

    @property
    def doing(self) -> str:
        return self._doing

    def _transferred(self, done: int, whole: int) -> None:
        self._doing = f"fetching {done / whole:.0%} of {whole / 1e6:.1f} MB" if whole > TOLD_BYTES else "fetching"

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when no trigger comes for as long as the setting `wait` says."""
        deadline = time.monotonic() + timeout_s
        while True:
            frame = next(self._coming, None)
            if frame is not None:
                return frame
            if not self._armed:
                self._arm()
            if self._dialect.done():
                self._coming = self._fetched()
                continue
            now = time.monotonic()
            if now - self._armed_at > self._wait_s:
                return self._given_up()
            if now >= deadline:
                return b""
            time.sleep(min(POLL_S, max(deadline - now, 0.0)))

    def _given_up(self) -> bytes:
        """What there is, though not all records that were wanted came."""
        self._dialect.halt()
        self._coming = self._fetched()
        frame = next(self._coming, None)
        if frame is None:
            at = f"c{self.front.trigger} at {units.show(self.front.level_v, 'V')}"
            raise IncompleteError(
                f"No trigger came within {units.show_duration(self._wait_s)} on {at}.",
                "Check the wire, the level, the slope and that the device runs; or allow more with --set wait=5min.",
            )
        return frame

    def remaining(self) -> Iterator[bytes]:
        """What was still to be fetched, and what the acquisition that goes on has by now."""
        yield from self._coming
        if self._armed:
            self._dialect.halt()
            yield from self._fetched()

    def stop(self) -> None:
        if self._granted is None or self._closed:
            return
        self._granted = None
        self._armed = False
        self._coming = iter(())
        with contextlib.suppress(JouleMeterError):
            self._dialect.halt()
            self._dialect.restore()

    def close(self) -> None:
        self.stop()
        if not self._closed:
            self._closed = True
            with contextlib.suppress(JouleMeterError, OSError):
                self._dialect.scpi.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _arm(self) -> None:
        self._armed_at = time.monotonic()
        self._doing = "arming"
        self._dialect.arm()
        self._doing = "armed"
        self._armed = True

    def _fetched(self) -> Iterator[bytes]:
        """Frames of the acquisition that has ended."""
        self._armed = False
        granted = self._granted
        if granted is None:
            return
        began_s = self._armed_at - self._zero
        for record in self._dialect.fetch():
            number = max(round((began_s + (record.after_s or 0.0)) * granted.rate_hz), self._next)
            self._next = number + granted.points + APART
            now_ns = time.monotonic_ns()
            yield frames.pack(
                frames.Frame(number=number, before_ns=now_ns, after_ns=now_ns, payload=pack_parts(record.parts))
            )

    def _header(self, granted: Granted) -> Header:
        front, family = self.front, self._family
        accuracy = {
            one.number: family.accuracy(
                one, zeroed=one.number == front.current and (front.zero_a is not None or front.zero_v is not None)
            )
            for one in granted.inputs
        }
        volts = front.declared_v
        stated = volts is not None and front.voltage is None
        return Header(
            instrument=self._info.key,
            model=self._identity.model,
            serial=self._identity.serial,
            firmware=self._identity.firmware,
            address=self._dialect.scpi.address,
            wire=self._info.wire,
            rate_hz=granted.rate_hz,
            word_bytes=max(1, family.bits // 8 + (family.bits % 8 > 0)) * len(granted.inputs),
            channels=front.channels(accuracy),
            simulated=self._simulated,
            triggered=True,
            clock=Limit(value=family.clock),
            voltage=Voltage(volts=volts, basis=Basis.DECLARED, limit=Limit(value=DECLARED_SHARE * volts))
            if volts is not None and stated
            else None,
            parameters={
                "front": front.to_dict(),
                "inputs": [one.number for one in granted.inputs],
                "before": granted.before,
                "points": granted.points,
                "invalid": UNSTEADY,
                "volts_per_div": {f"c{one.number}": one.volts_per_div for one in granted.inputs},
                **self._parameters(),
            },
            caveats=self._caveats(granted),
        )

    def _caveats(self, granted: Granted) -> tuple[Caveat, ...]:
        front = self.front
        found = [
            note(
                Code.SKEW,
                f"The current is taken to be seen {units.show(front.deskew_s, 's')} ± {units.show(front.skew_s, 's')} "
                f"after the trigger line, as probes are. Capacitors between shunt and device delay it by their "
                "capacitance times the resistance before them (10 ohm and 10 uF: 100 us): if there are any, give "
                "--set skew, or many inferences to a window.",
                skew_s=front.skew_s,
            )
        ]
        if front.zero_a is None and front.zero_v is None:
            found.append(
                note(
                    Code.ZERO_UNKNOWN,
                    "Where zero current lies on the screen was not measured, so the offset that the maker allows is in "
                    "the budget. Give the current before each trigger, --set zero=2mA±2%, or the input's offset.",
                )
            )
        if granted.records > 1 and not granted.timed:
            found.append(
                note(
                    Code.GAP_LENGTH_UNCERTAIN,
                    "This oscilloscope does not tell when each record of an acquisition was triggered: their order is "
                    "right, the time between them is not. Widths and energies are not affected. With --set records=1 "
                    "each has the time at which it was armed.",
                )
            )
        if self._settings["records"].isdigit() and granted.records < self._wanted.records:
            found.append(
                note(
                    Code.FEWER_RECORDS,
                    f"{granted.records} records fit into an acquisition where {self._wanted.records} were wanted.",
                )
            )
        return tuple(found)
