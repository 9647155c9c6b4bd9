"""What Tektronix oscilloscopes are told, and what they answer."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from joulemeter.errors import DataError, NotFoundError, UsageError
from joulemeter.instrument import Info, Options
from joulemeter.scope.driver import Record, ScopeDriver
from joulemeter.scope.frontend import FrontEnd
from joulemeter.scope.setup import Granted, Input, Setup
from joulemeter.scpi import Identity, Scpi, number
from joulemeter.transport.visa import open_session

from . import wire
from .models import Model, Probe, inputs_of, model_of

DIVISIONS_WIDE = 10
# After it was told to run, or to stop.
READY_S = 10.0
# Command, execution, device-dependent and query errors in the event register (IEEE 488.2, 11.5.1).
REFUSED = 0x3C
# What is asked of each waveform, by name: the whole preamble has fields more or less with the firmware.
ASKED = ("BYT_N", "BN_F", "BYT_O", "PT_F", "NR_P", "XIN", "XUN", "YMU", "YOF", "YZE", "YUN")
# A probe that says otherwise by this is another one.
SAME_PROBE = 0.01
_SCALE_STEPS = (1.0, 2.0, 4.0, 10.0)
_STAMP = re.compile(r"(\d{1,2})[. ]([A-Za-z]{3}|\d{1,2})[. ](\d{4})[. ](\d{1,2}):(\d\d):(\d\d)\.(\d[\d ]*)")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def fits(identity: Identity) -> bool:
    return identity.maker.upper().startswith("TEKTRONIX") and model_of(identity.model) is not None


def open_driver(address: str, options: Options, info: Info) -> ScopeDriver:
    """Raises NotFoundError, AccessError, UsageError."""
    front = FrontEnd.of(info.chosen(options), options)
    scpi = Scpi(open_session(address, bare="{}:4000"))
    try:
        identity = scpi.identify(fits)
        model = model_of(identity.model) if fits(identity) else None
        if model is None:
            raise NotFoundError(
                f"At {address} is a {identity.maker} {identity.model}, not one of the Tektronix that are known here.",
                f"They are: {', '.join(info.models)}.",
            )
        simulated = (identity.serial or "").startswith("SIM")
        dialect = Tektronix(scpi, model, inputs_of(identity.model), front)
        return ScopeDriver(dialect, identity, info, model.family, options, simulated=simulated)
    except BaseException:
        scpi.close()
        raise


class Tektronix:
    """See scope.driver.Dialect."""

    def __init__(self, scpi: Scpi, model: Model, inputs: int, front: FrontEnd) -> None:
        self.scpi = scpi
        self._model, self._front = model, front
        self._numbers = range(1, inputs + 1)
        self._width = 1 if model.family.bits <= 8 else 2
        self._inputs: tuple[int, ...] = ()
        self._points, self._before, self._records = 0, 0, 1
        self._found_mode = "AUTO"

    # -- set-up -------------------------------------------------------------------------------------------------------

    def configure(self, wanted: Setup) -> Granted:
        self.scpi.write("*CLS", ":HEAD 0", ":VERB 0")
        self._found_mode = self.scpi.ask(":TRIG:A:MOD?") or "AUTO"
        self._inputs = tuple(one.number for one in wanted.inputs)
        if max(self._inputs) > len(self._numbers):
            raise UsageError(
                f"This oscilloscope has {len(self._numbers)} inputs.", "Choose --set current, trigger and voltage."
            )
        self.scpi.write(":ACQ:STATE 0", *self._commands(wanted))
        self._refusals()
        for one in wanted.inputs:
            self._check_probe(one)
        rate_hz = self._timing(wanted)
        self._refusals()
        return Granted(
            rate_hz=rate_hz,
            points=self._points,
            before=min(self._before, self._points),
            records=self._records,
            inputs=tuple(self._input(one) for one in wanted.inputs),
        )

    def _commands(self, wanted: Setup) -> list[str]:
        """All but the lengths, in the order that the instrument needs: probe before scale, scale before offset."""
        used = {one.number: one for one in wanted.inputs}
        said = [":ACQ:MOD SAM", ":ACQ:STOPA SEQ"]
        for n in self._numbers:
            said.append(f"{self._model.shown.format(n=n)} {int(n in used)}")
            if n in used:
                said += self._channel(used[n])
        return [
            *said,
            ":TRIG:A:TYP EDG",
            f":TRIG:A:EDGE:SOU CH{wanted.trigger}",
            ":TRIG:A:EDGE:COUP DC",
            f":TRIG:A:EDGE:SLO {'RIS' if wanted.rising else 'FALL'}",
            f":TRIG:A:LEV:CH{wanted.trigger} {wanted.level_v:.4E}",
            ":TRIG:A:MOD NORM",
            *self._model.more,
        ]

    def _channel(self, one: Input) -> list[str]:
        channel = f":CH{one.number}"
        said = []
        if self._model.probe is Probe.GAIN:
            said.append(f"{channel}:PRO:GAIN {1 / one.attenuation:g}")
        elif self._model.probe is Probe.EXTERNAL:
            said.append(f"{channel}:PROBEF:EXTA {one.attenuation:g}")
        else:
            # One that says itself how it divides needs to be told of nothing beyond it.
            coded = self._number(f"{channel}:PRO:GAIN?") != 1.0
            said.append(f"{channel}:PROBEF:EXTA {1.0 if coded else one.attenuation:g}")
        return [
            *said,
            f"{channel}:COUP DC",
            f"{channel}:TER {50 if one.fifty_ohm else '1E6'}",
            f"{channel}:BAN {'20E6' if one.limited else 'FUL'}",
            f"{channel}:DESK 0",
            f"{channel}:POS 0",
            f"{channel}:SCA {one.volts_per_div:.4E}",
            f"{channel}:OFFS {one.centre_v:.4E}",
        ]

    def _check_probe(self, one: Input) -> None:
        """Raises UsageError for a probe that says something else than the settings."""
        if self._model.probe is Probe.EXTERNAL:
            return
        channel = f":CH{one.number}"
        if self.scpi.ask(f"{channel}:PRO:UNI?").strip('"').upper().startswith("A"):
            front = self._front
            if one.number != front.current or not front.probed or front.volts_per_ampere != 1.0:
                raise UsageError(
                    f"The probe on c{one.number} is a current probe, and the oscilloscope counts in amperes.",
                    "Say so with --set probe=1V/A±1%: it has taken the probe's own factor into account.",
                )
            return
        divides = 1 / self._number(f"{channel}:PRO:GAIN?")
        if self._model.probe is Probe.BEYOND:
            divides *= self._number(f"{channel}:PROBEF:EXTA?")
        if not math.isclose(divides, one.attenuation, rel_tol=SAME_PROBE):
            raise UsageError(
                f"The probe on c{one.number} divides by {divides:g}, the oscilloscope says, not by "
                f"{one.attenuation:g}.",
                "Check --set attenuation, trigger_attenuation or voltage_attenuation, and the switch of the probe.",
            )

    def _timing(self, wanted: Setup) -> float:
        """Sets rate, length, place of the trigger and number of records; the rate that it makes of it."""
        self.scpi.write(":HOR:DEL:MOD 0")
        if self._model.lengths:
            width_s = DIVISIONS_WIDE * _scale(wanted.record_s / DIVISIONS_WIDE)
            enough = [count for count in self._model.lengths if count >= width_s * wanted.rate_hz * (1 - 1e-9)]
            length = enough[0] if enough else self._model.lengths[-1]
            self.scpi.write(f":HOR:RECO {length}", f":HOR:SCA {width_s / DIVISIONS_WIDE:.4E}")
            rate_query, length_query = ":HOR:SAMPLER?", ":HOR:RECO?"
        else:
            rate_query, length_query = ":HOR:MODE:SAMPLER?", ":HOR:MODE:RECO?"
            self._segments(1)
            self.scpi.write(":HOR:MODE MAN", f":HOR:MODE:SAMPLER {wanted.rate_hz:.6E}")
            self.scpi.write(f":HOR:MODE:RECO {math.ceil(wanted.record_s * self._number(rate_query) * (1 - 1e-9))}")
        # Memory is shared between the frames.
        self._segments(wanted.records)
        rate_hz, length = self._number(rate_query), int(self._number(length_query))
        self.scpi.write(f":HOR:POS {100 * wanted.before_s * rate_hz / length:.6g}")
        self._before = round(self._number(":HOR:POS?") / 100 * length)
        # A screen can be longer than the record that was wanted.
        self._points = min(math.ceil(wanted.record_s * rate_hz * (1 - 1e-9)), length)
        return rate_hz

    def _segments(self, records: int) -> None:
        self._records = 1
        if self._model.stamps is None:
            return
        if records == 1:
            self.scpi.write(":HOR:FAST:STATE 0")
            return
        # With a summary the last frame would be none.
        self.scpi.write(":HOR:FAST:STATE 1", ":HOR:FAST:SUMF NON")
        most = int(self._number(":HOR:FAST:MAXFR?"))
        self.scpi.write(f":HOR:FAST:COUN {max(min(records, most), 1)}")
        self._records = int(self._number(":HOR:FAST:COUN?"))

    def _input(self, one: Input) -> Input:
        return replace(
            one,
            volts_per_div=self._number(f":CH{one.number}:SCA?"),
            centre_v=self._number(f":CH{one.number}:OFFS?"),
        )

    def _number(self, query: str) -> float:
        value = number(self.scpi.ask(query))
        if value is None:
            raise DataError(f"The oscilloscope answers {query} with no number.", "Check its firmware and its state.")
        return value

    def _refusals(self) -> None:
        """Raises UsageError with the instrument's own words. The event queue tells what was read from *ESR? on."""
        if int(self._number("*ESR?")) & REFUSED:
            said = self.scpi.ask(":ALLEV?", retries=0)
            raise UsageError(
                f"The oscilloscope at {self.scpi.address} refuses part of its set-up: {said}.",
                "Choose another --set rate, record, coupling, bandwidth or peak.",
            )

    # -- acquisition --------------------------------------------------------------------------------------------------

    def arm(self) -> None:
        self.scpi.write(":ACQ:STOPA SEQ", ":ACQ:STATE 1")
        self.scpi.wait(":TRIG:STATE?", self._ready, READY_S, "ready state of the trigger")

    def _ready(self, reply: str) -> bool:
        """While it is ARMed it takes what precedes the trigger, and hears none."""
        state = reply.strip().upper()[:3]
        if state == "SAV":
            # A trigger that came at once has ended the acquisition already.
            return self._taken() > 0
        return state in ("REA", "TRI", "PAR")

    def _taken(self) -> int:
        """Records since it was armed."""
        return int(self._number(":ACQ:NUMFRAMESACQ?" if self._records > 1 else ":ACQ:NUMAC?"))

    def done(self) -> bool:
        running, _, busy = self.scpi.ask(":ACQ:STATE?", ":BUSY?").partition(";")
        return number(running) == 0 and number(busy or "0") == 0

    def halt(self) -> None:
        self.scpi.write(":ACQ:STATE 0")
        self.scpi.wait(":ACQ:STATE?", lambda reply: number(reply) == 0, READY_S, "end of the acquisition")

    def fetch(self) -> Iterator[Record]:
        count = min(self._taken(), self._records)
        if not count:
            return
        after_s = self._times(count)
        heads = {n: self._preamble(n) for n in self._inputs}
        for k in range(count):
            yield Record(after_s=after_s[k], parts=[self._waveform(n, heads[n], k + 1) for n in self._inputs])

    def _times(self, count: int) -> Sequence[float]:
        if self._records == 1 or self._model.stamps is None:
            return [0.0]
        query = self._model.stamps.value.format(n=self._inputs[0], count=count)
        found = stamps_ps(self.scpi.ask(query))
        if len(found) < count:
            raise DataError(
                f"The oscilloscope tells {len(found)} trigger times of {count} frames.",
                "Use --set records=1, and tell us the model and what it answers to " + query,
            )
        return [(found[k] - found[0]) * 1e-12 for k in range(count)]

    def _choose(self, n: int) -> list[str]:
        """The source comes first: it may change the width of its codes."""
        return [
            f":DAT:SOU CH{n}",
            ":DAT:ENC SRI",
            f":WFMO:BYT_N {self._width}",
            ":DAT:STAR 1",
            f":DAT:STOP {self._points}",
        ]

    def _preamble(self, n: int) -> str:
        said = self.scpi.ask(*self._choose(n), *(f":WFMO:{name}?" for name in ASKED))
        fields = said.split(";")
        if len(fields) != len(ASKED):
            raise DataError(
                f"The oscilloscope tells {len(fields)} of {len(ASKED)} fields of the waveform on c{n}: {said!r}.",
                "Check that the channel is on; see its event queue.",
            )
        pairs = zip(ASKED, fields, strict=True)
        return ":WFMOUTPRE:" + ";".join(f"{wire.FIELDS[name]} {value.strip()}" for name, value in pairs)

    def _waveform(self, n: int, head: str, frame: int) -> bytes:
        ask = self._choose(n)
        if self._records > 1:
            ask += [f":DAT:FRAMESTAR {frame}", f":DAT:FRAMESTOP {frame}"]
        told = wire.preamble(head)
        expected = round((number(told["NR_PT"]) or 0) * (number(told["BYT_NR"]) or 0))
        for again in (True, False):
            codes = self.scpi.ask_block(*ask, ":CURV?")
            if len(codes) == expected or not again:
                break
            # An answer that is not this one's.
            self.scpi.recover()
        return f"{head};:CURVE #9{len(codes):09d}".encode("latin-1") + codes.tobytes()

    def restore(self) -> None:
        said = [":HOR:FAST:STATE 0"] if self._model.stamps is not None else []
        self.scpi.write(*said, ":ACQ:STOPA RUNST", f":TRIG:A:MOD {self._found_mode}", ":ACQ:STATE 1")


