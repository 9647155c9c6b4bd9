"""NVIDIA GPUs, by their own sensors, through NVML: an energy counter and power, new about ten times a second.

See notes.md for what a reading stands for, how much of the time the sensors look, and what is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter import units
from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "nvml"

INFO = Info(
    key=KEY,
    maker="NVIDIA",
    models=("NVIDIA GPUs with a power sensor",),
    summary="NVIDIA GPUs by their own energy counter or power sensor, ten new values a second.",
    wire=wire.FORMAT,
    transport="library",
    channels=channels.usual(),
    rates_hz=(40.0,),
    verified=Verified.SIMULATOR,
    verified_note="Against simulated GPUs only, through functions held against nvidia-ml-py's names, constants and "
    "layouts. Nobody has tried it on a real GPU.",
    extra="nvidia",
    load="20A/6s/d0,5A/4s",
    load_v=12.0,
    onboard=True,
    settings={
        "source": Setting(
            default="auto",
            values=("auto", "energy", "instant", "average"),
            summary="energy counter, or power; auto is the counter, and where there is none the better power",
        ),
        "gpu": Setting(default="", summary="index (as nvidia-smi has it), UUID, PCI bus id, or all for their sum"),
        "interval": Setting(default="auto", summary="between two readings, 5ms to 1s; auto is a quarter of a refresh"),
        "boards": Setting(default="a4000", summary="of the simulator: a4000, a100, v100, p100, ..., or NAME+NAME"),
        "refresh": Setting(default="100ms", summary="of the simulator: how often its sensors have something new"),
        "trouble": Setting(default="", summary="of the simulator: CALL=CODE or CALL=CODE@TIME, such as nvmlInit=18"),
    },
)


def discover() -> list[Found]:
    """Every GPU that NVIDIA's driver lists."""
    from . import discovery

    return discovery.discover(KEY)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A GPU that tells its power. `address` is "" for the only one, an index, a UUID, a PCI bus id, or `all`.

    A port or HOST:PORT is one of simulated GPUs. Raises NotFoundError, AccessError, MissingExtraError, IncompleteError,
    and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from joulemeter.polled import PolledDecoder

    return PolledDecoder(header, wire.FORMAT, wire.values([channel.name for channel in header.channels]))


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    chosen = INFO.chosen(options)
    refresh_s = units.parse_positive(chosen["refresh"], "s")
    return simulator.GpuSimulator(load, INFO.load_v or 0.0, chosen["boards"], refresh_s, chosen["trouble"])
