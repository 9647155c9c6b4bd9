"""Atorch's USB and DC meters (UD18, J7-C, UC96, AT24 and others): one report a second, unasked.

They measure voltage and current. See notes.md for what a report stands for and for what is not known about them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "atorch"

INFO = Info(
    key=KEY,
    maker="Atorch",
    models=("UD18", "J7-C", "UC96", "AT24"),
    summary="USB and DC meters with Bluetooth that report once a second, in steps of 10 mA (DC: 1 mA).",
    wire=wire.FORMAT,
    transport="serial",
    channels=channels.channels(wire.KINDS[wire.USB]),
    rates_hz=(wire.RATE_HZ,),
    verified=Verified.TRANSCRIPT,
    verified_note="Decodes reports that other programs' authors took from real USB and DC meters; its simulator is "
    "read by atorch-ble and by sigrok. Nobody has tried the driver on a real meter.",
    load="900mA/40s/d0,300mA/20s",
    load_v=5.0,
    settings={
        "model": Setting(default="UD18", values=("UD18", "J7-C", "AT24"), summary="of the simulator"),
    },
)


def discover() -> list[Found]:
    """None: a Bluetooth serial port does not say what is behind it."""
    return []


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected meter. `address` is a serial port (/dev/rfcomm0, COM7) or HOST:PORT.

    Raises NotFoundError (also for a mains meter of this make), AccessError, and UsageError for options that it cannot
    take.
    """
    from . import driver

    INFO.chosen(options)
    return driver.open_driver(address, options)


def decoder(header: Header) -> Decoder:
    from . import decode

    return decode.AtorchDecoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    return simulator.AtorchSimulator(load, INFO.load_v or 0.0, INFO.chosen(options)["model"])
