"""Quantities with units, in and out: "250uA" -> 2.5e-4, 2.5e-4 -> "250 uA".

SI floats everywhere inside; this is the one door. Machine output writes `u`; `µ` is read as well.
"""

from __future__ import annotations

import math
import re

from joulemeter.errors import UsageError

PREFIXES = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}

# Units that take no prefix, as factors to the SI unit they stand for.
PLAIN = {
    "s": {"min": 60.0, "h": 3600.0, "d": 86400.0, "y": 365.25 * 86400.0},
    "1": {"%": 1e-2, "ppm": 1e-6, "": 1.0},
    "K": {"K": 1.0},
    "degC": {"C": 1.0, "degC": 1.0},
}

# Units that take every prefix, as factors to the SI unit they stand for.
PREFIXED = {
    "A": {"A": 1.0},
    "V": {"V": 1.0},
    "W": {"W": 1.0},
    "J": {"J": 1.0, "Wh": 3600.0},
    "C": {"C": 1.0, "Ah": 3600.0},
    "s": {"s": 1.0},
    "Hz": {"Hz": 1.0, "S/s": 1.0},
    "ohm": {"ohm": 1.0, "Ohm": 1.0},
    "F": {"F": 1.0},
}

_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*")


def _factors(unit: str) -> dict[str, float]:
    table = dict(PLAIN.get(unit, {}))
    for symbol, factor in PREFIXED.get(unit, {}).items():
        table |= {prefix + symbol: scale * factor for prefix, scale in PREFIXES.items()}
    return table


def parse(text: str, unit: str) -> float:
    """The value of `text` in the SI unit `unit` ("A", "V", "W", "J", "C", "s", "Hz", "ohm", "F", "1", "degC").

    Raises UsageError for anything that is not a finite number with a unit of that dimension.
    A bare number is refused unless the quantity is a ratio: "3" volts or millivolts is a guess.
    """
    match = _NUMBER.fullmatch(text.replace("µ", "u").replace("μ", "u").replace("Ω", "ohm"))
    table = _factors(unit)
    if match is None or match[2] not in table or not math.isfinite(float(match[1])):
        known = ", ".join(f"{text_}" for text_ in _EXAMPLES[unit])
        raise UsageError(f"{text!r} is not a quantity in {_NAMES[unit]}.", f"Write it with its unit, such as {known}.")
    return float(match[1]) * table[match[2]]


def parse_positive(text: str, unit: str) -> float:
    """As `parse`, and greater than zero."""
    value = parse(text, unit)
    if value <= 0:
        raise UsageError(f"{text!r} must be greater than zero.")
    return value


def parse_toleranced(text: str, unit: str) -> tuple[float, float]:
    """Value and half-width of "100ohm±0.1%", "100ohm+-0.1%" or "3.0V±20mV", both in the SI unit."""
    value_text, _, tolerance_text = text.replace("+-", "±").partition("±")
    value = parse(value_text, unit)
    if not tolerance_text:
        return value, 0.0
    if tolerance_text.strip().endswith(("%", "ppm")):
        return value, abs(value) * parse(tolerance_text, "1")
    return value, parse(tolerance_text, unit)


_NAMES = {
    "A": "amperes", "V": "volts", "W": "watts", "J": "joules", "C": "coulombs", "s": "seconds", "Hz": "hertz",
    "ohm": "ohms", "F": "farads", "1": "per cent or as a plain ratio", "degC": "degrees Celsius", "K": "kelvins",
}  # fmt: skip
_EXAMPLES = {
    "A": ("250uA", "1.2A"), "V": ("3.0V", "1800mV"), "W": ("5mW",), "J": ("2.5mJ", "1Wh"), "C": ("225mAh", "3mC"),
    "s": ("10ms", "1.5h"), "Hz": ("100kHz",), "ohm": ("100ohm",), "F": ("100uF",), "1": ("1%", "0.01", "50ppm"),
    "degC": ("25C",), "K": ("5K",),
}  # fmt: skip


def _scale(magnitude: float) -> tuple[str, float]:
    """Prefix and scale that put `magnitude` between 1 and 1000."""
    if magnitude == 0 or not math.isfinite(magnitude):
        return "", 1.0
    ordered = sorted(PREFIXES.items(), key=lambda item: item[1])
    # A hair below a step counts as the step, so that 999.9996 mW prints as 1.000 W.
    fitting = [item for item in ordered if magnitude * (1 + 5e-7) >= item[1]]
    return fitting[-1] if fitting else ordered[0]


def _fixed(value: float, decimals: int) -> str:
    return f"{value:.{max(decimals, 0)}f}" if decimals >= 0 else f"{round(value, decimals):.0f}"


def show(value: float | None, unit: str, digits: int = 4) -> str:
    """`value` with an SI prefix and `digits` significant digits; "unknown" for None, never 0."""
    if value is None:
        return "unknown"
    prefix, scale = _scale(abs(value))
    scaled = value / scale
    if not math.isfinite(scaled):
        return f"{scaled} {unit}"
    # The exponent after rounding: 0.9999996 to four digits is 1.000.
    exponent = int(f"{scaled:.{digits - 1}e}".partition("e")[2])
    return f"{_fixed(scaled, digits - 1 - exponent)} {prefix}{unit}"


def show_uncertain(value: float | None, uncertainty: float | None, unit: str) -> str:
    """`value ± uncertainty`, the uncertainty to two significant digits and the value to the same decimal place.

    An uncertainty of None is written as unknown; the value then keeps four digits.
    """
    if value is None or uncertainty is None or not math.isfinite(uncertainty):
        return show(value, unit)
    if uncertainty <= 0:
        return f"{show(value, unit)} ± 0"
    prefix, scale = _scale(max(abs(value), uncertainty))
    scaled, scaled_u = value / scale, uncertainty / scale
    decimals = 1 - math.floor(math.log10(scaled_u))
    # Rounding 0.0996 to two digits gives 0.10: one decimal fewer.
    if round(scaled_u, decimals) >= 10.0 ** (2 - decimals):
        decimals -= 1
    return f"{_fixed(scaled, decimals)} ± {_fixed(scaled_u, decimals)} {prefix}{unit}"


def show_duration(seconds: float | None) -> str:
    """A duration as a person says it: 104.6 ms, 5.00 s, 3 min 20 s, 18 h 20 min, 41 days, 3.2 years."""
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return show(seconds, "s", 4 if seconds < 1 else 3)
    if seconds < 3600:
        return _two_parts(seconds, 60, "min", 1, "s")
    if seconds < 2 * 86400:
        return _two_parts(seconds, 3600, "h", 60, "min")
    if seconds < 2 * 365.25 * 86400:
        return f"{seconds / 86400:.0f} days"
    return f"{seconds / (365.25 * 86400):.1f} years"


def _two_parts(seconds: float, large_s: int, large: str, small_s: int, small: str) -> str:
    count, rest = divmod(round(seconds / small_s), large_s // small_s)
    return f"{count} {large} {rest} {small}" if rest else f"{count} {large}"
