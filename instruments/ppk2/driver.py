"""The PPK2 on its wire: identify, supply, stream, and leave everything as it was found."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from joulemeter.capture import Basis, Header, Limit, Voltage
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import LinkDriver, Options
from joulemeter.transport import Link
from joulemeter.transport.connect import connect

from . import channels, discovery, wire

SILENCE_S = 0.1
DRAIN_S = 3.0
ANSWER_S = 1.0
ANSWER_BYTES = 1 << 16

# Nobody states how well the regulator holds its voltage: 2 % and 10 mV are this project's guess.
SET_LIMIT = (0.02, 0.010)
DECLARED_LIMIT = (0.05, 0.0)

# For the calibration only, where neither the user nor the meter names a voltage.
UNSTATED_V = 3.0

PLAUSIBLE_USER_GAIN = (0.9, 1.1)


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.ppk2.open`."""
    check(options)
    unit = discovery.port_of(address, discovery.discover("ppk2"))
    link = connect(unit.address if unit else address)
    return Driver(link, options, settings["filter"], serial=unit.serial if unit else None)


def check(options: Options) -> None:
    """Raises UsageError for options that no PPK2 can take."""
    if options.supply_v is not None and options.declared_v is not None:
        raise UsageError(
            "The PPK2 either supplies the board or measures one with its own supply.",
            "Give --supply or --assume-voltage, not both.",
        )
    if options.supply_v is not None and not wire.SUPPLY_MIN_V <= options.supply_v <= wire.SUPPLY_MAX_V:
        raise UsageError(
            f"The PPK2 cannot supply {options.supply_v:g} V.",
            f"It supplies {wire.SUPPLY_MIN_V:g} V to {wire.SUPPLY_MAX_V:g} V.",
        )
    if options.declared_v is not None and not options.declared_v > 0:
        raise UsageError(f"{options.declared_v:g} V is no supply voltage.", "Give the voltage that the board runs on.")


