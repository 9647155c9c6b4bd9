"""The old dialect: SDS1000X-E, SDS2000X-E and before, T3DSO1000 and T3DSO2000."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from joulemeter.errors import DataError
from joulemeter.scope.driver import Record
from joulemeter.scope.setup import Granted, Input, Setup, one_two_five
from joulemeter.scpi import Scpi

from . import wire
from .common import ask, check_inputs, check_trigger, must

DIVISIONS_WIDE = 14
# Bits of INR, the register of internal states; reading clears them.
NEW_SIGNAL, READY = 1 << 0, 1 << 13
READY_S = 10.0
# Depths of memory, for each converter's only channel and for two on one converter (channels 1 and 2, 3 and 4).
DEPTHS = {False: ("14K", "140K", "1.4M", "14M"), True: ("7K", "70K", "700K", "7M")}


class OldSiglent:
    """See scope.driver.Dialect. It has no segments that could be told by time: single records."""

    def __init__(self, scpi: Scpi, inputs: int) -> None:
        self.scpi = scpi
        self._there = inputs
        self._wanted: Setup | None = None
        self._before = 0
        self._said: dict[int, tuple[str, str]] = {}
        self._rate = ""
        self._states = 0
        self._found_mode = "AUTO"
        self._checked = False

    def configure(self, wanted: Setup) -> Granted:
        check_inputs(self.scpi, wanted, self._there)
        self._wanted, self._checked = wanted, False
        self.scpi.write("CHDR OFF")
        self._found_mode = self.scpi.ask("TRMD?").split()[-1]
        self.halt()
        width_s = one_two_five(wanted.record_s / DIVISIONS_WIDE) * DIVISIONS_WIDE
        for command in _commands(wanted, width_s, self._there):
            self.scpi.write(command)
        width_s = must(self.scpi, "TDIV?", width_s / DIVISIONS_WIDE, "the time scale") * DIVISIONS_WIDE
        must(self.scpi, f"C{wanted.trigger}:TRLV?", wanted.level_v, "the trigger's level")
        inputs = tuple(self._input(one) for one in wanted.inputs)
        # The first channel and the rate say what is to come.
        self._rate = self.scpi.ask("SARA?")
        rate_hz = wire.quantity(self._rate)
        points = round(ask(self.scpi, f"SANU? C{wanted.inputs[0].number}"))
        # TRDL is the time in the middle of the screen (guide, p. 143).
        self._before = max(round((width_s / 2 - ask(self.scpi, "TRDL?")) * rate_hz), 0)
        return Granted(rate_hz=rate_hz, points=points, before=self._before, records=1, inputs=inputs)

    def _input(self, one: Input) -> Input:
        number = one.number
        must(self.scpi, f"C{number}:ATTN?", one.attenuation, f"the attenuation of c{number}")
        scale, offset = self.scpi.ask(f"C{number}:VDIV?"), self.scpi.ask(f"C{number}:OFST?")
        self._said[number] = scale, offset
        return replace(one, volts_per_div=wire.quantity(scale), centre_v=-wire.quantity(offset))

    def arm(self) -> None:
        self.halt()
        # Asking clears what is left of the acquisition before.
        self.scpi.ask("INR?", retries=0)
        self._states = 0
        self.scpi.write("TRMD SINGLE")
        self.scpi.wait("INR?", self._ready, READY_S, "ready state of the trigger")

    def _ready(self, reply: str) -> bool:
        self._states |= int(wire.quantity(reply))
        # A trigger that came at once has ended the ready state already.
        return bool(self._states & (READY | NEW_SIGNAL))

    def done(self) -> bool:
        self._states |= int(ask(self.scpi, "INR?", retries=0))
        return bool(self._states & NEW_SIGNAL) and self.scpi.ask("SAST?").upper().endswith("STOP")

    def halt(self) -> None:
        self.scpi.write("STOP")
        self._states |= int(ask(self.scpi, "INR?", retries=0))

    def fetch(self) -> Iterator[Record]:
        wanted = self._wanted
        if wanted is None or not self._states & NEW_SIGNAL:
            # It still holds the record before.
            return
        parts = {}
        for one in wanted.inputs:
            scale, offset = self._said[one.number]
            codes = self.scpi.ask_block(f"C{one.number}:WF? DAT2").tobytes()
            if not codes:
                raise DataError(f"c{one.number} came without a sample.", "Record anew; what came before is kept.")
            parts[one.number] = wire.old_part(scale, offset, self._rate, codes)
        if not self._checked:
            check_trigger(parts[wanted.trigger], self._before, wanted.level_v)
            self._checked = True
        yield Record(after_s=0.0, parts=[parts[one.number] for one in wanted.inputs])

    def restore(self) -> None:
        self.scpi.write(f"TRMD {self._found_mode}")


def _commands(wanted: Setup, width_s: float, there: int) -> list[str]:
    """The whole set-up, in the order that the instrument needs: attenuation before scale, scale before offset."""
    used = {one.number: one for one in wanted.inputs}
    said = ["WFSU SP,0,NP,0,FP,0", "ACQW SAMPLING"]
    for number in range(1, there + 1):
        one = used.get(number)
        if one is None:
            said.append(f"C{number}:TRA OFF")
            continue
        said += [
            f"C{number}:TRA ON",
            f"C{number}:UNIT V",
            f"C{number}:ATTN {one.attenuation:g}",
            f"C{number}:CPL {'D50' if one.fifty_ohm else 'D1M'}",
            f"C{number}:VDIV {one.volts_per_div:.2E}V",
            f"C{number}:OFST {-one.centre_v:.2E}V",
            f"BWL C{number},{'ON' if one.limited else 'OFF'}",
        ]
    shared = {1, 2} <= set(used) or {3, 4} <= set(used)
    least = width_s * wanted.rate_hz * (1 - 1e-9)
    depths = DEPTHS[shared]
    depth = next((text for text in depths if wire.quantity(text) >= least), depths[-1])
    said += [
        f"TDIV {width_s / DIVISIONS_WIDE:.2E}S",
        f"TRDL {width_s / 2 - wanted.before_s:.6E}S",
        f"MSIZ {depth}",
        f"TRSE EDGE,SR,C{wanted.trigger},HT,OFF",
        f"C{wanted.trigger}:TRCP DC",
        f"C{wanted.trigger}:TRSL {'POS' if wanted.rising else 'NEG'}",
        f"C{wanted.trigger}:TRLV {wanted.level_v:.3E}V",
    ]
    return said
