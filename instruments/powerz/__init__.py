"""ChargerLAB POWER-Z KM003C and KM002C: USB-C inline meters, up to 1000 samples a second on the meter's own clock.

They measure voltage and signed current. See notes.md for what a sample stands for and for what is not known of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, UsbId, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "powerz"

INFO = Info(
    key=KEY,
    maker="ChargerLAB",
    models=("POWER-Z KM003C", "POWER-Z KM002C"),
    summary="USB-C inline meters, up to 50 V and 6 A, up to 1000 samples a second.",
    wire=wire.QUEUE_FORMAT,
    transport="usb",
    channels=channels.streamed(channels.FAST_HZ),
    rates_hz=tuple(sorted(rate.hz for rate in wire.RATES.values())),
    verified=Verified.TRANSCRIPT,
    verified_note="USB traffic recorded from a KM003C is decoded as km003c 0.4.0 does it; driven against that "
    "recording and the simulator only. Nobody has tried it on a real meter, and no traffic of a KM002C is known.",
    usb_ids=tuple(UsbId(vendor=wire.VENDOR, product=product) for product in wire.MODELS),
    extra="usb",
    load="1.2A/60ms/d0,400mA/140ms",
    load_v=5.0,
    settings={
        "mode": Setting(
            default="auto",
            values=("auto", "stream", "poll"),
            summary="stream samples, or ask for one reading at a time; auto streams from a KM003C and polls a KM002C",
        ),
        "rate": Setting(default="1000", values=tuple(wire.RATES), summary="samples a second of a stream"),
        "interval": Setting(default="auto", summary="of polling, between two readings: auto, or up to 1s"),
        "direction": Setting(
            default="plug-to-socket",
            values=("plug-to-socket", "socket-to-plug"),
            summary="which way the current flows that counts positive: the supply is on the plug, or on the socket",
        ),
        "model": Setting(default="KM003C", values=tuple(wire.MODELS.values()), summary="of the simulator"),
        "queue": Setting(default="1000", summary="samples that the simulator keeps until they are fetched"),
    },
)


def discover() -> list[Found]:
    """Every one on USB, also where pyusb is missing."""
    from . import discovery

    return discovery.discover()


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected meter. `address` is usb:BUS-PORT, a serial number, HOST:PORT, or "" for the only one there is.

    Raises NotFoundError, AccessError, MissingExtraError, and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from . import decode

    return decode.decoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    return simulator.PowerzSimulator(load, INFO.chosen(options), INFO.load_v or 0.0)
