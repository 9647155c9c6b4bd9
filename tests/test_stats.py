from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal
from scipy import stats as reference

from joulemeter.caveat import Code
from joulemeter.physics.stats import inspect, median_interval, needed, summarise, t95


def test_one_value_has_no_spread() -> None:
    spread = summarise([3.0])
    assert spread.median == spread.mean == spread.min == spread.max == 3.0
    assert [spread.stdev, spread.ci95, spread.u_median, spread.p5, spread.p95, spread.p99] == [None] * 6


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=200))
def test_agrees_with_numpy(values: list[float]) -> None:
    spread = summarise(values)
    assert spread.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    assert spread.stdev == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-6)
    assert spread.median == np.median(values)
    assert spread.p95 == pytest.approx(np.percentile(values, 95))


@pytest.mark.parametrize("n", range(6, 120))
def test_order_statistics_reach_95_percent_and_no_narrower_pair_does(n: int) -> None:
    interval, method = median_interval(list(map(float, range(n))))
    assert method == "median, order statistics"
    assert interval is not None
    k = int(interval[0]) + 1
    assert interval[1] == n - k
    coverage = 1 - 2 * reference.binom.cdf(k - 1, n, 0.5)
    assert coverage >= 0.95
    assert 1 - 2 * reference.binom.cdf(k, n, 0.5) < 0.95


@pytest.mark.parametrize("n", [999, 1000, 1001, 5000])
def test_the_normal_limit_joins_without_a_step(n: int) -> None:
    interval, _ = median_interval(list(map(float, range(n))))
    assert interval is not None
    assert 1 - 2 * reference.binom.cdf(interval[0], n, 0.5) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("dof", [1, 4, 10, 30, 31, 60, 200])
def test_students_t(dof: int) -> None:
    assert t95(dof) == pytest.approx(reference.t.ppf(0.975, dof), abs=2e-3)


def test_few_values_use_the_mean_and_say_so() -> None:
    interval, method = median_interval([1.0, 2.0, 3.0])
    assert method == "mean, Student t"
    assert interval == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), rel=1e-3)


# -- order and shape --------------------------------------------------------------------------------------------------


def pulse_widths_us(seed: int = 7) -> NDArray[np.float64]:
    """A pulse train as the reference oscilloscope reported it (LeCroy, ZHAW "Benchmarking the Intelligent Edge", 2019).

    num 6.356e3, mean 1.129063 ms, min 1.12713143 ms, max 1.22685799 ms, sdev 8.750 us, last value 1.12767402 ms. Nearly
    all pulses lie within 1.6 us of the shortest, and interrupts made 151 of them up to 100 us longer: the only shape of
    one even bulk and one even tail that has this mean and this sdev.
    """
    n, low, high, mean, late = 6356, 1127.13143, 1226.85799, 1129.063, 151
    tail = np.linspace(0.0, high - low, late + 1)[1:]
    bulk = np.linspace(0.0, 2 * (n * (mean - low) - tail.sum()) / (n - late), n - late)
    values = np.concatenate([bulk, tail])
    np.random.default_rng(seed).shuffle(values)
    last = int(np.argmin(np.abs(values - (1127.67402 - low))))
    values[[last, -1]] = values[[-1, last]]
    return low + values


def test_the_reference_oscilloscope_statistics_come_back_and_the_tail_is_told() -> None:
    values = pulse_widths_us()
    spread = summarise((values * 1e-6).tolist())
    assert spread.count == 6356
    assert spread.min == pytest.approx(1.12713143e-3, rel=1e-12)
    assert spread.max == pytest.approx(1.22685799e-3, rel=1e-12)
    assert spread.mean == pytest.approx(1.129063e-3, rel=1e-9)
    assert spread.stdev == pytest.approx(8.750e-6, rel=0.005)
    assert values[-1] == pytest.approx(1127.67402, abs=3e-4)
    # The 3178th of 6205 pulses spread evenly over the first 1.53 us.
    assert spread.median == pytest.approx(1.127913e-3, abs=0.01e-6)
    (skewed,) = (caveat for caveat in inspect((values * 1e-6).tolist(), "s") if caveat.code is Code.SKEWED)
    assert skewed.data["below"] == pytest.approx(1.93e-6, abs=0.06e-6)
    assert skewed.data["above"] == pytest.approx(97.79e-6, abs=0.02e-6)
    assert skewed.data["sigmas"] == pytest.approx(11.2, abs=0.3)
    assert "mean - min is 1.9" in skewed.text
    assert "max - mean is 97.8 us (11 sigma)" in skewed.text
    assert Code.OUTLIERS in codes(values)


def codes(values: NDArray[np.float64]) -> set[Code]:
    return {caveat.code for caveat in inspect(values.tolist(), "J")}


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_clean_sets_are_left_alone(n: int) -> None:
    """Each of five tests may be wrong once in a hundred sets; two-sided 99.9 % of a binomial around that."""
    rng = np.random.default_rng(n)
    sets = 200
    alarms = dict.fromkeys((Code.OUTLIERS, Code.SKEWED, Code.BIMODAL, Code.DRIFT, Code.WARM_UP), 0)
    for _ in range(sets):
        for code in codes(rng.normal(24e-3, 1e-4, n)):
            alarms[code] += 1
    limit = reference.binom.ppf(0.9995, sets, 0.0125)
    assert all(count <= limit for count in alarms.values()), alarms
    assert limit / sets < 0.05


