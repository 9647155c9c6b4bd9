"""Idle power and net energy against loads whose idle power is known at every moment."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from helpers import metered
from numpy.typing import NDArray

from joulemeter.capture import Kind, Quantity
from joulemeter.caveat import Code
from joulemeter.errors import DataError
from joulemeter.physics import idle
from joulemeter.physics.integrate import integrate
from joulemeter.physics.stats import t95
from joulemeter.window import Role, Window, WindowEnergy

Float = NDArray[np.float64]


def measured(power_w: float | None, start_s: float, stop_s: float, inferences: int = 1) -> WindowEnergy:
    window = Window(start_ns=round(start_s * 1e9), stop_ns=round(stop_s * 1e9), index=0, inferences=inferences)
    return WindowEnergy(
        window=window,
        energy_j=None if power_w is None else power_w * window.duration_s,
        charge_c=None,
        mean_power_w=power_w,
        peak_power_w=power_w,
        samples=100.0,
    )


def session(
    power_w: Callable[[Float], Float], rng: np.random.Generator, count: int = 12, active_w: float = 1.0
) -> tuple[list[WindowEnergy], list[WindowEnergy]]:
    """Windows of 0.5 s and idle spans of 0.5 s around them, each with noise of its own."""
    at = np.linspace(0.25, count + 0.25, 2 * count + 1)
    values = power_w(at) + rng.normal(0, 0.01, len(at))
    windows = [measured(values[k] + active_w, at[k] - 0.25, at[k] + 0.25) for k in range(1, len(at), 2)]
    return windows, [measured(values[k], at[k] - 0.25, at[k] + 0.25) for k in range(0, len(at), 2)]


def test_constant_idle_by_hand() -> None:
    found = idle.model([measured(power, k, k + 0.5) for k, power in enumerate([0.10, 0.12, 0.11, 0.11])])
    assert found.power_w == pytest.approx(0.11)
    assert found.slope_w_per_s == 0.0
    stdev = math.sqrt((0.01**2 + 0.01**2) / 3)
    assert found.u_power_w == pytest.approx(stdev / math.sqrt(4))
    assert (found.dof, found.spans) == (3, 4)
    assert found.seconds == pytest.approx(2.0)
    windows = [measured(1.11, 0.5, 1.0, 5), measured(1.31, 1.5, 2.0, 5)]
    nets = idle.net(windows, found)
    assert [one.net_j for one in nets] == pytest.approx([0.5, 0.6])
    assert nets[1].per_inference_j == pytest.approx(0.12)
    assert nets[0].idle_j == pytest.approx(0.055)
    assert nets[0].u_idle_j == pytest.approx(0.5 * stdev / 2)
    assert idle.random_u(windows, found, 0.003) == pytest.approx(math.hypot(0.003, 0.5 * stdev / 2 / 5))


def test_longer_spans_weigh_more() -> None:
    found = idle.model([measured(0.1, 0, 3), measured(0.2, 4, 5)])
    assert found.power_w == pytest.approx(0.125)


def test_more_windows_do_not_make_idle_better() -> None:
    spans = [measured(0.1 + 0.01 * (k % 2), k, k + 0.5) for k in range(8)]
    found = idle.model(spans)
    few = idle.random_u([measured(1.0, k + 0.5, k + 1.0) for k in range(2)], found, 0.0)
    many = idle.random_u([measured(1.0, k + 0.5, k + 1.0) for k in range(7)], found, 0.0)
    assert few == pytest.approx(many)
    assert many


def test_one_span_has_no_scatter() -> None:
    found = idle.model([measured(0.1, 0, 2)])
    assert found.power_w == pytest.approx(0.1)
    assert found.u_power_w is None
    assert found.dof is None
    assert [caveat.code for caveat in found.caveats] == [Code.IDLE_ONE_SPAN]
    (one,) = idle.net([measured(0.5, 2, 3)], found)
    assert one.net_j == pytest.approx(0.4)
    assert one.u_idle_j is None
    assert idle.random_u([measured(0.5, 2, 3)], found, 0.01) is None


def test_net_may_be_negative_and_unknown_stays_unknown() -> None:
    found = idle.model([measured(0.5, 0, 1), measured(0.5, 2, 3)])
    negative, unknown = idle.net([measured(0.2, 1, 2), measured(None, 3, 4)], found)
    assert negative.net_j == pytest.approx(-0.3)
    assert unknown.net_j is None
    with pytest.raises(DataError, match="No idle"):
        idle.model([measured(None, 0, 1)])


def test_short_spans_are_left_out() -> None:
    spans = [measured(0.1, 0, 1), measured(9.0, 1.5, 1.51), measured(0.1, 2, 3)]
    assert idle.model(spans).power_w == pytest.approx(0.1)
    assert idle.model(spans, min_span_s=0.0).spans == 3
    with pytest.raises(DataError):
        idle.model(spans, min_span_s=5.0)


def test_a_drift_is_followed_and_not_carried_beyond_its_ends() -> None:
    spans = [measured(0.1 + 0.01 * k + 1e-4 * (-1) ** k, k, k + 0.5) for k in range(10)]
    found = idle.model(spans)
    assert found.slope_w_per_s == pytest.approx(0.01, rel=0.01)
    assert [caveat.code for caveat in found.caveats] == [Code.IDLE_DRIFT]
    power, u = found.at(4.25)
    assert power == pytest.approx(0.14, abs=1e-4)
    end, u_end = found.at(9.25)
    beyond, u_beyond = found.at(19.25)
    assert beyond == end
    assert u is not None
    assert u_end is not None
    assert u_beyond is not None
    assert u < u_end
    assert u_beyond == pytest.approx(0.01 * 10 / math.sqrt(3), rel=0.02)


LOADS: dict[str, Callable[[Float], Float]] = {
    "constant": lambda t: np.full(len(t), 0.2),
    "drift": lambda t: 0.2 + 0.02 * t,
    "slight drift": lambda t: 0.2 + 0.001 * t,
    "step": lambda t: np.where(t < 6, 0.2, 0.3),
    "warming": lambda t: 0.3 - 0.1 * np.exp(-t / 4),
}


@pytest.mark.parametrize("name", list(LOADS))
def test_the_truth_lies_in_the_interval(name: str) -> None:
    """95 % intervals of the mean net energy from idle's part and the scatter, in 400 sessions."""
    rng = np.random.default_rng(len(name))
    inside = 0
    for _ in range(400):
        windows, spans = session(LOADS[name], rng)
        found = idle.model(spans)
        nets = np.array([one.net_j for one in idle.net(windows, found)], dtype=np.float64)
        u = idle.random_u(windows, found, float(nets.std(ddof=1)) / math.sqrt(len(nets)))
        assert u is not None
        inside += abs(float(nets.mean()) - 0.5) <= t95(found.dof or 1) * u
    # Binomial: 400 sessions of 95 % give less than 92 % once in 200.
    assert inside >= 0.92 * 400


