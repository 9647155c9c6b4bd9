"""Samples at an instant, counters, and readings that are polled: each against closed forms."""

from __future__ import annotations

import functools
import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers import loaded, metered, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from joulemeter.capture import ArrayStream, Block, Gap, Kind, Quantity, Status
from joulemeter.caveat import Code
from joulemeter.errors import DataError
from joulemeter.physics.integrate import complement, envelope, integrate
from joulemeter.physics.kinds import covered_until_ns
from joulemeter.synthetic import parse_load
from joulemeter.window import Window, WindowEnergy

Float = NDArray[np.float64]
Int = NDArray[np.int64]
RATE = 1000.0
POWER, ENERGY, CHARGE, CURRENT, VOLTAGE = (
    Quantity.POWER, Quantity.ENERGY, Quantity.CHARGE, Quantity.CURRENT, Quantity.VOLTAGE
)  # fmt: skip


def window(start_s: float, stop_s: float) -> Window:
    return Window(start_ns=round(start_s * 1e9), stop_ns=round(stop_s * 1e9), index=0)


def energy(one: ArrayStream, start_s: float, stop_s: float) -> WindowEnergy:
    return integrate(one, [window(start_s, stop_s)])[0]


def stamps(seconds: list[float]) -> Int:
    return np.round(np.array(seconds) * 1e9).astype(np.int64)


class Chopped(ArrayStream):
    """The same stream, told in blocks of `size`."""

    size = 7

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        for block in ArrayStream.blocks(self, start, stop):
            for i in range(0, len(block), self.size):
                j = i + self.size
                yield replace(
                    block,
                    first_index=block.first_index + i,
                    data={name: values[i:j] for name, values in block.data.items()},
                    lost_before=block.lost_before if i == 0 else 0,
                    status=None if block.status is None else block.status[i:j],
                    times_ns=None if block.times_ns is None else block.times_ns[i:j],
                )


def chopped(one: ArrayStream) -> ArrayStream:
    return Chopped(**{name: getattr(one, name) for name in one.__slots__})


def counter(power: Float, seconds: Float, wrap: float | None = None) -> Float:
    """Readings (n + 1,) of a counter while each power lasts for so long."""
    total = np.concatenate([[0.0], np.cumsum(power * seconds)])
    return total if wrap is None else np.mod(total, wrap)


# -- instants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "stop"), [(0, 9), (1.5, 3.25), (2.25, 2.75), (2.5, 3), (0.1, 8.9)])
def test_a_ramp_of_instants_is_integrated_as_the_ramp(start: float, stop: float) -> None:
    one = metered({CURRENT: np.arange(10.0)}, Kind.INSTANT, 1.0, volts=2.0)
    found = energy(one, start, stop)
    assert found.charge_c == pytest.approx((stop**2 - start**2) / 2, rel=1e-12)
    assert found.energy_j == pytest.approx(stop**2 - start**2, rel=1e-12)
    assert found.peak_power_w == pytest.approx(2 * stop)
    assert found.samples == pytest.approx(stop - start)
    assert (found.missing_s, found.resolution_j) == (0.0, 0.0)


def test_current_and_voltage_at_an_instant_are_multiplied_before_the_trapezoid() -> None:
    amps, volts = np.array([1.0, 2, 4, 3]), np.array([5.0, 4, 6, 5])
    found = energy(metered({CURRENT: amps, VOLTAGE: volts}, Kind.INSTANT, 1.0), 0, 3)
    assert found.energy_j == pytest.approx(5 / 2 + 8 + 24 + 15 / 2)
    assert found.charge_c == pytest.approx(1 / 2 + 2 + 4 + 3 / 2)


