"""RDTech (Ruideng) TC66 and TC66C: USB-C inline meters that are asked over USB, about seven readings a second.

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

KEY = "tc66"

INFO = Info(
    key=KEY,
    maker="RDTech",
    models=("TC66", "TC66C"),
    summary="USB-C inline meters, up to 20 V and 5 A, about seven readings a second over USB.",
    wire=wire.FORMAT,
    transport="serial",
    channels=channels.CHANNELS,
    rates_hz=(1 / wire.USUAL_S,),
    verified=Verified.TRANSCRIPT,
    verified_note="Decodes an answer that another program's authors took from a real TC66C (firmware 1.18); its "
    "simulator is read by tc66-serial and by sigrok. Nobody has tried the driver on a real meter.",
    extra="tc66",
    load="900mA/6s/d0,300mA/3s",
    load_v=5.0,
    settings={
        "interval": Setting(
            default="auto", summary="between two readings, 100ms to 1s; auto asks as fast as is useful"
        ),
        "mode": Setting(
            default="firm", values=("firm", "boot"), summary="of the simulator: measuring, or in its loader"
        ),
    },
)


def discover() -> list[Found]:
    """Ports that say they are Ruideng's."""
    from . import discovery

    return discovery.discover(KEY)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected meter. `address` is a serial port, HOST:PORT, a USB serial number, or "" for the only one there is.

    Raises NotFoundError (also for a meter that waits for firmware), AccessError, UsageError for options that it cannot
    take, MissingExtraError.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    """Raises MissingExtraError: the recording holds what the meter sent, which is encrypted."""
    from joulemeter.polled import PolledDecoder

    return PolledDecoder(header, wire.FORMAT, wire.Cipher().values)


def simulate(load: Draw, options: Options) -> Device:
    """Raises MissingExtraError, UsageError."""
    from . import simulator

    return simulator.Tc66Simulator(load, INFO.load_v or 0.0, INFO.chosen(options)["mode"])
