"""Rigol DS1000Z, MSO5000/7000/8000 and DHO800/900/1000/4000 oscilloscopes: a trigger line, a shunt, many pulses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.scope.setup import CHANNELS, SETTINGS
from joulemeter.synthetic import Draw

from .models import PLAYED

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

INFO = Info(
    key="rigol",
    maker="Rigol",
    models=("DS1000Z", "MSO1000Z", "MSO5000", "MSO7000", "MSO8000", "DHO800", "DHO900", "DHO1000", "DHO4000"),
    summary="Oscilloscopes with a trigger line and a shunt: recorded frames or single records.",
    wire="rigol/1",
    transport="visa",
    channels=CHANNELS,
    rates_hz=(1e6,),
    verified=Verified.SIMULATOR,
    verified_note="Own simulator on raw TCP and VXI-11, to which ds1054z and sigrok-cli were connected too.",
    faces=("socket", "vxi11"),
    load="12mA/1.129ms/d0,2mA/3.871ms",
    settings={**SETTINGS, "model": Setting(default="DS1054Z", values=PLAYED, summary="of the simulator")},
)


def discover() -> list[Found]:
    from joulemeter.transport import visa

    from .driver import fits

    return visa.discover(INFO.key, fits, vendors=(0x1AB1,))


def open(address: str, options: Options) -> Driver:  # noqa: A001 - the name that InstrumentModule asks for
    from .driver import open_driver

    return open_driver(address, options, INFO)


def decoder(header: Header) -> Decoder:
    from joulemeter.scope.decode import ScopeDecoder

    from . import wire

    return ScopeDecoder(header, wire.WIRE, wire.trace)


def simulate(load: Draw, options: Options) -> Device:
    from .simulator import RigolSimulator

    return RigolSimulator(load, INFO.chosen(options), options)