def test_instants_beside_a_hole_or_nan_cover_nothing() -> None:
    one = metered({POWER: np.ones(20)}, Kind.INSTANT, 1.0, gaps=(Gap(index=15, lost=5),))
    assert energy(one, 0, 24).missing_s == pytest.approx(6.0)  # between sample 9 and sample 15
    assert energy(one, 0, 24).energy_j == pytest.approx(18.0)
    assert energy(one, 2, 9).missing_s == 0.0
    assert energy(one, 10, 14).energy_j is None
    broken = np.ones(20)
    broken[5] = np.nan
    found = energy(metered({POWER: broken}, Kind.INSTANT, 1.0), 0, 19)
    assert found.energy_j == pytest.approx(17.0)
    assert found.missing_s == pytest.approx(2.0)
    assert Code.LOST_SAMPLES in found.caveats


@pytest.mark.parametrize("kind", [Kind.MEAN, Kind.INSTANT])
def test_where_one_of_power_and_current_is_unknown_neither_counts(kind: Kind) -> None:
    amps = np.ones(10)
    amps[4] = np.nan
    found = energy(metered({POWER: np.ones(10), CURRENT: amps}, kind, 1.0), 0, 9)
    lost = 1.0 if kind is Kind.MEAN else 2.0
    assert found.missing_s == pytest.approx(lost)
    assert found.energy_j == pytest.approx(9 - lost)
    assert found.charge_c == pytest.approx(9 - lost)


def test_samples_end_where_energy_is_no_longer_known() -> None:
    ends = {name: covered_until_ns(one) for name, (one, _) in every_kind().items()}
    assert (ends["mean with delay"], ends["instant"], ends["counter with holes"]) == (10**9, 999 * 10**6, 999 * 10**6)
    polled = every_kind()["polled mean"][0]
    assert polled.times_ns is not None
    assert covered_until_ns(chopped(polled)) == polled.times_ns[-1]
    for one, _ in every_kind().values():
        found = energy(one, 0.6, covered_until_ns(one) * 1e-9)
        assert found.missing_s == 0.0


def test_marks_of_instants_are_kept() -> None:
    values = np.array([1.0, 1, 1, 5, 5, 9, 9, 9, 9, 9])
    one = replace(
        metered({POWER: values}, Kind.INSTANT, 1.0),
        status=np.array([0, 0, 0, Status.ALTERED, Status.ALTERED, 0, 0, 0, Status.CLIPPED, 0], dtype=np.uint8),
    )
    found = energy(one, 0, 9)
    assert (found.altered_samples, found.clipped_samples) == (2, 1)
    assert found.altered_j == pytest.approx(2 * (9 - 1))


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.lists(st.tuples(st.floats(0, 98), st.floats(0, 98)), max_size=6)
)
def test_instants_agree_with_a_plain_trapezoid(seed: int, size: int, spans: list[tuple[float, float]]) -> None:
    values = np.random.default_rng(seed).lognormal(-8, 3, 100)
    one = chopped(metered({POWER: values}, Kind.INSTANT, 1.0))
    Chopped.size = size
    for a, b in (sorted(span) for span in spans):
        if b - a < 1e-3:
            continue
        wanted = window(a, b)
        start, stop = wanted.start_ns / 1e9, wanted.stop_ns / 1e9
        x = [start, *range(math.floor(start) + 1, math.ceil(stop)), stop]
        y = np.interp(x, np.arange(100), values).tolist()
        truth = math.fsum((y0 + y1) / 2 * (x1 - x0) for (x0, y0), (x1, y1) in pairwise(zip(x, y, strict=True)))
        assert integrate(one, [wanted])[0].energy_j == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("kind", [Kind.MEAN, Kind.INSTANT])
@pytest.mark.parametrize("rate_hz", [1e3, 1e5, 1e6])
def test_a_thousand_windows_lie_within_a_sample_of_the_truth(kind: Kind, rate_hz: float) -> None:
    period_s = 2003.7 / rate_hz
    load = parse_load(f"50mA/{0.4 * period_s}s,1uA/{0.6 * period_s}s")
    one = loaded(load, 1002 * period_s, rate_hz)
    if kind is Kind.INSTANT:
        at = np.arange(one.length) / rate_hz % period_s
        current = replace(one.header.channels[0], kind=kind)
        one = replace(
            one,
            header=replace(one.header, channels=(current, one.header.channels[1])),
            data={**one.data, "current": np.where(at < 0.4 * period_s, 0.05, 1e-6)},
        )
    windows = [window(k * period_s, (k + 0.4) * period_s) for k in range(1, 1001)]
    truth = 3.0 * 0.05 * 0.4 * period_s
    errors = [(found.energy_j or 0.0) - truth for found in integrate(one, windows)]
    assert max(map(abs, errors)) <= 3.0 * 0.05 / rate_hz


