from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import header

from joulemeter.capture import ArrayStream, Recording, Timebase
from joulemeter.errors import IncompleteError, JouleMeterError, UsageError
from joulemeter.physics.stamps import begin_end, stamped
from joulemeter.trigger import parse_trigger
from joulemeter.workload import Habits, command

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals and process groups are POSIX")


def run_of(*argv: str) -> command.Command:
    return command.create("", {"argv": json.dumps(argv)})


def python(source: str) -> command.Command:
    return run_of(sys.executable, "-c", source)


def labels(workload: command.Command) -> list[str]:
    return [event.label for event in workload.heard()]


def alive(pid: int) -> bool:
    """A zombie has ended; init reaps it when it likes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: object, limit_s: float = 10) -> None:
    assert callable(condition)
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


class Recorder:
    """An edge that writes down when it is toggled."""

    def __init__(self) -> None:
        self.toggles: list[tuple[str, int]] = []

    def begin(self) -> None:
        self.toggles.append(("begin", time.monotonic_ns()))

    def end(self) -> None:
        self.toggles.append(("end", time.monotonic_ns()))


# --- windows


def test_a_window_holds_the_whole_run() -> None:
    workload = python("import time; a = time.monotonic_ns(); time.sleep(0.05); print(a, time.monotonic_ns())")
    stamps = workload.run(2, 500)
    assert len(stamps) == 2 and stamps.inferences_per_window == 500
    lines = labels(workload)
    assert len(lines) == 2
    for line, begin, end in zip(lines, stamps.begin_ns.tolist(), stamps.end_ns.tolist(), strict=True):
        inside_begin, inside_end = map(int, line.split())
        assert begin < inside_begin < inside_end < end
        assert end - begin >= 50_000_000
    assert stamps.end_ns[0] <= stamps.begin_ns[1]
    assert python("").run(1).inferences_per_window == 1
    assert command.Command.habits == Habits(windows=1, at_once=1, warmup=0)


def test_the_edge_lies_around_the_run() -> None:
    workload, edge = run_of("true"), Recorder()
    workload.edges(edge)
    stamps = workload.run(2)
    assert [name for name, _ in edge.toggles] == ["begin", "end"] * 2
    times = [at for _, at in edge.toggles]
    assert times[0] <= stamps.begin_ns[0] < stamps.end_ns[0] <= times[1] <= times[2] <= stamps.begin_ns[1]


def test_an_edge_that_is_lost_ends_the_command() -> None:
    class Lost(Recorder):
        def end(self) -> None:
            raise IncompleteError("The edge line was lost.")

    workload = run_of("true")
    workload.edges(Lost())
    with pytest.raises(IncompleteError, match="edge line was lost"):
        workload.run(1)


def test_describe() -> None:
    workload = run_of("sh", "-c", "exit 0")
    workload.run(3)
    told = workload.describe()
    assert (told["runtime"], told["model"], told["argv"]) == ("command", "sh", ["sh", "-c", "exit 0"])
    assert told["exit_codes"] == {"0": 3}
    assert len(told["model_sha256"]) == 64
    assert (told["lines_not_kept"], told["bytes_not_kept"]) == (0, 0)


def test_it_inherits_folder_and_environment_but_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JM_TEST", "passed on")
    workload = python("import os, sys; print(os.getcwd()); print(os.environ['JM_TEST']); print(repr(sys.stdin.read()))")
    workload.run(1)
    assert labels(workload) == [str(tmp_path.resolve()), "passed on", "''"]


# --- output


def test_lines_come_at_once_and_stamped_when_they_came() -> None:
    """The program takes its output for a terminal: without a flush each line leaves when it is printed."""
    workload = python(
        "import sys, time\n"
        "print(sys.stdout.isatty())\n"
        "for k in range(3): print('at', time.monotonic_ns()); time.sleep(0.05)\n"
        "print('trouble', file=sys.stderr)"
    )
    echoed: list[str] = []
    workload.echo = echoed.append
    stamps = workload.run(1)
    events = workload.heard()
    assert [event.source for event in events] == ["stdout"] * 5
    assert events[0].label == "True" and events[-1].label == "trouble"
    assert echoed == [event.label for event in events]
    arrived = [event.monotonic_ns or 0 for event in events]
    assert stamps.begin_ns[0] < arrived[0] and arrived == sorted(arrived)
    for event in events[1:4]:
        printed = int(event.label.split()[1])
        # Were they held back until the exit, the first would be 0.15 s late.
        assert 0 < (event.monotonic_ns or 0) - printed < 45_000_000
        assert event.u_s is not None and event.u_s > 0
    assert workload.heard() == []


def test_markers_become_windows() -> None:
    """From a program that prints them to spans as the analysis finds them."""
    workload = python(
        "import time\nfor k in range(3): print('go', k); time.sleep(0.03); print('done', k); time.sleep(0.01)"
    )
    workload.run(1)
    base = ArrayStream(
        name="x",
        header=header(1000.0),
        timebase=Timebase(rate_hz=1000.0, monotonic_ns=0),
        data={},
    )
    trigger = parse_trigger("stdout:go,done")
    recording = Recording(name="r", streams=(), events=tuple(workload.heard()))
    spans, caveats = begin_end(stamped(recording, base, trigger), trigger)
    assert len(spans) == 3 and not caveats
    assert all((span.stop_ns - span.start_ns) * 1e-9 > 0.025 for span in spans)


def test_endings_escapes_and_odd_bytes() -> None:
    workload = run_of("printf", r"a\r\nb\rc\n\n\033[31mred\033[0m\n\033]0;title\007d\n\377\nno end")
    workload.run(1)
    assert labels(workload) == ["a", "b", "c", "red", "d", "\N{REPLACEMENT CHARACTER}", "no end"]


def test_a_long_line_is_cut() -> None:
    workload = run_of("sh", "-c", "head -c 10000 /dev/zero | tr '\\0' x; echo; echo after")
    workload.run(1)
    lines = labels(workload)
    assert lines[-1] == "after"
    assert max(map(len, lines)) <= 4096 and sum(map(len, lines[:-1])) == 10000


def test_huge_output_neither_fills_memory_nor_stalls() -> None:
    """20 MB of lines: `yes` and `head` say how many."""
    workload = run_of("sh", "-c", "yes 0123456 | head -c 20000000; echo the last")
    workload.run(1)
    kept = workload.heard()
    told = workload.describe()
    assert len(kept) == command.MAX_LINES
    assert len(kept) + told["lines_not_kept"] == 20000000 // 8 + 1
    assert told["bytes_not_kept"] > 10_000_000
    assert told["exit_codes"] == {"0": 1}


def test_output_without_lines_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MAX_BYTES", 100_000)
    workload = run_of("head", "-c", "5000000", "/dev/zero")
    workload.run(1)
    text = sum(map(len, labels(workload)))
    assert text <= 100_000 + command.READ_BYTES + command.MAX_LINE
    assert workload.describe()["bytes_not_kept"] > 4_000_000


def test_an_echo_that_fails_does_not_stop_the_command() -> None:
    def broken(text: str) -> None:
        raise BrokenPipeError(text)

    workload = run_of("sh", "-c", "yes | head -n 50000")
    workload.echo = broken
    workload.run(1)
    assert len(workload.heard()) == 50000


# --- how it ends


@pytest.mark.parametrize(
    ("script", "message", "codes"),
    [
        ("echo no model; exit 3", r"ended with exit code 3\. Its last line was 'no model'\.", {"3": 1}),
        ("exit 1", r"ended with exit code 1\. What", {"1": 1}),
        ("kill -SEGV $$", "was ended by SIGSEGV", {"SIGSEGV": 1}),
    ],
)
def test_a_run_that_fails(script: str, message: str, codes: dict[str, int]) -> None:
    workload, edge = run_of("sh", "-c", script), Recorder()
    workload.edges(edge)
    with pytest.raises(IncompleteError, match=message) as caught:
        workload.run(1)
    assert caught.value.exit_code == 6 and "sh -c" in str(caught.value)
    assert workload.describe()["exit_codes"] == codes
    assert [name for name, _ in edge.toggles] == ["begin", "end"]


def test_the_last_line_is_known_though_not_kept() -> None:
    workload = run_of("sh", "-c", "yes | head -c 2000000; echo out of memory; exit 9")
    with pytest.raises(IncompleteError, match="out of memory"):
        workload.run(1)


def test_a_run_is_not_blamed_on_what_another_said(tmp_path: Path) -> None:
    mark = tmp_path / "second"
    workload = run_of("sh", "-c", f"test -e {mark} && exit 1; touch {mark}; echo all well")
    with pytest.raises(IncompleteError) as caught:
        workload.run(2)
    assert "all well" not in caught.value.what.partition("exit code 1")[2]
    assert workload.describe()["exit_codes"] == {"0": 1, "1": 1}


def test_what_is_left_in_the_background_ends_with_it() -> None:
    workload = run_of("sh", "-c", "sleep 60 & echo $!")
    began = time.monotonic()
    workload.run(1)
    (pid,) = map(int, labels(workload))
    wait_until(lambda: not alive(pid))
    assert time.monotonic() - began < 30


def test_one_that_escapes_its_group_does_not_hold_the_run_up() -> None:
    workload = python(
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); print('away', os.getpid(), flush=True); time.sleep(60)\n"
        "else: time.sleep(0.2)"
    )
    workload.run(1)
    line = labels(workload)[0].split()
    os.kill(int(line[1]), signal.SIGKILL)
    assert line[0] == "away"


@pytest.mark.parametrize("trap", ["", "trap '' INT;", "trap '' INT TERM;"])
def test_ctrl_c_ends_the_whole_group(trap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "GRACE_S", 0.3)
    workload, edge = run_of("sh", "-c", f"{trap} sleep 60 & echo $$ $!; wait; wait"), Recorder()
    workload.edges(edge)
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.extend(map(int, line.split()))
        os.kill(os.getpid(), signal.SIGINT)

    workload.echo = interrupt
    with pytest.raises(KeyboardInterrupt):
        workload.run(1)
    assert len(pids) == 2
    wait_until(lambda: not any(map(alive, pids)))
    assert [name for name, _ in edge.toggles] == ["begin", "end"]
    # Neither a reader nor a descriptor is left behind.
    assert not [thread for thread in threading.enumerate() if thread.daemon and "_read" in thread.name]


def test_ctrl_c_while_the_process_is_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_of("sleep", "60").run(1)
    assert made and not alive(made[0])
    assert signal.getsignal(signal.SIGINT) is handler


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_stays_open() -> None:
    workload = run_of("true")
    workload.run(1)
    before = descriptors()
    workload.run(5)
    assert descriptors() == before


# --- bad input


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("x", {"argv": '["true"]'}, "takes no 'x'"),
        ("", {}, "needs a command"),
        ("", {"argv": "[]"}, "needs a command"),
        ("", {"argv": '[""]'}, "needs a command"),
        ("", {"argv": '["a", 1]'}, "needs a command"),
        ("", {"argv": '"true"'}, "needs a command"),
        ("", {"argv": "true -x"}, "not a JSON list"),
        ("", {"argv": '["a\\u0000b"]'}, "null character"),
        ("", {"arg": "[]"}, r"no option 'arg'\. Did you mean argv\?"),
    ],
)
def test_what_create_refuses(target: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        command.create(target, options)


def test_programs_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = tmp_path / "infer"
    plain.write_text("no program")
    for word, message in {
        "no-such-command-here": "There is no command 'no-such-command-here'",
        "./nowhere": "There is no command",
        str(tmp_path): "is a folder",
        "./infer": r"cannot be executed.*chmod \+x \./infer",
        "infer": r"written \./NAME",
    }.items():
        with pytest.raises(UsageError, match=message):
            run_of(word).prepare()
    plain.chmod(0o755)
    workload = run_of("./infer")
    workload.prepare()
    with pytest.raises(UsageError, match=r"Exec format error.*first line"):
        workload.run(1)


def test_no_runs_measure_nothing() -> None:
    with pytest.raises(JouleMeterError, match="measure nothing"):
        run_of("true").run(0)
