"""joulemeter watch: the figures against closed forms, the screen as a terminal of 80 columns shows it, and its ends."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import header, loaded, metered, stream
from tinyterm import Program, Terminal

from joulemeter.capture import ArrayStream, Block, Channel, Gap, Header, Kind, Quantity, Status
from joulemeter.cli import watchtext
from joulemeter.cli.watch import app
from joulemeter.errors import DataError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Device, Options
from joulemeter.live import View, Watched, of_watching
from joulemeter.physics.livefigures import Figures, Live
from joulemeter.physics.livestrip import BINS, Strip
from joulemeter.plan import Meter
from joulemeter.registry import instrument
from joulemeter.synthetic import parse_load
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.serve import serve_pty

WATCH = [sys.executable, "-P", "-m", "joulemeter", "watch"]
SIMULATED = ("--meter", "ppk2", "--simulate", "--load", "8mA/20ms/d0,250uA/80ms", "--supply", "3V")
# Of that load at 3.0 V: (8 mA 20 ms + 0.25 mA 80 ms) 3.0 V / 100 ms.
MEAN_W = 5.4e-3


def figures(one: ArrayStream, span_s: float = 10.0, pieces: int = 1) -> Figures:
    """Of the whole stream, its blocks cut into so many pieces each."""
    live = Live(one.header, span_s)
    for block in one.blocks():
        borders = np.linspace(0, len(block), pieces + 1).astype(int)
        for first, last in itertools.pairwise(borders):
            live.feed([cut(block, first, last)])
    return live.look()


def cut(block: Block, first: int, last: int) -> Block:
    return replace(
        block,
        first_index=block.first_index + first,
        data={name: values[first:last] for name, values in block.data.items()},
        lost_before=block.lost_before if first == 0 else 0,
        times_ns=None if block.times_ns is None else block.times_ns[first:last],
        status=None if block.status is None else block.status[first:last],
    )


# -- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 7, 200], ids="{} pieces".format)
def test_figures_of_a_load_in_closed_form(pieces: int) -> None:
    seen = figures(loaded(parse_load("8mA/20ms/d0,250uA/80ms"), 2.0, 10_000.0), pieces=pieces)
    assert seen.power and seen.current
    assert seen.energy_j == pytest.approx(MEAN_W * 2.0)
    assert seen.charge_c == pytest.approx(MEAN_W * 2.0 / 3.0)
    assert (seen.power.mean, seen.power.now) == pytest.approx((MEAN_W, MEAN_W))
    assert (seen.power.low, seen.power.high) == pytest.approx((0.75e-3, 24e-3))
    assert (seen.current.low, seen.current.high) == pytest.approx((250e-6, 8e-3))
    assert (seen.samples, seen.lost, seen.volts) == (20_000, 0, 3.0)
    assert seen.covered_s == pytest.approx(2.0)
    line, *others = seen.pulses
    # High from the first sample on: the first of twenty pulses had begun before anybody looked.
    assert (line.name, line.high, line.count) == ("d0", False, 19)
    assert line.widths_s == pytest.approx([20e-3] * 10)
    assert line.periods_s == pytest.approx([100e-3] * 10)
    assert [(one.count, one.high, one.strip) for one in others] == [(0, False, None)] * 7


def test_now_is_since_the_last_look() -> None:
    live = Live(header(1000.0), 10.0)
    for milliamperes in (1.0, 5.0):
        first = int(live.samples)
        current = np.full(500, milliamperes * 1e-3)
        live.feed([Block(first_index=first, data={"current": current, "digital": np.zeros(500, np.uint8)})])
        seen = live.look()
        assert seen.power and seen.power.now == pytest.approx(3e-3 * milliamperes)
    again = live.look()
    assert again.power and again.power.mean == pytest.approx(9e-3)
    assert again.power.now == pytest.approx(15e-3), "what a slow meter said last is still so"


def test_a_hole_is_counted_and_gives_neither_energy_nor_a_width() -> None:
    lines = np.zeros(1000, np.uint8)
    lines[100:200] = lines[450:650] = lines[800:900] = 1
    one = stream(np.full(1000, 2e-3), lines, 1000.0, gaps=(Gap(index=530, lost=30),))
    seen = figures(one)
    assert (seen.lost, seen.samples) == (30, 1000)
    assert seen.energy_j == pytest.approx(6e-3 * 1.0)
    assert seen.pulses[0].count == 3
    assert seen.pulses[0].widths_s == pytest.approx([0.1, 0.1])


def test_of_many_pulses_at_once_the_last_are_kept() -> None:
    lines = np.tile(np.repeat(np.array([1, 0], np.uint8), (3, 7)), 500)
    lines[-20:] = np.repeat(np.array([1, 0], np.uint8), (5, 15))
    for pieces in (1, 311):
        line = figures(stream(np.zeros(5000), lines, 1000.0), pieces=pieces).pulses[0]
        assert line.count == 498
        assert line.widths_s == pytest.approx([3e-3] * 9 + [5e-3])


@pytest.mark.parametrize("pieces", [1, 4])
def test_falling_edges_are_counted_where_levels_are_not_seen(pieces: int) -> None:
    lines = np.full(1000, 255, np.uint8)
    lines[100::200] = 0
    one = stream(np.zeros(1000), lines, 1000.0)
    falls_only = tuple(replace(channel, falls_only=bool(channel.lines)) for channel in one.header.channels)
    line = figures(replace(one, header=replace(one.header, channels=falls_only)), pieces=pieces).pulses[0]
    assert (line.high, line.count, line.widths_s) == (None, 5, ())
    assert line.periods_s == pytest.approx([0.2] * 4)


def test_a_counter_that_wraps() -> None:
    # 12 W for 10 s, counted in steps that turn over at 50 J.
    times_ns = np.arange(0, 10_000_000_001, 100_000_000, dtype=np.int64)
    energy = np.mod(12.0 * times_ns * 1e-9 + 45.0, 50.0)
    one = metered({Quantity.ENERGY: energy}, Kind.CUMULATIVE, 10.0, times_ns=times_ns, wrap=50.0)
    seen = figures(one, pieces=3)
    assert seen.energy_j == pytest.approx(120.0)
    assert seen.power and (seen.power.low, seen.power.mean, seen.power.high) == pytest.approx((12.0, 12.0, 12.0))
    assert seen.current is None and seen.charge_c is None


def test_polled_readings_are_joined_by_straight_lines() -> None:
    times_ns = np.array([0, 1_000_000_000, 2_000_000_000], dtype=np.int64)
    values = {Quantity.POWER: np.array([0.0, 4.0, 2.0])}
    seen = figures(metered(values, Kind.INSTANT, 1.0, times_ns=times_ns), pieces=3)
    assert seen.energy_j == pytest.approx(2.0 + 3.0)


def test_without_a_voltage_there_is_charge_and_no_energy() -> None:
    one = loaded(parse_load("8mA/20ms/d0,250uA/80ms"), 1.0, 10_000.0, volts=None)
    seen = figures(one)
    assert seen.power is None and seen.energy_j is None and seen.volts is None
    assert seen.charge_c == pytest.approx(1.8e-3)
    assert seen.strip.columns(60).top == pytest.approx(8e-3)


def test_samples_that_are_none_are_left_out() -> None:
    current = np.full(100, 1e-3)
    current[10:20] = np.nan
    status = np.zeros(100, np.uint8)
    status[10:20], status[50:53] = Status.INVALID, Status.CLIPPED
    seen = figures(stream(current, np.zeros(100, np.uint8), 100.0, status=status))
    assert seen.clipped == 3
    assert seen.charge_c == pytest.approx(0.9e-3) and seen.covered_s == pytest.approx(0.9)
    assert seen.power and seen.power.mean == pytest.approx(3e-3)


def test_records_of_an_oscilloscope() -> None:
    """Two records of 40 ms with a pulse of 10 and of 20 ms, and a second between them that nobody saw."""
    rate_hz = 10_000.0
    channels = (
        Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.INSTANT),
        Channel(name="c2", quantity=Quantity.SIGNAL, unit="V", kind=Kind.INSTANT),
    )
    live = Live(replace(header(rate_hz), channels=channels, triggered=True), 10.0)
    assert live.look().records is not None and live.look().records.count == 0  # type: ignore[union-attr]
    for first, high in ((0, 100), (10_400, 200)):
        inside = np.arange(400)
        busy = (inside >= 50) & (inside < 50 + high)
        data = {"current": np.where(busy, 10e-3, 1e-3), "c2": np.where(busy, 3.3, 0.0)}
        live.feed([Block(first_index=first, data=data, lost_before=first and 10_000)])
    seen = live.look()
    assert seen.records is not None
    assert (seen.records.count, seen.lost) == (2, 0)
    assert seen.records.duration_s == pytest.approx(40e-3)
    # Trapezoids over 399 intervals; the two slopes of one interval each make up half a sample at each side.
    assert seen.records.charge_c == pytest.approx(9e-3 * 20e-3 + 1e-3 * 39.9e-3)
    assert seen.records.energy_j == pytest.approx(3.0 * (9e-3 * 20e-3 + 1e-3 * 39.9e-3))
    assert seen.records.pulse_j == pytest.approx(3.0 * 10e-3 * 20e-3)
    (pulse,) = seen.pulses
    assert (pulse.name, pulse.count) == ("c2", 2)
    assert pulse.widths_s == pytest.approx((10e-3, 20e-3))
    columns = seen.strip.columns(60)
    assert len(columns.mean) * columns.step_s == pytest.approx(40e-3), "the strip is the last record"
    assert np.isfinite(columns.mean).all()


def test_noise_on_a_trigger_channel_is_no_pulse() -> None:
    noise = np.random.default_rng(3).normal(0.0, 0.3, 2000)
    channels = (
        Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.INSTANT),
        Channel(name="c2", quantity=Quantity.SIGNAL, unit="V", kind=Kind.INSTANT),
    )
    live = Live(replace(header(1e4), channels=channels, triggered=True), 10.0)
    live.feed([Block(first_index=0, data={"current": np.zeros(2000), "c2": noise})])
    assert live.look().pulses[0].count == 0


def test_a_strip_against_a_plain_calculation() -> None:
    values = np.abs(np.random.default_rng(1).normal(1.0, 0.5, 30_000))
    strip = Strip(0.01)  # 100 samples a bin, 600 bins: the last six seconds
    at = np.arange(30_000) / 10_000
    for first in range(0, 30_000, 700):
        some = slice(first, first + 700)
        strip.add(at[some], at[some] + 1e-4, values[some], values[some])
    columns = strip.columns(60)
    assert columns.step_s == pytest.approx(0.1)
    by_column = values.reshape(30, 1000)
    assert columns.mean[-30:] == pytest.approx(by_column.mean(axis=1))
    assert columns.low[-30:] == pytest.approx(by_column.min(axis=1))
    assert columns.high[-30:] == pytest.approx(by_column.max(axis=1))
    assert np.isnan(columns.mean[:-30]).all(), "nothing was measured before"


def test_columns_stay_while_time_goes_on() -> None:
    strip = Strip(0.1)
    at = np.arange(0.0, 90.0, 0.1)
    power = np.floor(at / 7.0)
    shown = []
    for first in range(0, 900, 33):
        some = slice(first, first + 33)
        strip.add(at[some], at[some] + 0.1, power[some], power[some])
        shown.append(strip.columns(60).mean)
    done = [column[np.isfinite(column)][:-1] for column in shown]
    for before, after in itertools.pairwise(done):
        tail = before[-20:]
        where = [k for k in range(len(after) - len(tail) + 1) if np.array_equal(after[k : k + len(tail)], tail)]
        assert where, "a column that was complete has changed"
    # Longer than the strip in one step: only the end is left, and what is in it is right.
    strip.add(np.array([90.0]), np.array([1000.0]), np.array([5.0]), np.array([5.0]))
    assert strip.columns(60).mean == pytest.approx(np.full(BINS // 10, 5.0))


# -- text -------------------------------------------------------------------------------------------------------------


def view(seen: Figures, head: Header, **told: str | float) -> View:
    usual = {
        "name": "meter", "elapsed_s": 12.3, "heard_s": 0.1, "rate_hz": None, "power_unknown": None, "calibrated": None,
        "remark": None,
    }  # fmt: skip
    return View(header=head, figures=seen, **{**usual, **told})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(80, 24), (80, 8), (60, 12), (132, 50), (30, 6), (20, 3)], ids=str)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp437", "latin-1"])
def test_every_size_is_kept(size: tuple[int, int], encoding: str) -> None:
    one = loaded(parse_load("800mA/2ms/d0/d1/d2/d3/d4/d5/d6/d7,-25nA/3ms"), 3.0, 10_000.0)
    hostile = replace(one.header, model="\x1b]0;owned\x07 Mètre\n\x9b2J" * 3, address="/dev/" + "x" * 90)
    seen = replace(figures(one), lost=12_345_678_901, samples=98_765_432_109, clipped=7, energy_j=1.234e7)
    views = [view(seen, hostile, remark="Not used. " * 20)] * 2
    width, height = size
    lines = watchtext.screen(views, width, height, watchtext.glyphs(encoding))
    shown = watchtext.render(lines, width, encoding, colour=False)
    assert len(shown) <= height
    assert max(map(len, shown)) <= width
    assert all(line.isprintable() or not line for line in shown)
    for line in shown:
        line.encode(encoding)
    coloured = watchtext.render(lines, width, encoding, colour=True)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == shown
    assert any("\x1b[" in line for line in coloured)


def test_blocks_only_where_the_encoding_has_them() -> None:
    assert watchtext.glyphs("utf-8") is watchtext.BLOCKS
    for encoding in ("ascii", "latin-1", "koi8-r", "nonsense", None):
        assert watchtext.glyphs(encoding) is watchtext.ASCII


@pytest.mark.parametrize(
    ("top", "end"),
    [(None, 1.0), (0.0, 1.0), (9.99e-3, 10e-3), (24.1e-3, 30e-3), (1.0, 1.0), (100.0, 100.0), (5.4e-7, 6e-7)],
)
def test_the_axis_ends_at_a_round_number(top: float | None, end: float) -> None:
    assert watchtext.axis_end(top) == pytest.approx(end)


def test_the_strip_is_drawn_to_scale() -> None:
    """Half of the axis for half of the width, three quarters after it: of 8 rows 4 and 6 are full."""
    current = np.repeat([5e-3, 7.5e-3, 10e-3], (500, 450, 50))
    seen = figures(stream(current, np.zeros(1000, np.uint8), 1000.0, volts=None), span_s=1.0)
    lines = watchtext.screen([view(seen, header(1000.0, None), power_unknown="why")], 71, 24, watchtext.BLOCKS)
    text = watchtext.render(lines, 71, "utf-8", colour=False)
    rows = [line[11:] for line in text if line[10:11] == "│"]
    assert len(rows) == 8
    assert [row[10] for row in rows] == list("    ████")
    assert [row[40] for row in rows] == list("  ██████")
    assert [row[59] for row in rows] == list("████████")
    assert "why" in "".join(text)


def test_unknown_is_never_zero() -> None:
    nothing = Live(header(1000.0), 10.0).look()
    text = " ".join(
        watchtext.render(
            watchtext.panel(view(nothing, header(1000.0)), 80, 24, watchtext.ASCII), 80, "ascii", colour=False
        )
    )
    assert "waiting" in text and " 0 " not in text.replace("0 samples   0 lost", "") and " W" not in text
    assert "low" not in text and "high" not in text
    told = watchtext.as_json(view(nothing, header(1000.0)), "reading")
    assert told["power_w"] is told["energy_j"] is told["charge_c"] is told["rate_hz"] is None
    triggered = replace(header(1000.0), triggered=True)
    waiting = Live(triggered, 10.0).look()
    assert "waiting for the trigger" in watchtext.plain(view(waiting, triggered), named=False)
    assert watchtext.as_json(view(waiting, triggered), "reading")["records"]["duration_s"] is None


# -- the program ------------------------------------------------------------------------------------------------------


@contextmanager
def on_a_terminal(*arguments: str, columns: int = 80, rows: int = 24, **environment: str) -> Iterator[Program]:
    program = Program([*WATCH, *arguments], columns, rows, **environment)
    try:
        yield program
    finally:
        program.close()


def left_as_found(program: Program) -> None:
    import termios

    assert program.terminal.modes == {"cursor": True, "wrap": True, "alternate": False, "frame": False}
    assert termios.tcgetattr(program.device) == program.before


def test_a_terminal_of_eighty_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with on_a_terminal(*SIMULATED, "--span", "1s") as program:
        terminal = program.until(lambda one: len(one.frames) > 8)
        screen = terminal.frames[-1]
        assert terminal.modes["alternate"] and not terminal.modes["cursor"]
        assert screen[0].startswith("ppk2 ") and "SIMULATED" in screen[0]
        (power,) = [line for line in screen if line.startswith("power")]
        now_w, mean_w, low_w, high_w = (float(text) for text in re.findall(r"([\d.]+) [mu]W", power))
        assert mean_w == pytest.approx(MEAN_W * 1e3, rel=0.1)  # of whole and begun cycles
        assert 0.7 < now_w < 25
        assert low_w == pytest.approx(750, rel=0.1) and high_w == pytest.approx(24, rel=0.1)
        text = "\n".join(screen)
        assert "100" in re.search(r"rate ([\d.]+) kHz", text)[1] or "rate" in text  # type: ignore[index]
        assert "0 lost" in text and "energy" in text and "charge" in text
        assert re.search(r"^d0 +(high|low) +\d+ pulses +last 20\.00 ms +every 100\.0 ms", text, re.MULTILINE)
        assert "d1 d2 d3 d4 d5 d6 d7 low" in text
        assert "█" in text and "▁" in text
        assert terminal.colours
        for columns, rows in ((50, 10), (120, 40), (80, 24)):
            resized(program, columns, rows)
        program.type(b"not echoed\x1b[A")
        program.type(b"\x03")
        assert program.end() == (0, "")
        left_as_found(program)
        last = " ".join(terminal.usual)
        assert last.startswith("ppk2: ") and "0 of" in last and "SIMULATED" in last
        assert max(map(len, terminal.usual)) <= 80
    assert not list(tmp_path.iterdir()), "nothing is recorded"


def resized(program: Program, columns: int, rows: int) -> None:
    """Nothing of the old size is left behind."""
    program.resize(columns, rows)
    before = len(program.terminal.frames)
    # A frame of the old size may have been on its way.
    with contextlib.suppress(AssertionError):
        program.until(lambda one: len(one.frames) > before)
    before = len(program.terminal.frames)
    screen = program.until(lambda one: len(one.frames) > before + 1).frames[-1]
    titles = [line for line in screen if line.startswith("ppk2")]
    assert len(titles) == 1 and max(map(len, screen)) <= columns
    assert sum("Ctrl-C" in line for line in screen) == 1


def test_two_meters_without_colour_in_ascii() -> None:
    arguments = ("--meter", "ppk2", "--meter", "um25c", "--simulate", "--supply", "3V")
    with on_a_terminal(*arguments, rows=30, NO_COLOR="1", PYTHONIOENCODING="ascii") as program:
        terminal = program.until(lambda one: len(one.frames) > 12)
        program.type(b"q")
        assert program.end() == (0, "")
        left_as_found(program)
        screen = terminal.frames[-1]
        assert [line.split()[0] for line in screen if "SIMULATED" in line] == ["ppk2", "um25c"]
        assert "".join(screen).isascii() and "#" in "".join(screen)
        assert not terminal.colours
        assert [line.split(":")[0] for line in terminal.usual if not line.startswith(" ")] == ["ppk2", "um25c"]


def test_an_unplugged_meter_gives_the_terminal_back() -> None:
    with on_a_terminal(*SIMULATED, "--faults", "unplug@3s") as program:
        code, error = program.end(60)
        assert code == 6
        assert "lost while reading" in " ".join(error.split()) and "kept" not in error and "Traceback" not in error
        left_as_found(program)
        assert program.terminal.frames
        assert "mean" in " ".join(program.terminal.usual)


def piped(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WATCH, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "80", **environment},
    )


def test_a_pipe_gets_plain_lines() -> None:
    # 32 words of four bytes are lost.
    done = piped(*SIMULATED, "--duration", "2.5s", "--faults", "drop@0.5s:128")
    assert (done.returncode, done.stderr) == (0, "")
    *readings, first, second = done.stdout.splitlines()
    assert len(readings) == 2
    for line in readings:
        assert line.isprintable() and "SIMULATED" in line
        assert re.match(r"[\d.]+ s  [\d.]+ mW  mean [\d.]+ mW  ", line)
        assert "  32 LOST  d0 " in line and " 20.00 ms" in line
    assert first.startswith("ppk2: ") and second.startswith("  ")


def test_a_pipe_gets_lines_of_json() -> None:
    done = piped(*SIMULATED, "--duration", "2.5s", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    *readings, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["type"] for one in readings] == ["reading", "reading"] and last["type"] == "summary"
    assert last["simulated"] is True and last["meter"] == "ppk2" and last["voltage_basis"] == "set"
    assert last["energy_j"] == pytest.approx(last["power_w"]["mean"] * last["covered_s"])
    assert last["energy_j"] == pytest.approx(3.0 * last["charge_c"])
    # Whole cycles but for one that had begun.
    one_j = MEAN_W * 0.1
    assert abs(last["energy_j"] - MEAN_W * last["covered_s"]) < one_j + 5e-3 * last["energy_j"]
    assert last["covered_s"] == pytest.approx(last["samples"] / 100_000)
    assert last["lost"] == 0 and last["records"] is None and last["power_unknown"] is None
    line = last["lines"]["d0"]
    assert line["widths_s"] == pytest.approx([20e-3] * len(line["widths_s"]), abs=2e-5)
    assert line["period_s"] == pytest.approx(0.1, abs=2e-5)
    # The first one and the last one may have been seen in part.
    assert abs(line["pulses"] - last["covered_s"] * 10) <= 2.1


class Overheard:
    """A simulated PPK2 that keeps what it was told."""

    def __init__(self) -> None:
        self.device: Device = instrument("ppk2").simulate(parse_load("1mA/1s"), Options())
        self.heard = b""

    def receive(self, data: bytes) -> None:
        self.heard += data
        self.device.receive(data)

    def transmit(self, now_s: float) -> bytes:
        return self.device.transmit(now_s)


@contextmanager
def served(device: Device) -> Iterator[str]:
    stop, ready = threading.Event(), threading.Event()
    address: list[str] = []

    def announce(text: str) -> None:
        address.append(text)
        ready.set()

    server = threading.Thread(target=serve_pty, args=(device, announce, stop.is_set), daemon=True)
    server.start()
    try:
        assert ready.wait(5)
        yield address[0]
    finally:
        stop.set()
        server.join(5)


@pytest.mark.parametrize(
    ("faults", "kind", "words"),
    [
        ("stall@0.5s", IncompleteError, "has sent nothing for 2 s"),
        ("noise@0.5s", DataError, "do not look like its words"),
        ("unplug@0.5s", IncompleteError, "lost while reading"),
    ],
)
def test_an_end_has_a_name(faults: str, kind: type[JouleMeterError], words: str) -> None:
    device = instrument("ppk2").simulate(parse_load("1mA/1s"), Options())
    with served(FaultyDevice(device, parse_faults(faults))) as address:
        meter = Meter(key="ppk2", address=address, options=Options(declared_v=3.0))
        with Watched("ppk2", meter, address, 10.0) as watched:
            deadline = time.monotonic() + 20
            with pytest.raises(kind, match=words) as caught:
                while time.monotonic() < deadline:
                    watched.poll()
                    time.sleep(0.02)
            seen = watched.look().figures
    assert "kept" not in str(caught.value)
    assert seen.samples > 10_000 and seen.energy_j == pytest.approx(3e-3 * seen.covered_s, rel=5e-3)


def test_power_is_unknown_without_a_voltage() -> None:
    device = instrument("ppk2").simulate(parse_load("1mA/1s"), Options())
    with served(device) as port, Watched("ppk2", Meter(key="ppk2", address=port), port, 10.0) as watched:
        deadline = time.monotonic() + 20
        while (seen := watched.look()).figures.current is None and time.monotonic() < deadline:
            watched.poll()
            time.sleep(0.02)
    assert seen.figures.power is None and seen.figures.energy_j is None
    assert seen.power_unknown is not None and "--supply or --assume-voltage" in seen.power_unknown
    line = watchtext.plain(seen, named=False)
    assert "power unknown" in line and "1.0" in line and "W" not in line.replace("SIMULATED", "")
    assert watchtext.as_json(seen, "reading")["power_w"] is None


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Check the cable and the hub; what had arrived is kept.", "Check the cable and the hub."),
        ("What came before is kept. Unplug it; then record anew.", "Unplug it; then record anew."),
        ("What had arrived is kept; set a lower rate.", "Set a lower rate."),
        ("What had arrived is kept.", ""),
        ("Unplug it and plug it in again.", "Unplug it and plug it in again."),
    ],
)
def test_nothing_is_said_to_be_kept(said: str, left: str) -> None:
    assert of_watching(IncompleteError("It is gone.", said)).remedy == left


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["--meter", "none"], UsageError, "nothing to watch"),
        (["--meter", "pkp2"], NotFoundError, "ppk2"),
        (["--meter", "ppk2@/dev/ttyNOTHING", "--supply", "3V"], NotFoundError, "/dev/ttyNOTHING"),
        (["--meter", "ppk2", "--load", "8mA/1s"], UsageError, "--simulate"),
        (["--meter", "ppk2", "--simulate", "--duration", "5"], UsageError, "unit"),
        (["--meter", "ppk2", "--simulate", "--span", "0s"], UsageError, "greater than zero"),
    ],
)
def test_what_cannot_be_watched(arguments: list[str], kind: type[JouleMeterError], words: str) -> None:
    with pytest.raises(kind, match=words):
        app(args=arguments, standalone_mode=False)


def test_a_closed_terminal_does_not_leave_the_board_powered() -> None:
    device = Overheard()
    with served(device) as address:
        process = subprocess.Popen(
            [*WATCH, "--meter", f"ppk2@{address}", "--supply", "3V", "--json"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["type"] == "reading"
            process.send_signal(signal.SIGHUP)
            rest, _ = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0
    assert json.loads(rest.splitlines()[-1])["type"] == "summary"
    # Nordic's protocol: 0x0c switches the supply, 0x07 ends the stream.
    assert device.heard.rindex(b"\x0c\x00") > device.heard.rindex(b"\x0c\x01")
    assert b"\x07" in device.heard[device.heard.rindex(b"\x0c\x01") :]


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen(
        [*WATCH, "--meter", "um25c", "--simulate", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(20), error) == (0, "")


def test_the_tiny_terminal_notices_what_it_must() -> None:
    """The checker itself: a line too long, a scrolled screen and a stray sequence are found."""
    for text in ("x" * 11, "\n" * 3, "\x1b]0;title\x07" + " " * 16, "\x1b[3A", "\x1b[?1000h"):
        terminal = Terminal(10, 3)
        terminal.feed("\x1b[?1049h")
        with pytest.raises(AssertionError):
            terminal.feed(text)
