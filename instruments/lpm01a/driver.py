"""The LPM01A on its wire: take control, set up, supply, stream, and leave the supply as it was found."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping

from joulemeter.capture import Basis, Header, Limit, Voltage
from joulemeter.caveat import Caveat, Code, doubt
from joulemeter.errors import DataError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import LinkDriver, Options
from joulemeter.transport import Link
from joulemeter.transport.connect import connect

from . import channels, discovery, wire

SILENCE_S = 0.1
DRAIN_S = 3.0
IDENTIFY_S = 1.0
# A new voltage makes the meter calibrate itself before it answers; how long that takes is not stated.
ANSWER_S = 10.0
STOP_S = 2.0
ANSWER_BYTES = 1 << 16
# What `volt get` may differ from the setting by before it counts as another voltage.
SAME_VOLTAGE = 0.02

UPDATE = (
    "Update it with ST's package STM32-LPM01-XN, by the procedure of UM2269, and check the version that the display "
    "shows at power-up."
)
# How the meter says by itself that it has ended, by format.
_ENDED = {
    wire.ASCII: re.compile(rb"(?:^|[\n\0])(?:error[: ]*([^\r\n]*)|end)\r\n"),
    wire.BINARY: re.compile(rb"\xf0\xf1([\t\r\n -~\0]*)\xff\xff|\xf0[\xf4\xf5]\xff\xff"),
}
# More than the longest of these.
_OVERLAP = 300


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.lpm01a.open`."""
    check(options, settings)
    unit = discovery.port_of(address, discovery.discover("lpm01a"))
    link = connect(unit.address if unit else address, wire.BAUD)
    return Driver(link, options, settings, serial=unit.serial if unit else None)


def check(options: Options, settings: Mapping[str, str]) -> None:
    """Raises UsageError for what no LPM01A can do."""
    if options.declared_v is not None:
        raise UsageError(
            "The LPM01A measures only what it supplies, so its voltage is known.", "Give --supply, not a declared one."
        )
    if options.supply_v is not None and not wire.SUPPLY_MIN_V <= options.supply_v <= wire.SUPPLY_MAX_V:
        raise UsageError(
            f"The LPM01A cannot supply {options.supply_v:g} V.",
            f"It supplies {wire.SUPPLY_MIN_V:g} V to {wire.SUPPLY_MAX_V:g} V.",
        )
    rate_hz, limit_hz = wire.RATES_HZ[settings["rate"]], wire.MAX_RATE_HZ[settings["format"]]
    if rate_hz > limit_hz:
        raise UsageError(
            f"The LPM01A streams no more than {limit_hz:g} samples a second in its {settings['format']} format.",
            "Set format=binary (which has no d7), or a lower rate.",
        )
    if settings["format"] == "binary" and rate_hz < wire.STAMP_SAMPLES:
        # Binary samples are believed at the next stamp only, which would be more than a second away.
        raise UsageError(
            f"Binary samples are read from {wire.STAMP_SAMPLES} a second on.",
            "Set format=ascii, which is as good at this rate and has d7.",
        )
    if settings["output"] == "energy" and rate_hz > wire.MAX_ENERGY_RATE_HZ:
        raise UsageError(
            f"The LPM01A integrates energy up to {wire.MAX_ENERGY_RATE_HZ:g} times a second.",
            "Set output=current, or a lower rate.",
        )
    if settings["output"] == "energy" and settings["funcmode"] != "optim":
        raise UsageError("The LPM01A's funcmode belongs to output=current.", "Leave one of the two out.")