class Driver(LinkDriver):
    def __init__(self, link: Link, options: Options, filter_: str = "nordic", *, serial: str | None = None) -> None:
        """Takes over `link`, and closes it if no PPK2 is behind it. Raises NotFoundError, DataError, UsageError."""
        check(options)
        self._link = link
        self._options = options
        self._filter = filter_
        self._serial = serial
        self._streaming = self._supplying = self._mode_changed = False
        try:
            self.metadata = self._identify()
        except BaseException:
            self.close()
            raise

    def _identify(self) -> wire.Metadata:
        """Stop what an earlier program left running, then ask. Nothing is acknowledged, so silence is the sign."""
        self._link.write(wire.STOP)
        if not self._drain(DRAIN_S):
            raise NotFoundError(
                f"What is at {self._link.address} keeps sending although it was told to stop: it is no PPK2.",
                "`joulemeter scan` lists the ports of those that are; or unplug it and plug it in again.",
            )
        self._link.write(wire.METADATA)
        answer = b""
        deadline = time.monotonic() + ANSWER_S
        while not wire.complete(answer):
            if time.monotonic() > deadline or len(answer) > ANSWER_BYTES:
                raise NotFoundError(
                    f"What is at {self._link.address} does not answer as a PPK2 does.",
                    "It is another device, or the second port of a PPK2 (a shell that does not measure): "
                    "`joulemeter scan` lists the right one.",
                )
            answer += self._link.read(SILENCE_S)
        return wire.parse_metadata(answer)

    def _drain(self, limit_s: float) -> bool:
        """Throw away what comes until nothing does for SILENCE_S; False if it never ends."""
        deadline = time.monotonic() + limit_s
        while self._link.read(SILENCE_S):
            if time.monotonic() > deadline:
                return False
        return True

    def start(self) -> Header:
        """Begin streaming, with the board powered first if that was asked for. Raises UsageError, IncompleteError."""
        if self._streaming:
            raise UsageError("This PPK2 is streaming already.", "Stop it first.")
        supply_v, declared_v = self._options.supply_v, self._options.declared_v
        if supply_v is not None:
            self._mode_changed = self._supplying = True
            # One write each: whether the meter takes several commands from one USB packet is not known.
            self._link.write(wire.mode(wire.Mode.SOURCE))
            self._link.write(wire.regulator(_millivolts(supply_v)))
            self._link.write(wire.power(True))
        elif declared_v is not None:
            self._mode_changed = True
            self._link.write(wire.mode(wire.Mode.AMMETER))
        self._streaming = True
        self._link.write(wire.START)
        return self._header()

    def read(self, timeout_s: float) -> bytes:
        return self._link.read(timeout_s)

    def stop(self) -> None:
        """Stop streaming, switch off what was switched on, and put mode and regulator back as they were."""
        with contextlib.suppress(JouleMeterError):
            if self._streaming:
                self._streaming = False
                self._link.write(wire.STOP)
                self._drain(DRAIN_S)
            if self._supplying:
                self._supplying = False
                self._link.write(wire.power(False))
                if (found_v := self.metadata.supply_v) is not None and _can_supply(found_v):
                    self._link.write(wire.regulator(_millivolts(found_v)))
            if self._mode_changed:
                self._mode_changed = False
                if self.metadata.mode is not None:
                    self._link.write(wire.mode(self.metadata.mode))

    def _header(self) -> Header:
        metadata = self.metadata
        voltage, volts, caveats = self._voltage()
        return Header(
            instrument="ppk2",
            model="PPK2",
            wire=wire.FORMAT,
            rate_hz=wire.RATE_HZ,
            word_bytes=wire.WORD_BYTES,
            channels=channels.channels({int(name[-1]) for name in metadata.defaulted}),
            loss_modulo=wire.COUNTER_MODULO,
            serial=self._serial,
            address=self._link.address,
            simulated=metadata.simulator,
            voltage=voltage,
            parameters={
                "calibration": {name: list(row) for name, row in metadata.calibration.constants.items()},
                "defaulted": list(metadata.defaulted),
                "volts": volts,
                "filter": self._filter,
                "hardware": metadata.hardware,
                "metadata": metadata.text,
            },
            caveats=(*caveats, *calibration_caveats(metadata)),
        )

    def _voltage(self) -> tuple[Voltage | None, float, tuple[Caveat, ...]]:
        """What is known of the supply, and the voltage that the calibration is to use."""
        if self._options.supply_v is not None:
            volts = _millivolts(self._options.supply_v) / 1000
            return Voltage(volts=volts, basis=Basis.SET, limit=_limit(volts, *SET_LIMIT)), volts, ()
        if self._options.declared_v is not None:
            volts = self._options.declared_v
            return Voltage(volts=volts, basis=Basis.DECLARED, limit=_limit(volts, *DECLARED_LIMIT)), volts, ()
        known_v = self.metadata.supply_v
        volts, whence = (known_v, "the meter's own setting") if known_v else (UNSTATED_V, "a guess")
        text = (
            f"The board's supply was not stated, so the calibration used {volts:g} V, {whence}. "
            "Above 50 mA each volt of error moves the current by about 2.5 mA. Give --supply or --assume-voltage."
        )
        return None, volts, (doubt(Code.VOLTAGE_UNKNOWN, text, calibration_v=volts),)


def calibration_caveats(metadata: wire.Metadata) -> tuple[Caveat, ...]:
    caveats = []
    if metadata.defaulted:
        text = (
            f"The meter gave no usable value for {', '.join(metadata.defaulted)}; defaults were taken. Currents may be "
            "wrong by 10 %, in the highest range by a third, and the accuracy was widened. Have the unit calibrated."
        )
        caveats.append(doubt(Code.CALIBRATION_DEFAULTED, text, constants=list(metadata.defaulted)))
    elif metadata.calibrated is False:
        text = (
            "The meter says that it is not calibrated, though it gives constants of its own, as units in the field do. "
            "They were used. Check it against a known resistor."
        )
        caveats.append(note(Code.CALIBRATION_DEFAULTED, text))
    low, high = PLAUSIBLE_USER_GAIN
    odd = {range_: gain for range_, gain in enumerate(metadata.calibration.constants["UG"]) if not low <= gain <= high}
    if odd:
        text = (
            f"The user gain of range {', '.join(map(str, odd))} lies outside {low:g} to {high:g}; it was applied as it "
            "stands, and Nordic's application would put all of them back to 1. Set the gains again in that application."
        )
        caveats.append(doubt(Code.ACCURACY_UNVERIFIED, text, user_gains={str(key): gain for key, gain in odd.items()}))
    return tuple(caveats)


def _limit(volts: float, relative: float, absolute_v: float) -> Limit:
    """Half-width in volts."""
    return Limit(value=relative * volts + absolute_v)


def _millivolts(volts: float) -> int:
    return round(volts * 1000)


def _can_supply(volts: float) -> bool:
    return wire.SUPPLY_MIN_V <= volts <= wire.SUPPLY_MAX_V
