"""Keysight and Agilent InfiniiVision oscilloscopes: a trigger line, a shunt, many pulses in segmented memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Verified
from joulemeter.scope.setup import CHANNELS, SETTINGS, Family
from joulemeter.synthetic import Draw

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found


def _family(source: str, gain: float, clock: float, most_v: float = 5.0, least_v: float = 1e-3) -> Family:
    """The offset is the same for all that were looked for."""
    return Family(
        divisions=8,
        bits=8,
        least_v=least_v,
        most_v=most_v,
        gain=gain,
        offset_divisions=0.1,
        offset_v=2e-3,
        offset_share=0.01,
        clock=clock,
        source=f"usual for {source}: {gain:.0%} of full scale, 0.1 div + 2 mV + 1 % of the offset",
        verified=False,
        most_records=1000,
    )


# By the series, which the model's name begins with once letters are taken away (see driver.series). The clocks of the
# 4000, 6000 X and 7000 are the maker's (service guides), after ten years; the others are an assumption.
FAMILIES = {
    "X1": _family("1000 X-Series", 0.03, 50e-6, most_v=10.0),
    "X2": _family("2000 X-Series", 0.02, 50e-6),
    "X3": _family("3000 X-Series", 0.02, 50e-6),
    "X4": _family("4000 X-Series", 0.02, 10e-6),
    "X6": _family("6000 X-Series", 0.02, 3.6e-6),
    "5": _family("5000 Series", 0.02, 50e-6, least_v=2e-3),
    "6": _family("6000 Series", 0.02, 50e-6, least_v=2e-3),
    "7": _family("7000 Series", 0.02, 35e-6, least_v=2e-3),
}

INFO = Info(
    key="infiniivision",
    maker="Keysight / Agilent",
    models=("1000 X", "2000 X", "3000 X/T", "4000 X", "6000 X", "5000", "6000", "7000"),
    summary="InfiniiVision oscilloscopes: segmented memory, single records.",
    wire="infiniivision/1",
    transport="visa",
    channels=CHANNELS,
    rates_hz=(1e6,),
    verified=Verified.SIMULATOR,
    verified_note="Own simulator on raw TCP, VXI-11 and HiSLIP, which keyoscacquire reads as well.",
    faces=("socket", "vxi11", "hislip"),
    load="12mA/1.129ms/d0,2mA/3.871ms",
    settings=SETTINGS,
)


def discover() -> list[Found]:
    from joulemeter.transport import visa

    from .driver import fits

    return visa.discover(INFO.key, fits, vendors=(0x2A8D, 0x0957))


def open(address: str, options: Options) -> Driver:  # noqa: A001 - the name that InstrumentModule asks for
    from .driver import open_driver

    return open_driver(address, options, INFO, FAMILIES)


def decoder(header: Header) -> Decoder:
    from joulemeter.scope.decode import ScopeDecoder

    from . import wire

    return ScopeDecoder(header, wire.WIRE, wire.trace)


def simulate(load: Draw, options: Options) -> Device:
    from .simulator import InfiniiVisionSimulator

    return InfiniiVisionSimulator(load, INFO.chosen(options), options)
