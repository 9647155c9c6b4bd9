"""A meter's own counter beside its samples, and windows that a slow meter cannot resolve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import metered
from numpy.typing import NDArray

from joulemeter.capture import ArrayStream, Channel, Event, Kind, Quantity, Recording
from joulemeter.caveat import Code
from joulemeter.cli import text
from joulemeter.errors import DataError
from joulemeter.physics.analyze import analyze
from joulemeter.physics.witness import about, cross_check
from joulemeter.report import html

RATE_HZ, REFRESH_S = 4.0, 0.5
STEP_J = 3.6


def inline_meter(
    power_w: NDArray[np.float64], counted_j: NDArray[np.float64], wrap: float | None = None
) -> ArrayStream:
    """Readings each quarter of a second, and a counter of whole steps beside them."""
    times = (np.arange(len(power_w)) * 1e9 / RATE_HZ).astype(np.int64)
    stream = metered({Quantity.POWER: power_w}, Kind.INSTANT, RATE_HZ, times_ns=times, refresh_s=REFRESH_S)
    counter = Channel(
        name="counted energy",
        quantity=Quantity.ENERGY,
        unit="J",
        kind=Kind.CUMULATIVE,
        refresh_s=REFRESH_S,
        wrap=wrap,
        witness=True,
    )
    shown = np.floor(counted_j / STEP_J) * STEP_J
    if wrap is not None:
        shown = shown % wrap
    return replace(
        stream,
        header=replace(stream.header, channels=(*stream.header.channels, counter)),
        data={**stream.data, "counted energy": shown},
    )


def steady(seconds: float, watts: float = 5.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.full(len(time_s), watts), 100.0 + watts * time_s


def test_a_counter_that_agrees_says_so() -> None:
    power, energy = steady(60.0)
    found = cross_check(inline_meter(power, energy))
    assert found is not None and found.agrees
    assert found.counted == pytest.approx(5.0 * found.duration_s, rel=0.03)
    assert found.integrated == pytest.approx(5.0 * found.duration_s, rel=1e-9)
    assert about(found) == []


def test_a_counter_that_turns_over_still_agrees() -> None:
    power, energy = steady(60.0)
    found = cross_check(inline_meter(power, energy, wrap=50 * STEP_J))
    assert found is not None and found.agrees


def test_energy_between_the_readings_is_found_out() -> None:
    power, energy = steady(60.0)
    found = cross_check(inline_meter(power, 100.0 + 1.4 * (energy - 100.0)))
    assert found is not None and not found.agrees
    (caveat,) = about(found)
    assert caveat.code is Code.METERS_DIFFER


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_a_counter_that_hardly_moved_says_nothing(seconds: float) -> None:
    power, energy = steady(seconds)
    assert cross_check(inline_meter(power, energy)) is None


def test_without_a_counter_there_is_nothing_to_check() -> None:
    assert cross_check(metered({Quantity.POWER: np.ones(10)}, Kind.MEAN, 10.0)) is None


def stamped(stream: ArrayStream, window_s: float, per_window: int) -> Recording:
    timed = replace(stream, timebase=replace(stream.timebase, monotonic_ns=0, utc_ns=0, u_host_s=0.0, u_drift_ppm=0.0))
    edges = [
        Event(label=label, source="host", monotonic_ns=round(at * 1e9), u_s=1e-6)
        for k in range(6)
        for label, at in (("begin", 1 + k * (window_s + 1)), ("end", 1 + k * (window_s + 1) + window_s))
    ]
    return Recording(
        name="slow", streams=(timed,), trigger="host", events=tuple(edges), meta={"inferences_per_window": per_window}
    )


def test_a_slow_meter_refuses_short_windows_and_says_what_would_do() -> None:
    power, energy = steady(60.0)
    with pytest.raises(DataError) as refused:
        analyze(stamped(inline_meter(power, energy), 0.1, 5))
    assert "too short" in refused.value.what
    # Five refreshes of 0.5 s at 20 ms an inference.
    assert "125 inferences" in refused.value.remedy


def test_a_slow_meter_measures_long_windows() -> None:
    power, energy = steady(60.0)
    result = analyze(stamped(inline_meter(power, energy), 4.0, 200)).result
    assert result.energy_per_inference_j.median == pytest.approx(5.0 * 4.0 / 200, rel=1e-6)
    assert result.cross_check is not None
    assert result.cross_check["counted"] == pytest.approx(result.cross_check["integrated"], rel=0.03)
    assert "meter's own counter" in text.render(result)
    assert "The meter's own counter" in html.render(result.to_dict(), [], None)
