from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import START_NS, BenchLink, device_s
from helpers import header
from test_boards import IDLE_A, INFERENCE_C, LOAD, falls

from joulemeter.capture import ArrayStream, Event, Recording, Timebase
from joulemeter.errors import IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.physics.analyze import Request, analyze
from joulemeter.synthetic import parse_load
from joulemeter.transport.serve import serve_pty
from joulemeter.workload import SimulatedBoard, Stamps, mlperf_inputs, mlperf_tiny
from joulemeter.workload.firmware import Conversation
from joulemeter.workload.mlperf_tiny import MlperfTiny

INFERENCE_S = 25e-3  # of LOAD
VOLTS = 3.0


def quiet(text: str) -> None:
    del text


@dataclass
class Bench:
    board: SimulatedBoard
    link: BenchLink
    workload: MlperfTiny
    said: list[str] = field(default_factory=list)

    def ready(self) -> None:
        self.workload.prepare()
        self.workload.ready(self.said.append)
        self.workload.warm_up(1)

    def commands(self) -> list[str]:
        return self.link.sent.decode().split("%")[:-1]


def on_bench(
    board: Mapping[str, str] | None = None,
    load: str | None = None,
    unplug_s: float = float("inf"),
    **settings: Any,
) -> Bench:
    made = mlperf_tiny.simulate(parse_load(load) if load else LOAD, board or {})
    link = BenchLink(made.device, unplug_s)
    managed = (board or {}).get("io") == "on"
    mode = settings.get("mode", "energy")
    baud = mlperf_tiny.MANAGER_BAUD if managed else mlperf_tiny.BAUD[mode]
    settings = {"window_s": 1.0} | settings
    return Bench(made, link, MlperfTiny("bench", baud, open_link=link.open, now_ns=link.now_ns, **settings))


def within(bench: Bench, stamps: Stamps, slack_s: float) -> list[list[float]]:
    """The stamp line's falling edges in each window, and as far beside it as the stamps may be off."""
    edges = falls(bench.board.timeline)
    pairs = zip(stamps.begin_ns.tolist(), stamps.end_ns.tolist(), strict=True)
    return [
        [edge for edge in edges if device_s(begin) - slack_s <= edge <= device_s(end) + slack_s] for begin, end in pairs
    ]


# -- what it measures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manager", ["off", "on"])
def test_windows_hold_the_two_edges_of_their_inferences(manager: str) -> None:
    bench = on_bench({"io": manager}, window_s=10.0, manager=None)
    bench.ready()
    assert bench.workload.habits.windows == 5
    for number in range(5):
        stamps = bench.workload.run(1)
        assert stamps.u_s is not None
        (edges,) = within(bench, stamps, 2e-3 + 4 * stamps.u_s)
        start, stop = edges
        count = stamps.inferences_per_window
        assert stop - start == pytest.approx(1e-3 + count * INFERENCE_S)
        assert bench.board.timeline.charge_c(start, stop) == pytest.approx(count * INFERENCE_C + 1e-3 * IDLE_A)
        # The board's line begins to be sent after the low time of the second edge; a manager passes on whole lines.
        assert device_s(int(stamps.end_ns[0])) - stop == pytest.approx(1e-3, abs=2e-3 + 20e-3 * (manager == "on"))
        assert abs(device_s(int(stamps.begin_ns[0])) - start) < 2 * stamps.u_s
        told = bench.workload.describe()["windows"]
        assert len(told) == number + 1
        assert told[-1]["inferences"] == count
    about = bench.workload.describe()
    assert about["io_manager"] is (manager == "on")
    assert about["short_windows"] == 0
    assert [row["input"] for row in about["windows"]] == [f"seed 0 #{k}" for k in range(5)]


def test_the_board_classifies_what_was_uploaded() -> None:
    bench = on_bench()
    bench.ready()
    bench.workload.run(5)
    generator = np.random.default_rng(0)
    expected = [zlib.crc32(generator.bytes(490)) % 12 for _ in range(5)]
    assert [row["top1"] for row in bench.workload.describe()["windows"]] == expected


def test_the_sixth_window_has_the_first_input_again() -> None:
    bench = on_bench()
    bench.ready()
    bench.workload.run(6)
    names = [row["input"] for row in bench.workload.describe()["windows"]]
    assert names[5] == names[0] != names[1]
    # The first input is on the board since the trial, and again after the fifth.
    assert sum(command.startswith("db load") for command in bench.commands()) == 6


