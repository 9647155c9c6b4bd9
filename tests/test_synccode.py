"""The sync code: played, found again, refused, and the uncertainty that it states."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import header

from joulemeter.capture import ArrayStream, Channel, Event, Kind, Quantity, Timebase
from joulemeter.errors import DataError
from joulemeter.pattern import BUSY, CODES, END, IDLE, SOURCE, Pattern, default_pattern
from joulemeter.physics.synccode import locate, timebase_from_code
from joulemeter.synthetic import Load, Step
from joulemeter.workload.beacon import play


def study() -> Any:
    """results/measured/clock.py, whose long table this is the quick version of."""
    path = Path(__file__).parent.parent / "results" / "measured" / "clock.py"
    spec = importlib.util.spec_from_file_location("study_of_clocks", path)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


STUDY = study()


# -- the pattern ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "most"), [("barker-13", 1), ("m-31", 5)])
def test_codes_are_unlike_their_own_shifts(name: str, most: int) -> None:
    chips = np.array([1 if chip == "1" else -1 for chip in CODES[name]])
    across = np.correlate(chips, chips, "full")
    assert across[len(chips) - 1] == len(chips)
    assert np.delete(np.abs(across), len(chips) - 1).max() <= most
    if name == "m-31":  # a maximum-length sequence: its periodic autocorrelation has two values, 31 and -1
        assert {int(chips @ np.roll(chips, k)) for k in range(1, 31)} == {-1}


@pytest.mark.parametrize("rate_hz", [10.0, 1e3, 1e5, 1e6])
def test_the_default_pattern_fits_the_meter(rate_hz: float) -> None:
    pattern = default_pattern(rate_hz)
    assert pattern.chip_s * rate_hz >= 5
    assert pattern.duration_s < 15
    runs = pattern.runs()
    assert sum(duration for _, duration in runs) == pytest.approx(pattern.duration_s)
    assert [busy for busy, _ in runs] == [k % 2 == 1 for k in range(len(runs))]
    assert default_pattern(rate_hz, call_s=3.0).chip_s >= 3.0


def test_play_stamps_what_happened_not_what_was_planned() -> None:
    now = [1_000]
    calls = []

    def busy() -> None:
        calls.append(now[0])
        now[0] += 7_000_000  # 7 ms, so that a 10 ms span becomes 14 ms

    def sleep(seconds: float) -> None:
        now[0] += round(seconds * 1e9) + 100_000

    stamps = play(Pattern(chips=(True, False, True, True), chip_s=0.01), busy, lambda: now[0], sleep)
    assert [stamp.label for stamp in stamps] == [IDLE, BUSY, IDLE, BUSY, IDLE, END]
    assert {stamp.source for stamp in stamps} == {SOURCE}
    at = [stamp.monotonic_ns or 0 for stamp in stamps]
    assert at[0] == 1_000
    assert np.diff(at).tolist() == [20_100_000, 14_000_000, 10_100_000, 21_000_000, 20_100_000]
    assert calls == [at[1], at[1] + 7_000_000, *(at[3] + k * 7_000_000 for k in range(3))]


def test_play_on_a_real_clock() -> None:
    pattern = Pattern(chips=(True, False), chip_s=0.005)
    stamps = play(pattern, lambda: sum(range(100)))
    spans_s = np.diff([stamp.monotonic_ns or 0 for stamp in stamps]) * 1e-9
    assert len(stamps) == 4
    assert all(spans_s >= np.array([duration for _, duration in pattern.runs()]) - 1e-9)


# -- found again ------------------------------------------------------------------------------------------------------


def coded_load(pattern: Pattern, lead_s: float) -> tuple[Load, list[Event]]:
    """A load in closed form that draws 10 mA when idle and 30 mA when busy, and its stamps, 5 s on."""
    steps = [Step(duration_s=duration, current_a=0.03 if busy else 0.01) for busy, duration in pattern.runs()]
    borders = lead_s + np.concatenate([[0.0], np.cumsum([step.duration_s for step in steps])])
    labels = [*(BUSY if busy else IDLE for busy, _ in pattern.runs()), END]
    stamps = [
        Event(label=label, source=SOURCE, monotonic_ns=round((5 + at) * 1e9))
        for label, at in zip(labels, borders.tolist(), strict=True)
    ]
    load = Load(steps=(*steps, Step(duration_s=100.0, current_a=0.01)), lead_s=lead_s, lead_a=0.01)
    return load, stamps


@pytest.mark.parametrize("rate_hz", [10.0, 1e3, 1e5, 1e6])
def test_a_perfect_trace_is_placed_to_a_fraction_of_a_sample(rate_hz: float) -> None:
    pattern = default_pattern(rate_hz)
    load, stamps = coded_load(pattern, lead_s=1.234567)
    power = load.mean_current_a(0, round((pattern.duration_s + 3) * rate_hz), rate_hz)
    found = locate(power, rate_hz, stamps)
    # Sample 0 began at 5 s of the host's clock.
    assert found.offset_ns * 1e-9 == pytest.approx(5.0, abs=max(0.01 / rate_hz, 2e-6))
    assert found.drift_ppm is None  # played once: the limit of the sample clock stands for it
    assert found.u_drift_ppm == pytest.approx(50 / 3**0.5)
    assert found.groups == 1
    assert found.borders == len(stamps) - 2


@pytest.mark.parametrize(
    ("rate_hz", "between_s", "noise", "within_s"),
    [(10.0, 120.0, 0.1, 0.1), (1e3, 5.0, 0.2, 1e-3), (1e5, 1.0, 0.5, 1e-3)],
)
def test_windows_lie_within_a_sample_period(rate_hz: float, between_s: float, noise: float, within_s: float) -> None:
    rng = np.random.default_rng([7, round(rate_hz)])
    trials = [STUDY.coded(rng, rate_hz, between_s, noise) for _ in range(12)]
    assert max(trial.error_s.max() for trial in trials) < within_s


def test_what_is_stated_holds() -> None:
    rng = np.random.default_rng(11)
    trials = [STUDY.coded(rng, 1e3, 3.0, 0.2) for _ in range(40)]
    inside = np.mean([trial.error_s <= trial.stated_s for trial in trials])
    drift = np.mean([trial.drift_error_ppm <= trial.drift_stated_ppm for trial in trials])
    assert inside >= 0.9 and drift >= 0.87  # 95 % of 40 sessions, less about two standard deviations
    # and is not bought by stating far too much
    assert np.mean([trial.error_s <= trial.stated_s / 8 for trial in trials]) < 0.9


def test_an_hour_of_microamperes() -> None:
    """Offset and drift hold at any scale: an hour between the playings, 100 ppm, 20 uA of step."""
    rate_hz = 1e3
    stamps: list[Event] = []
    power = 1e-5 * np.ones(3_610_000)
    for lead_s in (2.0, 3_602.0):
        load, played = coded_load(default_pattern(rate_hz), lead_s=2.0)
        trace = load.mean_current_a(0, 4000, rate_hz) * 1e-3
        power[round((lead_s - 2) * rate_hz) :][:4000] = trace
        # The host's seconds are longer by 100 ppm, from where each playing begins on.
        late_s = (lead_s - 2.0) * 1.0001
        stamps += [replace(stamp, monotonic_ns=(stamp.monotonic_ns or 0) + round(late_s * 1e9)) for stamp in played]
    found = locate(power + 1e-6 * np.random.default_rng(1).standard_normal(len(power)), rate_hz, stamps)
    assert 1e-4 < found.u_drift_ppm < 0.05
    assert found.drift_ppm == pytest.approx(-99.99, abs=3 * found.u_drift_ppm)


def test_a_slow_supply_is_not_taken_for_an_offset() -> None:
    rate_hz, tau_s = 1e4, 2e-3
    pattern = default_pattern(rate_hz)
    load, stamps = coded_load(pattern, lead_s=0.5)
    sharp = load.mean_current_a(0, 20 * round((pattern.duration_s + 1) * rate_hz), 20 * rate_hz)
    # A pole by the textbook's recursion, at twenty times the rate.
    slow = np.empty_like(sharp)
    state, keep = 0.01, np.exp(-1 / (20 * rate_hz * tau_s))
    for k, value in enumerate(sharp.tolist()):
        state = value + (state - value) * keep
        slow[k] = state
    found = locate(slow.reshape(-1, 20).mean(axis=1), rate_hz, stamps)
    assert found.tau_s == pytest.approx(tau_s, rel=0.02)
    assert found.offset_ns * 1e-9 == pytest.approx(5.0, abs=5e-5)
    assert found.u_offset_s < 1e-4


# -- streams ----------------------------------------------------------------------------------------------------------


def coded_stream(rate_hz: float = 1e3, kind: Kind = Kind.MEAN) -> tuple[ArrayStream, list[Event]]:
    load, stamps = coded_load(default_pattern(rate_hz), lead_s=2.0)
    current = load.mean_current_a(0, round(4 * rate_hz), rate_hz)
    about = replace(
        header(rate_hz), channels=(Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=kind),)
    )
    known = Timebase(rate_hz=rate_hz, monotonic_ns=4_990_000_000, utc_ns=10**18)
    return ArrayStream(name="meter", header=about, timebase=known, data={"current": current}), stamps


def test_a_stream_gets_a_timebase() -> None:
    stream, stamps = coded_stream()
    other = [Event(label="begin", source="host", monotonic_ns=5)]
    timebase, fit = timebase_from_code(stream, [*other, *stamps])
    assert timebase.from_monotonic(7_000_000_000) == pytest.approx(2e9, abs=1e5)
    assert timebase.utc_ns == 10**18 + fit.offset_ns - 4_990_000_000
    assert timebase.u_host_s == fit.u_offset_s
    away = timebase.u_host_at(timebase.reference_ns + 1e12)
    # A thousand seconds away a clock of 50 ppm adds 50 ms, rectangular.
    assert away == pytest.approx(0.05 / 3**0.5, rel=1e-3)


def test_instants_stand_for_the_interval_around_them() -> None:
    """A sampler's value k is the load at k / rate; taken for a mean it would come half a sample late."""
    rate_hz = 1e3
    stream, stamps = coded_stream(rate_hz, Kind.INSTANT)
    load, _ = coded_load(default_pattern(rate_hz), lead_s=2.0)
    fine = load.mean_current_a(0, 4_000_000, 1e6)
    timebase, _ = timebase_from_code(replace(stream, data={"current": fine[::1000]}), stamps)
    assert timebase.from_monotonic(7_000_000_000) == pytest.approx(2e9, abs=0.25e6)


