from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter.capture import Anchor, Gap, Limit
from joulemeter.caveat import Code, Severity
from joulemeter.physics.clock import Jump, fit, size_gaps, steps

RATE = 100_000.0


def study() -> Any:
    """results/measured/clock.py, whose long table this is the quick version of."""
    path = Path(__file__).parent.parent / "results" / "measured" / "clock.py"
    spec = importlib.util.spec_from_file_location("study_of_clocks", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


STUDY = study()


def anchors(sample_time_s: np.ndarray, offset_s: float, drift: float, seed: int) -> list[Anchor]:
    """Host stamps of arrivals that come late by an exponential delay, never early."""
    delay = np.random.default_rng(seed).exponential(0.003, len(sample_time_s)) + 2e-5
    host = offset_s + sample_time_s * (1 + drift) + delay
    return [
        Anchor(received_bytes=0, monotonic_ns=round(t * 1e9), utc_ns=round(t * 1e9) + 10**18) for t in host.tolist()
    ]


@pytest.mark.parametrize("drift_ppm", [-200.0, -20.0, 0.0, 50.0, 200.0])
def test_offset_and_drift_from_late_arrivals(drift_ppm: float) -> None:
    times = np.arange(0.05, 120, 0.05)
    # The host sees the instrument's second as 1 + drift; the instrument's clock is slow by that much.
    fitted = fit(times * RATE, anchors(times, 1000.0, drift_ppm * 1e-6, 1), RATE)
    assert fitted.monotonic_ns == pytest.approx(1000e9, abs=1e6)
    assert fitted.drift_ppm == pytest.approx(-drift_ppm, abs=5)
    stamp_ns = round((1000.0 + 60.0 * (1 + drift_ppm * 1e-6)) * 1e9)
    assert fitted.from_monotonic(stamp_ns) == pytest.approx(60e9, abs=0.5e6)
    assert fitted.u_host_s is not None
    assert 0 < fitted.u_host_s < 0.003


def test_a_short_recording_claims_no_drift() -> None:
    times = np.arange(0.05, 5, 0.05)
    fitted = fit(times * RATE, anchors(times, 5.0, 100e-6, 2), RATE)
    assert fitted.drift_ppm is None
    assert fitted.from_monotonic(round(7.0 * 1e9)) == pytest.approx(2e9, abs=1.5e6)


def test_a_short_recording_states_the_limit_of_its_clock() -> None:
    times = np.arange(0.05, 5, 0.05)
    fitted = fit(times * RATE, anchors(times, 5.0, 100e-6, 2), RATE, Limit(value=120e-6))
    assert fitted.u_drift_ppm == pytest.approx(120 / 3**0.5)
    assert fitted.reference_ns == pytest.approx(2.5e9, abs=0.1e9)
    assert fitted.u_host_at(fitted.reference_ns) == fitted.u_host_s
    # 1000 s away from the middle the limit gives 120 ms, rectangular.
    assert fitted.u_host_at(fitted.reference_ns + 1e12) == pytest.approx(0.12 / 3**0.5, rel=1e-3)


def test_a_clock_plainly_outside_its_limit_is_believed() -> None:
    times = np.arange(0.05, 20, 0.05)
    fitted = fit(times * RATE, anchors(times, 5.0, 2000e-6, 2), RATE, Limit(value=50e-6))
    assert fitted.drift_ppm == pytest.approx(-2000, abs=100)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_arrivals_may_all_be_late(count: int) -> None:
    fitted = fit(np.arange(count, dtype=np.float64) * 5e3, anchors(np.arange(count) * 0.05, 5.0, 0.0, 2), RATE)
    assert fitted.u_host_s == pytest.approx(0.2 / 3**0.5, rel=0.01)
    assert fitted.drift_ppm is None


@pytest.mark.parametrize("kind", ["exponential", "batched", "stalled"])
@pytest.mark.parametrize("span_s", [3.0, 60.0])
def test_the_truth_lies_inside_what_is_stated(kind: str, span_s: float) -> None:
    """Drift within 200 ppm and offset within 1 s, arrivals by USB frames, batches of reads, and stalls of 200 ms."""
    rng = np.random.default_rng([3, round(span_s)])
    trials = [STUDY.anchored(rng, kind, span_s, RATE) for _ in range(200 if span_s < 10 else 100)]
    inside = np.mean([trial.error_s <= trial.stated_s for trial in trials], axis=0)
    drift = np.mean([trial.drift_error_ppm <= trial.drift_stated_ppm for trial in trials])
    assert inside.min() >= 0.95
    assert drift >= 0.95


def test_without_anchors_nothing_is_claimed() -> None:
    fitted = fit(np.empty(0), [], RATE)
    assert fitted.monotonic_ns is None
    with pytest.raises(ValueError, match="never related"):
        fitted.from_monotonic(1)
    assert fitted.u_host_at(0) is None


@pytest.mark.parametrize("lost", [5, 64, 100, 6400, 123_456])
def test_holes_are_sized_beyond_the_counter(lost: int) -> None:
    times = np.arange(0.05, 20, 0.05)
    after = times > 10.0
    # By the counter alone the samples after the hole carry on from 10 s plus the counted remainder.
    counted = lost % 64
    index = times * RATE
    index[after] = index[after] + counted
    true_s = times + np.where(after, lost / RATE, 0.0)
    delay = np.random.default_rng(3).uniform(0, 2e-4, len(times))
    host = [Anchor(received_bytes=0, monotonic_ns=round(t * 1e9), utc_ns=0) for t in (true_s + delay).tolist()]
    gap = Gap(index=1_000_000 + counted, lost=counted)
    (sized,) = size_gaps([gap], 64, index, host, RATE)
    assert sized.lost == lost
    assert sized.index == 1_000_000 + lost
    assert sized.doubt == 0


def test_a_noisy_clock_admits_that_it_cannot_tell() -> None:
    times = np.arange(0.05, 20, 0.05)
    index = times * RATE
    delay = np.random.default_rng(3).uniform(0, 0.2, len(times))
    host = [Anchor(received_bytes=0, monotonic_ns=round(t * 1e9), utc_ns=0) for t in (times + delay).tolist()]
    (sized,) = size_gaps([Gap(index=1_000_000, lost=3)], 64, index, host, RATE)
    assert sized.doubt > 0


# -- clocks that jump -------------------------------------------------------------------------------------------------


def clocks(monotonic_s: np.ndarray, utc_s: np.ndarray) -> list[Anchor]:
    return [
        Anchor(received_bytes=0, monotonic_ns=round(m * 1e9), utc_ns=round(u * 1e9) + 10**18)
        for m, u in zip(monotonic_s.tolist(), utc_s.tolist(), strict=True)
    ]


TIMES = np.arange(0, 20, 0.05)


def test_steady_clocks_have_no_steps() -> None:
    jitter = np.random.default_rng(1).exponential(50e-6, len(TIMES))
    jitter[100] = 0.03  # interrupted between the two readings, once
    assert steps(clocks(TIMES, TIMES + jitter)) == ()
    assert steps(clocks(TIMES, TIMES + jitter), TIMES * RATE, RATE) == ()
    assert steps([]) == steps(clocks(TIMES[:1], TIMES[:1])) == ()


@pytest.mark.parametrize("jump_s", [-3600.0, -0.01, 0.01, 1.5])
@pytest.mark.parametrize("counted", [True, False])
def test_a_calendar_clock_that_was_set(jump_s: float, counted: bool) -> None:
    utc_s = TIMES + np.where(TIMES > 10.01, jump_s, 0.0)
    (step,) = steps(clocks(TIMES, utc_s), *((TIMES * RATE, RATE) if counted else ()))
    assert step.kind is Jump.UTC_STEP
    assert step.jump_s == pytest.approx(jump_s, abs=1e-4)
    assert step.before_ns <= 10.01e9 <= step.after_ns
    assert (step.caveat.code, step.caveat.severity) == (Code.CLOCK_STEP, Severity.NOTE)


def test_a_host_that_slept_while_the_meter_ran() -> None:
    """Linux: CLOCK_MONOTONIC stands still in suspend, the calendar and the samples do not."""
    monotonic_s = np.where(TIMES > 10.01, TIMES - 3.0, TIMES)[(TIMES <= 10.01) | (TIMES > 13.01)]
    true_s = TIMES[(TIMES <= 10.01) | (TIMES > 13.01)]
    (step,) = steps(clocks(monotonic_s, true_s), true_s * RATE, RATE)
    assert step.kind is Jump.SUSPEND
    assert step.jump_s == pytest.approx(3.0, abs=1e-3)
    assert step.caveat.code is Code.HOST_SLEPT


def test_a_host_and_a_meter_that_slept() -> None:
    """Other systems and stopped virtual machines: both clocks run on, and no samples were made."""
    host_s = np.where(TIMES > 10.01, TIMES + 60.0, TIMES)
    (step,) = steps(clocks(host_s, host_s), TIMES * RATE, RATE)
    assert step.kind is Jump.SUSPEND
    assert step.jump_s == pytest.approx(60.0, abs=0.1)
    # A pause in reading, with all samples there afterwards, is no sleep.
    assert steps(clocks(host_s, host_s), host_s * RATE, RATE) == ()