def stamps_ps(text: str) -> list[int]:
    """Trigger times in picoseconds, counted from a day long ago.

    `1,"02 Mar 2000 20:10:54.542 037 272 620",2,...` or `1: 02.03.2000.20:10:54.542037272620, 2: ...`
    (HORizontal:FASTframe:TIMEStamp:ALL in the programmer manuals). Raises DataError for a date that cannot be.
    """
    found = []
    for day, month, year, hour, minute, second, fraction in _STAMP.findall(text):
        try:
            which = int(month) if month.isdigit() else _MONTHS.index(month.upper()) + 1
            days = datetime.date(int(year), which, int(day)).toordinal()
        except ValueError as error:
            raise DataError(f"{text[:80]!r} are no trigger times.", "Use --set records=1.") from error
        seconds = ((days * 24 + int(hour)) * 60 + int(minute)) * 60 + int(second)
        found.append(seconds * 10**12 + int(fraction.replace(" ", "").ljust(12, "0")[:12]))
    return found


def _scale(least_s: float) -> float:
    """The smallest time per division that is not below it: 1, 2, 4, 10, ... of a decade."""
    decade = 10.0 ** math.floor(math.log10(least_s))
    return next(step * decade for step in _SCALE_STEPS if step * decade >= least_s * (1 - 1e-9))
