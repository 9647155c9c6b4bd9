"""What InfiniiVision oscilloscopes are told, and what they answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from joulemeter.errors import DataError, NotFoundError, UsageError
from joulemeter.instrument import Info, Options
from joulemeter.scope.driver import Record, ScopeDriver
from joulemeter.scope.setup import Family, Granted, Input, Setup, one_two_five
from joulemeter.scpi import Identity, Scpi
from joulemeter.transport.visa import open_session

from . import wire

DIVISIONS_WIDE = 10
# Bit of the operation condition register that is set as long as it acquires or waits.
RUN = 1 << 3
READY_S = 10.0
# What may be asked for of a record in memory, which is then thinned out (scopehal; the guides).
POINTS = (
    *(100, 250, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000),
    *(100_000, 200_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000),
)
_MAKER = re.compile(r"KEYSIGHT|AGILENT", re.IGNORECASE)
# Series with an X have four digits from 1, 2, 3, 4 or 6; those without are 5000 to 7000. Others are Infiniium (five
# digits, 8000 and 9000, S, V, Z) or made by somebody else (1000 and 3000 without an X).
_MODEL = re.compile(r"(?:[DM]SO|EDU)-?(?:(X) ?([12346])|()([567]))\d{2}(\d)[A-Z]*", re.IGNORECASE)
_TERMINAL = re.compile(r":5024(?::|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`series` is a key of FAMILIES."""

    series: str
    inputs: int


def model(identity: Identity) -> Model | None:
    """None for what is no InfiniiVision."""
    match = _MODEL.fullmatch(identity.model.strip())
    if match is None or not _MAKER.search(identity.maker):
        return None
    x, series, _, plain, inputs = match.groups()
    return Model(series=f"X{series}" if x else plain, inputs=int(inputs))


def fits(identity: Identity) -> bool:
    return model(identity) is not None


def open_driver(address: str, options: Options, info: Info, families: Mapping[str, Family]) -> ScopeDriver:
    """Raises NotFoundError, AccessError, UsageError."""
    info.chosen(options)
    if _TERMINAL.search(address):
        raise UsageError(
            f"{address} is the terminal port of the oscilloscope, which prompts people and spoils data.",
            "Use port 5025, the one for programs.",
        )
    scpi = Scpi(open_session(address, bare="TCPIP::{}::INSTR"))
    try:
        identity = scpi.identify(fits)
        found = model(identity)
        if found is None:
            raise NotFoundError(
                f"At {address} is a {identity.maker} {identity.model}, not an InfiniiVision oscilloscope.",
                "Infiniium oscilloscopes have other codes and are not supported.",
            )
        family = families[found.series]
        dialect = InfiniiVision(scpi, family, found.inputs)
        simulated = (identity.serial or "").startswith("SIM")
        return ScopeDriver(dialect, identity, info, family, options, simulated=simulated)
    except BaseException:
        scpi.close()
        raise


