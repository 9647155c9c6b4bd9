"""What Teledyne LeCroy oscilloscopes with X-Stream or MAUI firmware are told, and what they answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace

from joulemeter.errors import DataError, NotFoundError, UsageError
from joulemeter.instrument import Info, Options
from joulemeter.scope.driver import Record, ScopeDriver
from joulemeter.scope.setup import Family, Granted, Input, Setup, one_two_five
from joulemeter.scpi import Identity, Scpi
from joulemeter.transport.visa import open_session

from . import wire

DIVISIONS_WIDE = 10
# Bits of INR, the register of internal states; reading clears them.
NEW_ACQUISITION, TRIGGER_READY = 1 << 0, 1 << 13
READY_S = 10.0
# Between "trigger ready" and the first trigger that is seen lies about a millisecond (ngscopeclient/scopehal).
RACE_S = 0.005
# Command errors and execution errors in the event register (IEEE 488.2, 11.5.1).
REFUSED = 0x30
_NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")
_OTHERS = ("T3DSO", "WAVEACE", "WAVEJET")


def fits(identity: Identity) -> bool:
    return "LECROY" in identity.maker.upper() and not identity.model.upper().startswith(_OTHERS)


def open_driver(address: str, options: Options, info: Info, families: dict[str, Family]) -> ScopeDriver:
    """Raises NotFoundError, AccessError, UsageError."""
    info.chosen(options)
    scpi = Scpi(open_session(address, bare="vicp:{}"))
    try:
        identity = scpi.identify(fits)
        if not fits(identity):
            raise NotFoundError(
                f"At {address} is a {identity.maker} {identity.model}, not a LeCroy with X-Stream or MAUI firmware.",
                "T3DSO models are Siglents: use the siglent driver.",
            )
        family = family_of(identity.model, families)
        simulated = (identity.serial or "").startswith("SIM")
        dialect = Lecroy(scpi, family)
        return ScopeDriver(dialect, identity, info, family, options, simulated=simulated)
    except BaseException:
        scpi.close()
        raise


def family_of(model: str, families: dict[str, Family]) -> Family:
    """By the beginning of the model's name; the longest that fits."""
    name = model.upper().replace(" ", "")
    known = sorted((key for key in families if re.match(key, name)), key=len)
    return families[known[-1]]


