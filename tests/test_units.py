from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter import units
from joulemeter.errors import UsageError


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("250uA", "A", 250e-6),
        ("250 µA", "A", 250e-6),
        ("3.6V", "V", 3.6),
        ("1800mV", "V", 1.8),
        ("1.5h", "s", 5400.0),
        ("10ms", "s", 0.010),
        ("2min", "s", 120.0),
        ("1y", "s", 365.25 * 86400),
        ("1%", "1", 0.01),
        ("50ppm", "1", 50e-6),
        ("0.5", "1", 0.5),
        ("225mAh", "C", 810.0),
        ("1Wh", "J", 3600.0),
        ("2.5mJ", "J", 2.5e-3),
        ("100kHz", "Hz", 1e5),
        ("4.7kΩ", "ohm", 4700.0),
        ("100uF", "F", 1e-4),
        ("-3mA", "A", -3e-3),
        ("1e-3A", "A", 1e-3),
    ],
)
def test_reads_quantities(text: str, unit: str, value: float) -> None:
    assert units.parse(text, unit) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["3", "3X", "mV", "", "1,5V", "3 V V", "nanV", "infV", "3mA", "1e999V"])
def test_refuses_what_is_not_a_voltage(text: str) -> None:
    with pytest.raises(UsageError, match="volts"):
        units.parse(text, "V")


def test_zero_is_not_positive() -> None:
    with pytest.raises(UsageError, match="greater than zero"):
        units.parse_positive("0V", "V")


@pytest.mark.parametrize(
    ("text", "value", "half_width"),
    [("100ohm±0.1%", 100.0, 0.1), ("100ohm+-1ohm", 100.0, 1.0), ("4.7kohm", 4700.0, 0.0)],
)
def test_reads_tolerances(text: str, value: float, half_width: float) -> None:
    assert units.parse_toleranced(text, "ohm") == pytest.approx((value, half_width))


@pytest.mark.parametrize(
    ("value", "unit", "digits", "text"),
    [
        (250e-6, "A", 4, "250.0 uA"),
        (0.0125517, "J", 4, "12.55 mJ"),
        (999.9996e-3, "W", 4, "1.000 W"),
        (0.0, "W", 4, "0.000 W"),
        (-0.0031, "J", 2, "-3.1 mJ"),
        (12345.0, "J", 3, "12.3 kJ"),
        (4e-18, "J", 2, "0.0040 fJ"),
        (None, "J", 4, "unknown"),
    ],
)
def test_shows_quantities(value: float | None, unit: str, digits: int, text: str) -> None:
    assert units.show(value, unit, digits) == text


@pytest.mark.parametrize(
    ("value", "uncertainty", "text"),
    [
        (0.0125517, 0.00251, "12.6 ± 2.5 mJ"),
        (0.0125517, 0.0000123, "12.552 ± 0.012 mJ"),
        (0.0125517, 0.0000996, "12.55 ± 0.10 mJ"),
        (1.0, 25.0, "1 ± 25 J"),
        (1.0, 250.0, "0 ± 250 J"),
        (0.002, None, "2.000 mJ"),
        (None, 0.1, "unknown"),
    ],
)
def test_uncertainty_has_two_digits(value: float | None, uncertainty: float | None, text: str) -> None:
    assert units.show_uncertain(value, uncertainty, "J") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1046, "104.6 ms"),
        (5.0, "5.00 s"),
        (200.0, "3 min 20 s"),
        (66000.0, "18 h 20 min"),
        (60.0, "1 min"),
        (7199.9, "2 h"),
        (41 * 86400.0, "41 days"),
        (3.2 * 365.25 * 86400, "3.2 years"),
        (None, "unknown"),
    ],
)
def test_shows_durations(seconds: float | None, text: str) -> None:
    assert units.show_duration(seconds) == text


@given(st.floats(min_value=1e-14, max_value=1e11), st.sampled_from(["A", "V", "W", "J", "Hz"]))
def test_what_is_shown_can_be_read(value: float, unit: str) -> None:
    assert units.parse(units.show(value, unit, 6), unit) == pytest.approx(value, rel=1e-5)
    assert math.isfinite(value)