def test_a_slope_that_is_not_there_is_seldom_found() -> None:
    rng = np.random.default_rng(9)
    found = [idle.model(session(LOADS["constant"], rng)[1]) for _ in range(400)]
    assert sum(one.slope_w_per_s != 0 for one in found) <= 0.09 * 400


def test_slow_wandering_widens_the_interval() -> None:
    """Idle spans that resemble their neighbours say less than as many independent ones."""
    rng = np.random.default_rng(10)
    inside = naive = 0
    for _ in range(200):
        walk = np.zeros(60)
        for k in range(1, 60):
            walk[k] = 0.5 * walk[k - 1] + rng.normal(0, 0.01)
        found = idle.model([measured(0.2 + walk[k], k, k + 0.5) for k in range(60)])
        power, u = found.at(found.middle_s)
        assert u is not None
        inside += abs(power - 0.2) <= t95(found.dof or 1) * u
        naive += abs(power - 0.2) <= 2 * float(walk.std(ddof=1)) / math.sqrt(60)
    assert inside >= 0.88 * 200
    assert naive <= 0.80 * 200


def test_spans_keep_their_distance_from_windows() -> None:
    windows = [Window(start_ns=1000, stop_ns=2000, index=0), Window(start_ns=2500, stop_ns=3000, index=1)]
    found = idle.spans(windows, 0, 5000, guard_s=100e-9, min_span_s=350e-9)
    assert [(span.start_ns, span.stop_ns) for span in found] == [(0, 900), (3100, 5000)]
    assert {span.role for span in found} == {Role.IDLE}
    parts = idle.split(Window(start_ns=0, stop_ns=1001, index=0, role=Role.BASELINE), 4)
    assert [part.start_ns for part in parts] == [0, 250, 500, 750]
    assert parts[-1].stop_ns == 1001
    assert {part.role for part in parts} == {Role.BASELINE}


def test_decay_after_a_window_is_kept_out_by_the_guard() -> None:
    rate, k = 1000.0, np.arange(20_000)
    phase = (k % 2000) / rate
    power = np.where(phase < 1, 2.0, 0.1 + 0.5 * np.exp(-(phase - 1) / 0.02))
    one = metered({Quantity.POWER: power}, Kind.MEAN, rate)
    windows = [Window(start_ns=n * 2_000_000_000, stop_ns=n * 2_000_000_000 + 10**9, index=n) for n in range(10)]
    end_ns = 20_000_000_000
    near = idle.model(integrate(one, idle.spans(windows, 0, end_ns)))
    far = idle.model(integrate(one, idle.spans(windows, 0, end_ns, guard_s=idle.guard_s(one) + 0.2)))
    assert near.power_w == pytest.approx(0.11, rel=0.01)
    assert far.power_w == pytest.approx(0.1, rel=1e-4)
    assert idle.guard_s(one) == pytest.approx(0.003)
    assert idle.guard_s(metered({Quantity.POWER: power}, Kind.MEAN, rate, refresh_s=0.1)) == 0.1


def test_rounding_is_no_drift() -> None:
    """Spans that differ in the last bit only have a slope that any test of significance believes."""
    spans = [measured(750e-6 * (1 + 1e-15 * k), float(k), k + 0.5) for k in range(8)]
    assert idle.model(spans).slope_w_per_s == 0.0
