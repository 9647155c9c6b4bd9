"""Windows from power steps alone: made-up recordings with known edges, and real ones judged by their stamps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import loaded, metered, stream
from numpy.typing import NDArray

from joulemeter import synthetic
from joulemeter.capture import ArrayStream, Gap, Kind, Quantity
from joulemeter.errors import DataError
from joulemeter.loading import opened
from joulemeter.physics.align import align
from joulemeter.physics.integrate import integrate
from joulemeter.physics.shape import GOOD_CONFIDENCE, LEAST_CONFIDENCE, Hint, find
from joulemeter.trigger import parse_trigger
from joulemeter.window import Window

DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "mlperf_tiny"
Float = NDArray[np.float64]


def pulses(
    *,
    count: int = 6,
    period_s: float = 2.0,
    width_s: float = 1.0,
    rate_hz: float = 1e3,
    high_a: float = 2e-3,
    low_a: float = 1e-3,
    noise_a: float = 1e-5,
    lead_s: float = 1.0,
) -> tuple[Float, Float]:
    """Mean current of each sample, exact in closed form but for the noise, and (count, 2) true edges in seconds."""
    rng = np.random.default_rng(7)
    # An edge in the middle of a sample is the hard case; whole samples would flatter.
    starts = lead_s + np.arange(count) * period_s + 0.37 / rate_hz
    borders = np.arange(round((lead_s + count * period_s) * rate_hz) + 1) / rate_hz
    charge = low_a * borders
    for start in starts:
        charge = charge + (high_a - low_a) * np.clip(borders - start, 0.0, width_s)
    current = np.diff(charge) * rate_hz
    return current + noise_a * rng.standard_normal(len(current)), np.stack([starts, starts + width_s], axis=1)


def meter(current_a: Float, rate_hz: float = 1e3, gaps: tuple[Gap, ...] = ()) -> ArrayStream:
    return stream(current_a, np.zeros(len(current_a), dtype=np.uint8), rate_hz, gaps=gaps)


def edges(shape_spans: tuple[tuple[int, int], ...]) -> Float:
    return np.array(shape_spans, dtype=np.float64) * 1e-9


def test_short_pulses_at_100_khz_are_placed_within_a_tenth_of_a_sample() -> None:
    current, truth = pulses(count=10, period_s=0.1, width_s=0.02, rate_hz=1e5, high_a=8e-3, noise_a=1e-4, lead_s=0.05)
    shape = find(meter(current, 1e5))
    assert shape.kind == "above"
    assert edges(shape.spans) == pytest.approx(truth, abs=0.1e-5)
    assert shape.confidence > GOOD_CONFIDENCE
    assert max(*shape.u_start_s, *shape.u_stop_s) < 0.1e-5
    # 3 V: 8 mA and 1 mA.
    assert shape.level_high_w == pytest.approx(24e-3, rel=0.01)
    assert shape.level_low_w == pytest.approx(3e-3, rel=0.01)


def test_edge_uncertainty_covers_the_error() -> None:
    current, truth = pulses(count=300, period_s=0.1, width_s=0.02, rate_hz=1e4, high_a=8e-3, noise_a=2e-4, lead_s=0.05)
    shape = find(meter(current, 1e4))
    assert len(shape.spans) == 300
    off = np.abs(edges(shape.spans) - truth)
    share = np.mean(off < 2 * np.stack([shape.u_start_s, shape.u_stop_s], axis=1))
    assert share > 0.9


def test_a_burst_with_ripple_is_one_window() -> None:
    current, truth = pulses()
    inside = np.zeros(len(current), dtype=bool)
    for start, stop in truth:
        inside[round(start * 1e3) : round(stop * 1e3)] = True
    # 25 inferences per burst, each drawing between 0.4 mA less and more.
    current[inside] += 0.4e-3 * np.sign(np.sin(2 * np.pi * 25 * np.flatnonzero(inside) / 1e3))
    shape = find(meter(current))
    assert edges(shape.spans) == pytest.approx(truth, abs=1e-3)
    assert shape.confidence > GOOD_CONFIDENCE


def test_low_going_windows_are_found_and_doubted_and_a_hint_settles_it() -> None:
    current, truth = pulses(count=8, period_s=0.5, width_s=0.2, rate_hz=1e4, high_a=6e-3, low_a=8e-3, lead_s=0.3)
    shape = find(meter(current, 1e4))
    assert shape.kind == "below"
    assert edges(shape.spans) == pytest.approx(truth, abs=1e-4)
    assert LEAST_CONFIDENCE < shape.confidence < GOOD_CONFIDENCE
    assert any("above" in told for told in shape.alternatives)
    sure = find(meter(current, 1e4), hint=Hint(direction="below", count=8))
    assert sure.spans == shape.spans
    assert sure.confidence > GOOD_CONFIDENCE
    # The other way round the gaps are the windows.
    assert len(find(meter(current, 1e4), hint=Hint(direction="above")).spans) == 7


def test_a_wrong_hint_lowers_the_confidence() -> None:
    current, _ = pulses()
    plain = find(meter(current))
    assert find(meter(current), hint=Hint(duration_s=1.0)).confidence == pytest.approx(plain.confidence, rel=0.01)
    with pytest.raises(DataError):
        find(meter(current), hint=Hint(duration_s=5.0))
    with pytest.raises(DataError):
        find(meter(current), hint=Hint(count=9))


@pytest.mark.parametrize("drift_a", [0.2e-3, 1e-3, 3e-3])
def test_a_drifting_baseline_does_not_hide_the_steps(drift_a: float) -> None:
    current, truth = pulses()
    shape = find(meter(current + np.linspace(0.0, drift_a, len(current))))
    assert edges(shape.spans) == pytest.approx(truth, abs=1e-3)


def test_steps_as_large_as_the_noise_are_found() -> None:
    current, truth = pulses(noise_a=1e-3)
    shape = find(meter(current))
    assert edges(shape.spans) == pytest.approx(truth, abs=0.02)
    assert max(shape.u_start_s) > 0.5e-3


def test_nan_at_an_edge_widens_it_and_inside_a_window_does_not() -> None:
    current, truth = pulses()
    current[1400:1500] = np.nan
    current[3900:4100] = np.nan
    shape = find(meter(current))
    found = edges(shape.spans)
    off = np.abs(found - truth)
    # The second window stops, at 4.0 s, within the hole of 200 ms.
    assert shape.u_stop_s[1] == pytest.approx(0.2 / 12**0.5, rel=0.05)
    off[1, 1] = 0.0
    assert off.max() < 1e-3
    assert abs(found[1, 1] - truth[1, 1]) <= 0.1


def test_time_goes_on_over_a_gap() -> None:
    current, truth = pulses()
    lost = slice(2200, 2700)
    kept = np.concatenate([current[: lost.start], current[lost.stop :]])
    shape = find(meter(kept, gaps=(Gap(index=2700, lost=500),)))
    assert edges(shape.spans) == pytest.approx(truth, abs=1e-3)


def test_a_long_recording_is_thinned_and_still_placed_to_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    current, truth = pulses(rate_hz=1e5)
    monkeypatch.setattr("joulemeter.physics.changepoints.thinned.__defaults__", (5000,))
    shape = find(meter(current, 1e5))
    assert edges(shape.spans) == pytest.approx(truth, abs=1e-5)


def nothing() -> dict[str, Float]:
    rng = np.random.default_rng(3)
    count = 20000
    one_step = np.where(np.arange(count) < count // 2, 1e-3, 2e-3)
    return {
        "constant": np.full(count, 1e-3),
        "noise": 1e-3 + 1e-4 * rng.standard_normal(count),
        "one step": one_step + 1e-5 * rng.standard_normal(count),
        "ramp": np.linspace(1e-3, 2e-3, count) + 1e-6 * rng.standard_normal(count),
        "random walk": 0.1 + 1e-4 * np.cumsum(rng.standard_normal(count)),
    }


@pytest.mark.parametrize("name", nothing())
def test_nothing_is_invented(name: str) -> None:
    with pytest.raises(DataError, match="shows no windows"):
        find(meter(nothing()[name]))


def test_noise_is_never_taken_for_windows() -> None:
    rng = np.random.default_rng(11)
    for _ in range(20):
        with pytest.raises(DataError):
            find(meter(1e-3 + 1e-4 * rng.standard_normal(5000)))


def test_a_single_pulse_is_not_a_pattern() -> None:
    current, truth = pulses(count=1, lead_s=3.0, period_s=4.0)
    shape = find(meter(current))
    assert edges(shape.spans) == pytest.approx(truth, abs=1e-3)
    assert shape.confidence < LEAST_CONFIDENCE


def test_without_a_sample_there_is_no_shape() -> None:
    with pytest.raises(DataError, match="no good sample"):
        find(meter(np.full(1000, np.nan)))


def test_the_simulated_board_starts_in_a_pulse_which_is_left_out() -> None:
    load = synthetic.parse_load("8mA/20ms/d0,1.2uA/80ms")
    shape = find(loaded(load, 1.0, 1e5))
    # The first pulse has no start in the recording.
    assert edges(shape.spans)[:, 0] == pytest.approx(np.arange(1, 10) * 0.1, abs=1e-6)
    assert edges(shape.spans)[:, 1] == pytest.approx(np.arange(1, 10) * 0.1 + 0.02, abs=1e-6)
    assert LEAST_CONFIDENCE < shape.confidence < GOOD_CONFIDENCE


REAL = (
    "v1.1__STMicroelectronics__NUCLEO_U575ZI_Q_kws",
    "v1.0__greenwaves-technologies__gap9_650_240_image_classification__ic",
    "v1.0__syntiant__syntiant_9120_0v9_30mhz_kws",
    "v1.1__STMicroelectronics__NUCLEO_H7A3ZI_Q_ic",
    "v1.3__STMicroelectronics__NUCLEO_U385RG_Q_ad",
    "v0.7__hls4ml-finn__arty-a7-100t_ic_RN07",
)


@pytest.mark.outside
@pytest.mark.skipif(
    not DATA.is_dir(), reason="the recordings are not beside this checkout (../shared/data/mlperf_tiny)"
)
@pytest.mark.parametrize("name", REAL)
def test_published_windows_are_found_without_their_stamps(name: str) -> None:
    with opened(DATA / name) as recording:
        power = recording.streams[0]
        count = recording.meta["inferences_per_window"]
        stamped = align(recording, power, parse_trigger(recording.trigger or ""), inferences_per_window=count).windows
        shape = find(power)
        ours = [Window(start_ns=start, stop_ns=stop, index=k) for k, (start, stop) in enumerate(shape.spans)]
        assert len(ours) == len(stamped) == 5
        assert shape.confidence > GOOD_CONFIDENCE
        measured, published = integrate(power, ours), integrate(power, stamped)
    for window, stamp, mine, theirs in zip(ours, stamped, measured, published, strict=True):
        # One warm-up inference runs before the start stamp.
        assert (window.start_ns - stamp.start_ns) * 1e-9 == pytest.approx(-stamp.latency_s, abs=0.05)
        assert (window.stop_ns - stamp.stop_ns) * 1e-9 == pytest.approx(0.0, abs=0.05)
        assert mine.mean_power_w == pytest.approx(theirs.mean_power_w, rel=0.005)


@pytest.mark.parametrize("counts", [False, True], ids=["readings", "counter"])
def test_readings_that_were_asked_for_are_placed_by_their_stamps(counts: bool) -> None:
    """The first reading is late and the pace uneven: an index says nothing about time."""
    random = np.random.default_rng(3)
    times_s = 2.7 + np.cumsum(random.uniform(0.18, 0.32, 400))
    phase = (times_s - 4.0) % 9.0
    high_s = np.floor((times_s - 4.0) / 9.0) * 6.0 + np.minimum(phase, 6.0)
    values = 1.5 * times_s + 3.0 * high_s if counts else np.where(phase < 6.0, 4.5, 1.5)
    readings = metered(
        {Quantity.ENERGY if counts else Quantity.POWER: values},
        Kind.CUMULATIVE if counts else Kind.INSTANT,
        4.0,
        times_ns=np.rint(times_s * 1e9).astype(np.int64),
    )
    found = find(readings)
    starts = np.array([start for start, _ in found.spans]) * 1e-9
    stops = np.array([stop for _, stop in found.spans]) * 1e-9
    assert len(starts) >= 9
    # Half of the widest spacing of readings, and a span of the grid.
    assert np.abs((starts - 4.0 + 4.5) % 9.0 - 4.5).max() < 0.2
    assert np.abs((stops - 10.0 + 4.5) % 9.0 - 4.5).max() < 0.2


@pytest.mark.parametrize("count", [29524, 36000])
@pytest.mark.parametrize("first", [0, 400])
def test_a_beat_of_pulses_with_a_coarse_look_is_no_window(count: int, first: int) -> None:
    """20 ms in every 100 ms: a look as coarse as the pulses are far apart sees now one of them and now two."""
    load, rate_hz = synthetic.parse_load("8mA/20ms/d0,250uA/80ms"), 4882.8125
    found = find(meter(load.mean_current_a(first, count, rate_hz), rate_hz))
    assert abs(len(found.spans) - 10 * count / rate_hz) <= 1.5
    assert float(np.median(np.diff(np.array(found.spans), axis=1))) == pytest.approx(20e6, rel=0.05)