# -- the whole is the sum of its parts --------------------------------------------------------------------------------


@functools.cache
def every_kind() -> dict[str, tuple[ArrayStream, float]]:
    """Streams of each kind from 0 to about 1 s, with their whole energy."""
    rng = np.random.default_rng(11)
    power = rng.lognormal(0, 2, 1000)
    steps = rng.uniform(0.2e-3, 2e-3, 999)
    polled = np.concatenate([[0], np.cumsum(np.round(steps * 1e9))]).astype(np.int64)
    width = np.diff(polled) * 1e-9
    gaps = (Gap(index=400, lost=20),)
    hold = metered({POWER: power}, Kind.STATE, RATE)
    tame = rng.lognormal(0, 0.5, 999)
    total = counter(tame, np.full(999, 1e-3), wrap=0.3)
    return {
        "instant": (metered({POWER: power}, Kind.INSTANT, RATE), float(np.trapezoid(power)) / RATE),
        "state": (hold, math.fsum(power[:-1]) / RATE),
        "counter": (metered({ENERGY: total}, Kind.CUMULATIVE, RATE, wrap=0.3), math.fsum(tame) / RATE),
        "counter with holes": (
            metered({ENERGY: counter(power[:979], np.full(979, 1e-3))[:980]}, Kind.CUMULATIVE, RATE, gaps=gaps),
            math.fsum(power[:979]) / RATE,
        ),
        "polled instant": (
            metered({POWER: power}, Kind.INSTANT, RATE, times_ns=polled),
            math.fsum((power[1:] + power[:-1]) / 2 * width),
        ),
        "polled mean": (metered({POWER: power}, Kind.MEAN, RATE, times_ns=polled), math.fsum(power[1:] * width)),
        "polled counter": (
            metered({ENERGY: counter(power[1:], width)}, Kind.CUMULATIVE, RATE, times_ns=polled),
            math.fsum(power[1:] * width),
        ),
        "mean with delay": (
            metered({POWER: power}, Kind.MEAN, RATE, refresh_s=0.01),
            math.fsum(power) / RATE,
        ),
    }


@pytest.mark.parametrize("name", list(every_kind()))
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 999_999), st.integers(1, 200_000)), max_size=10), st.integers(1, 90))
def test_windows_and_the_rest_make_the_whole(name: str, spans: list[tuple[int, int]], size: int) -> None:
    one, whole = every_kind()[name]
    Chopped.size = size
    end_ns = 2_000_000_000
    windows: list[Window] = []
    for start, length in sorted(spans):
        if not windows or start * 1000 >= windows[-1].stop_ns:
            windows.append(Window(start_ns=start * 1000, stop_ns=(start + length) * 1000, index=len(windows)))
    parts = integrate(chopped(one), [*windows, *complement(windows, 0, end_ns)])
    assert math.fsum(part.energy_j or 0.0 for part in parts) == pytest.approx(whole, rel=1e-12)
    for part, alone in zip(parts, integrate(one, [part.window for part in parts]), strict=True):
        assert part.energy_j == (None if alone.energy_j is None else pytest.approx(alone.energy_j, rel=1e-11))
        assert part.samples == pytest.approx(alone.samples, abs=1e-6)
        assert part.resolution_j == pytest.approx(alone.resolution_j, rel=1e-9)
        assert part.caveats == alone.caveats