class Driver(LinkDriver):
    def __init__(self, link: Link, options: Options, settings: Mapping[str, str], *, serial: str | None = None) -> None:
        """Takes over `link`, and closes it if no LPM01A with usable firmware is behind it.

        Raises NotFoundError, UsageError, DataError, IncompleteError.
        """
        check(options, settings)
        self._link = link
        self._options = options
        self._settings = settings
        self._serial = serial
        self._wire = wire.FORMATS[settings["format"]]
        self._controlling = self._streaming = self._switched_on = False
        self._found_v: float | None = None
        self._early = b""  # of the stream, arrived with the answer to `start`
        self._tail = b""
        self._why_ended: str | None = None
        try:
            self._identify()
        except BaseException:
            self.close()
            raise

    def _identify(self) -> None:
        """Stop what an earlier program left running, ask who is there, take control."""
        for _ in range(2):
            # The empty line ends half a command that somebody may have left.
            self._link.write(wire.command("") + wire.command("stop"))
            silent = self._drain(DRAIN_S)
            answer = self._answer("powershield", IDENTIFY_S) if silent else None
            if answer is not None and answer[0].ok:
                break
        else:
            raise NotFoundError(
                f"What is at {self._link.address} does not answer as an LPM01A does."
                if silent
                else f"What is at {self._link.address} keeps sending although it was told to stop: it is no LPM01A.",
                "Many STM32 boards share its USB id: `joulemeter scan` lists the ports; or unplug it and plug it in "
                "again.",
            )
        self.board = answer[0].text
        self.firmware = self._ask("version")
        version = wire.version(self.firmware)
        if version is None or version < wire.FIRMWARE:
            raise NotFoundError(
                f"The LPM01A at {self._link.address} has firmware {self.firmware or 'of no known version'}; "
                f"{'.'.join(map(str, wire.FIRMWARE))} or later is needed.",
                UPDATE,
            )
        self._controlling = True
        self._ask("htc")

    def _ask(self, text: str) -> str:
        """What the meter adds to its acknowledgement. Raises IncompleteError, NotFoundError, DataError."""
        answer = self._answer(text, ANSWER_S)
        if answer is not None and answer[0].unread:
            answer = self._answer(text, ANSWER_S)
        if answer is None:
            raise IncompleteError(
                f"The LPM01A does not answer to {text!r}.", "Unplug it and plug it in again, then try again."
            )
        reply, rest = answer
        if not reply.ok:
            reason = f": {reply.text}" if reply.text else ""
            if text.startswith(("pwr", "eventsrc")):
                raise NotFoundError(f"The LPM01A refuses {text!r}{reason}. Its firmware is too old for it.", UPDATE)
            raise DataError(f"The LPM01A refuses {text!r}{reason}.", "Unplug it and plug it in again, then try again.")
        self._early = rest
        return reply.text

    def _answer(self, text: str, limit_s: float) -> tuple[wire.Reply, bytes] | None:
        """The reply and what came behind it, None if there is none in time. Lines of a stream do not disturb."""
        self._link.write(wire.command(text))
        heard = b""
        deadline = time.monotonic() + limit_s
        while len(heard) < ANSWER_BYTES and time.monotonic() < deadline:
            heard += self._link.read(SILENCE_S)
            if (reply := wire.reply(heard, text)) is None:
                continue
            if not reply.ok and not reply.text:
                heard += self._link.read(SILENCE_S)
                reply = wire.reply(heard, text) or reply
            return reply, heard[reply.end :]
        return None

    def _drain(self, limit_s: float, until: bytes | None = None) -> bool:
        """Throw away what comes until nothing does for SILENCE_S, or until these bytes have; False if it never ends."""
        deadline = time.monotonic() + limit_s
        heard = b""
        while raw := self._link.read(SILENCE_S):
            heard = heard[-_OVERLAP:] + raw
            if until is not None and until in heard:
                return True
            if time.monotonic() > deadline:
                return False
        return True

    def start(self) -> Header:
        """Set up, power the board if that was asked for, begin streaming.

        Raises UsageError, IncompleteError, NotFoundError, DataError.
        """
        if self._streaming:
            raise UsageError("This LPM01A is streaming already.", "Stop it first.")
        powered = self._ask("pwr get") == "on"
        volts = wire.number(self._ask("volt get"))
        for text in self._set_up():
            self._ask(text)
        voltage: Voltage | None = None
        caveats: tuple[Caveat, ...] = ()
        if (supply_v := self._options.supply_v) is not None:
            if volts is None or abs(volts - supply_v) > SAME_VOLTAGE * supply_v:
                self._found_v = volts if powered else None
            self._ask(f"volt {round(supply_v * 1000)}m")
            self._switched_on = not powered
            self._ask("pwr on nostatus")
            voltage = _voltage(round(supply_v * 1000) / 1000)
        elif powered and volts is not None:
            voltage = _voltage(volts)
        else:
            # Left to itself, it would power the board on when the acquisition starts.
            self._ask("pwr off")
            caveats = (_unpowered(),)
        self._tail, self._why_ended, self._streaming = b"", None, True
        self._ask("start")
        return self._header(voltage, volts, caveats)

    def _set_up(self) -> list[str]:
        settings = self._settings
        texts = ["acqmode dyn", "acqtime inf", "trigsrc sw", "trigdelay 0", f"output {settings['output']}"]
        if settings["output"] == "current":
            texts.append(f"funcmode {settings['funcmode']}")
        texts += [f"format {wire.FORMAT_WORDS[settings['format']]}", f"freq {settings['rate']}"]
        return [*texts, "eventsrc d7 fal"] if self._wire == wire.ASCII else texts

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError also when the meter has said that it ends the acquisition."""
        if self._why_ended is not None:
            raise IncompleteError(
                f"The LPM01A ended the acquisition by itself{self._why_ended}.",
                "It does so when the host reads too slowly or the board draws more than 50 mA. What had arrived is "
                "kept; set a lower rate, or relieve the host or the board.",
            )
        raw, self._early = self._early or self._link.read(timeout_s), b""
        self._tail = self._tail[-_OVERLAP:] + raw
        if raw and (match := _ENDED[self._wire].search(self._tail)):
            text = (match[1] or b"").decode("latin-1").strip("\0\r\n .")
            self._why_ended = f": {text}" if text else ""
        return raw

    def stop(self) -> None:
        """Stop streaming, switch off what was switched on, and put back the voltage of a board that had power."""
        with contextlib.suppress(JouleMeterError):
            if self._streaming:
                self._streaming = False
                # Not acknowledged, and not answered at all when the acquisition is over already.
                self._link.write(wire.command("stop"))
                if not self._drain(STOP_S, wire.COMPLETED):
                    self._link.write(wire.command("stop"))
                    self._drain(STOP_S, wire.COMPLETED)
                self._drain(SILENCE_S)
        for wanted, text in (
            (self._switched_on, "pwr off"),
            (self._found_v is not None, f"volt {round((self._found_v or 0) * 1000)}m"),
        ):
            if wanted:
                self._leave(text)
        self._switched_on, self._found_v = False, None

    def _leave(self, text: str) -> None:
        """A last command: its failure cannot be helped any more."""
        with contextlib.suppress(JouleMeterError):
            self._answer(text, IDENTIFY_S)

    def close(self) -> None:
        self.stop()
        if self._controlling:
            self._controlling = False
            self._leave("hrc")
        super().close()

    def _header(self, voltage: Voltage | None, found_v: float | None, caveats: tuple[Caveat, ...]) -> Header:
        settings = self._settings
        energy = settings["output"] == "energy"
        return Header(
            instrument="lpm01a",
            model="X-NUCLEO-LPM01A",
            wire=self._wire,
            rate_hz=wire.RATES_HZ[settings["rate"]],
            word_bytes=wire.SAMPLE_BYTES[self._wire],
            channels=channels.channels(
                settings["output"], settings["format"], voltage.volts if voltage is not None else None
            ),
            serial=self._serial or self.board or None,
            firmware=self.firmware,
            address=self._link.address,
            simulated="simulator" in self.board,
            # The samples of `output energy` hold the voltage already.
            voltage=None if energy else voltage,
            parameters={
                "output": settings["output"],
                "funcmode": settings["funcmode"],
                "board": self.board,
                "supply_v": None if voltage is None else voltage.volts,
                "found_v": found_v,
            },
            caveats=caveats,
        )


def _voltage(volts: float) -> Voltage:
    return Voltage(volts=volts, basis=Basis.SET, limit=Limit(value=channels.SUPPLY * volts))


def _unpowered() -> Caveat:
    return doubt(
        Code.VOLTAGE_UNKNOWN,
        "The LPM01A's supply is switched off and no voltage was asked for, so the board has no power from it and there "
        "is nothing to measure. Give --supply.",
    )