@pytest.mark.parametrize(
    ("latency_s", "window_s", "least"), [(24e-6, 1.0, 40000), (25e-3, 10.0, 400), (0.3, 10.0, 34), (2.0, 10.0, 10)]
)
def test_a_window_lasts_long_enough_and_not_much_longer(latency_s: float, window_s: float, least: int) -> None:
    bench = on_bench({"mode": "performance"}, f"8mA/{latency_s}s/d0,1mA/1s", mode="performance", window_s=window_s)
    bench.ready()
    stamps = bench.workload.run(1)
    (row,) = bench.workload.describe()["windows"]
    assert row["lap_s"] == pytest.approx(stamps.inferences_per_window * latency_s, abs=3e-3)
    assert row["lap_s"] >= window_s
    assert stamps.inferences_per_window >= least
    if stamps.inferences_per_window > 10:
        assert row["lap_s"] < window_s + max(0.1 * window_s, 1.5 * latency_s)
    # The host's stamps agree with the board's own time.
    assert (stamps.end_ns[0] - stamps.begin_ns[0]) * 1e-9 == pytest.approx(row["lap_s"], abs=3e-3)


def test_a_number_that_is_given_is_used_and_a_short_window_is_told() -> None:
    bench = on_bench(count=20)
    bench.ready()
    assert bench.workload.run(1).inferences_per_window == 20
    assert bench.workload.run(1, 12).inferences_per_window == 12
    assert bench.workload.describe()["short_windows"] == 2
    assert [c for c in bench.commands() if c.startswith("infer")] == ["infer 1 1", "infer 20 1", "infer 12 1"]


def test_warm_ups_are_the_boards() -> None:
    bench = on_bench(count=10)
    bench.ready()
    bench.workload.warm_up(7)
    before = len(bench.link.sent)
    bench.workload.warm_up(1)
    assert len(bench.link.sent) == before
    bench.workload.run(1)
    assert bench.commands()[-1] == "infer 10 7"


@pytest.mark.parametrize(("manager", "most"), [("off", 31), ("on", 26)])
def test_uploads_fit_the_command_buffer(manager: str, most: int) -> None:
    bench = on_bench({"io": manager}, count=10)
    bench.ready()
    pieces = [c.removeprefix("dut ").removeprefix("db ") for c in bench.commands() if " load" not in c and "db " in c]
    assert bytes.fromhex("".join(pieces)) == np.random.default_rng(0).bytes(490)
    assert max(len(piece) for piece in pieces) == 2 * most
    assert {command.startswith("dut ") for command in bench.commands() if "db" in command} == {manager == "on"}
    assert not any(command == "" for command in bench.commands())


def test_an_io_manager_is_told_to_watch_the_falling_edge_and_to_stop() -> None:
    bench = on_bench({"io": "on"}, count=10)
    bench.ready()
    bench.workload.close()
    own = [command for command in bench.commands() if not command.startswith("dut ")]
    assert own[-3:] == ["tm 0", "enable-timer", "disable-timer"]
    assert bench.link.closed == 1


def test_lines_are_kept_as_they_came() -> None:
    bench = on_bench({"mode": "performance"}, mode="performance", count=10)
    bench.ready()
    bench.workload.run(1)
    events = bench.workload.heard()
    labels = [event.label for event in events]
    assert labels[0] == "m-timestamp-mode-performance"
    assert sum(label.startswith("m-lap-us-") for label in labels) == 6
    assert labels[-2].startswith("m-results-[0.") and labels[-1] == "m-ready"
    assert {event.source for event in events} == {"serial"}
    stamps = [event.monotonic_ns or 0 for event in events]
    assert stamps == sorted(stamps)
    assert bench.workload.heard() == []


def test_a_board_that_is_powered_later_is_waited_for() -> None:
    bench = on_bench({"boot": "1.5s"})
    timeline = bench.board.timeline
    timeline.powered(False, 0.0)

    class Late(BenchLink):
        def read(self, timeout_s: float) -> bytes:
            if self.now_s >= 0.3:
                timeline.powered(True, self.now_s)
            return super().read(timeout_s)

    link = Late(bench.board.device)
    workload = MlperfTiny("bench", 9600, open_link=link.open, now_ns=link.now_ns, window_s=1.0)
    workload.prepare()
    workload.ready(quiet)
    assert workload.describe()["vendor"] == "joulemeter simulator"
    assert "m-init-done" in [event.label for event in workload.heard()]


