from __future__ import annotations

import numpy as np
import pytest

from joulemeter.capture import Anchor, Gap
from joulemeter.clock import fit, size_gaps

RATE = 100_000.0


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


def test_without_anchors_nothing_is_claimed() -> None:
    fitted = fit(np.empty(0), [], RATE)
    assert fitted.monotonic_ns is None
    with pytest.raises(ValueError, match="never related"):
        fitted.from_monotonic(1)


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
