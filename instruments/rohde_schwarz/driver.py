"""What Rohde & Schwarz oscilloscopes RTB2000, RTM3000 and RTA4000 are told, and what they answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace

from joulemeter.errors import DataError, NotFoundError, UsageError
from joulemeter.instrument import Info, Options
from joulemeter.scope.driver import Record, ScopeDriver
from joulemeter.scope.setup import Family, Granted, Input, Setup, one_two_five
from joulemeter.scpi import Identity, Scpi, number, numbers
from joulemeter.transport.visa import open_session

from . import wire

DIVISIONS_WIDE = 12
FEWEST_POINTS = 10_000
# After it was told to begin, or to end.
READY_S = 10.0
# Bit of the operation status register: it waits for a trigger.
WAITING = 1 << 3
# All samples that the converter has made, of ten bits, at two bytes.
FORMAT = "UINT,16"
# The code of the middle of the screen: 127.5 of eight bits.
MIDDLE = 127.5 * 256
SAME_DIVISIONS = 0.5
DAY_S = 86400.0
# Times of day are told to about this.
SAME_S = 1e-7
_MODEL = re.compile(r"RT(B2|M3|A4)\d\d([24])", re.IGNORECASE)


def fits(identity: Identity) -> bool:
    return identity.maker.upper().startswith("ROHDE") and _MODEL.match(identity.model) is not None


def open_driver(address: str, options: Options, info: Info, family: Family) -> ScopeDriver:
    """Raises NotFoundError, AccessError, UsageError."""
    info.chosen(options)
    scpi = Scpi(open_session(address, bare="{}:5025"))
    try:
        identity = scpi.identify(fits)
        match = _MODEL.match(identity.model) if fits(identity) else None
        if match is None:
            raise NotFoundError(
                f"At {address} is a {identity.maker} {identity.model}, not an R&S that is known here.",
                f"They are: {', '.join(info.models)}.",
            )
        simulated = (identity.serial or "").startswith("SIM")
        dialect = RohdeSchwarz(scpi, inputs=int(match[2]), complete=match[1].upper() == "A4")
        return ScopeDriver(dialect, identity, info, family, options, simulated=simulated)
    except BaseException:
        scpi.close()
        raise


class RohdeSchwarz:
    """See scope.driver.Dialect. `complete`: it has its history without an option."""

    def __init__(self, scpi: Scpi, *, inputs: int, complete: bool) -> None:
        self.scpi = scpi
        self._numbers = range(1, inputs + 1)
        self._history = complete
        self._inputs: tuple[int, ...] = ()
        self._records, self._kept = 1, 0
        self._found_mode = "AUTO"
        self._told: dict[str, str] = {}
        self._complete = False
        self._seen_s: float | None = None

    # -- set-up -------------------------------------------------------------------------------------------------------

    def configure(self, wanted: Setup) -> Granted:
        self.scpi.write("*CLS")
        self._found_mode = self.scpi.ask(":TRIG:A:MODE?") or "AUTO"
        self._history |= re.search(r"\bK15\b", self.scpi.ask("*OPT?"), re.IGNORECASE) is not None
        self._inputs = tuple(one.number for one in wanted.inputs)
        if max(self._inputs) > len(self._numbers):
            raise UsageError(
                f"This oscilloscope has {len(self._numbers)} inputs.", "Choose --set current, trigger and voltage."
            )
        self.scpi.ask(":STOP", "*OPC?")
        self.scpi.command(*self._commands(wanted))
        self._told = {"FORM": self.scpi.ask(":FORM?"), "BORD": self.scpi.ask(":FORM:BORD?")}
        granted = self._tried(wanted)
        self._records = wanted.records if self._history else 1
        if self._history:
            self.scpi.command(f":ACQ:SEGM:STAT {int(self._records > 1)}", f":ACQ:NSIN:COUN {self._records}")
            self._records = int(self._number(":ACQ:NSIN:COUN?"))
        self._seen_s = self._stamp()
        return replace(granted, records=self._records)

    def _commands(self, wanted: Setup) -> list[str]:
        """The whole set-up, in the order that the instrument needs: probe before scale, scale before position."""
        used = {one.number: one for one in wanted.inputs}
        said = [f":FORM {FORMAT}", ":FORM:BORD LSBF"]
        if self._history:
            said.append(":ACQ:SEGM:STAT 0")
        for n in self._numbers:
            said += self._channel(used[n]) if n in used else [f":CHAN{n}:STAT 0"]
        width_s = one_two_five(wanted.record_s / DIVISIONS_WIDE) * DIVISIONS_WIDE
        points = one_two_five(max(width_s * wanted.rate_hz, FEWEST_POINTS))
        return [
            *said,
            ":ACQ:NSIN:COUN 1",
            ":ACQ:POIN:AUT 0",
            f":ACQ:POIN {points:.0f}",
            ":TIM:REF 50",
            f":TIM:SCAL {width_s / DIVISIONS_WIDE:.3E}",
            # When the middle of the screen is, against the trigger; what is to be kept begins where it does.
            f":TIM:POS {width_s / 2 - wanted.before_s:.6E}",
            ":TRIG:A:TYPE EDGE",
            f":TRIG:A:SOUR CH{wanted.trigger}",
            ":TRIG:A:EDGE:COUP DC",
            f":TRIG:A:EDGE:SLOP {'POS' if wanted.rising else 'NEG'}",
            f":TRIG:A:LEV{wanted.trigger} {wanted.level_v:.4E}",
            ":TRIG:A:MODE AUTO",
        ]

    def _channel(self, one: Input) -> list[str]:
        channel = f":CHAN{one.number}"
        return [
            f"{channel}:STAT 1",
            f"{channel}:TYPE SAMP",
            f"{channel}:ARIT OFF",
            f"{channel}:COUP {'DC' if one.fifty_ohm else 'DCL'}",
            f"{channel}:BAND {'B20' if one.limited else 'FULL'}",
            f"{channel}:POL NORM",
            f"{channel}:SKEW 0",
            f":PROB{one.number}:SET:ATT:UNIT V",
            f":PROB{one.number}:SET:ATT:MAN {one.attenuation:g}",
            f"{channel}:SCAL {one.volts_per_div:.4E}",
            f"{channel}:OFFS 0",
            # Up is positive, whatever is thought of the sign of an offset.
            f"{channel}:POS {-one.centre_v / one.volts_per_div:.3f}",
        ]

    def _tried(self, wanted: Setup) -> Granted:
        """What a record is like, by one that needs no trigger: rates asked for before it are of another regime."""
        self._begin()
        self.scpi.wait(":ACQ:STAT?", _ended, READY_S + 2 * wanted.record_s, "end of a record without a trigger")
        told = self._preamble(self._inputs[0])
        like = wire.head(told["HEAD"])
        interval_s = number(told["XINC"])
        if not interval_s:
            raise DataError(f"The oscilloscope tells an interval of {told['XINC']}.", "Check its firmware.")
        inputs = tuple(self._input(one) for one in wanted.inputs)
        for one in inputs:
            self._check_zero(one)
        self._kept = min(math.ceil(wanted.record_s / interval_s * (1 - 1e-6)), like.points)
        self.scpi.command(":TRIG:A:MODE NORM")
        return Granted(
            rate_hz=float(f"{1 / interval_s:.7g}"),
            points=self._kept,
            before=min(max(round(-like.start_s / interval_s), 0), self._kept),
            records=1,
            inputs=inputs,
        )

    def _check_zero(self, one: Input) -> None:
        """Raises DataError where the scaling of a waveform knows nothing of its position on the screen."""
        told = self._preamble(one.number)
        step_v, zero_v = number(told["YINC"]), number(told["YOR"])
        if step_v is None or zero_v is None:
            raise DataError(f"The waveform on c{one.number} has no scaling.", "Check that the channel is on.")
        middle_v = zero_v + MIDDLE * step_v
        if abs(middle_v - one.centre_v) > SAME_DIVISIONS * one.volts_per_div:
            raise DataError(
                f"By its scaling, the middle of the screen is at {middle_v:.4g} V on c{one.number}, by the controls at "
                f"{one.centre_v:.4g} V.",
                "Its firmware scales waveforms in another way than its manual says; tell us the model.",
            )

    def _input(self, one: Input) -> Input:
        volts_per_div = self._number(f":CHAN{one.number}:SCAL?")
        position = self._number(f":CHAN{one.number}:POS?")
        return replace(one, volts_per_div=volts_per_div, centre_v=-position * volts_per_div)

    def _number(self, query: str) -> float:
        value = number(self.scpi.ask(query))
        if value is None:
            raise DataError(f"The oscilloscope answers {query} with no number.", "Check its firmware and its state.")
        return value

    # -- acquisition --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """With *OPC? it would answer when the records are there, and nothing before."""
        self._complete = False
        self.scpi.write(":SING")

    def arm(self) -> None:
        self._begin()
        self.scpi.wait(":STAT:OPER:COND?;:ACQ:STAT?", self._ready, READY_S, "ready state of the trigger")

    def _ready(self, reply: str) -> bool:
        condition, _, state = reply.partition(";")
        # Triggers that came at once have ended the acquisition already.
        return bool(int(number(condition) or 0) & WAITING) or _ended(state)

    def _taken(self) -> int:
        """Records that it holds, where it can tell how many."""
        return int(self._number(":ACQ:AVA?")) if self._records > 1 else 0

    def done(self) -> bool:
        state = self.scpi.ask(":ACQ:STAT?")
        self._complete = state.upper().startswith("COMP")
        return _ended(state)

    def halt(self) -> None:
        if not self.done():
            self.scpi.ask(":STOP", "*OPC?")
            self.scpi.wait(":ACQ:STAT?", _ended, READY_S, "end of the acquisition")

    def fetch(self) -> Iterator[Record]:
        if self._records == 1:
            if self._complete:
                told = self._preambles()
                yield Record(after_s=0.0, parts=[self._waveform(n, told[n]) for n in self._inputs])
            return
        count, newest_s = min(self._taken(), self._records), self._stamp()
        if newest_s is None:
            return
        # What was there before is not given again, whether the history begins anew with each acquisition or goes on.
        seen_s = -math.inf if self._seen_s is None else -((newest_s - self._seen_s) % DAY_S) + SAME_S
        self._seen_s = newest_s
        told = self._preambles()
        first_s = last_s = -math.inf
        for index in range(1 - count, 1):
            at_s = self._select(index)
            if at_s <= seen_s:
                continue
            if at_s <= last_s:
                raise DataError(
                    f"The oscilloscope gives segment {index} of its history twice.",
                    "Use --set records=1; what came before is kept.",
                )
            first_s = at_s if math.isinf(first_s) else first_s
            last_s = at_s
            yield Record(after_s=at_s - first_s, parts=[self._waveform(n, told[n]) for n in self._inputs])

    def _select(self, index: int) -> float:
        """A segment of the history, 0 the newest and -1 the one before; seconds against the newest, so not above 0."""
        said = [f":CHAN{n}:HIST:CURR {index}" for n in self._inputs]
        _, _, at = self.scpi.ask(*said, "*OPC?", f":CHAN{self._inputs[0]}:HIST:TSR?").partition(";")
        at_s = number(at)
        if at_s is None:
            raise DataError(f"Segment {index} of the history has no time.", "Use --set records=1.")
        return at_s

    def _stamp(self) -> float | None:
        """The time of day of the newest record that it holds, in seconds; None where it holds none."""
        if self._records == 1 or not self._taken():
            return None
        self._select(0)
        hours, minutes, seconds = (one or 0.0 for one in numbers(self.scpi.ask(f":CHAN{self._inputs[0]}:HIST:TSAB?")))
        return (hours * 60 + minutes) * 60 + seconds

    def _preambles(self) -> dict[int, dict[str, str]]:
        return {n: self._preamble(n) for n in self._inputs}

    def _preamble(self, n: int) -> dict[str, str]:
        """While it runs, only what is on the screen could be had."""
        channel = f":CHAN{n}:DATA"
        said = self.scpi.ask(f"{channel}:POIN MAX", *(f"{channel}:{name}?" for name in wire.ASKED))
        fields = said.split(";")
        if len(fields) != len(wire.ASKED):
            raise DataError(
                f"The oscilloscope tells {len(fields)} of {len(wire.ASKED)} things of the waveform on c{n}: {said!r}.",
                "Check that the channel is on; see its error queue.",
            )
        return self._told | {name: value.strip() for name, value in zip(wire.ASKED, fields, strict=True)}

    def _waveform(self, n: int, told: dict[str, str]) -> bytes:
        points, width = wire.head(told["HEAD"]).points, wire.FORMATS.get(told["FORM"], ("u", 1))[1]
        for again in (True, False):
            data = self.scpi.ask_block(f":CHAN{n}:DATA?")
            if len(data) == points * width or not again:
                break
            # An answer that is not this one's.
            self.scpi.recover()
        kept = min(self._kept, points)
        return wire.join(told | {"KEPT": str(kept)}, data[: kept * width].tobytes())

    def restore(self) -> None:
        said = [":ACQ:SEGM:STAT 0"] if self._history else []
        self.scpi.write(*said, ":ACQ:NSIN:COUN 1", f":TRIG:A:MODE {self._found_mode}", ":RUN")


def _ended(state: str) -> bool:
    """COMPlete or BREak; RUN, and STOPping while it still ends."""
    return state.strip().upper()[:3] in ("COM", "BRE")
