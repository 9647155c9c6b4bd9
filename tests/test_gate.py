"""A trigger line beside the windows that the host asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import stream

from joulemeter.capture import Event, Recording, Timebase
from joulemeter.errors import DataError
from joulemeter.physics.align import Alignment, align
from joulemeter.physics.analyze import analyze
from joulemeter.trigger import parse_trigger

RATE_HZ = 1000.0
# The host's clock when the stream began: stamps and samples are related by it.
ORIGIN_NS = 5_000_000_000


def line(
    pulses: list[tuple[int, int]], length: int = 4000, *, idle: int = 0
) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    states = np.full(length, idle, dtype=np.uint8)
    for start, stop in pulses:
        states[start:stop] = 1 - idle
    return states


def host(windows: list[tuple[int, int]], inferences: int = 1, u_s: float | None = None) -> tuple[Event, ...]:
    """Stamps of windows given in milliseconds of the stream."""
    events = []
    for start, stop in windows:
        for label, at in (("begin", start), ("end", stop)):
            data = {"inferences": inferences} if label == "end" else {}
            at_ns = ORIGIN_NS + at * 1_000_000
            events.append(Event(label=label, source="host", monotonic_ns=at_ns, u_s=u_s, data=data))
    return tuple(events)


def recorded(states: np.ndarray[tuple[int], np.dtype[np.uint8]], events: tuple[Event, ...]) -> Recording:
    seen = stream(np.full(len(states), 1e-3), states, RATE_HZ)
    clock = Timebase(rate_hz=RATE_HZ, monotonic_ns=ORIGIN_NS, u_host_s=1e-4, u_drift_ppm=1.0)
    return Recording(name="test", streams=(replace(seen, timebase=clock),), trigger="d0", events=events)


def aligned(recording: Recording, trigger: str = "d0") -> Alignment:
    return align(recording, recording.streams[0], parse_trigger(trigger))


def spans_ms(alignment: Alignment) -> list[tuple[int, int]]:
    return [(window.start_ns // 1_000_000, window.stop_ns // 1_000_000) for window in alignment.windows]


def test_pulses_of_warm_ups_and_boots_do_not_count() -> None:
    states = line([(100, 110), (500, 700), (1000, 1200), (3000, 3100)])
    found = aligned(recorded(states, host([(490, 720), (990, 1215)])))
    assert spans_ms(found) == [(500, 700), (1000, 1200)]
    assert found.rejected == {"outside-the-run": 2}
    assert found.counted
    assert [window.inferences for window in found.windows] == [1, 1]


def test_without_stamps_every_pulse_counts() -> None:
    found = aligned(recorded(line([(100, 110), (500, 700)]), ()))
    assert spans_ms(found) == [(100, 110), (500, 700)]
    assert not found.counted


def test_one_pulse_may_hold_all_inferences_or_each_its_own() -> None:
    whole = aligned(recorded(line([(500, 700)]), host([(490, 720)], inferences=4)))
    assert [window.inferences for window in whole.windows] == [4]
    each = aligned(recorded(line([(k, k + 40) for k in (500, 550, 600, 650)]), host([(490, 720)], inferences=4)))
    assert spans_ms(each) == [(500, 540), (550, 590), (600, 640), (650, 690)]
    assert [window.inferences for window in each.windows] == [1] * 4


def test_a_window_with_the_wrong_number_of_pulses_is_left_out_by_name() -> None:
    states = line([(500, 520), (600, 620), (1000, 1200)])
    found = aligned(recorded(states, host([(490, 720), (990, 1215)], inferences=5)))
    assert spans_ms(found) == [(1000, 1200)]
    assert found.rejected == {"edges-do-not-fit": 1}
    assert "1 of 2 windows that the host asked for" in str(found.caveats[0].text)


def test_stamps_of_mlperf_firmware_are_found_beside_stray_ones() -> None:
    # Boot pulse, set-up pulse, two trial runs, then windows 1 and 2: each a pair of low pulses of 1 ms.
    starts = [50, 300, 600, 640, 1000, 1500, 2000, 2500]
    states = line([(at, at + 1) for at in starts], idle=1)
    found = aligned(recorded(states, host([(980, 1520), (1980, 2520)], inferences=30)), "d0:falling-pairs")
    assert spans_ms(found) == [(1000, 1500), (2000, 2500)]
    assert [window.inferences for window in found.windows] == [30, 30]
    assert found.rejected == {"outside-the-run": 2}
    assert not [caveat for caveat in found.caveats if caveat.code == "odd-stamp-count"]


def test_a_lost_stamp_costs_its_own_window_only() -> None:
    states = line([(at, at + 1) for at in (1000, 2000, 2500)], idle=1)
    found = aligned(recorded(states, host([(980, 1520), (1980, 2520)])), "d0:falling-pairs")
    assert spans_ms(found) == [(2000, 2500)]
    assert found.sync.missed == 1


def test_a_line_that_fits_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="fit none of the 1 windows"):
        aligned(recorded(line([(100, 110)]), host([(490, 720)])))


def test_a_loose_stamp_widens_the_search_and_not_the_window() -> None:
    states = line([(500, 700)])
    late = host([(730, 900)])  # the stamps came 230 ms late
    with pytest.raises(DataError):
        aligned(recorded(states, late))
    loose = host([(530, 900)], u_s=0.05)
    assert spans_ms(aligned(recorded(states, loose))) == [(500, 700)]


def test_an_edge_belongs_to_the_nearest_of_two_windows_back_to_back() -> None:
    states = line([(500, 595), (600, 695)])
    found = aligned(recorded(states, host([(495, 598), (599, 698)], u_s=0.02)))
    assert spans_ms(found) == [(500, 595), (600, 695)]


def test_parts_stamped_by_the_host_are_phases() -> None:
    part = [
        Event(label=label, source="host:pre", monotonic_ns=ORIGIN_NS + at * 1_000_000)
        for label, at in (("begin", 500), ("end", 600), ("begin", 1000), ("end", 1100))
    ]
    states = line([(500, 700), (1000, 1200)])
    events = (*host([(490, 720), (990, 1215)]), *part)
    phase = analyze(recorded(states, events)).result.phases["pre"]
    assert phase.windows == 2
    # 1 mA at 3 V for 0.1 s
    assert phase.energy_j.median == pytest.approx(3e-4, rel=1e-6)
    assert phase.duration_s.median == pytest.approx(0.1, rel=1e-6)
    assert phase.per_inference == 1


def test_a_part_on_a_line_of_its_own_may_lie_beside_the_windows() -> None:
    states = line([(500, 700), (1000, 1200)])
    for start, stop in ((300, 450), (800, 950)):
        states[start:stop] |= 2
    recording = replace(recorded(states, host([(490, 720), (990, 1215)])), meta={"phases": {"pre": "d1"}})
    phase = analyze(recording).result.phases["pre"]
    assert phase.windows == 2 and phase.duration_s.median == pytest.approx(0.15, rel=1e-6)


def test_a_part_that_is_placed_too_loosely_has_a_duration_and_no_energy() -> None:
    part = [
        Event(label=label, source="host:pre", monotonic_ns=ORIGIN_NS + at * 1_000_000, u_s=0.02)
        for label, at in (("begin", 500), ("end", 600))
    ]
    phase = analyze(recorded(line([(500, 700)]), (*host([(490, 720)]), *part))).result.phases["pre"]
    assert phase.energy_j.median is None and phase.energy_j.reason is not None
    assert phase.duration_s.median == pytest.approx(0.1, rel=1e-6)


def test_what_the_edges_of_this_host_add_is_told() -> None:
    states = line([(500, 710), (1000, 1210)])
    stamps = host([(505, 705), (1005, 1205)])
    recording = replace(recorded(states, stamps), meta={"edge": {"line": "rts:x"}})
    (caveat,) = (one for one in analyze(recording).result.caveats if one.code == "edge-cost")
    assert caveat.data["added_s"] == pytest.approx(0.01, abs=1e-6)
    assert caveat.severity == "doubt"  # 4.8 % of the window


def test_a_board_that_names_itself_simulated_makes_the_result_simulated() -> None:
    said = Event(label="described", source="workload", data={"name": "board", "simulated": True})
    stamps = host([(490, 720), (990, 1215)])
    with_meter = analyze(recorded(line([(500, 700), (1000, 1200)]), (*stamps, said))).result
    assert with_meter.simulated and with_meter.workload == {"name": "board", "simulated": True}
    timed = analyze(Recording(name="test", streams=(), trigger="host", events=(*stamps, said))).result
    assert timed.simulated and timed.latency_s.basis == "simulated"
    assert timed.caveats[0].code == "simulated"
    real = analyze(Recording(name="test", streams=(), trigger="host", events=stamps)).result
    assert not real.simulated and real.latency_s.basis == "measured"


def test_loose_stamps_are_doubted_also_where_only_time_is_measured() -> None:
    def codes(u_s: float | None) -> list[str]:
        stamps = host([(490, 720), (990, 1215)], u_s=u_s)
        timed = analyze(Recording(name="test", streams=(), trigger="host", events=stamps)).result
        return [caveat.code for caveat in timed.caveats]

    assert "host-clock-only" in codes(0.005)
    assert "host-clock-only" not in codes(0.0005)
    assert "host-clock-only" not in codes(None)
