"""Yokogawa WT310E, WT310EH and the older WT310: power meters for mains and DC, ten readings a second.

The integrator's energy misses nothing between readings and is what is reported. See notes.md for what a reading stands
for and for what is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "wt310e"

INFO = Info(
    key=KEY,
    maker="Yokogawa",
    models=tuple(wire.MODELS),
    summary="Power meters for mains and DC, 5 mA to 20 A (EH: 40 A), with an integrator; ten readings a second.",
    wire=wire.FORMAT,
    transport="visa",
    channels=channels.usual(),
    rates_hz=(1 / min(wire.RATES.values()),),
    verified=Verified.SIMULATOR,
    verified_note="Its commands were read in programs for these meters and its error codes in Yokogawa's manuals; "
    "yokotool reads its simulator. Nobody has tried it on a real one.",
    faces=("socket", "vxi11", "hislip"),
    load="900mA/6s/d0,300mA/3s",
    load_v=5.0,
    settings={
        "source": Setting(
            default=channels.ENERGY,
            values=(channels.ENERGY, channels.POWER),
            summary="what is reported: the integrator's energy, or power as it is read, with that as a witness",
        ),
        "volts": Setting(default="keep", summary="voltage range, such as 15V; keep leaves it if it is fixed"),
        "amps": Setting(default="keep", summary="current range, such as 1A or 200mA; keep leaves it if it is fixed"),
        "input": Setting(
            default=channels.DC, values=(channels.DC, channels.RMS), summary="dc for boards, rms for mains"
        ),
        "rate": Setting(default="100ms", values=tuple(wire.RATES), summary="how often the meter has a new reading"),
        "format": Setting(
            default=wire.FLOAT, values=(wire.FLOAT, wire.ASCII), summary="of its answers; ascii has six digits"
        ),
    },
)


def discover() -> list[Found]:
    """Those that a VISA library lists."""
    from joulemeter.transport import visa

    return visa.discover(KEY, lambda one: wire.model_of(one.maker, one.model) is not None, (wire.USB_VENDOR,))


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected meter. `address` is HOST, a serial port or a VISA resource.

    Raises NotFoundError, AccessError, and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from . import decode

    return decode.decoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    del options
    return simulator.Wt310eSimulator(load, INFO.load_v or 0.0)
