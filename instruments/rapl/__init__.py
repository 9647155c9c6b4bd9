"""RAPL: the energy that x86 processors count of themselves, as Linux shows it, on this host or on a board over SSH.

Intel since Sandy Bridge, AMD since Zen. See notes.md for what lies in which counter, and for what none of them sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.boardfiles import settings
from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "rapl"
ROOT = "/sys"

INFO = Info(
    key=KEY,
    maker="Intel, AMD",
    models=("processors since Sandy Bridge", "Zen"),
    summary="What x86 processors count of themselves (RAPL), on this host or over SSH.",
    wire=wire.FORMAT,
    transport="files",
    channels=channels.usual(),
    rates_hz=(100.0,),
    verified=Verified.SIMULATOR,
    verified_note="Against powercap trees made by hand after the kernel's documents and published listings, read by a "
    "real agent on this host. Nobody has tried it on a real processor.",
    load="4A/2s/d0,1A/1s",
    load_v=12.0,
    onboard=True,
    settings={
        "domain": Setting(
            default="auto", summary="auto (packages and their memory), package, dram, psys, or zones: NAME+NAME"
        ),
        **settings("between two polls, 1ms to 1s; auto is 10ms", ROOT),
    },
)


def discover() -> list[Found]:
    """The counters of this host. None is normal: virtual machines and other processors have none."""
    from . import discovery

    return discovery.discover(KEY, ROOT)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """Connected counters. `address` is "" or a domain of this host, ssh://[user@]host[:port], or a port.

    Raises NotFoundError, AccessError, IncompleteError, and UsageError for options that they cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from . import decode

    return decode.RaplDecoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    INFO.chosen(options)
    return simulator.RaplSimulator(load, INFO.load_v or 0.0)
