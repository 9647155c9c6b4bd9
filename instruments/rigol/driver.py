"""What Rigol oscilloscopes are told, and what they answer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace

from joulemeter import units
from joulemeter.errors import DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Info, Options
from joulemeter.scope.driver import Record, ScopeDriver
from joulemeter.scope.setup import Granted, Input, Setup, one_two_five
from joulemeter.scpi import Identity, Scpi, SilentError, number
from joulemeter.transport.visa import open_session

from . import wire
from .models import Frames, Model, inputs_of, model_of

# To begin recording frames took 1 to 16 s, and the first query had to wait for it (an MHO98, project rigol_fastrec).
READY_S = 20.0
# A trigger that comes at once lets it stop before anybody has seen it run.
SETTLE_S = 0.5
# How long a waveform may have no scale after it was taken, and how often one may be missing altogether.
BLANK_S, MOST_EMPTY = 0.5, 3
# From memory to the wire it copies slowly, and it may be busy for long before it answers at all: in usual timeouts.
SLOW, SLOWEST = 2, 4
POLL_S = 0.02
SAME_RATE = 1 - 1e-6
# Slower than this it rolls, and records no frames.
SLOWEST_FRAMES_S = 0.1


def fits(identity: Identity) -> bool:
    return identity.maker.upper().startswith("RIGOL") and model_of(identity.model) is not None


def open_driver(address: str, options: Options, info: Info) -> ScopeDriver:
    """Raises NotFoundError, AccessError, UsageError."""
    info.chosen(options)
    scpi = Scpi(open_session(address, bare="{}:5555"))
    try:
        identity = _identity(scpi)
        model = model_of(identity.model) if fits(identity) else None
        if model is None:
            raise NotFoundError(
                f"At {address} is a {identity.maker} {identity.model}, not one of the Rigols that are known here.",
                f"They are: {', '.join(info.models)}.",
            )
        simulated = (identity.serial or "").startswith("SIM")
        dialect = Rigol(scpi, model, inputs_of(identity.model))
        return ScopeDriver(dialect, identity, info, model.family, options, simulated=simulated)
    except BaseException:
        scpi.close()
        raise


def _identity(scpi: Scpi) -> Identity:
    try:
        return scpi.identify(fits)
    except NotFoundError as error:
        if isinstance(error.__cause__, SilentError):
            raise
    # The rest of a waveform whose transfer somebody broke off comes first (libsigrok, pull request 246).
    scpi.recover()
    return scpi.identify(fits)


class Rigol:
    """See scope.driver.Dialect. `channels` is how many inputs it has."""

    def __init__(self, scpi: Scpi, model: Model, channels: int) -> None:
        self.scpi = scpi
        self._model = model
        self._channels = channels
        self._frames: Frames | None = None
        self._inputs: tuple[int, ...] = ()
        self._first, self._points, self._records = 1, 0, 1
        self._found_sweep = "AUTO"
        self._taken = 0
        self._empty = 0
        self._ran = False
        self._stale_until: float | None = None
        self._span_s = 0.0
        self._seen = b""

    # -- set-up -------------------------------------------------------------------------------------------------------

    def configure(self, wanted: Setup) -> Granted:
        self.scpi.write("*CLS")
        self._found_sweep = self.scpi.ask(":TRIG:SWE?") or "AUTO"
        self._inputs = tuple(one.number for one in wanted.inputs)
        width_s = one_two_five(wanted.record_s / self._model.wide) * self._model.wide
        slow = width_s / self._model.wide > SLOWEST_FRAMES_S
        frames = None if slow or wanted.records == 1 else self._model.frames
        if self._model.frames is not None:
            self.scpi.write(f"{self._model.frames.root}:WREC:ENAB 0")
        self.scpi.write(*self._commands(wanted, width_s))
        self._refusals()
        rate_hz, depth = self._memory(wanted, width_s)
        self._frames = frames
        self._records = self._prepared(frames, wanted.records) if frames is not None else 1
        return self._granted(wanted, rate_hz, depth)

    def _commands(self, wanted: Setup, width_s: float) -> list[str]:
        """The whole set-up, in the order that the instrument needs: probe before scale, scale before offset."""
        used = {one.number: one for one in wanted.inputs}
        if max(used) > self._channels:
            raise UsageError(
                f"This Rigol has no c{max(used)}: it has {self._channels} channels.",
                "Choose others, or state the voltage.",
            )
        # The depth of memory can be set while it runs only, and by some models only in this sweep.
        said = [":RUN", ":TRIG:SWE AUTO", ":ACQ:TYPE NORM", ":TIM:MODE MAIN"]
        for n in range(1, self._channels + 1):
            one = used.get(n)
            if one is None:
                said.append(f":CHAN{n}:DISP 0")
                continue
            if one.fifty_ohm and not self._model.fifty_ohm:
                raise UsageError("This Rigol has no 50 ohm inputs.", "Use --set coupling=dc and a terminator.")
            if self._model.fifty_ohm:
                said.append(f":CHAN{n}:IMP {'FIFT' if one.fifty_ohm else 'OMEG'}")
            said += [
                f":CHAN{n}:DISP 1",
                f":CHAN{n}:COUP DC",
                f":CHAN{n}:INV 0",
                f":CHAN{n}:BWL {'20M' if one.limited else 'OFF'}",
                f":CHAN{n}:PROB {one.attenuation:g}",
                f":CHAN{n}:SCAL {one.volts_per_div:g}",
                f":CHAN{n}:OFFS {-one.centre_v:g}",
            ]
        return [
            *said,
            f":TIM:MAIN:SCAL {width_s / self._model.wide:g}",
            # When the middle of the screen is, against the trigger.
            f":TIM:MAIN:OFFS {width_s / 2 - wanted.before_s:.9g}",
            ":TRIG:MODE EDGE",
            ":TRIG:COUP DC",
            f":TRIG:EDGE:SOUR CHAN{wanted.trigger}",
            f":TRIG:EDGE:SLOP {'POS' if wanted.rising else 'NEG'}",
            f":TRIG:EDGE:LEV {wanted.level_v:g}",
        ]

    def _refusals(self) -> None:
        complaints = self.scpi.errors()
        if complaints:
            said = "; ".join(f"{one.code} {one.text}".strip() for one in complaints)
            raise UsageError(
                f"The oscilloscope at {self.scpi.address} refuses part of its set-up: {said}.",
                "Choose another --set rate, record, peak or attenuation.",
            )

    def _memory(self, wanted: Setup, width_s: float) -> tuple[float, int]:
        """Sample rate and depth of memory: the smallest depth with the rate that is wanted. Raises UsageError."""
        least = wanted.rate_hz * width_s * SAME_RATE
        offered = [points for points in self._model.depths_for(len(self._inputs)) if points >= least]
        best = (0.0, 0)
        for points in offered or [self._model.depths_for(len(self._inputs))[-1]]:
            self.scpi.ask(f":ACQ:MDEP {self._model.depth(points)}", "*OPC?")
            rate_hz, depth = self._number(":ACQ:SRAT?"), round(self._number(":ACQ:MDEP?"))
            if depth != points or rate_hz <= best[0]:
                break
            best = (rate_hz, depth)
            if rate_hz >= wanted.rate_hz * SAME_RATE:
                break
        if best[0] < wanted.rate_hz * SAME_RATE:
            raise UsageError(
                f"The oscilloscope at {self.scpi.address} takes this record at {units.show(best[0], 'Hz')} at most.",
                "Choose a lower --set rate, or a shorter --set record.",
            )
        # A depth that was refused is in the error queue, and is no fault of the user's.
        self.scpi.ask(f":ACQ:MDEP {self._model.depth(best[1])}", "*CLS", "*OPC?")
        return float(f"{best[0]:.7g}"), best[1]

    def _prepared(self, frames: Frames, records: int) -> int:
        """Recording frames switched on; how many there will be."""
        record = f"{frames.root}:WREC"
        self.scpi.write(":TRIG:SWE NORM", f"{record}:ENAB 1", f"{record}:FINT {frames.interval_s:g}")
        most = round(self._number(f"{record}:FMAX?"))
        count = min(records, most) if most > 0 else records
        self.scpi.write(f"{record}:{frames.count} {count}", f"{record}:PROM 0")
        return count

    def _granted(self, wanted: Setup, rate_hz: float, depth: int) -> Granted:
        # The middle of the memory is the middle of the screen, however much longer it is.
        ahead = round(depth / 2 - self._number(":TIM:MAIN:OFFS?") * rate_hz)
        before = min(round(wanted.before_s * rate_hz), max(ahead, 0))
        start = max(ahead - before, 0)
        self._first = start + 1
        self._points = min(round(wanted.record_s * rate_hz), depth - start)
        self._span_s = depth / rate_hz
        return Granted(
            rate_hz=rate_hz,
            points=self._points,
            before=before,
            records=self._records,
            inputs=tuple(self._input(one) for one in wanted.inputs),
            timed=False,
        )

    def _input(self, one: Input) -> Input:
        factor = self._number(f":CHAN{one.number}:PROB?")
        if abs(factor / one.attenuation - 1) > 1e-3:
            raise UsageError(
                f"The oscilloscope has no probe factor {one.attenuation:g}, but {factor:g}.",
                "Choose one that it has; an amplifier goes into --set amplifier.",
            )
        return replace(
            one,
            volts_per_div=self._number(f":CHAN{one.number}:SCAL?"),
            centre_v=-self._number(f":CHAN{one.number}:OFFS?"),
        )

    def _number(self, query: str) -> float:
        reply = self.scpi.ask(query)
        try:
            return float(reply)
        except ValueError as error:
            raise DataError(
                f"The oscilloscope answers {query} with {reply!r}.", "Check its firmware and its state."
            ) from error

    # -- acquisition --------------------------------------------------------------------------------------------------

    def arm(self) -> None:
        self._taken, self._ran, self._stale_until = 0, False, None
        if self._frames is None:
            self.scpi.write(":SING")
        else:
            self.scpi.write(f"{self._frames.root}:WREC:OPER RUN")
            self.scpi.ask(self._state, timeout_s=SLOWEST * self.scpi.timeout_s, retries=0)
        self.scpi.wait(self._state, self._waiting, READY_S + self._span_s, "ready state of the trigger")
        if self._frames is not None and self._frames.positioned:
            at_frame = f"{self._frames.root}:WREP:FCUR?"
            self.scpi.wait(at_frame, lambda reply: (number(reply) or 0) >= 1, READY_S, "ready state of the recording")

    @property
    def _state(self) -> str:
        return ":TRIG:STAT?" if self._frames is None else f"{self._frames.root}:WREC:OPER?"

    def _waiting(self, reply: str) -> bool:
        """Whether it waits for the trigger, or has had it already.

        STOP is what it was in before, unless it was seen to run or has had the time to begin.
        """
        if _stopped(reply):
            # Some do not answer at all for a while: the time begins with the first answer.
            self._stale_until = self._stale_until or time.monotonic() + SETTLE_S
            return self._ran or time.monotonic() >= self._stale_until
        self._ran = True
        # It runs while it takes what precedes the trigger.
        return self._frames is not None or reply.upper() != "RUN"

    def done(self) -> bool:
        if not _stopped(self.scpi.ask(self._state)):
            return False
        self._taken = self._records
        return True

    def halt(self) -> None:
        state = self.scpi.ask(self._state)
        if _stopped(state):
            self._taken = self._records
            return
        if self._frames is None:
            # The rest of a record that has been triggered is on its way.
            if state.upper().startswith("T") and self._ends():
                self._taken = 1
                return
            self.scpi.ask(":STOP", "*OPC?")
            return
        root = self._frames.root
        at_frame = round(self._number(f"{root}:WREP:FCUR?")) if self._frames.positioned else 0
        # STOP of the whole instrument would begin anew.
        self.scpi.ask(f"{root}:WREC:OPER STOP", "*OPC?")
        whole = at_frame - 1 if self._frames.positioned else round(self._number(f"{root}:WREP:FMAX?"))
        self._taken = min(max(whole, 0), self._records)

    def _ends(self) -> bool:
        deadline = time.monotonic() + SETTLE_S + self._span_s
        while time.monotonic() < deadline:
            if _stopped(self.scpi.ask(":TRIG:STAT?")):
                return True
            time.sleep(POLL_S)
        return False

    def restore(self) -> None:
        if self._model.frames is not None:
            self.scpi.write(f"{self._model.frames.root}:WREC:ENAB 0")
        self.scpi.write(":WAV:MODE NORM", f":TRIG:SWE {self._found_sweep}", ":RUN")

    # -- waveforms ----------------------------------------------------------------------------------------------------

    def fetch(self) -> Iterator[Record]:
        taken, self._taken = self._taken, 0
        if self._frames is not None and taken:
            self.scpi.write(f"{self._frames.root}:WREP:OPER STOP")
        for k in range(1, taken + 1):
            if self._frames is not None:
                frame = f"{self._frames.root}:WREP:FCUR"
                self.scpi.write(f"{frame} {k}")
                if round(self._number(f"{frame}?")) != k:
                    return
            parts = [part for number in self._inputs if (part := self._waveform(number)) is not None]
            if len(parts) < len(self._inputs) or self._old(parts):
                self._missing()
                continue
            self._empty = 0
            yield Record(after_s=0.0 if self._frames is None else None, parts=parts)

    def _old(self, parts: list[bytes]) -> bool:
        """Whether this is the record before it again: noise never repeats itself, and nothing else tells."""
        before, self._seen = self._seen, hashlib.sha256(b"".join(parts)).digest()
        return not self._ran and before == self._seen

    def _missing(self) -> None:
        """Firmware stops at times without a new waveform; it is asked for another one. Raises DataError."""
        self._empty += 1
        if self._empty >= MOST_EMPTY:
            raise DataError(
                f"The oscilloscope stopped {self._empty} times without a new waveform in its memory.",
                "Switch it off and on, or choose another --set rate or record; what came before is kept.",
            )

    def _waveform(self, number: int) -> bytes | None:
        """Preamble and codes of an input; None where there are none."""
        kind = "WORD" if self._model.word else "BYTE"
        # Both modes, for then it forgets where it was read before.
        self.scpi.write(f":WAV:SOUR CHAN{number}", ":WAV:MODE NORM", ":WAV:MODE RAW", f":WAV:FORM {kind}")
        deadline = time.monotonic() + BLANK_S
        while True:
            text = self.scpi.ask(":WAV:PRE?")
            told = wire.preamble(text)
            if not told.blank or time.monotonic() >= deadline:
                break
            time.sleep(POLL_S)
        if told.type != wire.RAW or told.format != (wire.WORD if self._model.word else wire.BYTE):
            raise DataError(
                f"The oscilloscope gives waveforms of another kind than it was asked for ({text!r}).",
                "Leave its controls alone while it records.",
            )
        short = not self._model.pages_told and told.points < self._first + self._points - 1
        if told.y_increment == 0 or short:
            return None
        data = self._codes(number)
        return None if data is None else wire.pack(text, data)

    def _codes(self, number: int) -> bytes | None:
        """The part of the memory that is wanted, page by page; a page may be shorter than it should."""
        itemsize = 2 if self._model.word else 1
        at, end = self._first, self._first + self._points
        pages: list[bytes] = []
        while at < end:
            last = min(at + self._model.page, end) - 1
            settled = ("*WAI",) if self._model.waits else ()
            page = self.scpi.ask_block(
                f":WAV:STAR {at}", f":WAV:STOP {last}", *settled, ":WAV:DATA?", timeout_s=SLOW * self.scpi.timeout_s
            ).tobytes()
            count = len(page) // itemsize
            if not count and not pages:
                return None
            if not count or len(page) % itemsize or count > last - at + 1:
                raise IncompleteError(
                    f"c{number} gave {len(page)} bytes for {last - at + 1} samples, {at - self._first} of "
                    f"{self._points} samples in.",
                    "Record anew; what came before is kept.",
                )
            pages.append(page)
            at += count
        return b"".join(pages)


def _stopped(reply: str) -> bool:
    return reply.upper() == "STOP"