class Lecroy:
    """See scope.driver.Dialect."""

    def __init__(self, scpi: Scpi, family: Family) -> None:
        self.scpi = scpi
        self._family = family
        self._inputs: tuple[int, ...] = ()
        self._found_mode = "AUTO"
        self._states = 0
        self._stale = b""

    def configure(self, wanted: Setup) -> Granted:
        self.scpi.write("CHDR OFF", "*CLS")
        self._found_mode = self.scpi.ask("TRMD?") or "AUTO"
        self._inputs = tuple(one.number for one in wanted.inputs)
        self.scpi.write("STOP", *_commands(wanted, self._family))
        events = int(self._number("*ESR?"))
        if events & REFUSED:
            raise UsageError(
                f"The oscilloscope at {self.scpi.address} refuses part of its set-up (event register {events}).",
                "Choose another --set rate, record, records or peak.",
            )
        return self._granted(wanted)

    def _granted(self, wanted: Setup) -> Granted:
        rate_hz = self._number("VBS? 'return=app.Acquisition.Horizontal.SamplingRate'")
        duration_s = self._number("VBS? 'return=app.Acquisition.Horizontal.AcquisitionDuration'")
        records = 1
        if wanted.records > 1:
            records = int(self._number("VBS? 'return=app.Acquisition.Horizontal.NumSegments'"))
        delay_s = self._number("TRDL?")
        return Granted(
            rate_hz=float(f"{rate_hz:.6g}"),
            points=round(duration_s * rate_hz),
            before=max(round((duration_s / 2 + delay_s) * rate_hz), 0),
            records=records,
            inputs=tuple(self._input(one) for one in wanted.inputs),
        )

    def _input(self, one: Input) -> Input:
        return replace(
            one,
            volts_per_div=self._number(f"C{one.number}:VDIV?"),
            centre_v=-self._number(f"C{one.number}:OFST?"),
        )

    def _number(self, query: str) -> float:
        """Some firmware adds the unit whatever the header is set to."""
        return self._told(query, self.scpi.ask(query))

    def _told(self, query: str, reply: str) -> float:
        match = _NUMBER.search(reply)
        if match is None:
            raise DataError(f"The oscilloscope answers {query} with {reply!r}.", "Check its firmware and its state.")
        return float(match[0])

    def arm(self) -> None:
        self._stale = self._stamp()
        # Asking clears what is left of the acquisition before.
        self.scpi.ask("INR?", retries=0)
        self._states = 0
        self.scpi.write("TRMD SINGLE", "ARM")
        self.scpi.wait("INR?", self._ready, READY_S, "ready state of the trigger")
        time.sleep(RACE_S)

    def _ready(self, reply: str) -> bool:
        self._states |= int(self._told("INR?", reply))
        # A trigger that came at once has ended the ready state already.
        return bool(self._states & (TRIGGER_READY | NEW_ACQUISITION))

    def _stamp(self) -> bytes:
        """When the waveform that it holds was triggered; b"" where it holds none."""
        try:
            told = wire.descriptor(self.scpi.ask_block(f"C{self._inputs[0]}:WF? DESC").tobytes())
        except DataError:
            return b""
        return told.stamp if told.points else b""

    def done(self) -> bool:
        self._states |= int(self._number_once("INR?"))
        return bool(self._states & NEW_ACQUISITION)

    def _number_once(self, query: str) -> float:
        return self._told(query, self.scpi.ask(query, retries=0))

    def halt(self) -> None:
        self.scpi.ask("STOP", "TRMD?")

    def fetch(self) -> Iterator[Record]:
        if self._stamp() in (b"", self._stale):
            return
        waves = [wire.parse(self.scpi.ask_block(f"C{number}:WF? ALL").tobytes()) for number in self._inputs]
        count = min(len(wave.data) for wave in waves)
        for k in range(count):
            yield Record(
                after_s=float(waves[0].after_s[k]),
                parts=[wave.descriptor.raw + wave.data[k] for wave in waves],
            )

    def restore(self) -> None:
        self.scpi.write("SEQ OFF", f"TRMD {self._found_mode}")


def _commands(wanted: Setup, family: Family) -> list[str]:
    """The whole set-up, in the order that the instrument needs: attenuation before scale, scale before offset."""
    used = {one.number: one for one in wanted.inputs}
    said = [f"CFMT DEF9,{'WORD' if family.bits > 8 else 'BYTE'},BIN", "CORD LO", "WFSU SP,0,NP,0,FP,0,SN,0"]
    for number in range(1, 5):
        one = used.get(number)
        if one is None:
            said.append(f"C{number}:TRA OFF")
            continue
        said += [
            f"C{number}:TRA ON",
            f"C{number}:ATTN {one.attenuation:g}",
            f"C{number}:CPL {'D50' if one.fifty_ohm else 'D1M'}",
            f"C{number}:VDIV {one.volts_per_div:.4E}",
            f"C{number}:OFST {-one.centre_v:.4E}",
            f"BWL C{number},{'ON' if one.limited else 'OFF'}",
        ]
    width_s = one_two_five(wanted.record_s / DIVISIONS_WIDE) * DIVISIONS_WIDE
    said += [
        f"TDIV {width_s / DIVISIONS_WIDE:.3E}",
        f"MSIZ {round(width_s * wanted.rate_hz)}",
        # From the middle of the screen, where the trigger is by itself.
        f"TRDL {wanted.before_s - width_s / 2:.6E}",
        f"TRSE EDGE,SR,C{wanted.trigger},HT,OFF",
        f"C{wanted.trigger}:TRCP DC",
        f"C{wanted.trigger}:TRSL {'POS' if wanted.rising else 'NEG'}",
        f"C{wanted.trigger}:TRLV {wanted.level_v:.4E}",
        f"SEQ ON,{wanted.records}" if wanted.records > 1 else "SEQ OFF",
    ]
    return said
