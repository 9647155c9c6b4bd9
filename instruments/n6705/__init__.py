"""Keysight N6705A/B/C and N6700 with an N678xA SMU or N676xA module: a bench supply that logs current and voltage.

The external data log goes on for ever, a pair every 204.8 us; an array measurement is one record for each pulse at the
trigger input. See notes.md for wiring and for what was never tried on a real one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "n6705"

INFO = Info(
    key=KEY,
    maker="Keysight",
    models=("N6705A", "N6705B", "N6705C", "N6700B", "N6700C", "N6701C", "N6702C"),
    summary="Modular bench supplies that measure what they give: with an N6781A 10 uA to 3 A, 4.9 kS/s without end.",
    wire=wire.FORMAT,
    transport="visa",
    channels=channels.channels(),
    rates_hz=(1 / (2 * wire.LEAST_S),),
    verified=Verified.SIMULATOR,
    verified_note="Its commands were read in Keysight's guides and in programs for these instruments; PyVISA reads its "
    "simulator's log and QCoDeS its settings. Nobody has tried it on a real one.",
    faces=("socket", "vxi11", "hislip"),
    supplies=(0.1, 20.0),
    load="8mA/20ms/d0,250uA/80ms",
    load_v=3.0,
    settings={
        "output": Setting(default="1", values=("1", "2", "3", "4"), summary="which output the board is at"),
        "mode": Setting(
            default="log",
            values=("log", "array"),
            summary="log goes on for ever; array takes a record at each pulse of the trigger input (low-true, 2 us)",
        ),
        "parameters": Setting(
            default="both", values=("both", "current"), summary="current and voltage, or current alone twice as often"
        ),
        "period": Setting(default="auto", summary="of a sample, such as 1ms; auto is the shortest"),
        "range": Setting(default=channels.AUTO, summary="of the current, such as 100mA; auto lets the module switch"),
        "limit": Setting(default="keep", summary="of the current with --supply, such as 500mA; keep leaves it"),
        "points": Setting(default="2048", summary="samples of a record, with mode=array"),
        "before": Setting(default="128", summary="of them, how many before the trigger"),
        "wait": Setting(default="60s", summary="how long a trigger is awaited, with mode=array"),
    },
)


def discover() -> list[Found]:
    """Those that a VISA library lists."""
    from joulemeter.transport import visa

    return visa.discover(KEY, lambda one: wire.fits(one.maker, one.model), wire.VENDORS)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected mainframe. `address` is HOST, HOST:PORT or a VISA resource.

    Raises NotFoundError, AccessError, and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from . import decode

    return decode.N6705Decoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    del options
    return simulator.N6705Simulator(load)
