"""Any SCPI multimeter, supply, source-measure unit or power meter that a profile describes: asked for each reading.

A profile is a TOML file, one that comes with the package or the user's own. See notes.md for its form, for what a
reading stands for, and for what is not known about each instrument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Channel, Header, Kind, Quantity
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "scpi_meter"
# The profile of the simulator where none is named; `channels` and `rates_hz` are its own.
SIMULATED = "keysight-e36312a"
REFRESH_S = 0.2

INFO = Info(
    key=KEY,
    maker="several makers",
    models=(
        "BK Precision 9130B",
        "Keithley 2400",
        "Keysight 34461A",
        "Keysight E36312A",
        "Rigol DM3058",
        "Rigol DP832",
        "Rohde & Schwarz HMC8043",
        "Rohde & Schwarz NGE103B",
        "Rohde & Schwarz NGL202, NGM202",
        "Siglent SPD3303X",
    ),
    summary="SCPI multimeters and supplies, described by a profile in TOML; your own file describes another.",
    wire="scpi-answers/1",
    transport="visa",
    channels=(
        Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.INSTANT, refresh_s=REFRESH_S),
        Channel(name="voltage", quantity=Quantity.VOLTAGE, unit="V", kind=Kind.INSTANT, refresh_s=REFRESH_S),
    ),
    rates_hz=(2 / REFRESH_S,),
    verified=Verified.TRANSCRIPT,
    verified_note="Decodes answers that others published; its simulator is read by pymeasure and sigrok. Nobody has "
    "tried the driver or a profile on a real instrument.",
    supplies=(0.0, 60.0),
    load="600mA/6s/d0,200mA/3s",
    load_v=3.0,
    faces=("socket", "vxi11", "hislip"),
    settings={
        "profile": Setting(
            default="auto", summary="a name, or a path to a TOML file; auto finds it by what the instrument says it is"
        ),
        "channel": Setting(default="auto", summary="which output or input, as the maker calls it; auto is the first"),
        "interval": Setting(default="auto", summary="between two readings, up to 1s; auto asks as fast as is useful"),
    },
)


def discover() -> list[Found]:
    from . import discovery

    return discovery.discover(KEY)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected instrument. `address` is a VISA resource, HOST:PORT, a host or a serial port.

    Raises NotFoundError, AccessError, MissingExtraError, and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from joulemeter.polled import PolledDecoder

    from . import wire

    values = wire.reader(wire.places(header.parameters["readings"]), header.parameters["not_measured"])
    return PolledDecoder(header, wire.FORMAT, values)


def simulate(load: Draw, options: Options) -> Device:
    """Raises UsageError for a profile that is none."""
    from . import simulator

    settings = INFO.chosen(options)
    name = SIMULATED if settings["profile"] == "auto" else settings["profile"]
    return simulator.ScpiMeterSimulator(load, name, settings["channel"], INFO.load_v or 0.0)
