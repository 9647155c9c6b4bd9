"""Edges of analog trigger channels against edges that were put there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import metered
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from joulemeter.capture import Block, Kind, Quantity
from joulemeter.errors import UsageError
from joulemeter.physics.edges import AnalogScanner, analog_channel, debounce, missing

Float = NDArray[np.float64]


def scan(values: Float, threshold: float, hysteresis: float | None = None, sizes: int = 10**9) -> AnalogScanner:
    scanner = AnalogScanner("c1", threshold, hysteresis)
    for i in range(0, len(values), sizes):
        scanner.feed(Block(first_index=i, data={"c1": values[i : i + sizes]}))
    return scanner


def ramps(edges: list[float], length: int, rise: float, high: float = 3.3) -> Float:
    """A line that begins low; at each edge it goes half of the way to the other level, in `rise` samples."""
    k = np.arange(length, dtype=np.float64)
    total = np.zeros(length)
    for n, edge in enumerate(edges):
        total += (1 if n % 2 == 0 else -1) * np.clip((k - edge) / rise + 0.5, 0, 1)
    return high * total


EDGES = [10.3, 40.75, 100.0, 130.5, 201.123, 260.9]


def test_crossings_lie_between_samples() -> None:
    scanner = scan(ramps(EDGES, 300, 8.0), 1.65)
    assert scanner.edges == pytest.approx(EDGES, abs=1e-9)
    assert scanner.first_level is False
    assert scanner.length == 300
    assert scanner.swing == pytest.approx(3.3)
    assert scanner.u_edges == pytest.approx(np.zeros(6), abs=1e-6)  # a clean ramp: nothing is left open


def test_another_threshold_moves_both_edges() -> None:
    # A third of the way down from the middle of an eight-sample ramp.
    edges = scan(ramps([50.0, 90.0], 150, 8.0), 1.1).edges
    assert edges == pytest.approx([50 - 8 / 6, 90 + 8 / 6])


def test_a_step_within_one_interval_is_known_to_a_sample() -> None:
    values = np.repeat([0.0, 3.3, 0.0], 20)
    scanner = scan(values, 1.65)
    assert scanner.edges == pytest.approx([19.5, 39.5])
    assert scanner.u_edges == pytest.approx([1 / math.sqrt(12)] * 2)


def test_a_line_that_begins_high() -> None:
    scanner = scan(3.3 - ramps([10.0, 20.0], 40, 4.0), 1.65)
    assert scanner.first_level is True
    assert scanner.edges == pytest.approx([10.0, 20.0])


def test_ripple_within_the_band_is_no_edge_and_beyond_it_is() -> None:
    values = np.full(200, 0.0)
    values[50:150] = 3.3
    values[80], values[100] = 1.60, 0.0  # a runt that stays within the band, and a true dip
    assert len(scan(values, 1.65).edges) == 4
    assert len(scan(values, 1.65, hysteresis=0.0).edges) == 6
    assert len(scan(values, 1.65, hysteresis=0.2).edges) == 4
    assert scan(values, 1.65, hysteresis=7.0).first_level is None
    assert len(scan(values, 1.65, hysteresis=7.0).edges) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.sampled_from([None, 0.0, 0.4, 1.5]))
def test_block_borders_do_not_matter(seed: int, size: int, hysteresis: float | None) -> None:
    rng = np.random.default_rng(seed)
    values = ramps(EDGES, 300, 12.0) + rng.normal(0, 0.3, 300)
    values[rng.integers(0, 300, 8)] = np.nan
    whole, parts = scan(values, 1.65, hysteresis), scan(values, 1.65, hysteresis, size)
    assert parts.edges == pytest.approx(whole.edges, abs=1e-9)
    assert parts.first_level == whole.first_level
    assert len(parts.u_edges) == len(parts.edges)


def test_thinning_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    values = ramps([1000.0, 3000.0, 5000.0, 7000.0], 9000, 800.0) + rng.normal(0, 0.03, 9000)
    whole = scan(values, 1.65)
    monkeypatch.setattr("joulemeter.physics.edges.PENDING", 4)
    thinned = scan(values, 1.65, None, 50)
    assert len(whole.edges) == 4
    assert thinned.edges == pytest.approx(whole.edges, abs=1e-9)
    assert len(thinned._runs.first) < 40


@pytest.mark.parametrize("rise", [10.0, 60.0, 400.0])
def test_noise_on_slow_edges_stays_inside_the_stated_uncertainty(rise: float) -> None:
    rng = np.random.default_rng(4)
    truth = (np.arange(100) * 1000.0 + 500 + rng.uniform(0, 1, 100)).tolist()
    values = ramps(truth, 100_500, rise) + rng.normal(0, 0.033, 100_500)
    scanner = scan(values, 1.65, None, 8192)
    assert len(scanner.edges) == 100
    assert scanner.noise == pytest.approx(0.033, rel=0.2)
    error = np.abs(scanner.edges - truth)
    assert np.mean(error <= 2 * scanner.u_edges) >= 0.93
    # One per cent of noise on this slope, as a single crossing would feel it.
    assert np.median(scanner.u_edges) <= 2 * 0.01 * rise
    assert np.sqrt(np.mean(error**2)) >= 0.3 * np.median(scanner.u_edges)


def test_an_edge_across_a_hole_counts_after_it() -> None:
    scanner = AnalogScanner("c1", 1.65)
    scanner.feed(Block(first_index=0, data={"c1": np.zeros(10)}))
    scanner.feed(Block(first_index=40, data={"c1": np.full(10, 3.3)}, lost_before=30))
    assert scanner.edges == pytest.approx([40.0])
    assert scanner.u_edges == pytest.approx([31 / math.sqrt(3)])
    assert scanner.length == 50


def test_nothing_to_see() -> None:
    scanner = scan(np.full(20, np.nan), 1.0)
    assert (len(scanner.edges), scanner.first_level, scanner.noise, scanner.swing) == (0, None, 0.0, 0.0)
    flat = scan(np.full(20, 3.0), 1.0)
    assert (len(flat.edges), flat.first_level) == (0, True)


def test_bounces_are_taken_out_of_fractional_edges_too() -> None:
    edges = np.array([100.25, 100.75, 101.5, 600.5, 1100.25, 1600.5])
    kept, bounced = debounce(edges, 1000.0, None)
    assert kept.tolist() == [100.25, 600.5, 1100.25, 1600.5]
    assert bounced == 2
    kept, bounced = debounce(edges, 1000.0, 0.0006)
    assert bounced == 2
    starts = np.array([0.25, 100.2, 200.3, 400.25, 500.2, 600.25])
    assert missing(starts) == 1


def test_a_channel_is_found_by_name() -> None:
    one = metered({Quantity.VOLTAGE: np.zeros(3)}, Kind.INSTANT, 1.0)
    assert analog_channel(one, "Voltage").quantity is Quantity.VOLTAGE
    with pytest.raises(UsageError, match=r"no channel 'c7'.*voltage"):
        analog_channel(one, "c7")
