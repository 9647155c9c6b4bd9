from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from joulemeter.stats import median_interval, summarise, t95


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