def test_a_polled_meter_is_placed_within_a_reading() -> None:
    """Ten readings a second, each late or early by up to 30 ms, stamped with when they were taken."""
    rate_hz = 10.0
    stream, stamps = coded_stream(rate_hz, Kind.INSTANT)
    load, _ = coded_load(default_pattern(rate_hz), lead_s=2.0)
    count = round((default_pattern(rate_hz).duration_s + 4) * rate_hz)
    at_s = np.arange(count) / rate_hz + np.random.default_rng(4).uniform(0, 0.03, count)
    fine = load.mean_current_a(0, count * 1000, rate_hz * 1000)
    readings = fine[(at_s * rate_hz * 1000).astype(np.int64)]
    polled = replace(stream, data={"current": readings}, times_ns=np.round(at_s * 1e9).astype(np.int64))
    timebase, fit = timebase_from_code(polled, stamps)
    assert timebase.from_monotonic(7_000_000_000) == pytest.approx(2e9, abs=0.05e9)
    assert abs(timebase.from_monotonic(7_000_000_000) - 2e9) < 2e9 * fit.u_offset_s


def test_lost_samples_are_left_out() -> None:
    stream, stamps = coded_stream()
    current = stream.data["current"].copy()
    current[2100:2110] = np.nan
    timebase, _ = timebase_from_code(replace(stream, data={"current": current}), stamps)
    assert timebase.from_monotonic(7_000_000_000) == pytest.approx(2e9, abs=1e5)