class InfiniiVision:
    """See scope.driver.Dialect."""

    def __init__(self, scpi: Scpi, family: Family, inputs: int) -> None:
        self.scpi = scpi
        self._family = family
        self._there = inputs
        self._inputs: tuple[int, ...] = ()
        self._points = ""
        self._order = ""
        self._segmented = False
        self._sweep = "AUTO"

    def configure(self, wanted: Setup) -> Granted:
        self._inputs = tuple(one.number for one in wanted.inputs)
        if max(self._inputs) > self._there:
            raise UsageError(
                f"The oscilloscope at {self.scpi.address} has {self._there} channels, not c{max(self._inputs)}.",
                "Choose others with --set current, trigger and voltage.",
            )
        width_s = one_two_five(wanted.record_s / DIVISIONS_WIDE) * DIVISIONS_WIDE
        least = round(width_s * wanted.rate_hz)
        self._points = next((str(count) for count in POINTS if count >= least), "MAX")
        self.scpi.write("*CLS")
        self._sweep = self.scpi.ask(":TRIG:SWE?")
        self.halt()
        self.scpi.command(*_commands(wanted, width_s, self._family, self._there))
        self._order = self.scpi.ask(":WAV:BYT?")
        if self._order not in wire.ORDERS or self._number(":WAV:UNS?") != 1:
            raise DataError("The oscilloscope does not give its codes without a sign.", "Update its firmware.")
        records, seen = self._fitting(wanted, width_s)
        return Granted(
            rate_hz=float(f"{1 / seen.x_increment:.9g}"),
            points=seen.points,
            before=seen.before,
            records=records,
            inputs=tuple(self._input(one) for one in wanted.inputs),
        )

    def _fitting(self, wanted: Setup, width_s: float) -> tuple[int, wire.Preamble]:
        """How many segments, and what a record is like: memory is shared, and many segments are slow ones."""
        records = self._segment(wanted.records)
        while True:
            seen = self._trial(width_s) or self._nominal(wanted, width_s)
            if records == 1 or seen.x_increment * wanted.rate_hz <= 1 + 1e-6:
                return records, seen
            fewer = int(records / (seen.x_increment * wanted.rate_hz))
            records = self._segment(min(fewer, records - 1))

    def _trial(self, width_s: float) -> wire.Preamble | None:
        """A record that no edge starts, for what it is like; None where the oscilloscope cannot be made to."""
        self.arm()
        self.scpi.write(":TRIG:FORC")
        if self.scpi.errors():
            self.halt()
            return None
        # Forced before its pretrigger is full, it may not hear.
        if self._segmented:
            query, some = ":TRIG:FORC;:WAV:SEGM:COUN?", lambda reply: int(reply) > 0
        else:
            query, some = ":TRIG:FORC;:OPER:COND?", lambda reply: not int(reply) & RUN
        self.scpi.wait(query, some, width_s + READY_S, "forced record")
        self.halt()
        return wire.Preamble.parse(self._preamble(self._inputs[0]))

    def _nominal(self, wanted: Setup, width_s: float) -> wire.Preamble:
        """What its settings say of a record: all of it is on the screen."""
        most = round(self._number(":ACQ:SRAT?") * width_s)
        points = min(int(self._points) if self._points.isdigit() else most, most)
        return wire.Preamble(
            format=0,
            type=wire.NORMAL,
            points=points,
            count=1,
            x_increment=width_s / points,
            x_origin=-wanted.before_s,
            x_reference=0.0,
            y_increment=1.0,
            y_origin=0.0,
            y_reference=0.0,
        )

    def _segment(self, records: int) -> int:
        """How many segments it makes; 1 where it has none, or not the licence for them."""
        self._segmented = False
        if records > 1:
            self.scpi.write(":ACQ:MODE SEGM", f":ACQ:SEGM:COUN {records}")
            self._segmented = self.scpi.ask(":ACQ:MODE?").startswith("SEGM")
        if not self._segmented:
            self.scpi.errors()
            self.scpi.write(":ACQ:MODE RTIM")
            return 1
        # Where it exists; else all segments would come in one block.
        self.scpi.write(":WAV:SEGM:ALL OFF")
        granted = int(self._number(":ACQ:SEGM:COUN?"))
        self.scpi.errors()
        return min(granted, records)

    def _input(self, one: Input) -> Input:
        channel = f":CHAN{one.number}"
        return replace(one, volts_per_div=self._number(f"{channel}:SCAL?"), centre_v=self._number(f"{channel}:OFFS?"))

    def _number(self, query: str, retries: int | None = None) -> float:
        reply = self.scpi.ask(query, retries=retries)
        try:
            return float(reply)
        except ValueError as error:
            raise DataError(
                f"The oscilloscope answers {query} with {reply!r}.", "Check its firmware and its state."
            ) from error

    def arm(self) -> None:
        # A second :SINGle without a trigger in between would not be told by the register.
        self.halt()
        for register in (":AER?", ":TER?"):
            # Asking clears what is left of the acquisition before.
            self.scpi.ask(register, retries=0)
        self.scpi.write(":SING")
        self.scpi.wait(":AER?", lambda reply: int(reply) == 1, READY_S, "armed state of the trigger")

    def done(self) -> bool:
        return not int(self._number(":OPER:COND?")) & RUN

    def halt(self) -> None:
        self.scpi.ask(":STOP", "*OPC?")

    def fetch(self) -> Iterator[Record]:
        if self._number(":TER?", retries=0) != 1:
            # It still shows the record before.
            return
        if not self._segmented:
            yield Record(after_s=0.0, parts=[self._part(number, self._preamble(number)) for number in self._inputs])
            return
        preambles: dict[int, str] = {}
        for k in range(1, int(self._number(":WAV:SEGM:COUN?")) + 1):
            self.scpi.ask(f":ACQ:SEGM:IND {k}", "*OPC?")
            after_s = self._number(":WAV:SEGM:TTAG?")
            # It is the same for all of them.
            preambles = preambles or {number: self._preamble(number) for number in self._inputs}
            yield Record(after_s=after_s, parts=[self._part(number, preambles[number]) for number in self._inputs])

    def _preamble(self, number: int) -> str:
        """Of the waveform in memory. A DSO-X 2022A now and then says +0 instead, and then the truth (scopehal)."""
        source = f":WAV:SOUR CHAN{number}", ":WAV:POIN:MODE RAW", f":WAV:POIN {self._points}"
        text = self.scpi.ask(*source, ":WAV:PRE?")
        return text if "," in text else self.scpi.ask(":WAV:PRE?")

    def _part(self, number: int, preamble: str) -> bytes:
        codes = self.scpi.ask_block(f":WAV:SOUR CHAN{number}", ":WAV:DATA?", dtype=np.uint8)
        return wire.part(self._order, preamble, codes.tobytes())

    def restore(self) -> None:
        mode = (":ACQ:MODE RTIM",) if self._segmented else ()
        self.scpi.write(*mode, f":TRIG:SWE {self._sweep}", ":RUN")


