"""Siglent oscilloscopes of both dialects, and the Teledyne LeCroy T3DSO that Siglent makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.scope.setup import CHANNELS, SETTINGS, Family
from joulemeter.synthetic import Draw

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found


def _family(source: str, bits: int, gain: float, clock: float, offset_share: float = 0.0) -> Family:
    """1.5 % of the eight divisions are 0.12 of one."""
    share = f"{offset_share:.1%} of the offset + " if offset_share else ""
    return Family(
        divisions=8,
        bits=bits,
        least_v=1e-3,
        most_v=10.0,
        gain=gain,
        offset_divisions=0.12,
        offset_v=1e-3,
        offset_share=offset_share,
        clock=clock,
        source=f"usual for {source}: {gain:.1%} of full scale, {share}1.5 % of full scale + 1 mV",
        verified=False,
        most_records=1000,
    )


# By model.FAMILIES. No data sheet was at hand.
FAMILIES = {
    "old": _family("SDS1000X-E", 8, 0.03, 25e-6, offset_share=0.015),
    "plus": _family("SDS2000X Plus", 8, 0.03, 2e-6),
    "hd": _family("Siglents of 12 bits, taken from SDS2000X Plus", 12, 0.03, 25e-6, offset_share=0.015),
}

INFO = Info(
    key="siglent",
    maker="Siglent",
    models=("SDS800X HD", "SDS1000X-E", "SDS1000X HD", "SDS2000X+", "SDS2000X HD", "SDS5000X", "SDS6000A", "T3DSO"),
    summary="Oscilloscopes of the SDS and T3DSO series: single records, and sequences on the newer ones.",
    wire="siglent/1",
    transport="visa",
    channels=CHANNELS,
    rates_hz=(1e6,),
    verified=Verified.SIMULATOR,
    verified_note="Own simulators on raw TCP, VXI-11 and HiSLIP, which classes of pymeasure read as well.",
    faces=("socket", "vxi11", "hislip"),
    load="12mA/1.129ms/d0,2mA/3.871ms",
    settings={
        **SETTINGS,
        "model": Setting(
            default="SDS824X HD", values=("SDS824X HD", "SDS2104X Plus", "SDS1104X-E"), summary="of the simulator"
        ),
    },
)


def discover() -> list[Found]:
    from joulemeter.transport import visa

    from .models import fits

    return visa.discover(INFO.key, fits, vendors=(0xF4EC, 0xF4ED))


def open(address: str, options: Options) -> Driver:  # noqa: A001 - the name that InstrumentModule asks for
    from .driver import open_driver

    return open_driver(address, options, INFO, FAMILIES)


def decoder(header: Header) -> Decoder:
    from joulemeter.scope.decode import ScopeDecoder

    from . import wire

    return ScopeDecoder(header, wire.WIRE, wire.trace)


def simulate(load: Draw, options: Options) -> Device:
    from .simulator import simulator

    return simulator(load, INFO.chosen(options), options)
