"""Tektronix oscilloscopes, MSO and DPO: a trigger line, a shunt, many pulses where there is FastFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Verified
from joulemeter.scope.setup import CHANNELS, SETTINGS
from joulemeter.synthetic import Draw

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

INFO = Info(
    key="tektronix",
    maker="Tektronix",
    models=(
        *("MSO4x", "MSO5x", "MSO6x", "LPD64", "MSO2x"),
        *("DPO/MSO 2000", "DPO/MSO 3000", "DPO/MSO 4000", "MDO 3000/4000", "DPO/MSO 5000", "DPO 7000", "DPO/MSO 70000"),
    ),
    summary="MSO and DPO oscilloscopes: triggered records, many to a transfer with FastFrame.",
    wire="tektronix/1",
    transport="visa",
    channels=CHANNELS,
    rates_hz=(1e6,),
    verified=Verified.SIMULATOR,
    verified_note="Own simulator on raw TCP, VXI-11 and HiSLIP, which Tektronix' tm_devices reads alike.",
    faces=("socket", "vxi11", "hislip"),
    load="12mA/1.129ms/d0,2mA/3.871ms",
    settings=SETTINGS,
)


def discover() -> list[Found]:
    from joulemeter.transport import visa

    from .driver import fits

    return visa.discover(INFO.key, fits, vendors=(0x0699,))


def open(address: str, options: Options) -> Driver:  # noqa: A001 - the name that InstrumentModule asks for
    from .driver import open_driver

    return open_driver(address, options, INFO)


def decoder(header: Header) -> Decoder:
    from joulemeter.scope.decode import ScopeDecoder

    from . import wire

    return ScopeDecoder(header, wire.WIRE, wire.trace)


def simulate(load: Draw, options: Options) -> Device:
    from .simulator import TektronixSimulator

    return TektronixSimulator(load, INFO.chosen(options), options)
