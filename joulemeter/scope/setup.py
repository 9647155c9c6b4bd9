"""What an oscilloscope is asked to do, and what a family of them can."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from joulemeter import units
from joulemeter.capture import Channel, Kind, Limit, Quantity
from joulemeter.errors import UsageError
from joulemeter.instrument import Setting
from joulemeter.scope.frontend import SETTINGS as FRONT_SETTINGS
from joulemeter.scope.frontend import FrontEnd

SETTINGS: Mapping[str, Setting] = {
    **FRONT_SETTINGS,
    "rate": Setting(default="1MHz", summary="samples per second"),
    "record": Setting(default="5ms", summary="length of a record; a window has to fit in"),
    "pretrigger": Setting(default="10%", summary="share of the record that precedes the trigger"),
    "records": Setting(
        default="auto",
        summary="records to a transfer where it has segments; auto: as many as windows are wanted, to 100; 1: singly",
    ),
    "wait": Setting(default="60s", summary="how long a trigger may be awaited"),
}
# What every oscilloscope offers as a meter; a supply on a third channel comes with its setting.
CHANNELS = (
    Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.INSTANT),
    Channel(name="c1", quantity=Quantity.SIGNAL, unit="V", kind=Kind.INSTANT),
)
# Records of an acquisition where nobody says how many windows are wanted.
AUTO, USUAL_RECORDS = "auto", 20
# Makers test the gain with a signal of six of eight divisions, and state what may be off there as a share of the
# full screen: of the signal itself that is a third more.
FULL_OVER_TESTED = 8 / 6
# What is left of the offset where zero was seen in the same record: a difference of two means in one set-up
# (Tektronix, MSO/DPO4000 specifications, DC voltage measurement accuracy), in divisions.
DIFFERENCE_DIVISIONS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What its members have in common. `gain` is a share of full scale, `offset_divisions` and `offset_v` add up.

    `least_v` and `most_v` are the ends of the volts per division. `source` is who says so.
    """

    divisions: int
    bits: int
    least_v: float
    most_v: float
    gain: float
    offset_divisions: float
    offset_v: float
    offset_share: float
    clock: float
    source: str
    verified: bool
    most_records: int

    def accuracy(self, asked: Input, *, zeroed: bool) -> tuple[Limit, Limit, str, bool]:
        """Gain as a ratio, offset in volts, source, verified. `zeroed`: zero was seen in the same set-up."""
        lsb_v = asked.volts_per_div * self.divisions / 2**self.bits
        if zeroed:
            offset_v = DIFFERENCE_DIVISIONS * asked.volts_per_div + lsb_v / 2
        else:
            offset_v = (
                self.offset_divisions * asked.volts_per_div
                + self.offset_v * asked.attenuation
                + self.offset_share * abs(asked.centre_v)
            )
        text = f"{self.source}; {units.show(asked.volts_per_div, 'V', 3)}/div"
        return Limit(value=self.gain * FULL_OVER_TESTED), Limit(value=offset_v), text, self.verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A channel: volts at the tip of its probe. `centre_v` is what lies in the middle of the screen."""

    number: int
    volts_per_div: float
    centre_v: float
    attenuation: float
    fifty_ohm: bool = False
    limited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """`record_s` begins `before_s` ahead of the trigger; `records` of them make one acquisition."""

    inputs: tuple[Input, ...]
    trigger: int
    level_v: float
    rising: bool
    rate_hz: float
    record_s: float
    before_s: float
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What the oscilloscope does of it: `points` to a record, `before` of them ahead of the trigger.

    `timed`: it tells when each record of an acquisition was triggered.
    """

    rate_hz: float
    points: int
    before: int
    records: int
    inputs: tuple[Input, ...]
    timed: bool = True


def setup(settings: Mapping[str, str], front: FrontEnd, family: Family) -> Setup:
    """Raises UsageError for what does not fit on a screen."""
    rate_hz = units.parse_positive(settings["rate"], "Hz")
    record_s = units.parse_positive(settings["record"], "s")
    share = units.parse(settings["pretrigger"], "1")
    if not 0.01 <= share <= 0.9:
        raise UsageError(f"A pretrigger of {share:.0%} is out of range.", "Choose 1% to 90%.")
    records = _records(settings["records"], family)
    if not 20 <= rate_hz * record_s <= 1e9:
        raise UsageError(
            f"{units.show(record_s, 's')} at {units.show(rate_hz, 'Hz')} are {rate_hz * record_s:g} samples.",
            "Choose --set record and rate so that there are more than 20 and fewer than a thousand million.",
        )
    tops = {
        front.current: (front.peak_a * front.volts_per_ampere, front.attenuation),
        front.trigger: (front.high_v, front.trigger_attenuation),
    }
    if front.voltage is not None:
        tops[front.voltage] = (max(front.high_v, front.declared_v or 0.0), front.voltage_attenuation)
    return Setup(
        inputs=tuple(
            _input(number, *tops[number], family, current=number == front.current, front=front)
            for number in front.inputs
        ),
        trigger=front.trigger,
        level_v=front.level_v,
        rising=front.rising,
        rate_hz=rate_hz,
        record_s=record_s,
        before_s=share * record_s,
        records=records,
    )


def _records(text: str, family: Family) -> int:
    """A number, "auto", or "<=N": so many if it can."""
    wanted = str(USUAL_RECORDS) if text == AUTO else text.removeprefix("<=")
    if not wanted.isdigit() or int(wanted) < 1 or (wanted == text and int(wanted) > family.most_records):
        raise UsageError(f"{text!r} records make no sense here.", f"Choose 1 to {family.most_records}.")
    return min(int(wanted), family.most_records)


def _input(number: int, top_v: float, attenuation: float, family: Family, *, current: bool, front: FrontEnd) -> Input:
    """Zero one division above the lower edge, and the top one division below the upper one."""
    volts_per_div = one_two_five(max(top_v / (family.divisions - 2), family.least_v * attenuation))
    if volts_per_div > family.most_v * attenuation * (1 + 1e-9):
        raise UsageError(
            f"{units.show(top_v, 'V')} on c{number} do not fit on the screen.", "Use a probe that divides more."
        )
    return Input(
        number=number,
        volts_per_div=volts_per_div,
        centre_v=(family.divisions / 2 - 1) * volts_per_div,
        attenuation=attenuation,
        fifty_ohm=current and front.fifty_ohm,
        limited=current and front.limited,
    )


def one_two_five(least: float) -> float:
    """The smallest of 1, 2, 5, 10, ... that is not below `least`."""
    decade = 10.0 ** math.floor(math.log10(least))
    return next(step * decade for step in (1.0, 2.0, 5.0, 10.0) if step * decade >= least * (1 - 1e-9))