def test_outliers_are_named_by_index() -> None:
    values = np.random.default_rng(3).normal(1.0, 0.01, 50)
    values[[7, 31]] = 1.2, 1.3
    (caveat,) = (caveat for caveat in inspect(values.tolist(), "J") if caveat.code is Code.OUTLIERS)
    assert caveat.data["indices"] == [7, 31]
    assert "the furthest is 1.300 J against 1.00" in caveat.text


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_two_groups_are_seen(share: float) -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(1.0, 0.01, 200) + 0.1 * (rng.random(200) < share)
    (caveat,) = (caveat for caveat in inspect(values.tolist(), "J") if caveat.code is Code.BIMODAL)
    assert caveat.data["low"] == pytest.approx(1.0, abs=0.005)
    assert caveat.data["high"] == pytest.approx(1.1, abs=0.01)


def test_neighbouring_steps_of_a_clock_are_one_group() -> None:
    values = np.round(np.random.default_rng(5).normal(2000.5, 0.3, 200)) * 1e-5
    assert len(np.unique(values)) == 2
    assert Code.BIMODAL not in codes(values)


def test_drift_enters_the_uncertainty_and_does_not_shrink_with_repeating() -> None:
    """A rise of 1 % from first to last is rectangular over its width: u = 1 % / sqrt(12) for any number of windows."""
    rng = np.random.default_rng(6)
    for n in (200, 5000):
        values = np.linspace(1.0, 1.01, n) + rng.normal(0, 0.001, n)
        spread = summarise(values.tolist())
        assert spread.drift == pytest.approx(0.01, rel=0.1)
        assert spread.u_median == pytest.approx(0.01 / 12**0.5, rel=0.1)
        assert spread.ci95_method is not None
        assert spread.ci95_method.endswith("drift")
        assert codes(values) == {Code.DRIFT}
        assert needed(values.tolist(), 0.002) is None


def test_a_warm_up_is_told_from_a_drift() -> None:
    values = np.random.default_rng(8).normal(1.0, 0.005, 120)
    values[:12] += 0.02
    (caveat,) = (caveat for caveat in inspect(values.tolist(), "J") if caveat.code in (Code.WARM_UP, Code.DRIFT))
    assert caveat.code is Code.WARM_UP
    assert caveat.data["windows"] == pytest.approx(12, abs=2)
    first = np.random.default_rng(9).normal(1.0, 0.005, 30)
    first[0] = 1.5
    assert {Code.WARM_UP, Code.OUTLIERS} <= codes(first)


def autoregressive(rng: np.random.Generator, phi: float, n: int) -> NDArray[np.float64]:
    values: NDArray[np.float64] = signal.lfilter([1.0], [1.0, -phi], rng.normal(size=n + 200))[200:]
    return values


def test_correlated_windows_count_for_fewer() -> None:
    """AR(1) with phi = 0.8: the variance of a mean is (1 + phi) / (1 - phi) = 9 times that of independent values."""
    spread = summarise(autoregressive(np.random.default_rng(10), 0.8, 20_000).tolist())
    assert spread.effective == pytest.approx(20_000 / 9, rel=0.15)
    assert spread.dof == pytest.approx(20_000 / 9, rel=0.15)
    assert spread.stdev is not None
    assert spread.u_median == pytest.approx(1.2533 * spread.stdev * 3 / 20_000**0.5, rel=0.1)


def test_the_interval_covers_the_median_with_and_without_correlation() -> None:
    rng = np.random.default_rng(12)
    for phi, least in ((0.0, 0.92), (0.6, 0.90)):
        held = 0
        for _ in range(300):
            low, high = summarise(autoregressive(rng, phi, 200).tolist()).ci95 or (0.0, 0.0)
            held += low <= 0.0 <= high
        assert least <= held / 300 <= 0.99


def test_alternating_windows_do_not_shrink_the_uncertainty() -> None:
    values = np.tile([0.99, 1.01], 50) + np.random.default_rng(2).normal(0, 1e-4, 100)
    spread = summarise(values.tolist())
    assert spread.effective == 100
    assert spread.stdev is not None
    assert spread.u_median == pytest.approx(1.2533 * spread.stdev / 10, rel=1e-3)


def test_needed_says_how_many_more() -> None:
    """Normal windows of 1 %: the median's interval is ±1.96 x 1.2533 x 1 % / sqrt(n)."""
    rng = np.random.default_rng(13)
    closed_form = (1.96 * 1.2533 * 0.01 / 0.001) ** 2
    totals = [40 + (needed(rng.normal(1.0, 0.01, 40).tolist(), 0.001) or 0) for _ in range(50)]
    assert np.median(totals) == pytest.approx(closed_form, rel=0.35)
    assert needed(rng.normal(1.0, 0.01, 2000).tolist(), 0.001) == 0
    assert needed([1.0], 0.01) is None
    assert needed([1.0, 1.1, 1.2], 0.001) is not None
    assert needed(rng.normal(0.0, 1.0, 101).tolist()[:1] * 2 + [0.0], 0.0) is None
