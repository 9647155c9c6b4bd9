"""ST X-NUCLEO-LPM01A ("PowerShield"): supplies a microcontroller with 1.8 to 3.3 V and measures 100 nA to 50 mA.

It is the meter of MLPerf Tiny. It measures current, or integrates the energy of each sample itself, and reports falling
edges of its pin D7. See notes.md for wiring and for what is not known about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, UsbId, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "lpm01a"

INFO = Info(
    key=KEY,
    maker="STMicroelectronics",
    models=("X-NUCLEO-LPM01A",),
    summary="Source and meter for microcontrollers, 1.8 to 3.3 V, 100 nA to 50 mA, with edges of one pin.",
    wire=wire.ASCII,
    transport="serial",
    channels=channels.channels(),
    rates_hz=tuple(wire.RATES_HZ.values()),
    verified=Verified.TRANSCRIPT,
    verified_note="Decodes the streams and replies printed in ST's UM2269; driven against the simulator only, which "
    "MLCommons' runner class for this meter also drives. Nobody has tried it on a real unit.",
    usb_ids=(UsbId(vendor=0x0483, product=0x5740),),
    supplies=(wire.SUPPLY_MIN_V, wire.SUPPLY_MAX_V),
    settings={
        "rate": Setting(default="1k", values=tuple(wire.RATES_HZ), summary="samples a second"),
        "format": Setting(
            default="ascii", values=("ascii", "binary"), summary="ascii: up to 5k, with d7; binary: 1k to 100k, without"
        ),
        "output": Setting(
            default="current", values=("current", "energy"), summary="what a sample is; energy up to 10k"
        ),
        "funcmode": Setting(
            default="optim", values=("optim", "high"), summary="for low currents, or from 30 µA up and fast"
        ),
        "wired": Setting(
            default="d0",
            values=tuple(f"d{line}" for line in range(8)),
            summary="of the simulator: which line of its load is wired to D7",
        ),
        "firmware": Setting(default="1.0.6", summary="of the simulator"),
        "trouble": Setting(
            default="",
            summary="of the simulator: overrun@TIME:SAMPLES, merge@TIME, spoil@TIME, end@TIME, with commas between",
        ),
    },
)


def discover() -> list[Found]:
    """Every port that may be an LPM01A: it shares its USB id with other STM32 boards."""
    from . import discovery

    return discovery.discover(KEY)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected LPM01A. `address` is a port, HOST:PORT, a USB serial number, or "" for the only one there is.

    Raises NotFoundError (also for firmware that is too old), AccessError, and UsageError for options that it cannot
    take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from . import decode

    return decode.Lpm01aDecoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    chosen = INFO.chosen(options)
    return simulator.Lpm01aSimulator(
        load, line=int(chosen["wired"][1]), firmware=chosen["firmware"], trouble=chosen["trouble"]
    )
