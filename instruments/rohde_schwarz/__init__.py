"""Rohde & Schwarz oscilloscopes RTB2000, RTM3000, RTA4000: a trigger line, a shunt, many pulses where there is K15."""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Verified
from joulemeter.scope.setup import CHANNELS, SETTINGS, Family
from joulemeter.synthetic import Draw

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

# Not read in a data sheet; the worse of the two gains, which holds up to 5 mV/div.
FAMILY = Family(
    divisions=10,
    bits=10,
    least_v=1e-3,
    most_v=5.0,
    gain=0.02,
    offset_divisions=0.1,
    offset_v=1e-3,
    offset_share=0.005,
    clock=2.5e-6,
    source="usual for the RTB2000: 2 % of full scale, 0.1 div + 1 mV + 0.5 % of the offset",
    verified=False,
    most_records=10000,
)

INFO = Info(
    key="rohde_schwarz",
    maker="Rohde & Schwarz",
    models=("RTB2000", "RTM3000", "RTA4000"),
    summary="RTB2000, RTM3000 and RTA4000 oscilloscopes: triggered records, many to a transfer with option K15.",
    wire="rohde-schwarz/1",
    transport="visa",
    channels=CHANNELS,
    rates_hz=(1e6,),
    verified=Verified.SIMULATOR,
    verified_note="Own simulator on raw TCP, VXI-11 and HiSLIP, which Rohde & Schwarz' RsInstrument reads alike.",
    faces=("socket", "vxi11", "hislip"),
    load="12mA/1.129ms/d0,2mA/3.871ms",
    settings=SETTINGS,
)


def discover() -> list[Found]:
    from joulemeter.transport import visa

    from .driver import fits

    return visa.discover(INFO.key, fits, vendors=(0x0AAD,))


def open(address: str, options: Options) -> Driver:  # noqa: A001 - the name that InstrumentModule asks for
    from .driver import open_driver

    return open_driver(address, options, INFO, FAMILY)


def decoder(header: Header) -> Decoder:
    from joulemeter.scope.decode import ScopeDecoder

    from . import wire

    return ScopeDecoder(header, wire.WIRE, wire.trace)


def simulate(load: Draw, options: Options) -> Device:
    from .simulator import RohdeSchwarzSimulator

    return RohdeSchwarzSimulator(load, INFO.chosen(options), options)
