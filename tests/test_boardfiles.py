"""What meters that a board is itself have in common: the lines, the decoder, the clocks, and the agent that reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulemeter.boardfiles import driver as boardfiles
from joulemeter.boardfiles import wire
from joulemeter.boardfiles.decode import RoundDecoder
from joulemeter.boardfiles.driver import FilesDriver, Plan, Survey, interval_s
from joulemeter.boardfiles.simulator import BoardSimulator
from joulemeter.capture import Accuracy, Channel, Header, Kind, Limit, Quantity, Status
from joulemeter.caveat import Code, note
from joulemeter.errors import DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Device
from joulemeter.synthetic import parse_load
from joulemeter.transport.connect import connect
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.loopback import LoopbackLink
from joulemeter.transport.process import ProcessLink
from joulemeter.transport.serve import serve_tcp
from joulemeter.workload import agent


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers, it is not worth waiting."""
    monkeypatch.setattr(boardfiles, "STOP_S", 0.3)
    monkeypatch.setattr(boardfiles, "ANSWER_S", 0.5)


posix_only = pytest.mark.skipif(os.name != "posix", reason="pipes are not on this system")

ROW = Accuracy(range=None, gain=Limit(value=0.01), offset=Limit(value=0.0), source="a test", verified=False)
POWER = Channel(name="power", quantity=Quantity.POWER, unit="W", kind=Kind.INSTANT, accuracy=(ROW,))
VOLTAGE = Channel(name="voltage", quantity=Quantity.VOLTAGE, unit="V", kind=Kind.INSTANT, accuracy=(ROW,))

# -- lines ------------------------------------------------------------------------------------------------------------

# As the agent of this version sends them: slots of 10 ms from 1 s on, two numbers, 216 bytes a line.
WIDTH = 216
FIRST_NS, INTERVAL_NS = 1_000_000_000, 10_000_000


def line(slot: int, milliwatts: str | None = "812", failure: str = "null", late_ns: int = 100_000) -> bytes:
    at = FIRST_NS + slot * INTERVAL_NS + late_ns
    text = "null" if milliwatts is None else f'"{milliwatts}"'
    reads = f'[[{at},{at + 200_000},{text},{failure}],[{at + 200_000},{at + 400_000},"5000",null]]'
    return f'{{"poll":[{slot},{reads},{slot}]}}'.encode().ljust(WIDTH - 1) + b"\n"


def header(age_ns: int = 0) -> Header:
    return Header(
        instrument="test",
        model="by hand",
        wire=wire.FORMAT,
        rate_hz=100.0,
        word_bytes=WIDTH,
        channels=(POWER, VOLTAGE),
        parameters={
            "sources": [["number", "power"], ["number", "voltage"]],
            "interval_ns": INTERVAL_NS,
            "first_ns": FIRST_NS,
            "age_ns": age_ns,
        },
    )


def milli(found: wire.Round) -> Sequence[float] | None:
    numbers = [read.number for read in found.reads]
    return None if None in numbers else [number / 1e3 for number in numbers if number is not None]


def decoder(age_ns: int = 0, values: Callable[[wire.Round], Sequence[float] | None] = milli) -> RoundDecoder:
    return RoundDecoder(header(age_ns), values)


def test_a_line_by_hand() -> None:
    assert wire.width([wire.Source(path="power"), wire.Source(path="voltage")]) == WIDTH
    (block,) = decoder().feed(line(0) + line(1, "-3"))
    assert block.data["power"].tolist() == [0.812, -0.003]
    assert block.data["voltage"].tolist() == [5.0, 5.0]
    # The middle between the first and the last stamp, from when slot 0 was due.
    assert block.times_ns is not None and block.times_ns.tolist() == [300_000, 10_300_000]
    assert (block.first_index, block.lost_before, block.consumed) == (0, 0, 2 * WIDTH)
    assert block.status is None


def test_a_reading_lies_where_the_middle_of_what_it_stands_for_lies() -> None:
    (block,) = decoder(age_ns=35_000_000).feed(line(0))
    assert block.times_ns is not None and block.times_ns.tolist() == [300_000 - 35_000_000]


def test_what_is_no_measurement_is_marked() -> None:
    def doubtful(found: wire.Round) -> Sequence[float]:
        return [float("nan") if found.slot == 1 else 1.0, 5.0]

    (block,) = decoder(values=doubtful).feed(line(0) + line(1) + line(2))
    assert block.status is not None
    assert block.status.tolist() == [Status.GOOD, Status.INVALID, Status.GOOD] and block.status.dtype == "uint8"


