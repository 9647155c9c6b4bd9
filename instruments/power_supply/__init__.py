"""The battery of a laptop, tablet or phone while it discharges, as Linux shows it, on this host or over SSH.

What the battery gives is what the whole machine draws. See notes.md for how slow and how coarse that is.
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

KEY = "power_supply"
ROOT = "/sys"

INFO = Info(
    key=KEY,
    maker="Linux",
    models=("batteries with power_now, or with current_now and voltage_now",),
    summary="The battery of this host, or of one over SSH, while it discharges: a slow meter of the whole machine.",
    wire=wire.FORMAT,
    transport="files",
    channels=channels.usual(),
    rates_hz=(4.0,),
    verified=Verified.SIMULATOR,
    verified_note="Against sysfs trees made by hand after published listings of laptops and phones, read by a real "
    "agent on this host. Nobody has tried it on a real battery.",
    # Windows of a meter that may show nothing new for half a minute.
    load="1500mA/180s/d0,500mA/120s",
    load_v=11.4,
    onboard=True,
    settings={
        "supply": Setting(default="auto", summary="a battery by its name, NAME+NAME, or auto for all of the machine's"),
        "refresh": Setting(default="30s", summary="how seldom the battery shows a new value at most, 100ms to 120s"),
        **settings("between two polls, 1ms to 1s; auto is 250ms", ROOT),
    },
)


def discover() -> list[Found]:
    """The batteries of this host. None is normal."""
    from . import discovery

    return discovery.discover(KEY, ROOT)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """Connected batteries. `address` is "" or a battery of this host, ssh://[user@]host[:port], or a port.

    Raises NotFoundError, AccessError, IncompleteError, and UsageError for options that they cannot take or a battery
    that does not discharge.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from joulemeter.boardfiles.decode import RoundDecoder

    return RoundDecoder(header, wire.Discharge(header))


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    INFO.chosen(options)
    return simulator.BatterySimulator(load, INFO.load_v or 0.0)
