"""The analog front end: shunt or probe, amplifier, attenuation, which channel shows what, and what is known of each.

It is written by the user as settings (SETTINGS) and kept in the header, from which volts become amperes again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from joulemeter import units
from joulemeter.capture import Basis, Channel, Factor, Kind, Limit, Quantity
from joulemeter.errors import UsageError
from joulemeter.instrument import Options, Setting

Float = NDArray[np.float64]

# A voltage that somebody states is taken to be right within this.
DECLARED_SHARE = 0.05
NONE = "none"

SETTINGS: Mapping[str, Setting] = {
    "current": Setting(default="c2", summary="channel that sees the shunt, the amplifier or the current probe"),
    "trigger": Setting(
        default="c1@1.65V", summary="channel and level that start a record; :falling for a falling edge"
    ),
    "voltage": Setting(default=NONE, summary="channel that sees the supply, or none where it is stated"),
    "seen": Setting(
        default="supply", values=("supply", "device"), summary="where the voltage is: before the shunt or behind it"
    ),
    "shunt": Setting(default="1ohm±1%", summary="shunt resistor, with its tolerance"),
    "shunt_tempco": Setting(default="100ppm", summary="its temperature coefficient, per kelvin"),
    "warming": Setting(default="10K", summary="how far its temperature may be from where its value holds"),
    "side": Setting(default="high", values=("high", "low"), summary="the shunt is in the supply or in the ground line"),
    "amplifier": Setting(default="1", summary="gain of the amplifier behind the shunt, with its tolerance"),
    "probe": Setting(default=NONE, summary="a current probe instead of a shunt, such as 100mV/A±1%"),
    "attenuation": Setting(default="1", summary="of the probe at the shunt"),
    "trigger_attenuation": Setting(default="10", summary="of the probe at the trigger line"),
    "voltage_attenuation": Setting(default="10", summary="of the probe at the supply"),
    "peak": Setting(default="50mA", summary="highest current that is to fit on the screen"),
    "high": Setting(default="3.3V", summary="high level of the trigger line, and the highest supply"),
    "zero": Setting(
        default=NONE, summary="what is known of zero: the current before each trigger (2mA±1%), or an offset (1.2mV)"
    ),
    "deskew": Setting(default="0s", summary="how much later the current is seen than the trigger line"),
    "skew": Setting(default="20ns", summary="how far that may be wrong"),
    "coupling": Setting(default="dc", values=("dc", "dc50", "ac"), summary="of the current's channel; ac is refused"),
    "bandwidth": Setting(default="20MHz", values=("20MHz", "full"), summary="limit of the current's channel"),
}

_TRIGGER = re.compile(r"c(\d)@([^:]+)(?::(rising|falling))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """All of it in SI units. Channels are numbers from 1, `voltage` None where no channel sees the supply.

    `ohm` is the shunt, 0 behind a current probe. `volts_per_ampere` is what the current's channel is divided by.
    Tolerances are half-widths as ratios. `zero_a` is the current before each trigger, `zero_v` an offset at the input.
    """

    current: int
    trigger: int
    level_v: float
    rising: bool
    voltage: int | None
    at_supply: bool
    ohm: float
    volts_per_ampere: float
    tolerance: float
    tempco: float
    warming_k: float
    low_side: bool
    amplifier_tolerance: float
    probed: bool
    attenuation: float
    trigger_attenuation: float
    voltage_attenuation: float
    peak_a: float
    high_v: float
    zero_a: float | None
    u_zero_a: float
    zero_v: float | None
    deskew_s: float
    skew_s: float
    fifty_ohm: bool
    limited: bool
    declared_v: float | None = None

    @classmethod
    def of(cls, settings: Mapping[str, str], options: Options) -> Self:
        """Raises UsageError for a front end that cannot be, or that cannot be measured with."""
        if settings["coupling"] == "ac":
            raise UsageError(
                "AC coupling takes away the mean of the current, which is what its energy is made of.",
                "Use --set coupling=dc.",
            )
        if options.supply_v is not None:
            raise UsageError(
                "An oscilloscope powers no board.", "Say what feeds it: --assume-voltage, or --set voltage=c3."
            )
        match = _TRIGGER.fullmatch(settings["trigger"].strip())
        if match is None:
            raise UsageError(f"{settings['trigger']!r} is no trigger of an oscilloscope.", "Write it as c1@1.65V.")
        voltage = None if settings["voltage"] == NONE else _channel(settings["voltage"])
        ohm, ohm_half = units.parse_toleranced(settings["shunt"], "ohm")
        amplifier, amplifier_half = units.parse_toleranced(settings["amplifier"], "1")
        probed = settings["probe"] != NONE
        tolerance = ohm_half / ohm if ohm > 0 else 0.0
        if probed:
            ohm, tolerance = 0.0, 0.0
            per_ampere, half = _probe(settings["probe"])
            tolerance = half / per_ampere
        else:
            per_ampere = ohm
        if per_ampere <= 0 or amplifier <= 0:
            raise UsageError(
                "Shunt, probe and amplifier must be greater than zero.", "Check --set shunt and amplifier."
            )
        current, trigger = _channel(settings["current"]), int(match[1])
        if len({current, trigger, voltage}) < 3:
            raise UsageError(
                "Current, trigger and voltage need a channel each.", "Check --set current, trigger and voltage."
            )
        zero_a, u_zero_a, zero_v = _zero(settings["zero"])
        return cls(
            current=current,
            trigger=trigger,
            level_v=units.parse(match[2], "V"),
            rising=match[3] != "falling",
            voltage=voltage,
            at_supply=settings["seen"] == "supply",
            ohm=ohm,
            volts_per_ampere=per_ampere * amplifier,
            tolerance=tolerance,
            tempco=0.0 if probed else units.parse(settings["shunt_tempco"], "1"),
            warming_k=units.parse(settings["warming"], "K"),
            low_side=settings["side"] == "low",
            amplifier_tolerance=amplifier_half / amplifier,
            probed=probed,
            attenuation=_ratio(settings["attenuation"]),
            trigger_attenuation=_ratio(settings["trigger_attenuation"]),
            voltage_attenuation=_ratio(settings["voltage_attenuation"]),
            peak_a=units.parse_positive(settings["peak"], "A"),
            high_v=units.parse_positive(settings["high"], "V"),
            zero_a=zero_a,
            u_zero_a=u_zero_a,
            zero_v=zero_v,
            deskew_s=units.parse(settings["deskew"], "s"),
            skew_s=abs(units.parse(settings["skew"], "s")),
            fifty_ohm=settings["coupling"] == "dc50",
            limited=settings["bandwidth"] != "full",
            declared_v=options.declared_v,
        )

    @property
    def inputs(self) -> tuple[int, ...]:
        """The channels that are used, lowest first."""
        return tuple(sorted({self.current, self.trigger} | ({self.voltage} if self.voltage is not None else set())))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        return cls(**content)

    def channels(self, accuracy: Mapping[int, tuple[Limit, Limit, str, bool]]) -> tuple[Channel, ...]:
        """The header's channels. `accuracy` of an input: gain as a ratio, offset in volts, source, verified."""
        from joulemeter.capture import Accuracy

        gain, offset, source, verified = accuracy[self.current]
        if self.zero_a is not None and self.u_zero_a:
            offset = replace(offset, value=math.hypot(offset.value, self.u_zero_a * self.volts_per_ampere))
        amperes = replace(offset, value=offset.value / self.volts_per_ampere)
        channels = [
            Channel(
                name="current",
                quantity=Quantity.CURRENT,
                unit="A",
                kind=Kind.INSTANT,
                accuracy=(Accuracy(range=None, gain=gain, offset=amperes, source=source, verified=verified),),
                factors=self._factors(),
                delay_s=self.deskew_s,
                u_delay=Limit(value=self.skew_s),
            ),
            Channel(name=f"c{self.trigger}", quantity=Quantity.SIGNAL, unit="V", kind=Kind.INSTANT),
        ]
        if self.voltage is not None:
            gain, offset, source, verified = accuracy[self.voltage]
            row = Accuracy(range=None, gain=gain, offset=offset, source=source, verified=verified)
            channels.append(
                Channel(name="voltage", quantity=Quantity.VOLTAGE, unit="V", kind=Kind.INSTANT, accuracy=(row,))
            )
        elif self.declared_v is not None:
            row = Accuracy(
                range=None,
                gain=Limit(value=0.0),
                offset=Limit(value=DECLARED_SHARE * self.declared_v),
                source=f"declared voltage, {self.declared_v:g} V, less what the shunt takes",
                verified=True,
            )
            channels.append(
                Channel(
                    name="voltage",
                    quantity=Quantity.VOLTAGE,
                    unit="V",
                    kind=Kind.INSTANT,
                    accuracy=(row,),
                    basis=Basis.DERIVED,
                )
            )
        if self.ohm:
            channels.append(Channel(name="shunt loss", quantity=Quantity.POWER, unit="W", kind=Kind.INSTANT, loss=True))
        return tuple(channels)

    def _factors(self) -> tuple[Factor, ...]:
        what = "current probe" if self.probed else "shunt"
        # The value tells one part from another: what two results have in common cancels between them.
        each = f"{self.volts_per_ampere:g} V/A" + ("" if self.probed else f" with {self.ohm:g} ohm")
        rows = (
            (what, self.tolerance, f"tolerance of the {what}, as stated ({each})"),
            (
                "shunt temperature",
                self.tempco * self.warming_k,
                f"{self.tempco * 1e6:g} ppm/K over {self.warming_k:g} K",
            ),
            ("amplifier", self.amplifier_tolerance, "tolerance of the amplifier, as stated"),
        )
        return tuple(Factor(name=name, limit=Limit(value=value), source=why) for name, value, why in rows if value)

    def columns(self, volts: Mapping[int, Float], before: int) -> dict[str, Float]:
        """Volts of the inputs, (n,) each, to the values of `channels`; `before` samples precede the trigger.

        Where the current before the trigger is known and was not steady, zero is not known: the current is NaN.
        """
        seen = volts[self.current]
        if self.zero_v is not None:
            seen = seen - self.zero_v
        elif self.zero_a is not None:
            # The edge itself is no baseline.
            quiet = seen[: max(int(before * BASELINE_SHARE), 1)]
            known = quiet[np.isfinite(quiet)]
            found_v = float(np.mean(known)) if _steady(known, seen) else np.nan
            seen = seen - (found_v - self.zero_a * self.volts_per_ampere)
        current = seen / self.volts_per_ampere
        columns = {"current": current, f"c{self.trigger}": volts[self.trigger]}
        drop = current * self.ohm
        if self.voltage is not None:
            columns["voltage"] = volts[self.voltage] - (drop if self.at_supply else 0.0)
        elif self.declared_v is not None:
            columns["voltage"] = self.declared_v - (drop if self.at_supply else np.zeros_like(drop))
        if self.ohm:
            columns["shunt loss"] = drop * current
        return columns