@pytest.mark.parametrize(
    ("spoilt", "lost"),
    [
        (b"", 3),  # three slots were skipped
        (line(3, None, '"EIO"') + line(4, None, '"EREMOTEIO"') + line(5, None, '"EIO"'), 3),
        (line(3) + line(4)[:60] + line(5)[60:], 2),  # a word was lost that began inside a line
        (line(3, "")[:-1] + b"\n" + line(4) + line(5), 1),  # no number
        (line(3) + line(4).replace(b"[4,", b"[9,") + line(5), 1),  # a slot that its stamps do not bear out
        (line(3) + line(2) + line(5), 1),  # back in time
        (line(3) + b"pong 1 2\n" + line(4) + line(5), 0),
        (line(3) + line(4, late_ns=9_500_000) + line(5), 0),  # late, but in its slot
    ],
)
def test_what_is_missing_is_counted_and_nothing_moves(spoilt: bytes, lost: int) -> None:
    raw = b"".join(map(line, range(3))) + spoilt + b"".join(map(line, range(6, 9)))
    blocks = decoder().feed(raw)
    assert sum(block.lost_before for block in blocks) == lost
    last = blocks[-1]
    for block in blocks:
        # Where a block begins is told by its end and its length.
        begins = block.consumed - len(block) * WIDTH
        assert raw[begins:].startswith(b'{"poll":[%d,' % block.first_index)
    assert last.first_index + len(last) == 9
    assert last.times_ns is not None and last.times_ns[-1] == 80_300_000


def test_another_wire_is_refused() -> None:
    with pytest.raises(UsageError, match="agent-poll/9"):
        RoundDecoder(replace(header(), wire="agent-poll/9"), milli)


def test_nonsense_is_an_error() -> None:
    made = decoder()
    assert len(made.feed(line(0))) == 1
    with pytest.raises(DataError, match="no rounds"):
        made.feed(b"x" * 70_000)


# -- a simulated board ------------------------------------------------------------------------------------------------


class Meter(BoardSimulator):
    """Milliwatts at 5 V in a file, a word in another, and a command that prints a number."""

    def texts(self, at_s: float) -> Mapping[str, str]:
        watts = self.drawn.mean_current_a(int(at_s * 100), 1, 100.0)[0] * 5.0
        return {"/sys/power": str(round(watts * 1e3)), "/sys/voltage": "5000", "/sys/state": "on"}

    def output(self, argv: Sequence[str], at_s: float) -> str | None:
        return f"{at_s:.3f} s\nand more\n" if [*argv] == ["uptime"] else None


SOURCES = (wire.Source(path="/sys/power"), wire.Source(path="/sys/voltage"))


def plan(sources: tuple[wire.Source, ...] = SOURCES, **changes: Any) -> Plan:
    fields = {"model": "test", "subject": "the test", "sources": sources, "channels": (POWER, VOLTAGE)}
    return Plan(**fields | {"usual_s": 10e-3} | changes)


def driver(device: Device, made: Plan | None = None, interval: str = "auto") -> FilesDriver:
    settings = {"interval": interval, "root": "/sys"}
    return FilesDriver(LoopbackLink(device), "test", settings, ["*"], lambda survey: made or plan())


def meter(faults: str = "") -> Device:
    return FaultyDevice(Meter(parse_load("1A/1s")), parse_faults(faults))


def read(one: FilesDriver, seconds: float) -> tuple[Header, bytes]:
    made = one.start()
    raw = b""
    while len(raw) < seconds * made.rate_hz * made.word_bytes:
        raw += one.read(0.1)
    return made, raw


def test_a_plan_becomes_a_header_and_a_stream() -> None:
    seen: list[Survey] = []

    def look(survey: Survey) -> Plan:
        seen.append(survey)
        return plan(age_s=5e-3, parameters={"more": 1}, caveats=(note(Code.FEW_SAMPLES, "One."),), tried=tried)

    def tried(rounds: Sequence[wire.Round]) -> Any:
        assert [found.reads[0].text for found in rounds] == ["5000"] * 5
        return (note(Code.FEW_SAMPLES, "Two."),)

    settings = {"interval": "20ms", "root": "/sys/"}
    link = LoopbackLink(meter())
    with FilesDriver(link, "test", settings, ["st*"], look, [["uptime"], ["nothing"]]) as one:
        made, raw = read(one, 0.5)
    assert seen[0].root == "/sys" and seen[0].files.texts == {"/sys/state": "on"}
    assert [(out.code, out.said) for out in seen[0].files.outputs] == [(0, ""), (None, "ENOENT")]
    assert seen[0].files.outputs[0].text.endswith(" s\nand more\n")
    assert made.simulated and made.rate_hz == 50.0 and made.word_bytes == WIDTH
    assert (made.parameters["age_ns"], made.parameters["more"]) == (5_000_000, 1)
    assert [caveat.text for caveat in made.caveats] == ["One.", "Two."]
    (block,) = RoundDecoder(made, milli).feed(raw)
    assert block.first_index == 0 and set(block.data["power"]) == {5.0}


