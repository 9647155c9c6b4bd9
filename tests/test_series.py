from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as reference

from joulemeter.physics import series

RNG = np.random.default_rng


@pytest.mark.parametrize("n", [8, 20, 300])
def test_skewness_test_is_dagostinos(n: int) -> None:
    for seed in range(5):
        values = RNG(seed).gamma(3.0, size=n)
        assert series.skewness_p(values) == pytest.approx(reference.skewtest(values).pvalue, rel=1e-9)


def test_drift_is_the_resistant_line_and_spearmans_test() -> None:
    values = np.linspace(0.0, 1.0, 90) + RNG(1).normal(0, 0.2, 90)
    found = series.drift(values)
    assert found is not None
    # Theil and Sen's slope is another robust line through the same points.
    assert found.total == pytest.approx(reference.theilslopes(values).slope * 89, rel=0.25)
    weak = np.linspace(0.0, 1.0, 90) + RNG(0).normal(0, 1.0, 90)
    found = series.drift(weak)
    assert found is not None
    assert found.p >= 0.5 * reference.spearmanr(weak, np.arange(90)).pvalue
    values[40] = 1e6
    far = series.drift(values)
    assert far is not None
    assert far.total == pytest.approx(1.0, rel=0.25)


def test_a_slow_wave_is_no_drift() -> None:
    """Correlation makes trends look clear; the test is to know."""
    alarms = 0
    for seed in range(100):
        wave = np.convolve(RNG(seed).normal(size=600), np.ones(15) / 15, "same")
        alarms += series.drift(wave) is not None
    assert alarms <= 8


@pytest.mark.parametrize(
    "values",
    [np.full(50, 3.3), np.zeros(50), np.array([1.0]), np.array([1.0, 2.0]), np.repeat([1.0, 2.0], 25), np.arange(50.0)],
    ids=["constant", "zeros", "one", "two", "step", "ramp"],
)
def test_degenerate_sets_pass(values: NDArray[np.float64]) -> None:
    assert not len(series.outliers(values))
    assert series.correlation_time(values) >= 1
    series.drift(values)
    series.skewness_p(values)
    assert series.modes(values) is None
    assert series.warm_up(values) == 0


def test_one_odd_value_among_equal_ones_is_found() -> None:
    values = np.full(50, 3.3)
    values[20] = 9.9
    assert series.outliers(values).tolist() == [20]


@pytest.mark.parametrize("draw", ["uniform", "exponential", "standard_cauchy"])
def test_one_mode_of_any_shape_is_no_two(draw: str) -> None:
    alarms = sum(series.modes(getattr(RNG(seed), draw)(size=100)) is not None for seed in range(200))
    assert alarms <= 10


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_two_modes_six_sigma_apart_are_found(n: int) -> None:
    found = 0
    for seed in range(50):
        rng = RNG(seed)
        found += series.modes(rng.normal(size=n) + 6 * (np.arange(n) % 2)) is not None
    assert found >= 45


def test_the_length_of_a_warm_up_is_found() -> None:
    for seed in range(20):
        settling = RNG(seed).normal(1.0, 0.01, 200)
        settling[:20] += 0.05
        assert abs(series.warm_up(settling) - 20) <= 6
        assert series.warm_up(settling[20:]) == 0
