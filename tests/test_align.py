from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import recording, stream

from joulemeter.capture import Channel, Event, Kind, Quantity, Recording
from joulemeter.caveat import Code
from joulemeter.errors import DataError, UsageError
from joulemeter.physics.align import align
from joulemeter.physics.edges import debounce
from joulemeter.physics.stamps import pair_stamps
from joulemeter.trigger import parse_trigger

RATE = 1000.0


def lines(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """One character per sample: '#' is d0 high."""
    return np.array([c == "#" for c in text], dtype=np.uint8)


def found(text: str, trigger: str, **options: float) -> list[tuple[int, int]]:
    digital = lines(text)
    one = stream(np.zeros(len(digital)), digital, RATE)
    result = align(recording(one), one, parse_trigger(trigger), **options)  # type: ignore[arg-type]
    return [(window.start_ns // 1_000_000, window.stop_ns // 1_000_000) for window in result.windows]


@pytest.mark.parametrize(
    ("trigger", "spans"),
    [
        ("d0", [(3, 6), (9, 11)]),
        ("d0:high", [(3, 6), (9, 11)]),
        ("d0:low", [(6, 9)]),
        ("d0:rising", [(3, 9)]),
        ("d0:falling", [(6, 11)]),
    ],
)
def test_forms_of_a_line(trigger: str, spans: list[tuple[int, int]]) -> None:
    assert found("...###...##....", trigger) == spans


def test_falling_pairs_skip_the_set_up_pulse() -> None:
    #             0123456789012345678901234
    assert found("####.#######.####.###.#.#", "d0:falling-pairs") == [(12, 17), (21, 23)]


def test_windows_cut_by_the_ends_are_named() -> None:
    digital = lines("##..###..##")
    one = stream(np.zeros(len(digital)), digital, RATE)
    result = align(recording(one), one, parse_trigger("d0"))
    assert result.rejected == {"cut-at-start": 1, "cut-at-end": 1}
    assert len(result.windows) == 1


def test_edges_do_not_depend_on_block_borders() -> None:
    from joulemeter.capture import Block
    from joulemeter.physics.edges import LineScanner

    digital = lines("..##..#.#.###...##..####..#")
    whole = LineScanner("digital", 0)
    whole.feed(Block(first_index=0, data={"digital": digital}))
    for size in range(1, len(digital)):
        pieces = LineScanner("digital", 0)
        for at in range(0, len(digital), size):
            pieces.feed(Block(first_index=at, data={"digital": digital[at : at + size]}))
        np.testing.assert_array_equal(pieces.edges, whole.edges)
        assert pieces.first_level == whole.first_level


def test_bounces_are_joined_and_counted() -> None:
    pulse = "#" * 2000
    text = "." * 3000 + "#.##.#" + pulse + ".#." + "." * 3000 + pulse + "." * 3000 + pulse + "." * 3000
    digital = lines(text)
    one = stream(np.zeros(len(digital)), digital, RATE)
    result = align(recording(one), one, parse_trigger("d0"))
    assert len(result.windows) == 3
    assert result.windows[0].start_ns == 3_000_000_000
    assert result.windows[0].duration_s == pytest.approx(2.006)
    assert result.sync.extra == 6
    assert Code.BOUNCING_EDGES in [caveat.code for caveat in result.caveats]


def test_short_pulses_far_apart_are_not_bounces() -> None:
    edges = np.array([10, 12, 100_010, 100_012, 200_010, 200_012])
    kept, removed = debounce(edges, 1e5, None)
    assert removed == 0
    np.testing.assert_array_equal(kept, edges)


def test_debounce_can_be_asked_for() -> None:
    assert found("...#.###...##....#....", "d0", debounce_s=0.0015) == [(3, 8), (11, 13)]
    assert found("...#.###...##....#....", "d0", debounce_s=0.0025) == [(3, 8)]


def test_a_missing_window_in_a_regular_series_is_seen() -> None:
    text = ("#" * 10 + "." * 90) * 5 + "." * 100 + ("#" * 10 + "." * 90) * 4
    digital = lines("." + text)
    one = stream(np.zeros(len(digital)), digital, RATE)
    result = align(recording(one), one, parse_trigger("d0"))
    assert result.sync.missed == 1
    assert Code.MISSING_EDGES in [caveat.code for caveat in result.caveats]
    assert len(result.windows) == 9


def test_an_odd_window_is_named_and_kept() -> None:
    text = "".join("." * 50 + "#" * n for n in (20, 21, 20, 60, 20)) + "."
    digital = lines(text)
    one = stream(np.zeros(len(digital)), digital, RATE)
    result = align(recording(one), one, parse_trigger("d0"))
    odd = [caveat for caveat in result.caveats if caveat.code is Code.ODD_WINDOWS]
    assert odd[0].data["windows"] == [3]
    assert len(result.windows) == 5


@pytest.mark.parametrize("level", [".", "#"])
def test_a_trigger_that_never_comes_says_what_was_seen(level: str) -> None:
    digital = lines(level * 100)
    digital[50:] |= 4
    one = stream(np.zeros(100), digital, RATE)
    state = "low" if level == "." else "high"
    with pytest.raises(DataError, match=rf"never came: d0 stayed {state}.*did change: d2"):
        align(recording(one), one, parse_trigger("d0"))


def test_a_line_that_does_not_exist() -> None:
    one = stream(np.zeros(9), lines("...###..."), RATE)
    with pytest.raises(UsageError, match=r"no digital line 'd9'.*d0, d1"):
        align(recording(one), one, parse_trigger("d9"))


@pytest.mark.parametrize(
    "text", ["", "d", "high", "d0:up", "host:rising", "events:low", "c1", "d0 d1", "serial:x", "c1@3A"]
)
def test_refuses_what_is_no_trigger(text: str) -> None:
    with pytest.raises(UsageError):
        parse_trigger(text)


@pytest.mark.parametrize(
    ("text", "source", "form", "level", "words"),
    [
        ("d0", "d0", "high", None, None),
        ("d7:falling-pairs", "d7", "falling-pairs", None, None),
        ("c1@1.65V", "c1", "high", 1.65, None),
        ("c2@-200mV:falling", "c2", "falling", -0.2, None),
        ("serial", "serial", "pairs", None, None),
        ("serial:RUN now,Done.", "serial", "pairs", None, ("RUN now", "Done.")),
        ("events:falling-pairs", "events", "falling-pairs", None, None),
        ("shape", "shape", "steps", None, None),
        ("shape:below", "shape", "below", None, None),
    ],
)
def test_reads_triggers(text: str, source: str, form: str, level: float | None, words: tuple[str, str] | None) -> None:
    trigger = parse_trigger(text)
    assert (trigger.source, trigger.form, trigger.level, trigger.words) == (source, form, level, words)
    assert parse_trigger(str(trigger)) == trigger


def test_text_of_the_device_marks_windows() -> None:
    """As an MLPerf Tiny firmware prints it, with other lines in between; the host saw each line 2 ms late or less."""
    lines_ = [
        (100, "m-init-done"),
        (200, "m-infer-start-50"),
        (700, "m-infer-done"),
        (710, "m-results-[0.1,0.9]"),
        (900, "m-infer-start-50"),
        (1400, "m-infer-done"),
    ]
    events = tuple(
        Event(label=text, source="serial", monotonic_ns=10**9 + at * 10**6, u_s=0.002) for at, text in lines_
    )
    base = stream(np.zeros(2000), lines("." * 2000), RATE)
    timed = replace(base, timebase=replace(base.timebase, monotonic_ns=10**9, u_host_s=0.0015))
    made = Recording(name="test", streams=(timed,), events=events)
    result = align(made, timed, parse_trigger("serial"))
    assert [(w.start_ns // 10**6, w.stop_ns // 10**6) for w in result.windows] == [(200, 700), (900, 1400)]
    assert [w.inferences for w in result.windows] == [50, 50]
    assert result.sync.grade == "host-marker"
    assert result.sync.residual_s == pytest.approx(0.0025)
    by_words = align(made, timed, parse_trigger("serial:init-done,results"))
    assert [(w.start_ns // 10**6, w.stop_ns // 10**6) for w in by_words.windows] == [(100, 710)]


@pytest.mark.parametrize(("count", "windows", "missed"), [(3, 1, 0), (11, 5, 0), (10, 4, 1), (1, 0, 0)])
def test_stamps_come_in_pairs_after_the_first(count: int, windows: int, missed: int) -> None:
    result = pair_stamps([k * 1_000_000 for k in range(count)])
    assert (len(result.spans), result.missed) == (windows, missed)


def test_stamps_without_a_partner_are_told() -> None:
    stamps = [("begin", 10), ("begin", 20), ("end", 30), ("end", 35), ("begin", 40), ("end", 60), ("begin", 70)]
    events = tuple(Event(label=label, source="x", time_ns=at * 1_000_000) for label, at in stamps)
    one = stream(np.zeros(100), lines("." * 100), RATE)
    made = Recording(name="test", streams=(one,), events=events)
    result = align(made, one, parse_trigger("events"))
    assert [(w.start_ns // 10**6, w.stop_ns // 10**6) for w in result.windows] == [(20, 30), (40, 60)]
    assert [caveat.code for caveat in result.caveats] == [Code.CUT_WINDOW]
    assert result.caveats[0].data["stamps"] == 3


def test_a_channel_with_a_threshold_is_crossed_between_samples() -> None:
    """A scope at 10 kS/s: a ramp of 1 ms up and down around pulses of 20.37 ms at half height."""
    rate_hz = 10_000.0
    t = np.arange(20_000) / rate_hz
    phase = np.mod(t, 0.1)
    volts = 3.3 * np.clip(np.minimum((phase - 0.03) / 1e-3, (0.05137 - phase) / 1e-3), 0, 1)
    volts += np.random.default_rng(5).normal(0, 0.01, len(t))
    channels = (
        Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.MEAN),
        Channel(name="c1", quantity=Quantity.VOLTAGE, unit="V", kind=Kind.INSTANT),
    )
    base = stream(np.zeros(len(t)), lines("." * len(t)), rate_hz)
    scope = replace(
        base,
        header=replace(base.header, channels=channels),
        data={"current": np.zeros(len(t)), "c1": volts},
    )
    made = Recording(name="test", streams=(scope,))
    result = align(made, scope, parse_trigger("c1@1.65V"))
    assert len(result.windows) == 20
    starts = np.array([window.start_ns for window in result.windows]) * 1e-9
    # The ramp passes half height half a millisecond after it begins; noise of 10 mV on 3.3 V/ms is 3 us.
    assert np.abs(np.mod(starts, 0.1) - 0.0305).max() < 15e-6
    assert [window.duration_s for window in result.windows] == pytest.approx([0.02037] * 20, abs=20e-6)
    assert result.sync.residual_s is not None
    assert 1e-6 < result.sync.residual_s < 15e-6
    with pytest.raises(DataError, match="did not cross 5 V"):
        align(made, scope, parse_trigger("c1@5V"))
    with pytest.raises(UsageError, match="no channel 'c7'"):
        align(made, scope, parse_trigger("c7@1V"))
