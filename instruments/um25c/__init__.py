"""RDTech UM24C, UM25C, UM34C: USB inline meters that are asked over Bluetooth, a few readings a second.

They measure voltage and current. See notes.md for what a reading stands for and for what is not known about them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "um25c"

INFO = Info(
    key=KEY,
    maker="RDTech",
    models=tuple(model.name for model in wire.MODELS.values()),
    summary="USB inline meters with Bluetooth, up to 24 V and 4 A, a few readings a second.",
    wire=wire.FORMAT,
    transport="serial",
    channels=channels.channels(wire.MODELS[wire.UM25C]),
    rates_hz=(1 / wire.USUAL_S,),
    verified=Verified.TRANSCRIPT,
    verified_note="Decodes an answer that rdserialtool composed; its simulator is read by pyummeter, rdserialtool and "
    "sigrok. Nobody has tried the driver on a real meter.",
    load="900mA/6s/d0,300mA/3s",
    load_v=5.0,
    settings={
        "interval": Setting(default="auto", summary="between two readings, 50ms to 1s; auto asks as fast as is useful"),
        "model": Setting(
            default="UM25C",
            values=tuple(model.name for model in wire.MODELS.values()),
            summary="of the simulator",
        ),
    },
)


def discover() -> list[Found]:
    """None: a Bluetooth serial port does not say what is behind it."""
    return []


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected meter. `address` is a serial port (/dev/rfcomm0, COM7) or HOST:PORT.

    Raises NotFoundError, AccessError, and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from joulemeter.polled import PolledDecoder

    return PolledDecoder(header, wire.FORMAT, wire.values)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    return simulator.Um25cSimulator(load, INFO.chosen(options)["model"], INFO.load_v or 0.0)