def test_energy_per_inference_comes_out_of_the_whole_chain() -> None:
    """Board, edges, host windows, physics: the closed form again."""
    bench = on_bench({"stamp": "1ms"})
    bench.ready()
    events: list[Event] = []
    for _ in range(3):
        stamps = bench.workload.run(1)
        count = stamps.inferences_per_window
        for label, at in (("begin", stamps.begin_ns[0]), ("end", stamps.end_ns[0])):
            data = {"inferences": count} if label == "end" else {}
            events.append(Event(label=label, source="host", monotonic_ns=int(at), u_s=stamps.u_s, data=data))
    rate_hz = 10_000.0
    samples = int(bench.link.now_s * rate_hz)
    about = replace(header(rate_hz, VOLTS), simulated=True)
    stream = ArrayStream(
        name="test",
        header=about,
        timebase=Timebase(rate_hz=rate_hz, monotonic_ns=START_NS, u_host_s=1e-4, u_drift_ppm=1.0),
        data={
            "current": bench.board.timeline.mean_current_a(0.0, samples, rate_hz),
            "digital": bench.board.timeline.lines(0.0, samples, rate_hz),
        },
    )
    recording = Recording(name="test", streams=(stream,), trigger="d0:falling-pairs", events=tuple(events))
    result = analyze(recording, Request()).result
    assert result.windows.used == 3
    assert result.energy_per_inference_j is not None
    assert result.energy_per_inference_j.median is not None
    expected_j = VOLTS * (INFERENCE_C + 1e-3 * IDLE_A / count)
    # An edge is read to one sample in ten thousand of a window.
    assert result.energy_per_inference_j.median == pytest.approx(expected_j, rel=2e-4)


# -- firmware that others wrote ---------------------------------------------------------------------------------------

# What the firmware of mlcommons/tiny 1afd2c9 printed, compiled for a PC with a stand-in for the network that takes
# 20 ms and answers sum(31^(489-k) byte_k) mod 12; input: the first 490 bytes of numpy's default_rng(0).
RESULTS = b"m-results-[0.009,0.009,0.009,0.009,0.009,0.009,0.009,0.900,0.009,0.009,0.009,0.009]\r\nm-ready\r\n"
COMMON = {
    "name": b"m-name-dut-[unspecified]\r\nm-ready\r\n",
    "profile": b"m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[kws01]\r\nm-ready\r\n",
    "db load 490": b"m-[Expecting 490 bytes]\r\nm-ready\r\n",
}
FIRMWARE = {
    "energy": {
        "": b"m-timestamp-mode-energy\r\nm-init-done\r\nm-ready\r\n",
        "timestamp": b"m-ready\r\n",
        "infer 1 1": b"m-warmup-start-1\r\nm-warmup-done\r\nm-infer-start-1\r\nm-infer-done\r\n" + RESULTS,
        "infer 12 1": b"m-warmup-start-1\r\nm-warmup-done\r\nm-infer-start-12\r\nm-infer-done\r\n" + RESULTS,
    },
    "performance": {
        "": b"m-timestamp-mode-performance\r\nm-lap-us-3979158591\r\nm-init-done\r\nm-ready\r\n",
        "timestamp": b"m-lap-us-3979158684\r\nm-ready\r\n",
        "infer 1 1": b"m-warmup-start-1\r\nm-warmup-done\r\nm-infer-start-1\r\nm-lap-us-3979179167\r\n"
        b"m-lap-us-3979199267\r\nm-infer-done\r\n" + RESULTS,
        "infer 12 1": b"m-warmup-start-1\r\nm-warmup-done\r\nm-infer-start-12\r\nm-lap-us-3979219496\r\n"
        b"m-lap-us-3979460904\r\nm-infer-done\r\n" + RESULTS,
    },
}


class Replay:
    """Gives the recorded answers, and fails on a command that was not recorded."""

    def __init__(self, answers: Mapping[str, bytes], pieces: int) -> None:
        self._answers, self._pieces = answers, pieces
        self._outbox = answers[""]
        self._command = b""

    def receive(self, data: bytes) -> None:
        self._command += data
        if not data.endswith(b"%"):
            return
        command, self._command = self._command[:-1].decode(), b""
        if command in self._answers:
            self._outbox += self._answers[command]
        else:
            assert command.startswith("db ") and self._pieces
            self._pieces -= 1
            self._outbox += b"m-ready\r\n" if self._pieces else b"m-load-done\r\nm-ready\r\n"

    def transmit(self, now_s: float) -> bytes:
        del now_s
        said, self._outbox = self._outbox, b""
        return said


