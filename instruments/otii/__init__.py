"""Qoitech Otii Arc and Ace: source and meter for boards, current and voltage, two digital inputs, through the Otii app.

Arc: 4 kS/s of current and 1 kS/s of voltage. Ace: up to 50 kS/s of both. The app's TCP server needs a licence of
Qoitech's Automation Toolbox. See notes.md for wiring and for what is not known about them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "otii"

INFO = Info(
    key=KEY,
    maker="Qoitech",
    models=("Otii Arc", "Otii Arc Pro", "Otii Ace", "Otii Ace Pro"),
    summary="Source and meter for boards, up to 5 A, with two digital inputs and a log; needs the maker's app running.",
    wire=wire.FORMAT,
    transport="tcp",
    channels=channels.channels(channels.ARC, lines=len(channels.LINES)),
    rates_hz=(channels.ARC.current_hz, channels.ACE.current_hz),
    verified=Verified.TRANSCRIPT,
    verified_note="Driven through the maker's otii_tcp_client 1.0.13, which by itself reads the same values from the "
    "simulator; answers as in the maker's documentation. Nobody has tried it on a real unit.",
    supplies=(channels.BOTTOM_V, channels.ACE.top_v),
    extra="otii",
    settings={
        "connection": Setting(
            default="main",
            values=("main", "inline", "inline-4wire"),
            summary="main: the Otii supplies the board; inline (Ace): the board has a supply; 4wire: SENSE is wired",
        ),
        "max-current": Setting(default="app", summary="where the output cuts off, 1mA to 5A; app: as set there"),
        "logic": Setting(default="app", summary="level of the expansion port, 1.2V to 5V; app: as set there"),
        "uart": Setting(default="off", summary="BAUD:BEGIN,END: d2 is high between these words of the log on RX"),
        "rate": Setting(default="auto", summary="samples a second of an Ace, such as 10000; auto: its highest"),
        "range": Setting(default="auto", values=("auto", "high"), summary="of the current: auto, or high always"),
        "low-range": Setting(
            default="doubted",
            values=("doubted", "trusted"),
            summary="whether currents up to 20 mA were measured in the low range for certain (notes.md)",
        ),
        "calibrate": Setting(default="off", values=("off", "on"), summary="let the meter calibrate itself before"),
        "model": Setting(default="Arc", values=("Arc", "Ace"), summary="of the simulator"),
    },
)


def discover() -> list[Found]:
    """Every Otii of the app that runs on this host."""
    from . import discovery

    return discovery.discover(KEY)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected Otii. `address` is [HOST:PORT][/DEVICE], DEVICE an id or name; "" for the only one of this host.

    Raises NotFoundError, AccessError, MissingExtraError, IncompleteError, and UsageError for options that it cannot
    take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from . import decode

    return decode.OtiiDecoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    return simulator.OtiiSimulator(load, options, model=INFO.chosen(options)["model"])
