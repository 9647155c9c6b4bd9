"""Teledyne LeCroy oscilloscopes with X-Stream or MAUI firmware: a trigger line, a shunt, many pulses in a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Verified
from joulemeter.scope.setup import CHANNELS, SETTINGS, Family
from joulemeter.synthetic import Draw

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

# By what the model's name begins with, as a pattern. No document of the maker with these figures was at hand.
FAMILIES = {
    "": Family(
        divisions=8,
        bits=8,
        least_v=1e-3,
        most_v=10.0,
        gain=0.015,
        offset_divisions=0.12,
        offset_v=1e-3,
        offset_share=0.015,
        clock=10e-6,
        source="usual for 8-bit LeCroys: 1.5 % of full scale, 1.5 % of full scale + 1 mV",
        verified=False,
        most_records=10000,
    ),
    r"HDO|WAVESURFER4\d+HD|WAVERUNNER\d+HD|WAVEPRO\d+HD|MDA": Family(
        divisions=8,
        bits=12,
        least_v=1e-3,
        most_v=10.0,
        gain=0.005,
        offset_divisions=0.04,
        offset_v=1e-3,
        offset_share=0.005,
        clock=2.5e-6,
        source="usual for 12-bit LeCroys: 0.5 % of full scale, 0.5 % of full scale + 1 mV",
        verified=False,
        most_records=10000,
    ),
}

INFO = Info(
    key="lecroy",
    maker="Teledyne LeCroy",
    models=("WaveSurfer", "WaveRunner", "WavePro", "HDO", "MDA", "LabMaster"),
    summary="Oscilloscopes with X-Stream or MAUI firmware: sequences of triggered records.",
    wire="lecroy/1",
    transport="visa",
    channels=CHANNELS,
    rates_hz=(1e6,),
    verified=Verified.TRANSCRIPT,
    verified_note="Reads recordings of a WaveRunner and a WavePro; lecroyparser and RigolWFM read its simulator. "
    "Nobody has tried the driver on an oscilloscope.",
    faces=("vicp", "vxi11", "hislip", "socket"),
    load="12mA/1.129ms/d0,2mA/3.871ms",
    settings=SETTINGS,
)


def discover() -> list[Found]:
    from joulemeter.transport import visa

    from .driver import fits

    return visa.discover(INFO.key, fits, vendors=(0x05FF,))


def open(address: str, options: Options) -> Driver:  # noqa: A001 - the name that InstrumentModule asks for
    from .driver import open_driver

    return open_driver(address, options, INFO, FAMILIES)


def decoder(header: Header) -> Decoder:
    from joulemeter.scope.decode import ScopeDecoder

    from . import wire

    return ScopeDecoder(header, wire.WIRE, wire.trace)


def simulate(load: Draw, options: Options) -> Device:
    from .simulator import LecroySimulator

    return LecroySimulator(load, INFO.chosen(options), options)