def test_words_and_outputs_are_read_like_files() -> None:
    sources = (
        wire.Source(kind=wire.Kind.TEXT, path="/sys/state"),
        wire.Source(kind=wire.Kind.OUTPUT, argv=("uptime",)),
    )
    with driver(meter(), plan(sources)) as one:
        made, raw = read(one, 0.1)
    assert made.parameters["sources"] == [["text", "/sys/state"], ["output", ["uptime"]]]
    found = wire.parse_round(raw[: made.word_bytes - 1], 2, made.word_bytes)
    assert found is not None
    assert found.reads[0].text == "on" and str(found.reads[1].text).endswith(" s\nand more\n")


def test_it_can_be_started_again() -> None:
    with driver(meter()) as one:
        for _ in range(2):
            made, raw = read(one, 0.2)
            blocks = RoundDecoder(made, milli).feed(raw)
            assert len(blocks) == 1 and blocks[0].first_index == 0
            with pytest.raises(UsageError, match="already"):
                one.start()
            one.stop()


def test_what_an_earlier_program_left_running_is_ended() -> None:
    link = LoopbackLink(meter())
    settings = {"interval": "auto", "root": "/sys"}
    first = FilesDriver(link, "test", settings, ["*"], lambda survey: plan())
    first.start()
    first.read(0.3)
    # It was killed: nobody stopped the board, whose lines are still coming.
    with FilesDriver(link, "test", settings, ["*"], lambda survey: plan()) as second:
        made, raw = read(second, 0.3)
    blocks = RoundDecoder(made, milli).feed(raw)
    assert len(blocks) == 1 and blocks[0].first_index == 0


def test_the_simulator_tells_what_it_cannot_do() -> None:
    device = meter()
    for asked in (
        {"op": "poll", "sources": [["number", "/etc/passwd"]], "interval_ns": 1, "width": 9},
        {"op": "open"},
    ):
        device.receive(json.dumps(asked).encode() + b"\n")
        assert "error" in json.loads(device.transmit(0.1))
    device.receive(b"nonsense\n[]\nping\n")
    assert device.transmit(0.2).startswith(b"pong ")


def test_what_is_refused_by_the_board_is_told() -> None:
    """The agent answers what it was asked with an error, before and while it polls."""
    with driver(meter(), plan((wire.Source(path="/sys/nothing"),))) as one, pytest.raises(DataError, match="cannot do"):
        one.start()
    with driver(meter()) as one:
        one.start()
        one._pending = b'{"error": {"kind": "incomplete", "what": "The card is gone.", "remedy": ""}}\n'
        with pytest.raises(IncompleteError, match="card is gone"):
            one.read(0.1)


@pytest.mark.parametrize("faults", ["stall@0.5s", "unplug@0.5s", "noise@0.5s"])
def test_trouble_while_it_polls(faults: str) -> None:
    with driver(meter(faults)) as one:
        made = one.start()
        raw = b""
        try:
            for _ in range(30):
                raw += one.read(0.1)
        except IncompleteError:
            assert faults.startswith("unplug")
        else:
            assert not faults.startswith("unplug")
        samples = sum(len(block) for block in RoundDecoder(made, milli).feed(raw[: 30 * WIDTH]))
        assert 20 <= samples <= 50


def test_nobody_there() -> None:
    class Mute:
        def receive(self, data: bytes) -> None:
            """Something else."""

        def transmit(self, now_s: float) -> bytes:
            return b"hello\n" if now_s < 0.1 else b""

    with pytest.raises(NotFoundError, match="agent"):
        driver(Mute())


def test_intervals() -> None:
    assert interval_s("auto", 0.25) == 0.25 and interval_s("1ms", 0.25) == 1e-3
    for text in ("1us", "2s", "often"):
        with pytest.raises(UsageError):
            interval_s(text, 0.25)


# -- clocks -----------------------------------------------------------------------------------------------------------