def test_a_meter_without_power_is_refused() -> None:
    stream, stamps = coded_stream(kind=Kind.CUMULATIVE)
    with pytest.raises(DataError, match="needs samples of power"):
        timebase_from_code(stream, stamps)


# -- refused ----------------------------------------------------------------------------------------------------------


def test_without_stamps_nothing_is_found() -> None:
    with pytest.raises(DataError, match="stamps"):
        locate(np.zeros(1000), 1e3, [])


def test_noise_alone_is_refused() -> None:
    _, stamps = coded_stream()
    for seed in range(20):
        with pytest.raises(DataError, match="does not stand out"):
            locate(np.random.default_rng(seed).standard_normal(4000), 1e3, stamps)


def test_other_work_is_not_taken_for_the_pattern() -> None:
    rate_hz = 1e3
    pattern = default_pattern(rate_hz)
    _, stamps = coded_load(pattern, lead_s=2.0)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        edges_s = np.cumsum(rng.uniform(0.5, 4, 200) * pattern.chip_s)
        borders_s = np.arange(int(edges_s[-1] * rate_hz)) / rate_hz
        power = STUDY.drawn(edges_s, borders_s, 0.0) + 0.02 * rng.standard_normal(len(borders_s) - 1)
        with pytest.raises(DataError, match="does not stand out"):
            locate(power, rate_hz, stamps)


@pytest.mark.parametrize("value", [0.0, 0.01, np.nan])
def test_a_flat_trace_is_refused(value: float) -> None:
    _, stamps = coded_stream()
    with pytest.raises(DataError, match="does not stand out"):
        locate(np.full(4000, value), 1e3, stamps)


def test_two_equal_places_are_refused() -> None:
    stream, stamps = coded_stream()
    twice = np.concatenate([stream.data["current"]] * 2)
    with pytest.raises(DataError, match="does not stand out"):
        locate(twice, 1e3, stamps)


def test_a_trace_that_ends_before_the_pattern_is_refused() -> None:
    stream, stamps = coded_stream()
    with pytest.raises(DataError, match="does not stand out"):
        locate(stream.data["current"][:2100], 1e3, stamps)


def test_a_second_playing_that_was_not_recorded_is_refused() -> None:
    """Two playings look alike: with one in the trace nobody can say which, unless it is the only one asked for."""
    stream, stamps = coded_stream()
    later = [replace(stamp, monotonic_ns=(stamp.monotonic_ns or 0) + 60_000_000_000) for stamp in stamps]
    with pytest.raises(DataError, match="does not stand out"):
        locate(stream.data["current"], 1e3, [*stamps, *later])
    assert locate(stream.data["current"], 1e3, stamps).offset_ns == pytest.approx(5e9, abs=1e5)