def _commands(wanted: Setup, width_s: float, family: Family, inputs: int) -> list[str]:
    """The whole set-up, in the order that the instrument needs: attenuation before scale, scale before offset."""
    used = {one.number: one for one in wanted.inputs}
    said = [":ACQ:MODE RTIM", ":ACQ:TYPE NORM", f":WAV:FORM {'WORD' if family.bits > 8 else 'BYTE'}"]
    said += [":WAV:BYT LSBF", ":WAV:UNS 1"]
    for number in range(1, inputs + 1):
        one, channel = used.get(number), f":CHAN{number}"
        if one is None:
            said.append(f"{channel}:DISP 0")
            continue
        said += [
            f"{channel}:DISP 1",
            f"{channel}:UNIT VOLT",
            f"{channel}:PROB {one.attenuation:g}",
            f"{channel}:IMP {'FIFT' if one.fifty_ohm else 'ONEM'}",
            f"{channel}:COUP DC",
            f"{channel}:SCAL {one.volts_per_div:.4E}",
            f"{channel}:OFFS {one.centre_v:.4E}",
            f"{channel}:BWL {int(one.limited)}",
        ]
    said += [
        ":TIM:MODE MAIN",
        ":TIM:REF CENT",
        f":TIM:SCAL {width_s / DIVISIONS_WIDE:.3E}",
        # From the trigger to the middle of the screen.
        f":TIM:POS {width_s / 2 - wanted.before_s:.6E}",
        ":TRIG:MODE EDGE",
        f":TRIG:EDGE:SOUR CHAN{wanted.trigger}",
        ":TRIG:EDGE:COUP DC",
        f":TRIG:EDGE:SLOP {'POS' if wanted.rising else 'NEG'}",
        f":TRIG:EDGE:LEV {wanted.level_v:.4E}",
        ":TRIG:SWE NORM",
    ]
    return said