@pytest.mark.parametrize("mode", ["energy", "performance"])
def test_the_published_firmware_is_understood(mode: str) -> None:
    link = BenchLink(Replay(COMMON | FIRMWARE[mode], pieces=16))
    workload = MlperfTiny("bench", 115200, mode=mode, count=12, open_link=link.open, now_ns=link.now_ns)
    workload.ready(quiet)
    workload.warm_up(1)
    assert workload.run(1).inferences_per_window == 12
    about = workload.describe()
    assert about["version"] == "ULPMark for tinyML Firmware V0.0.1"
    assert (about["model"], about["vendor"]) == ("kws01", "unspecified")
    (row,) = about["windows"]
    assert row["top1"] == 7
    assert row["results"][7] == 0.9
    assert row["lap_s"] == (pytest.approx(0.241408) if mode == "performance" else None)


def test_stamps_hold_where_bytes_come_faster_than_the_baud_rate_says() -> None:
    """USB without a UART behind it: a hundred characters at once did not begin a tenth of a second ago."""
    chunks = {
        1.0: b"m-infer-start-1\r\nm-",
        1.1: b"lap\r\n",
        2.0: b"m-infer-done\r\n" + b"m-results-[" + b"0" * 90 + b"]\r\n",
    }

    class Script:
        def receive(self, data: bytes) -> None:
            del data

        def transmit(self, now_s: float) -> bytes:
            return b"".join(chunks.pop(time) for time in sorted(chunks) if time <= now_s)

    link = BenchLink(Script())
    talk = Conversation(link, 9600, link.now_ns)
    lines = [line for _ in range(4) if (line := talk.line(5.0)) is not None]
    assert [line.text[:8] for line in lines] == ["m-infer-", "m-lap", "m-infer-", "m-result"]
    # Held back by an adaptor for 16 ms at the most, and looked for every millisecond.
    assert [device_s(line.began_ns) for line in lines] == pytest.approx([1.0, 1.0, 2.0, 2.0], abs=18e-3)
    assert [device_s(line.ended_ns) for line in lines] == pytest.approx([1.0, 1.1, 2.0, 2.0], abs=18e-3)


# -- inputs -----------------------------------------------------------------------------------------------------------


# mlcommons/tiny, benchmark/reference_submissions: 49 x 10, 96 x 96 x 3, 5 x 128 float32, 32 x 32 x 3.
@pytest.mark.parametrize(("model", "size"), [("kws01", 490), ("vww01", 27648), ("ad01", 2560), ("ic01", 3072)])
def test_drawn_inputs_have_the_models_size_and_differ(model: str, size: int) -> None:
    inputs = mlperf_inputs.drawn(model, 3)
    assert [len(one.data) for one in inputs] == [size] * 5
    assert len({one.data for one in inputs}) == 5
    assert mlperf_inputs.drawn(model, 3) == inputs != mlperf_inputs.drawn(model, 4)


def test_sounds_are_drawn_as_numbers() -> None:
    for one in mlperf_inputs.drawn("ad01", 0):
        assert np.isfinite(np.frombuffer(one.data, "<f4")).all()


def inputs_in(folder: Path, sizes: Sequence[int]) -> Path:
    for number, size in enumerate(sizes):
        (folder / f"{chr(ord('f') - number)}.bin").write_bytes(bytes([number]) * size)
    return folder


def test_files_are_taken_by_name_and_labels_give_the_accuracy(tmp_path: Path) -> None:
    folder = inputs_in(tmp_path, [490] * 6)
    right = [zlib.crc32(bytes([number]) * 490) % 12 for number in (5, 4, 3, 2, 1)]
    labels = [right[0], right[1], right[2], (right[3] + 1) % 12, right[4]]
    rows = [f"{name}.bin,12,{label}" for name, label in zip("abcde", labels, strict=True)]
    (folder / "y_labels.csv").write_text("\n".join(rows))
    bench = on_bench(folder=folder, count=10)
    bench.ready()
    bench.workload.run(5)
    about = bench.workload.describe()
    assert [row["input"] for row in about["windows"]] == [f"{name}.bin" for name in "abcde"]
    assert [row["top1"] for row in about["windows"]] == right
    assert about["accuracy"] == {"top1": pytest.approx(0.8), "correct": 4, "of": 5}


