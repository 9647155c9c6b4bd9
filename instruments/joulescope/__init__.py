"""Joulescope JS110, JS220, JS320: current and voltage at 1 or 2 MS/s in ranges from 18 µA to 10 A, with digital inputs.

They are spoken to through the maker's library, pyjoulescope_driver. See notes.md for wiring and for what is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, UsbId, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "joulescope"
_USUAL = wire.MODELS["js220"]

INFO = Info(
    key=KEY,
    maker="Jetperch",
    models=tuple(model.name for model in wire.MODELS.values()),
    summary="Energy analysers for currents up to 10 A at up to 15 V, with two or five digital inputs.",
    wire=wire.FORMAT,
    transport="usb",
    channels=channels.channels("js220", tuple(wire.SIGNALS)),
    rates_hz=_USUAL.rates_hz,
    verified=Verified.SIMULATOR,
    verified_note="Driven through a stand-in for the maker's library that is held to the real one's names, signatures, "
    "topics and errors; that one was run without a meter. Nobody has tried it on a real unit.",
    usb_ids=tuple(UsbId(vendor=wire.VENDOR, product=model.product) for model in wire.MODELS.values()),
    extra="joulescope",
    load="8mA/20ms/d0,250uA/80ms",
    load_v=3.3,
    settings={
        "rate": Setting(
            default="full",
            values=("full", "1MHz", "200kHz", "100kHz", "50kHz", "20kHz", "10kHz", "5kHz", "2kHz", "1kHz"),
            summary="samples a second; full is 1 MHz, on a JS110 2 MHz. Less takes less disk and smears edges",
        ),
        "range": Setting(
            default="auto",
            values=("auto", "10A", "2A", "180mA", "18mA", "1.8mA", "180uA", "18uA"),
            summary="of current; above a fixed one the meter clips. 2A exists on a JS110 only",
        ),
        "lines": Setting(
            default="auto",
            summary="digital inputs to record, such as d0,d2 (d7 is trigger-in), or none; auto is d0,d1,d7, on a "
            "JS110 d0,d1. With more than three the current range is not recorded",
        ),
        "io": Setting(
            default="found",
            values=("found", *wire.VREF, *(name for name in wire.JS110_IO_MV if name not in wire.VREF)),
            summary="voltage of the digital inputs: found leaves it alone; vref is their Vref pin, on a JS220 or JS320",
        ),
        "model": Setting(default="JS220", values=tuple(m.name for m in wire.MODELS.values()), summary="simulated"),
    },
)


def discover() -> list[Found]:
    """Every Joulescope on USB, those that cannot be opened with the reason."""
    from . import discovery

    return discovery.discover(KEY)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected Joulescope. `address` is a serial number, a path of the library (u/js220/001234) or "" for the only
    one there is; HOST:PORT or a port where a simulated one is.

    Raises NotFoundError, AccessError, MissingExtraError, and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from . import decode

    return decode.JoulescopeDecoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    return simulator.JoulescopeSimulator(load, INFO.chosen(options)["model"].lower(), options.declared_v or 3.3)
