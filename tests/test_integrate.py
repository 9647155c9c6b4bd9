from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers import loaded, recording, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemeter.capture import ArrayStream, Gap, Kind, Status
from joulemeter.caveat import Code
from joulemeter.errors import DataError
from joulemeter.physics.align import align
from joulemeter.physics.integrate import complement, envelope, integrate
from joulemeter.synthetic import parse_load
from joulemeter.trigger import parse_trigger
from joulemeter.window import Window

RATE = 1000.0


def window(start_ms: float, stop_ms: float) -> Window:
    return Window(start_ns=round(start_ms * 1e6), stop_ns=round(stop_ms * 1e6), index=0)


def ramp(count: int) -> ArrayStream:
    return stream(np.arange(count, dtype=np.float64), np.zeros(count, dtype=np.uint8), RATE, volts=2.0)


@pytest.mark.parametrize(
    ("start", "stop", "joules"),
    [
        (0, 4, 2.0 * (0 + 1 + 2 + 3) / RATE),
        (1.5, 3.25, 2.0 * (0.5 * 1 + 2 + 0.25 * 3) / RATE),
        (2.25, 2.75, 2.0 * 0.5 * 2 / RATE),
        (2.5, 3.0, 2.0 * 0.5 * 2 / RATE),
    ],
)
def test_border_samples_are_shared(start: float, stop: float, joules: float) -> None:
    (energy,) = integrate(ramp(10), [window(start, stop)])
    assert energy.energy_j == pytest.approx(joules, rel=1e-12)
    assert energy.charge_c == pytest.approx(joules / 2.0, rel=1e-12)
    assert energy.missing_s == 0.0
    assert energy.samples == pytest.approx(stop - start)


def chopped(one: ArrayStream, borders: list[int]) -> ArrayStream:
    """The same stream, told in blocks that end at `borders`."""

    class Chopped(ArrayStream):
        def blocks(self, start: int = 0, stop: int | None = None):  # type: ignore[no-untyped-def]
            for block in super().blocks(start, stop):
                edges = sorted({0, len(block), *(b - block.first_index for b in borders)})
                for i, j in pairwise(edges):
                    if 0 <= i < j <= len(block):
                        yield replace(
                            block,
                            first_index=block.first_index + i,
                            data={name: values[i:j] for name, values in block.data.items()},
                        )

    return Chopped(
        name=one.name, header=one.header, timebase=one.timebase, data=one.data, status=one.status, gaps=one.gaps
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 999), max_size=12),
    st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000)), min_size=1, max_size=8),
)
def test_windows_agree_with_fsum_and_blocks_do_not_matter(
    seed: int, borders: list[int], spans: list[tuple[float, float]]
) -> None:
    current = np.random.default_rng(seed).lognormal(-8, 3, 1000)
    one = stream(current, np.zeros(1000, dtype=np.uint8), RATE, volts=1.0)
    windows = [window(min(span), max(span)) for span in spans if abs(span[0] - span[1]) > 1e-3]
    for energy, wanted in zip(integrate(chopped(one, borders), windows), windows, strict=True):
        start, stop = wanted.start_ns * RATE / 1e9, wanted.stop_ns * RATE / 1e9
        shares = [current[k] * (min(k + 1, stop) - max(k, start)) for k in range(math.floor(start), math.ceil(stop))]
        assert energy.energy_j == pytest.approx(math.fsum(shares) / RATE, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 999_999), st.integers(1, 200_000)), max_size=10))
def test_windows_and_the_rest_make_the_whole(spans: list[tuple[int, int]]) -> None:
    current = np.random.default_rng(7).lognormal(-8, 3, 1000)
    one = stream(current, np.zeros(1000, dtype=np.uint8), RATE, volts=1.0)
    windows: list[Window] = []
    for start, length in sorted(spans):
        if not windows or start >= windows[-1].stop_ns // 1000:
            windows.append(
                Window(start_ns=start * 1000, stop_ns=min(start + length, 1_000_000) * 1000, index=len(windows))
            )
    rest = complement(windows, 0, 1_000_000_000)
    parts = integrate(one, [*windows, *rest])
    total = math.fsum(part.energy_j or 0.0 for part in parts)
    assert total == pytest.approx(math.fsum(current.tolist()) / RATE, rel=1e-12)
    assert sum(part.window.stop_ns - part.window.start_ns for part in parts) == 1_000_000_000