# A baseline in so many parts may differ by this share of the record's swing, or by its noise, and is steady.
PARTS, STEADY_SHARE, STEADY_SIGMAS = 8, 0.05, 6.0
# What is said of records without a steady one.
UNSTEADY = "the current before the trigger was not steady, so nobody knows where zero is"
# The part of what precedes the trigger that is taken for the baseline.
BASELINE_SHARE = 0.9


def _steady(quiet: Float, seen: Float) -> bool:
    """Whether what precedes the trigger is one level, and no pulse reaches into it."""
    if len(quiet) < 2 * PARTS:
        return len(quiet) > 0
    parts = quiet[: len(quiet) // PARTS * PARTS].reshape(PARTS, -1)
    noise = float(np.median(parts.std(axis=1))) / parts.shape[1] ** 0.5
    allowed = max(STEADY_SHARE * float(np.nanmax(seen) - np.nanmin(seen)), STEADY_SIGMAS * noise)
    return bool(np.ptp(parts.mean(axis=1)) <= allowed)


def _channel(text: str) -> int:
    match = re.fullmatch(r"[cC]([1-8])", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no channel of an oscilloscope.", "Write c1 to c4.")
    return int(match[1])


def _ratio(text: str) -> float:
    return units.parse_positive(text.strip().rstrip("xX"), "1")


def _probe(text: str) -> tuple[float, float]:
    """Volts per ampere and its half-width, of `100mV/A±1%`."""
    if "/A" not in text:
        raise UsageError(f"{text!r} is no current probe.", "Write what it gives, such as 100mV/A±1%.")
    return units.parse_toleranced(text.replace("/A", "", 1), "V")


def _zero(text: str) -> tuple[float | None, float, float | None]:
    """Current before the trigger with its half-width, or the offset in volts."""
    if text == NONE:
        return None, 0.0, None
    try:
        current_a, half_a = units.parse_toleranced(text, "A")
    except UsageError:
        return None, 0.0, units.parse(text, "V")
    return current_a, half_a, None