def test_a_sound_is_cut_to_what_the_model_sees_and_has_no_class(tmp_path: Path) -> None:
    bench = on_bench({"model": "ad01"}, folder=inputs_in(tmp_path, [4096] * 5), count=10)
    bench.ready()
    bench.workload.run(1)
    assert "db load 2560" in bench.commands()
    (row,) = bench.workload.describe()["windows"]
    assert len(row["results"]) == 1
    assert row["top1"] is None


@pytest.mark.parametrize(("sizes", "what"), [([490] * 4, "4 .bin files"), ([490, 490, 491, 490, 490], "491 bytes")])
def test_inputs_that_do_not_fit_are_usage_errors(tmp_path: Path, sizes: list[int], what: str) -> None:
    bench = on_bench(folder=inputs_in(tmp_path, sizes))
    with pytest.raises(UsageError, match=what):
        bench.ready()


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no folder"):
        on_bench(folder=tmp_path / "nowhere").workload.prepare()


def test_the_streaming_wake_word_is_refused() -> None:
    with pytest.raises(UsageError, match="streaming wake word"):
        on_bench({"model": "strww01"}).ready()


def test_a_model_nobody_knows_needs_inputs() -> None:
    with pytest.raises(UsageError, match="inputs are not known"):
        mlperf_inputs.drawn("llm01", 0)


# -- trouble ----------------------------------------------------------------------------------------------------------


def trouble(bench: Bench) -> JouleMeterError:
    with pytest.raises(JouleMeterError) as caught:
        bench.ready()
        bench.workload.run(1)
    bench.workload.close()
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("fault", "says", "within_s"),
    [
        ("silent", r"did not answer at 9600 baud: nothing in 5\.00 s", 8.0),
        ("hang", r"fell silent during `infer \d+ 1` after 'm-infer-start", 15.0),
        ("reset", r"restarted during `infer \d+ 1`", 15.0),
        ("lost", r"answered `db [0-9a-f]{21}\.\.\.` with 'e-\[Insufficent number of hex digits\]'", 5.0),
    ],
)
def test_a_sick_board_is_told_in_time(fault: str, says: str, within_s: float) -> None:
    bench = on_bench({"fault": fault})
    error = trouble(bench)
    assert isinstance(error, IncompleteError)
    assert error.exit_code == 6
    assert re.search(says, error.what), error.what
    assert bench.link.now_s < within_s


@pytest.mark.parametrize("fault", ["noboot", "stale", "garbage"])
def test_what_the_line_brings_beside_the_protocol_is_got_over(fault: str) -> None:
    bench = on_bench({"fault": fault})
    bench.ready()
    stamps = bench.workload.run(2)
    assert [len(edges) for edges in within(bench, stamps, 20e-3)] == [2, 2]
    damaged = bench.workload.describe()["damaged_lines"]
    assert damaged == (sum("\ufffd" in event.label for event in bench.workload.heard()) if fault == "garbage" else 0)
    assert (damaged > 0) == (fault == "garbage")


def test_the_other_mode_is_a_usage_error() -> None:
    bench = on_bench({"mode": "performance", "baud": "9600"})
    error = trouble(bench)
    assert isinstance(error, UsageError)
    assert "built for performance mode" in error.what
    assert "mode=performance" in error.remedy


def test_another_firmware_is_named() -> None:
    class Echo:
        def __init__(self) -> None:
            self._said = b""

        def receive(self, data: bytes) -> None:
            self._said += b"> " + data + b"\r\nm-ready\r\n"

        def transmit(self, now_s: float) -> bytes:
            del now_s
            said, self._said = self._said, b""
            return said

    link = BenchLink(Echo())
    workload = MlperfTiny("bench", 9600, open_link=link.open, now_ns=link.now_ns)
    with pytest.raises(IncompleteError, match="does not give its name"):
        workload.ready(quiet)


def test_noise_only_points_at_the_baud_rate() -> None:
    class Noise:
        def receive(self, data: bytes) -> None:
            del data

        def transmit(self, now_s: float) -> bytes:
            return b"\xf8\x80\x1e\n" if int(now_s * 1000) % 100 == 0 else b""

    link = BenchLink(Noise())
    workload = MlperfTiny("bench", 9600, open_link=link.open, now_ns=link.now_ns)
    with pytest.raises(IncompleteError, match=r"only \d+ lines that are no text") as caught:
        workload.ready(quiet)
    assert "baud rate" in caught.value.remedy