@pytest.mark.parametrize("rate_hz", [1e3, 1e5, 1e6])
def test_a_thousand_windows_lie_within_a_sample_of_the_truth(rate_hz: float) -> None:
    period_s = 2003.7 / rate_hz
    load = parse_load(f"50mA/{0.4 * period_s}s/d0,1uA/{0.6 * period_s}s")
    one = loaded(load, 1001 * period_s, rate_hz)
    found = align(recording(one), one, parse_trigger("d0"))
    energies = integrate(one, found.windows)
    # The first pulse begins with the recording, so it is cut.
    assert len(energies) >= 999
    truth = 3.0 * (load.pulse_charge_c(0) or 0.0)
    one_sample = 3.0 * 0.050 / rate_hz
    assert max(abs((energy.energy_j or 0.0) - truth) for energy in energies) <= one_sample


def test_lost_samples_are_missing_and_not_zero() -> None:
    one = stream(np.full(90, 0.5), np.zeros(90, dtype=np.uint8), RATE, volts=2.0, gaps=(Gap(index=50, lost=10),))
    assert one.length == 100
    whole, before, across = integrate(one, [window(0, 100), window(10, 30), window(35, 55)])
    assert whole.missing_s == pytest.approx(0.010)
    assert whole.energy_j == pytest.approx(2.0 * 0.5 * 90 / RATE)
    assert whole.mean_power_w == pytest.approx(1.0)
    assert before.missing_s == 0.0
    assert across.missing_s == pytest.approx(0.010)
    assert Code.LOST_SAMPLES in across.caveats


def test_a_window_beyond_the_recording_is_unknown() -> None:
    (energy,) = integrate(ramp(10), [window(20, 30)])
    assert energy.energy_j is None
    assert energy.charge_c is None
    assert energy.mean_power_w is None
    assert energy.missing_s == pytest.approx(0.010)


def test_nan_is_missing() -> None:
    current = np.ones(20)
    current[5:8] = np.nan
    (energy,) = integrate(stream(current, np.zeros(20, dtype=np.uint8), RATE, volts=1.0), [window(0, 20)])
    assert energy.energy_j == pytest.approx(17 / RATE)
    assert energy.missing_s == pytest.approx(0.003)


def test_without_a_voltage_there_is_charge_and_no_energy() -> None:
    (energy,) = integrate(stream(np.ones(20), np.zeros(20, dtype=np.uint8), RATE, volts=None), [window(0, 20)])
    assert energy.energy_j is None
    assert energy.mean_power_w is None
    assert energy.charge_c == pytest.approx(0.020)


def test_altered_samples_bound_the_step_they_hide() -> None:
    current = np.array([1.0, 1, 1, 1.2, 1.4, 1.6, 9, 9, 9, 9])
    status = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0, 2], dtype=np.uint8) * np.uint8(Status.ALTERED)
    status[9] = Status.CLIPPED
    (energy,) = integrate(
        stream(current, np.zeros(10, dtype=np.uint8), RATE, volts=2.0, status=status), [window(0, 10)]
    )
    assert energy.altered_samples == 3
    assert energy.altered_j == pytest.approx(3 * (9 - 1) * 2.0 / RATE)
    assert energy.clipped_samples == 1


def test_other_kinds_of_samples_are_refused() -> None:
    one = ramp(10)
    channels = (replace(one.header.channels[0], kind=Kind.CUMULATIVE), one.header.channels[1])
    with pytest.raises(DataError, match="cumulative"):
        integrate(replace(one, header=replace(one.header, channels=channels)), [window(0, 1)])


def test_the_envelope_keeps_every_peak_and_shows_holes() -> None:
    current = np.full(10_000, 0.001)
    current[4321] = 5.0
    current[7777] = -1.0
    one = stream(current, np.zeros(10_000, dtype=np.uint8), RATE, volts=1.0, gaps=(Gap(index=9000, lost=1000),))
    drawn = envelope(chopped(one, [333, 4321, 4322, 8000]), 100)
    assert drawn.unit == "W"
    assert len(drawn.mean) == 100
    assert np.nanmax(drawn.high) == 5.0
    assert np.nanmin(drawn.low) == -1.0
    empty = np.isnan(drawn.mean)
    assert empty.sum() == pytest.approx(9, abs=1)
    assert empty[np.flatnonzero(empty)[0] : np.flatnonzero(empty)[-1] + 1].all()
