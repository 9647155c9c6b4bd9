from __future__ import annotations

import numpy as np
import pytest

from joulemeter.errors import UsageError
from joulemeter.synthetic import Load, Step, parse_load


def test_mean_currents_add_up_to_the_closed_form() -> None:
    load = parse_load("8mA/20.003ms/d0,250uA/79.9ms")
    rate_hz = 100_000.0
    current = load.mean_current_a(0, 1_000_000, rate_hz)
    cycles = 10.0 / 0.099903
    whole = int(cycles) * (8e-3 * 0.020003 + 250e-6 * 0.0799)
    part_s = 10.0 - int(cycles) * 0.099903
    rest = 8e-3 * min(part_s, 0.020003) + 250e-6 * max(part_s - 0.020003, 0)
    assert current.sum() / rate_hz == pytest.approx(whole + rest, rel=1e-9)


def test_after_a_day_the_rounding_of_time_stays_below_a_hundred_thousandth() -> None:
    load = Load(steps=(Step(duration_s=0.001, current_a=1e-6), Step(duration_s=0.001, current_a=0.1)))
    far = 100_000 * 3600 * 24
    np.testing.assert_allclose(
        load.mean_current_a(far, 200, 1e5), load.mean_current_a(0, 200, 1e5), rtol=1e-5, atol=1e-6
    )


def test_a_border_inside_an_interval_is_shared() -> None:
    load = Load(steps=(Step(duration_s=2.5, current_a=1.0, lines=1), Step(duration_s=1.5, current_a=0.0)))
    np.testing.assert_allclose(load.mean_current_a(0, 5, 1.0), [1, 1, 0.5, 0, 1])
    # Lines are read in the middle of each interval.
    np.testing.assert_array_equal(load.lines(0, 5, 1.0), [1, 1, 0, 0, 1])


def test_the_lead_comes_once() -> None:
    load = Load(steps=(Step(duration_s=1.0, current_a=2.0, lines=1),), lead_s=2.0, lead_a=0.5)
    np.testing.assert_allclose(load.mean_current_a(0, 4, 1.0), [0.5, 0.5, 2.0, 2.0])
    np.testing.assert_array_equal(load.lines(0, 4, 1.0), [0, 0, 1, 1])


def test_pulse_truth() -> None:
    load = parse_load("8mA/20ms/d0,4mA/10ms/d0/d1,1uA/70ms")
    assert load.pulse_charge_c(0) == pytest.approx(200e-6)
    assert load.pulse_charge_c(1) == pytest.approx(40e-6)
    assert load.pulse_charge_c(2) is None
    assert load.pulse_duration_s(0) == pytest.approx(0.03)
    assert load.mean_a == pytest.approx((200e-6 + 70e-9) / 0.1)


@pytest.mark.parametrize("text", ["8mA", "8mA/0s", "8mA/1s/d9", "x/1s", "8mA/1s/d0,"])
def test_refuses_what_is_no_load(text: str) -> None:
    with pytest.raises(UsageError):
        parse_load(text)