def test_a_lost_connection_keeps_what_was_heard() -> None:
    bench = on_bench(unplug_s=4.0)
    bench.ready()
    with pytest.raises(IncompleteError, match="connection was lost"):
        bench.workload.run(5)
    assert "m-init-done" in [event.label for event in bench.workload.heard()]
    bench.workload.close()
    bench.workload.close()


def test_after_an_interrupted_session_the_next_one_finds_the_board() -> None:
    bench = on_bench()
    bench.ready()

    pressed_s = bench.link.now_s + 4.0

    class Interrupted(BenchLink):
        def read(self, timeout_s: float) -> bytes:
            if self.now_s > pressed_s:
                raise KeyboardInterrupt
            return super().read(timeout_s)

    first = Interrupted(bench.board.device)
    first.now_s = bench.link.now_s
    workload = MlperfTiny("bench", 9600, open_link=first.open, now_ns=first.now_ns, window_s=3.0)
    workload.ready(quiet)
    with pytest.raises(KeyboardInterrupt):
        workload.run(1)
    at_s = first.now_s
    workload.close()
    assert first.closed == 1
    assert first.now_s == at_s

    second = BenchLink(bench.board.device)
    second.now_s = first.now_s
    again = MlperfTiny("bench", 9600, open_link=second.open, now_ns=second.now_ns, window_s=1.0)
    again.ready(quiet)
    stamps = again.run(2)
    bench.link = second
    assert [len(edges) for edges in within(bench, stamps, 20e-3)] == [2, 2]


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("", {}),
        ("/dev/ttyX,fast", {}),
        ("/dev/ttyX", {"mode": "accuracy"}),
        ("/dev/ttyX", {"io": "maybe"}),
        ("/dev/ttyX", {"baud": "0"}),
        ("/dev/ttyX", {"n": "0"}),
        ("/dev/ttyX", {"window": "-1s"}),
        ("/dev/ttyX", {"boot": "soon"}),
        ("/dev/ttyX", {"windw": "1s"}),
    ],
)
def test_bad_options_are_usage_errors(target: str, options: Mapping[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        mlperf_tiny.create(target, options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("target", "options", "baud"),
    [
        ("/dev/ttyX", {}, 9600),
        ("/dev/ttyX", {"mode": "performance"}, 115200),
        ("/dev/ttyX", {"io": "on"}, 115200),
        ("/dev/ttyX", {"mode": "performance", "baud": "921600"}, 921600),
        ("/dev/ttyX,57600", {"mode": "performance"}, 57600),
    ],
)
def test_the_baud_rate_follows_the_mode(target: str, options: Mapping[str, str], baud: int) -> None:
    made = mlperf_tiny.create(target, options)
    assert (made.address, made.baud) == ("/dev/ttyX", baud)
    lines = () if made.mode == "performance" else ("d0:falling-pairs", "d7:falling-pairs")
    assert made.habits.triggers == (*lines, "host")


def test_a_port_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFoundError) as caught:
        mlperf_tiny.create("/dev/ttyNOWHERE", {}).prepare()
    assert caught.value.exit_code == 3


def test_windows_before_ready_are_refused() -> None:
    with pytest.raises(UsageError, match=r"ready\(\)"):
        on_bench().workload.run(1)


# -- a real port ------------------------------------------------------------------------------------------------------


def test_over_a_pseudo_terminal_in_real_time() -> None:
    board = mlperf_tiny.simulate(LOAD, {"mode": "performance"})
    ended, known = threading.Event(), threading.Event()
    path: list[str] = []

    def announce(address: str) -> None:
        path.append(address)
        known.set()

    server = threading.Thread(target=serve_pty, args=(board.device, announce, ended.is_set))
    server.start()
    try:
        assert known.wait(5)
        workload = mlperf_tiny.create(path[0], {"mode": "performance", "window": "0.3s"})
        workload.prepare()
        workload.ready(quiet)
        workload.warm_up(1)
        stamps = workload.run(2)
        rows = workload.describe()["windows"]
        lasted_s = (stamps.end_ns - stamps.begin_ns) * 1e-9
        for host_s, row in zip(lasted_s.tolist(), rows, strict=True):
            assert row["lap_s"] >= 0.3
            # Two threads on a busy machine: the stamps are late by what the scheduler takes.
            assert host_s == pytest.approx(row["lap_s"], abs=0.15)
        workload.close()
    finally:
        ended.set()
        server.join()
