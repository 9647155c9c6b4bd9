"""The finer steps of a report's waveform: what is packed is what was recorded."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from helpers import loaded, metered, stream

from joulemeter.capture import ArrayStream, Gap, Kind, Quantity
from joulemeter.report.build import waveform
from joulemeter.report.detail import DRAWN, WHOLE, Part, Steps
from joulemeter.report.figures import MOST_NAMED, telling
from joulemeter.report.figures import waveform as figure
from joulemeter.synthetic import Load, Step

VOLTS, RATE_HZ = 3.0, 10_000.0
LOAD = Load(
    steps=(Step(duration_s=0.02, current_a=0.04, lines=1), Step(duration_s=0.98, current_a=1e-6)), lead_s=0.5, lead_a=0
)


def unpacked(steps: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Low, high and mean, (3, n), by the standard library's own reading of half floats."""
    raw = zlib.decompress(base64.b64decode(steps["packed"]))
    low, high = raw[: len(raw) // 2], raw[len(raw) // 2 :]
    halves = bytes(byte for pair in zip(low, high, strict=True) for byte in pair)
    values: np.ndarray[Any, Any] = np.array([value for (value,) in struct.iter_unpack("<e", halves)]) * steps["scale"]
    return values.reshape(3, -1)


def windows(count: int, period_s: float = 1.0) -> list[dict[str, Any]]:
    return [
        {
            "index": at,
            "label": "",
            "start_s": 0.5 + at * period_s,
            "stop_s": 0.52 + at * period_s,
            "energy_j": 1e-3 + at,
        }
        for at in range(count)
    ]


def test_values_survive_packing_over_eight_decades() -> None:
    mean = np.geomspace(1e-9, 0.1, 5000)
    mean[7] = np.nan
    steps = Steps(start_s=2.0, step_s=0.5, low=-mean, high=2 * mean, mean=mean)
    packed = steps.packed(1e-3)
    assert (packed["start"], packed["step"], packed["count"]) == (2.0, 0.5, 5000)
    low, high, read = unpacked(packed) * 1e-3
    for found, true in ((low, -mean), (high, 2 * mean), (read, mean)):
        assert np.isnan(found[7])
        np.testing.assert_allclose(np.delete(found, 7), np.delete(true, 7), rtol=2**-10)


def test_nothing_at_all_is_packed_as_zero() -> None:
    zero = np.zeros(3)
    assert not unpacked(Steps(start_s=0, step_s=1, low=zero, high=zero, mean=zero).packed(1.0)).any()


def test_joined_steps_keep_every_extreme_and_the_mean() -> None:
    values = np.arange(10.0)
    values[[3, 4, 5]] = np.nan
    joined = Steps(start_s=1.0, step_s=0.1, low=values - 1, high=values + 1, mean=values).joined(4)
    # Three at a time: 0 1 2 | nothing | 6 7 8 | 9
    assert joined.step_s == pytest.approx(0.3)
    np.testing.assert_array_equal(joined.low, [-1, np.nan, 5, 8])
    np.testing.assert_array_equal(joined.high, [3, np.nan, 9, 10])
    np.testing.assert_array_equal(joined.mean, [1, np.nan, 7, 9])
    np.testing.assert_allclose(joined.middles_s, [1.15, 1.45, 1.75, 2.05])


def test_the_whole_and_the_windows_looked_at_first_are_kept_in_fine_steps() -> None:
    duration_s = 60.0
    wave = waveform(loaded(LOAD, duration_s, RATE_HZ, VOLTS), windows(59))
    assert len(wave.time_s) <= DRAWN
    whole, three, first, least, most = wave.details
    # 600,000 samples in at most 262,144 steps: three each. Around a window, each sample by itself.
    assert len(whole.mean) == 200_000 <= WHOLE
    assert wave.finest_s == pytest.approx(3 / RATE_HZ)
    assert {round(steps.step_s * RATE_HZ) for steps in (first, least, most)} == {1}
    assert least.start_s == pytest.approx(0.5 - 0.3 * 0.02, abs=1 / RATE_HZ)
    assert most.start_s == pytest.approx(58.5 - 0.3 * 0.02, abs=1 / RATE_HZ)
    assert three.start_s == 0.0  # its air would reach before the beginning
    inside = (most.middles_s > 58.5) & (most.middles_s < 58.52)
    np.testing.assert_allclose(most.mean[inside], 0.04 * VOLTS)
    np.testing.assert_allclose(most.mean[~inside], 1e-6 * VOLTS)
    # The mean of all steps is the mean of the load.
    assert np.mean(whole.mean) * duration_s == pytest.approx(VOLTS * LOAD.charge_c(np.array([duration_s]))[0], rel=1e-9)


def test_a_short_recording_is_drawn_as_it_is() -> None:
    wave = waveform(loaded(LOAD, 0.3, RATE_HZ, VOLTS), windows(0))
    assert len(wave.time_s) == 3000
    assert wave.details == ()
    assert "detail" not in figure(wave, [], False)


def test_a_polled_meter_has_its_readings() -> None:
    times = np.cumsum(np.full(20_000, 100_000_000)) - 100_000_000
    power = np.full(20_000, 0.1)
    power[12_345] = 2.0
    one = metered({Quantity.POWER: power}, Kind.INSTANT, 10.0, times_ns=times.astype(np.int64))
    wave = waveform(one, windows(20))
    (whole,) = wave.details
    assert np.nanmax(whole.high) == np.nanmax(wave.high_w) == pytest.approx(2.0, rel=0.6)
    at = whole.middles_s[np.nanargmax(whole.high)]
    assert at == pytest.approx(1234.5, abs=0.2)


def test_a_part_of_a_stream_is_that_part() -> None:
    values = np.arange(100.0)
    whole: ArrayStream = stream(values, np.zeros(100, np.uint8), 10.0, gaps=(Gap(index=50, lost=20),))
    part = Part(stream=whole, first=40, last=80)
    assert part.length == 40
    seen = [(block.first_index, block.data["current"].tolist()) for block in part.blocks()]
    # Samples 30 to 49 were lost before sample 50, so that index 50 holds the value 30.
    assert [(at, data[0], data[-1]) for at, data in seen] == [(10, 30.0, 59.0)]


def test_windows_and_lines_are_kept_for_a_closer_look() -> None:
    one = loaded(LOAD, 60.0, RATE_HZ, VOLTS)
    detail = figure(waveform(one, windows(59)), windows(59), False)["detail"]
    assert detail["windows"][:4] == pytest.approx([0.5, 0.52, 1.5, 1.52])
    assert len(detail["names"]) == 59
    assert detail["names"][2].replace("\N{NO-BREAK SPACE}", " ") == "window 2: 2.001 J<br>"
    assert detail["lanes"] == [pytest.approx(detail["windows"] + [59.5, 59.52], abs=1e-4)]
    steps = [steps["step"] for steps in detail["steps"]]
    assert steps == sorted(steps)


def test_too_many_windows_are_joined_and_lose_their_names() -> None:
    wave = waveform(loaded(LOAD, 60.0, RATE_HZ, VOLTS), windows(59))
    many = [windows(1)[0] | {"start_s": at * 1e-3, "stop_s": at * 1e-3 + 5e-4} for at in range(MOST_NAMED + 1)]
    detail = figure(wave, many, False)["detail"]
    assert detail["names"] == []
    assert len(detail["windows"]) < 2 * MOST_NAMED
    assert detail["windows"][-1] == pytest.approx(MOST_NAMED * 1e-3 + 5e-4)


def test_where_people_look_first() -> None:
    rows = windows(5)
    rows[3]["energy_j"] = 1e-6
    rows[4]["energy_j"] = None
    air = 0.3 * 0.02
    spans = telling(rows)
    assert spans[0] == pytest.approx((0.5 - 0.3 * 2.02, 2.52 + 0.3 * 2.02))
    assert spans[1:] == [pytest.approx((at - air, at + 0.02 + air)) for at in (0.5, 3.5, 2.5)]
    assert telling([]) == telling([rows[0] | {"start_s": None}]) == []