def test_a_clock_behind_a_port_is_related_by_the_request() -> None:
    """A simulated board is up for 5 s when it is served, so what its clock is ahead by is known."""
    stop, ready, where = threading.Event(), threading.Event(), [""]

    def announce(address: str) -> None:
        where[0] = address
        ready.set()

    arguments = (Meter(parse_load("1A/1s")), ("127.0.0.1", 0), announce, stop.is_set)
    server = threading.Thread(target=serve_tcp, args=arguments, daemon=True)
    began_ns = time.monotonic_ns()
    server.start()
    ready.wait(5)
    late_ns = time.monotonic_ns() - began_ns
    try:
        settings = {"interval": "auto", "root": "/sys"}
        with FilesDriver(connect(where[0]), "test", settings, ["*"], lambda survey: plan()) as one:
            made = one.start()
    finally:
        stop.set()
        server.join(5)
    epoch = made.epoch
    assert epoch is not None
    # Its clock began somewhere between our two stamps.
    lowest_ns = made.parameters["first_ns"] - 5_000_000_000 + began_ns
    room_ns = epoch.u_s * 3**0.5 * 1e9 + 1e5
    assert -room_ns <= epoch.monotonic_ns - lowest_ns <= late_ns + 2e8 + room_ns
    assert 0 < epoch.u_s < 0.1 and epoch.u_drift_ppm == pytest.approx(100 / 3**0.5)
    assert abs(epoch.utc_ns - epoch.monotonic_ns - (time.time_ns() - time.monotonic_ns())) < 5e7


@posix_only
def test_the_clock_of_this_host_is_the_hosts(tmp_path: Path) -> None:
    (tmp_path / "power").write_text("5000\n")
    (tmp_path / "voltage").write_text("5000\n")
    sources = tuple(wire.Source(path=str(tmp_path / name)) for name in ("power", "voltage"))
    link = ProcessLink([sys.executable, "-I", "-u", agent.__file__], "")
    settings = {"interval": "auto", "root": str(tmp_path)}
    before_ns = time.monotonic_ns()
    with FilesDriver(link, "test", settings, ["*"], lambda survey: plan(sources)) as one:
        made = one.start()
        raw = b""
        while len(raw) < 5 * WIDTH:
            raw += one.read(0.1)
    # The clock is the same; only what a round takes is open.
    assert made.epoch is not None and 0 < made.epoch.u_s < 0.05 and made.epoch.u_drift_ppm == 0.0
    assert made.epoch.monotonic_ns == made.parameters["first_ns"]
    (block,) = RoundDecoder(made, milli).feed(raw)
    assert block.times_ns is not None
    stamps = block.times_ns + made.epoch.monotonic_ns
    assert before_ns < stamps[0] and stamps[-1] < time.monotonic_ns()


# -- the agent --------------------------------------------------------------------------------------------------------


@posix_only
def test_the_agent_reads_words_and_outputs(tmp_path: Path) -> None:
    """A file that turns to nonsense, a word, a command that prints, one that fails, and one that is not there."""
    (tmp_path / "number").write_text("-12\n")
    (tmp_path / "word").write_text("Not charging\n")
    (tmp_path / "long").write_text("x" * 65)
    fails = [sys.executable, "-c", "raise SystemExit(3)"]
    prints = [sys.executable, "-c", r"print(' A\n  \u00b5 $HOME')"]
    sources: list[list[Any]] = [
        ["number", str(tmp_path / "number")],
        ["number", str(tmp_path / "word")],
        ["text", str(tmp_path / "word")],
        ["text", str(tmp_path / "long")],
        ["output", prints],
        ["output", fails],
        ["output", ["/no/such/program"]],
    ]
    process = subprocess.Popen(
        [sys.executable, "-I", "-u", agent.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(wire.request("poll", sources=sources, interval_ns=1_000_000_000, width=6000))
    process.stdin.flush()
    process.stdout.readline()  # who it is
    assert "polling" in json.loads(process.stdout.readline())
    raw = process.stdout.readline()
    process.stdin.write(wire.STOP + wire.request("files", patterns=[], commands=[prints, fails, ["/no/such"]]))
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["ok"]["rounds"] == 1
    outputs = json.loads(process.stdout.readline())["ok"]["outputs"]
    process.stdin.close()
    process.wait(5)
    process.stdout.close()
    assert len(raw) == 6000
    found = wire.parse_round(raw[:-1], len(sources), 6000)
    assert found is not None
    assert [(each.text, each.failure) for each in found.reads] == [
        ("-12", None),
        (None, "EDOM"),
        ("Not charging", None),
        (None, "EMSGSIZE"),
        ("A\n  \u00b5 $HOME", None),
        (None, "EIO"),
        (None, "ENOENT"),
    ]
    assert outputs[0] == [0, " A\n  \u00b5 $HOME\n", ""]
    assert outputs[1][:2] == [3, ""] and outputs[2] == [None, "", "ENOENT"]
