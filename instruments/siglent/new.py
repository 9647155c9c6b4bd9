"""The new dialect: SDS2000X Plus, SDS5000X, SDS6000A, the HD series."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from joulemeter.errors import DataError, IncompleteError, UsageError
from joulemeter.scope.driver import Record
from joulemeter.scope.setup import Granted, Input, Setup, one_two_five
from joulemeter.scpi import CutShortError, Scpi

from . import wire
from .common import ask, check_inputs, check_trigger, must

DIVISIONS_WIDE = 10
# Armed at least for this long without being so: it is told again, and that often.
ARM_S, ARM_TRIES = 1.0, 10
# A sequence that took something and then nothing for this long is fetched as it is.
QUIET_S = 2.0
# Depths of memory that some model or other has (ngscopeclient/scopehal).
DEPTHS = tuple(
    f"{digit}{power}"
    for power in ("k", "0k", "00k", "M", "0M", "00M")
    for digit in (1, 2, 5)
    if (digit, power) != (1, "k")
)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2}):(\d{2}(?:\.\d+)?)")
_DAY_S = 86400.0


class NewSiglent:
    """See scope.driver.Dialect."""

    def __init__(self, scpi: Scpi, inputs: int) -> None:
        self.scpi = scpi
        self._there = inputs
        self._wanted: Setup | None = None
        self._records = 1
        self._before = 0
        self._found_mode = "AUTO"
        # Acquisitions that it has counted when it was armed, and the last that were seen, and when.
        self._base = self._taken = 0
        self._changed_at = 0.0
        # Whether the counter starts over with each acquisition; None as long as that is not known.
        self._restarts: bool | None = None
        # Whether the header of a block counts samples of two bytes (SDS2000X Plus before 1.3.9R10).
        self._counts_samples = False
        self._checked = False

    def configure(self, wanted: Setup) -> Granted:
        check_inputs(self.scpi, wanted, self._there)
        self._wanted, self._checked = wanted, False
        self.scpi.write("CHDR OFF")
        self.scpi.write("*CLS")
        self._found_mode = self.scpi.ask(":TRIG:MODE?").split()[-1]
        self.halt()
        width_s = one_two_five(wanted.record_s / DIVISIONS_WIDE) * DIVISIONS_WIDE
        for wish in _wishes(wanted):
            self.scpi.write(wish)
        self.scpi.errors()
        for command in _commands(wanted, width_s, self._there):
            self.scpi.write(command)
        complaints = self.scpi.errors()
        if complaints:
            said = "; ".join(f"{one.code} {one.text}" for one in complaints)
            raise UsageError(
                f"The oscilloscope at {self.scpi.address} refuses part of its set-up: {said}.",
                "Choose another --set rate, record or peak.",
            )
        width_s = must(self.scpi, ":TIM:SCAL?", width_s / DIVISIONS_WIDE, "the time scale") * DIVISIONS_WIDE
        must(self.scpi, ":TRIG:EDGE:LEV?", wanted.level_v, "the trigger's level")
        rate_hz = self._deep_enough(wanted.rate_hz, width_s)
        self._records = self._sequence(wanted.records)
        # Memory is shared: for so many it may have to go slower.
        while (slower_hz := ask(self.scpi, ":ACQ:SRAT?")) < rate_hz * (1 - 1e-9) and self._records > 1:
            self._records = self._sequence(self._records // 2)
        rate_hz = min(rate_hz, slower_hz)
        # The middle of the screen is at the delay, and the reference too.
        self._before = max(round((width_s / 2 - ask(self.scpi, ":TIM:DEL?")) * rate_hz), 0)
        return Granted(
            rate_hz=rate_hz,
            points=round(width_s * rate_hz),
            before=self._before,
            records=self._records,
            inputs=tuple(self._input(one) for one in wanted.inputs),
        )

    def _deep_enough(self, rate_hz: float, width_s: float) -> float:
        """The least memory with which it is fast enough: samples per second."""
        granted_hz = 0.0
        for depth in DEPTHS:
            if wire.quantity(depth) < width_s * rate_hz * (1 - 1e-9):
                continue
            self.scpi.write(f":ACQ:MDEP {depth}")
            if ask(self.scpi, ":ACQ:MDEP?") != wire.quantity(depth):
                continue
            granted_hz = ask(self.scpi, ":ACQ:SRAT?")
            if granted_hz >= rate_hz * (1 - 1e-9):
                break
        # A depth that it has not is complained of; the rate tells what it took.
        self.scpi.errors()
        return granted_hz or ask(self.scpi, ":ACQ:SRAT?")

    def _sequence(self, records: int) -> int:
        """How many records make one acquisition."""
        self.scpi.write(f":ACQ:SEQ {'ON' if records > 1 else 'OFF'}")
        if records > 1:
            self.scpi.write(f":ACQ:SEQ:COUN {records}")
            if self.scpi.ask(":ACQ:SEQ?").upper().endswith("ON"):
                granted = round(ask(self.scpi, ":ACQ:SEQ:COUN?"))
                self.scpi.errors()
                return min(max(granted, 1), records)
        self.scpi.errors()
        return 1

    def _input(self, one: Input) -> Input:
        channel = f":CHAN{one.number}"
        must(self.scpi, f"{channel}:PROB?", one.attenuation, f"the attenuation of c{one.number}")
        return replace(
            one, volts_per_div=ask(self.scpi, f"{channel}:SCAL?"), centre_v=-ask(self.scpi, f"{channel}:OFFS?")
        )

    def arm(self) -> None:
        self.halt()
        for attempt in range(ARM_TRIES):
            before = self._counted()
            self.scpi.write(":TRIG:MODE SING")
            if attempt:
                self.scpi.write(":TRIG:RUN")
            try:
                self.scpi.wait(":TRIG:STAT?", _waits, ARM_S, "ready state of the trigger")
            except IncompleteError:
                # A trigger that came at once has ended that state before it could be seen.
                if self._counted() == before and attempt + 1 < ARM_TRIES:
                    continue
                if self._counted() == before:
                    raise
            break
        after = self._counted()
        if after < before:
            self._restarts = True
        self._base = 0 if self._restarts else before
        self._taken, self._changed_at = after, time.monotonic()

    def _counted(self) -> int:
        return int(ask(self.scpi, ":ACQ:NUMACQ?"))

    def done(self) -> bool:
        if self.scpi.ask(":TRIG:STAT?").upper().endswith("STOP"):
            return True
        if self._records == 1:
            return False
        counted, now = self._counted(), time.monotonic()
        if counted != self._taken:
            self._taken, self._changed_at = counted, now
        # A finished sequence may wait for the next one (SDS814X HD), and an unfinished one be all that there is.
        return counted - self._base >= self._records or (counted > self._base and now - self._changed_at > QUIET_S)

    def halt(self) -> None:
        """Until it is told to stop, what a sequence took cannot be read."""
        self.scpi.write(":TRIG:STOP")
        self.scpi.wait(
            ":TRIG:STAT?", lambda reply: reply.upper().endswith("STOP"), ARM_S * ARM_TRIES, "end of the acquisition"
        )

    def fetch(self) -> Iterator[Record]:
        wanted = self._wanted
        self.halt()
        if wanted is None or self._counted() in (0, self._base):
            # It still shows the record before.
            return
        if self._records == 1:
            yield self._record(0.0, {one.number: self._describe(one.number) for one in wanted.inputs})
            return
        self.scpi.write(":HISTORY ON")
        yield from self._frames()
        self.scpi.write(":HISTORY OFF")

    def _frames(self) -> Iterator[Record]:
        told: dict[int, wire.Descriptor] = {}
        first_s = 0.0
        frames, frame = 1, 1
        while frame <= frames:
            self.scpi.write(f":HISTORY:FRAME {frame}")
            self.scpi.write(f":WAV:SEQ {frame},1")
            at_s = self._clock()
            if not told:
                # The scales are those of all frames.
                told = {one.number: self._describe(one.number) for one in self._inputs}
                frames, first_s = min(one.whole("sum_frames") for one in told.values()), at_s
            yield self._record((at_s - first_s) % _DAY_S, told)
            frame += 1

    @property
    def _inputs(self) -> tuple[Input, ...]:
        return self._wanted.inputs if self._wanted is not None else ()

    def _clock(self) -> float:
        """When the frame that is shown was triggered, in seconds of the day."""
        reply = self.scpi.ask(":HISTORY:TIME?")
        match = _CLOCK.search(reply)
        if match is None:
            raise DataError(
                f"The oscilloscope says {reply!r} where the time of a record is due.",
                "Use --set records=1.",
            )
        return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])

    def _describe(self, number: int) -> wire.Descriptor:
        """The waveform of that input, after its width has been set to what its converter has."""
        for command in (f":WAV:SOUR C{number}", ":WAV:STAR 0", ":WAV:INT 1"):
            self.scpi.write(command)
        told = wire.descriptor(self.scpi.ask_block(":WAV:PRE?").tobytes())
        width = "WORD" if told.whole("bits") > 8 else "BYTE"
        if bool(told.whole("word")) != (width == "WORD"):
            self.scpi.write(f":WAV:WIDT {width}")
            told = wire.descriptor(self.scpi.ask_block(":WAV:PRE?").tobytes())
        return told

    def _record(self, after_s: float, told: dict[int, wire.Descriptor]) -> Record:
        parts = {number: one.raw + self._codes(number, one) for number, one in told.items()}
        wanted = self._wanted
        if wanted is not None and not self._checked:
            check_trigger(parts[wanted.trigger], self._before, wanted.level_v)
            self._checked = True
        return Record(after_s=after_s, parts=[parts[number] for number in told])

    def _codes(self, number: int, told: wire.Descriptor) -> bytes:
        """All of them, page by page; a page may be shorter than it may be."""
        points, size = told.whole("points"), told.codes.itemsize
        page = max(int(ask(self.scpi, ":WAV:MAXP?")), 1)
        self.scpi.write(f":WAV:SOUR C{number}")
        got = bytearray()
        while len(got) < points * size:
            done = len(got) // size
            count = min(page, points - done)
            for command in (f":WAV:STAR {done}", f":WAV:POIN {count}"):
                self.scpi.write(command)
            came = self._page(count, size)
            if not came or len(came) % size:
                raise DataError(
                    f"c{number} has {points} samples, and {done} of them came.",
                    "Record anew; what came before is kept.",
                )
            got += came
        if points * size > page * size:
            # Others would begin where this ended.
            self.scpi.write(":WAV:STAR 0")
        return bytes(got[: points * size])

    def _page(self, count: int, size: int) -> bytes:
        if size == 1 or not self._counts_samples:
            try:
                return self.scpi.ask_block(":WAV:DATA?", dtype=np.uint8, retries=0).tobytes()
            except CutShortError:
                raise
            except DataError:
                if size == 1:
                    raise
                # More came than its header says: it counts samples.
                self.scpi.recover()
                self._counts_samples = True
        return self.scpi.ask_block(":WAV:DATA?", dtype=np.uint8, length=count * size).tobytes()

    def restore(self) -> None:
        for command in (
            ":HISTORY OFF",
            ":ACQ:SEQ OFF",
            ":WAV:STAR 0",
            ":WAV:POIN 0",
            f":TRIG:MODE {self._found_mode}",
            ":TRIG:RUN",
        ):
            self.scpi.write(command)


def _waits(reply: str) -> bool:
    return not reply.upper().endswith("STOP")


def _wishes(wanted: Setup) -> list[str]:
    """What not all models have, and those that have not need not."""
    said = [":ACQ:MODE YT", ":ACQ:MMAN FMD", ":TIM:REF:POS 50", ":TRIG:EDGE:COUP DC"]
    for one in wanted.inputs:
        channel = f":CHAN{one.number}"
        said += [f"{channel}:UNIT V", f"{channel}:IMP ONEM", f"{channel}:BWL {'20M' if one.limited else 'FULL'}"]
    return said


def _commands(wanted: Setup, width_s: float, there: int) -> list[str]:
    """The whole set-up, in the order that the instrument needs: attenuation before scale, scale before offset."""
    used = {one.number: one for one in wanted.inputs}
    said = [":ACQ:TYPE NORM"]
    for number in range(1, there + 1):
        one, channel = used.get(number), f":CHAN{number}"
        if one is None:
            said.append(f"{channel}:SWIT OFF")
            continue
        said += [
            f"{channel}:SWIT ON",
            f"{channel}:PROB VAL,{one.attenuation:g}",
            *((f"{channel}:IMP FIFT",) if one.fifty_ohm else ()),
            f"{channel}:COUP DC",
            f"{channel}:SCAL {one.volts_per_div:.4E}",
            f"{channel}:OFFS {-one.centre_v:.4E}",
        ]
    said += [
        f":TIM:SCAL {width_s / DIVISIONS_WIDE:.2E}",
        f":TIM:DEL {width_s / 2 - wanted.before_s:.6E}",
        ":TRIG:TYPE EDGE",
        f":TRIG:EDGE:SOUR C{wanted.trigger}",
        f":TRIG:EDGE:SLOP {'RIS' if wanted.rising else 'FALL'}",
        f":TRIG:EDGE:LEV {wanted.level_v:.4E}",
    ]
    return said