def test_means_come_out_the_same_as_sums_and_as_pieces() -> None:
    power = np.random.default_rng(5).lognormal(-8, 3, 1000)
    power[300] = np.nan
    windows = [window(0.0105, 0.7301), window(0.3, 0.3005), window(0.9993, 1.0)]
    plain = integrate(metered({POWER: power}, Kind.MEAN, RATE), windows)
    pieces = integrate(metered({POWER: power}, Kind.MEAN, RATE, refresh_s=1e-9), windows)
    for a, b in zip(plain, pieces, strict=True):
        assert a.energy_j == (None if b.energy_j is None else pytest.approx(b.energy_j, rel=1e-12))
        assert a.missing_s == pytest.approx(b.missing_s, abs=1e-12)
        assert a.edge_power_w == pytest.approx(b.edge_power_w) or a.energy_j is None


def test_energy_by_range_adds_up_to_the_energy() -> None:
    from joulemeter.capture import Channel

    ranges = Channel(name="range", quantity=Quantity.RANGE, unit="", kind=Kind.STATE)
    for kind in (Kind.MEAN, Kind.INSTANT):
        one = metered({POWER: np.array([1.0, 2, 3, 4, 5, 6])}, kind, 1.0)
        one = replace(
            one,
            header=replace(one.header, channels=(*one.header.channels, ranges)),
            data={**one.data, "range": np.array([0, 0, 1, 1, 2, 2], dtype=np.uint8)},
        )
        found = energy(one, 0.5, 3.25)
        assert math.fsum(found.energy_by_range_j.values()) == pytest.approx(found.energy_j, rel=1e-12)
        assert dict(found.dwell_by_range_s) == pytest.approx({0: 1.5, 1: 1.25})


# -- counters ---------------------------------------------------------------------------------------------------------


def test_a_counter_is_the_difference_of_its_interpolated_readings() -> None:
    one = metered({ENERGY: np.array([7.0, 7.5, 9.5, 10.0, 14.0])}, Kind.CUMULATIVE, 1.0)
    found = energy(one, 0.5, 3.25)
    assert found.energy_j == pytest.approx((10 + 0.25 * 4) - (7 + 0.5 * 0.5), rel=1e-12)
    assert found.peak_power_w == pytest.approx(4.0)
    assert found.charge_c is None
    # Half a reading's spacing of the power at either edge.
    assert found.resolution_j == pytest.approx(0.5 * (0.5 + 4.0), abs=0.8)
    charge = metered({CHARGE: np.array([0.0, 1.0, 3.0])}, Kind.CUMULATIVE, 1.0, volts=2.0)
    assert energy(charge, 0, 2).energy_j == pytest.approx(6.0)
    assert energy(charge, 0, 2).charge_c == pytest.approx(3.0)
    measured = metered({CHARGE: np.array([0.0, 1, 3]), VOLTAGE: np.array([2.0, 4, 2])}, Kind.CUMULATIVE, 1.0)
    assert energy(measured, 0, 2).energy_j == pytest.approx(3.0 * 1 + 3.0 * 2)


RAPL_WRAP = 2.0**32 * 2.0**-14  # 2^32 units of 61.04 uJ: 262 kJ


def rapl(power: Float, seconds: Float) -> ArrayStream:
    unit = 2.0**-14
    readings = np.floor(np.mod(123_456.0 + counter(power, seconds), RAPL_WRAP) / unit) * unit
    times = np.concatenate([[0.0], np.cumsum(seconds)])
    return metered({ENERGY: readings}, Kind.CUMULATIVE, 1.0, times_ns=stamps(times.tolist()), wrap=RAPL_WRAP)


