"""FNIRSI FNB48, C1, FNB48S and FNB58: USB inline meters that stream over USB HID, a report of four samples each 40 ms.

They measure voltage and current. See notes.md for what a sample stands for and for what is not known about them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "fnirsi"

INFO = Info(
    key=KEY,
    maker="FNIRSI",
    models=tuple(wire.MODELS),
    summary="USB inline meters with a port of their own for the PC, 100 samples a second.",
    wire=wire.FORMAT,
    transport="hid",
    channels=channels.channels(),
    rates_hz=(wire.RATE_HZ,),
    verified=Verified.TRANSCRIPT,
    verified_note="Commands and checksum as published, and two other programs read the simulator, one of them through "
    "a HID device of a Linux kernel. Nobody has tried it on a real meter.",
    usb_ids=tuple(model.usb for model in wire.MODELS.values()),
    extra="hid",
    load="900mA/2s/d0,300mA/1s",
    load_v=5.0,
    settings={
        "keepalive": Setting(
            default="auto",
            values=("auto", *wire.KEEPALIVES),
            summary="how often the meter is told to go on; 3ms also for an FNB58 with firmware 0.68",
        ),
        "model": Setting(
            default="FNB58",
            values=tuple(wire.MODELS),
            summary="of the simulator, or of what is at HOST:PORT; USB says it by itself",
        ),
    },
)


def discover() -> list[Found]:
    """Every one of these meters on USB; none without the extra."""
    from . import discovery

    return [unit.found for unit in discovery.units(KEY)]


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected meter. `address` is a HID path, a serial number, or "" for the only one there is.

    HOST:PORT and a serial port are for the simulator, or for whatever else hands on its reports.
    Raises NotFoundError, AccessError, MissingExtraError, and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from . import decode

    return decode.FnirsiDecoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    return simulator.FnirsiSimulator(load, INFO.chosen(options)["model"], INFO.load_v or 0.0)
