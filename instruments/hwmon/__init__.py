"""Power sensors on boards, as Linux shows them: INA219 to INA3221, POWER-Z, and whatever else has a power file.

They are polled through files, on this host or on a board over SSH, by the agent that also runs workloads there. See
notes.md for what the chips average, what a reading stands for and which rails make a board's power.
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

KEY = "hwmon"
ROOT = "/sys"

INFO = Info(
    key=KEY,
    maker="Linux",
    models=(*sorted(name.upper() for name in channels.CHIPS if name.startswith("ina") and name[-1] != "x"), "POWER-Z"),
    summary="Power sensors on this host or on a board over SSH: INA2xx, INA3221 (Jetson), POWER-Z.",
    wire=wire.FORMAT,
    transport="files",
    channels=channels.usual(),
    rates_hz=(100.0,),
    verified=Verified.SIMULATOR,
    verified_note="Against sysfs trees made by hand after the kernel's documents, read by a real agent on this host "
    "and over a real SSH server. Nobody has tried it on a real chip.",
    load="1.2A/2s/d0,400mA/1s",
    load_v=5.0,
    onboard=True,
    settings={
        "sensor": Setting(default="", summary="the chip, where there are several: ina226, ina226@40, 1-0040"),
        "rail": Setting(default="auto", summary="a rail by its label, NAME+NAME, sum, or auto for the board's total"),
        **settings("between two polls, 1ms to 1s; auto is half a refresh, 10ms least", ROOT),
    },
)


def discover() -> list[Found]:
    """Every rail of this host."""
    from . import discovery

    return discovery.discover(KEY, ROOT)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """Connected sensors. `address` is "" or a sensor or rail of this host, ssh://[user@]host[:port], or a port.

    Raises NotFoundError, AccessError, IncompleteError, and UsageError for options that they cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from joulemeter.boardfiles.decode import RoundDecoder

    return RoundDecoder(header, wire.Sums(header))


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    INFO.chosen(options)
    return simulator.Ina226Simulator(load, INFO.load_v or 0.0)