def test_a_counter_like_rapl_turns_over() -> None:
    power = np.where(np.arange(7200) // 60 % 2, 95.0, 20.0)
    one = rapl(power, np.ones(7200))
    assert (np.diff(one.data["energy"]) < 0).sum() == 2
    found = energy(one, 0, 7200)
    assert found.energy_j == pytest.approx(power.sum(), abs=2 * 2.0**-14)
    assert (found.missing_s, found.caveats) == (0.0, ())
    minute = energy(chopped(one), 60, 120)
    assert minute.energy_j == pytest.approx(95.0 * 60, abs=2 * 2.0**-14)
    assert minute.resolution_j == pytest.approx(95.0, rel=1e-3)


def test_turns_nobody_saw_are_counted_where_power_allows_one_answer_only() -> None:
    steady = rapl(np.full(20, 100.0), np.array([1.0] * 10 + [9000.0] + [1.0] * 9))
    assert energy(steady, 0, 9019).energy_j == pytest.approx(901_900.0, abs=1e-3)  # three turns in one step
    wild = rapl(np.array([20.0, 100.0] * 5 + [60.0] + [20.0] * 9), np.array([1.0] * 10 + [9000.0] + [1.0] * 9))
    found = energy(wild, 0, 9019)
    assert found.missing_s == pytest.approx(9000.0)
    assert {Code.COUNTER_RESET, Code.LOST_SAMPLES} <= set(found.caveats)


def test_a_counter_that_began_anew_is_missing_and_not_negative() -> None:
    total = np.concatenate([np.arange(0, 100, 2.0), np.arange(0, 100, 2.0)])
    plain = energy(metered({ENERGY: total}, Kind.CUMULATIVE, 1.0), 0, 99)
    assert plain.energy_j == pytest.approx(196.0)
    assert plain.missing_s == pytest.approx(1.0)
    assert Code.COUNTER_RESET in plain.caveats
    # 2^32 units after 100 J is no turn: it would be 262 kJ in a second at 2 W.
    wrapping = metered({ENERGY: total}, Kind.CUMULATIVE, 1.0, wrap=RAPL_WRAP)
    assert energy(wrapping, 0, 99).energy_j == pytest.approx(196.0)
    assert Code.COUNTER_RESET not in energy(wrapping, 60, 80).caveats


def nvml(edges_s: list[float], idle_w: float, busy_w: float, end_s: float, seed: int) -> ArrayStream:
    """A counter of millijoules that moves every 100 ms, polled every 10 ms or so; power steps at each edge."""
    rng = np.random.default_rng(seed)
    polls = np.cumsum(rng.uniform(8e-3, 12e-3, int(end_s / 0.01)))
    refreshed = np.floor((polls - 0.037) / 0.1) * 0.1 + 0.037
    knots = np.array([-1.0, 0.0, *edges_s, end_s + 2])
    power = np.where(np.arange(len(knots) - 1) % 2 == 0, busy_w, idle_w)
    power[0] = idle_w
    totals = np.concatenate([[0.0], np.cumsum(power * np.diff(knots))])
    readings = np.floor(np.interp(refreshed, knots, totals) * 1e3) / 1e3 + 5000.0
    return metered(
        {ENERGY: readings}, Kind.CUMULATIVE, 100.0, times_ns=np.round(polls * 1e9).astype(np.int64), refresh_s=0.1
    )


def test_windows_of_a_slow_counter_lie_within_their_resolution() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for seed in range(60):
        start = 1.0 + rng.uniform(0, 0.1)
        stop = start + rng.uniform(1.0, 2.0)
        found = energy(nvml([start, stop], 60.0, 300.0, 5.0, seed), start, stop)
        truth = 300.0 * (stop - start)
        assert abs((found.energy_j or 0.0) - truth) <= found.resolution_j
        assert 300 * 0.1 * 0.5 <= found.resolution_j <= 300 * 0.1 * 1.3
        inside += abs((found.energy_j or 0.0) - truth) <= found.resolution_j / math.sqrt(3)
    assert inside > 30


def test_windows_shorter_than_several_refreshes_are_flagged() -> None:
    one = nvml([1.0, 4.0], 60.0, 300.0, 6.0, 1)
    assert Code.FEW_SAMPLES in energy(one, 1.0, 1.4).caveats
    assert Code.FEW_SAMPLES not in energy(one, 1.0, 3.0).caveats
    steady = energy(one, 1.5, 3.5)
    assert steady.energy_j == pytest.approx(600.0, rel=0.01)  # polls find the refresh to 10 ms in 2 s


def test_a_counter_that_stands_still_has_not_been_lost() -> None:
    total = np.concatenate([np.linspace(0, 1, 101), np.ones(100), np.linspace(1, 2, 101)[1:]])
    times = np.arange(len(total)) * 10_000_000
    one = metered({ENERGY: total}, Kind.CUMULATIVE, 100.0, times_ns=times, refresh_s=0.02)
    for told in (one, chopped(one)):
        assert energy(told, 1.1, 1.9).energy_j == pytest.approx(0.0, abs=1e-12)
        assert energy(told, 0.0, 3.0).energy_j == pytest.approx(2.0)
        assert energy(told, 0.0, 3.0).missing_s == 0.0
    ended = metered({ENERGY: total[:150]}, Kind.CUMULATIVE, 100.0, times_ns=times[:150], refresh_s=0.02)
    assert energy(ended, 1.1, 1.4).energy_j == pytest.approx(0.0, abs=1e-12)


def test_totals_are_no_flows_and_flows_no_totals() -> None:
    for quantity, kind in ((CURRENT, Kind.CUMULATIVE), (ENERGY, Kind.MEAN)):
        with pytest.raises(DataError, match=str(kind)):
            integrate(metered({quantity: np.ones(3)}, kind, 1.0), [window(0, 1)])


# -- polled readings --------------------------------------------------------------------------------------------------

AT = stamps([0.0, 1.0, 3.0, 3.5, 5.5])
READ = np.array([2.0, 4.0, 8.0, 6.0, 6.0])


def test_polled_readings_by_hand() -> None:
    instant = energy(metered({POWER: READ}, Kind.INSTANT, 1.0, times_ns=AT), 0.5, 4.5)
    assert instant.energy_j == pytest.approx((3 + 4) / 2 * 0.5 + 12.0 + 3.5 + 6.0)
    mean = energy(metered({POWER: READ}, Kind.MEAN, 1.0, times_ns=AT), 0.5, 4.5)
    assert mean.energy_j == pytest.approx(0.5 * 4 + 2 * 8 + 0.5 * 6 + 1.0 * 6)
    held = energy(metered({POWER: READ}, Kind.STATE, 1.0, times_ns=AT), 0.5, 4.5)
    assert held.energy_j == pytest.approx(0.5 * 2 + 2 * 4 + 0.5 * 8 + 1.0 * 6)
    for found in (instant, mean, held):
        assert found.samples == pytest.approx(0.5 + 1 + 1 + 0.5)
        assert Code.FEW_SAMPLES in found.caveats
        assert found.missing_s == 0.0
    # At the first edge readings are 2 s apart at most and differ by 6 W; at the last one 2 s and 2 W.
    assert instant.resolution_j == pytest.approx(2 / 2 * 6 + 2 / 2 * 2, abs=2.0)


def test_a_stalled_poller_leaves_a_hole() -> None:
    at = stamps([*np.arange(0, 5, 0.1).tolist(), *np.arange(20, 25, 0.1).tolist()])
    one = metered({POWER: np.ones(len(at))}, Kind.INSTANT, 10.0, times_ns=at)
    assert energy(one, 0, 24.5).missing_s == pytest.approx(20 - 4.9)
    (bridged,) = integrate(one, [window(0, 24.5)], max_gap_s=60.0)
    assert bridged.energy_j == pytest.approx(24.5)
    total = metered({ENERGY: at.astype(np.float64) * 1e-9}, Kind.CUMULATIVE, 10.0, times_ns=at)
    assert energy(total, 0, 24.5).energy_j == pytest.approx(24.5)
    (cut,) = integrate(total, [window(0, 24.5)], max_gap_s=1.0)
    assert cut.missing_s == pytest.approx(20 - 4.9)


def test_stamps_may_not_run_backwards() -> None:
    one = metered({POWER: READ}, Kind.INSTANT, 1.0, times_ns=AT[::-1].copy())
    with pytest.raises(DataError, match="backwards"):
        energy(one, 0, 1)


def test_readings_ten_times_a_second_place_long_windows_within_their_resolution() -> None:
    """A USB meter: 5 W idle, 9 W busy, polled every 0.1 s with jitter."""
    rng = np.random.default_rng(8)
    for kind in (Kind.INSTANT, Kind.MEAN):
        for _ in range(50):
            start, stop = 2 + rng.uniform(0, 0.1), 6 + rng.uniform(0, 0.1)
            at: Float = np.cumsum(rng.uniform(0.09, 0.11, 100))
            total = 5.0 * at + 4.0 * np.clip(at - start, 0, stop - start)
            power: Float = np.where((at >= start) & (at < stop), 9.0, 5.0)
            if kind is Kind.MEAN:
                power = np.concatenate([[5.0], np.diff(total) / np.diff(at)])
            one = metered({POWER: power}, kind, 10.0, times_ns=np.round(at * 1e9).astype(np.int64))
            found = energy(one, start, stop)
            assert abs((found.energy_j or 0.0) - 9.0 * (stop - start)) <= found.resolution_j <= 0.5


# -- drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(every_kind()))
def test_an_envelope_holds_the_energy(name: str) -> None:
    one, whole = every_kind()[name]
    drawn = envelope(chopped(one), 37)
    last = one.length / RATE if one.times_ns is None else float(one.times_ns[-1]) * 1e-9
    widths = np.diff(np.minimum(np.arange(len(drawn.mean) + 1) * drawn.step_s, last))
    if one.times_ns is None and "mean" not in name:
        widths[-1] -= 1 / RATE  # the last instant covers no time
    assert math.fsum(drawn.mean * widths) == pytest.approx(whole, rel=1e-9)
    assert (drawn.low <= drawn.mean + 1e-9).all()
    assert (drawn.mean <= drawn.high + 1e-9).all()


def test_an_envelope_of_few_readings_fills_its_spans() -> None:
    drawn = envelope(metered({POWER: READ}, Kind.INSTANT, 1.0, times_ns=AT), 100)
    assert not np.isnan(drawn.mean).any()
    assert drawn.step_s == pytest.approx(0.055)
    assert np.nanmax(drawn.high) == pytest.approx(8.0)


def test_an_empty_stream_knows_nothing() -> None:
    assert energy(metered({POWER: np.empty(0)}, Kind.INSTANT, 1.0), 0, 1).energy_j is None
    assert energy(stream(np.empty(0), np.empty(0, dtype=np.uint8), 1.0), 0, 1).energy_j is None


class Endless:
    """Blocks made as they are asked for, so that only what integration keeps takes memory."""

    name = "endless"
    gaps = ()

    def __init__(self, like: ArrayStream, count: int, polled: bool) -> None:
        self.header, self.timebase, self._count, self._polled = like.header, like.timebase, count, polled
        self.length = count * 10_000

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        name = self.header.channels[0].name
        for k in range(self._count):
            index = k * 10_000 + np.arange(10_000)
            yield Block(
                first_index=k * 10_000,
                data={name: index.astype(np.float64)},
                times_ns=index * 1_000_000 if self._polled else None,
            )


@pytest.mark.parametrize("polled", [False, True])
@pytest.mark.parametrize(
    ("quantity", "kind"), [(POWER, Kind.MEAN), (POWER, Kind.INSTANT), (POWER, Kind.STATE), (ENERGY, Kind.CUMULATIVE)]
)
def test_long_recordings_take_no_more_memory(quantity: Quantity, kind: Kind, polled: bool) -> None:
    like = metered({quantity: np.ones(1)}, kind, RATE, refresh_s=0.001 if kind is Kind.CUMULATIVE else None)
    peaks = []
    for count in (10, 10, 80):
        tracemalloc.start()
        integrate(Endless(like, count, polled), [window(0, 10 * count)])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1]
