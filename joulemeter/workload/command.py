"""Any command: one window per run of it, from fork and exec to its exit, by this host's clock.

Its output goes through a pseudo-terminal, so that programs send each line at once, and is kept line by line as events
of the source "stdout": `--trigger stdout:BEGIN,END` makes windows of them. It inherits the working directory and the
environment; its input is empty. It runs in a session and process group of its own, which is ended with it: what it
leaves behind there would draw power in the next window.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic_ns
from typing import Any, BinaryIO

import numpy as np

from joulemeter.capture import Event
from joulemeter.errors import IncompleteError, UsageError
from joulemeter.workload import Edge, Habits, Stamps, Workload, cpu_governor, cpu_model, refuse_unknown_options
from joulemeter.workload.stamping import salvaging

Echo = Callable[[str], None]

SOURCE = "stdout"
# What is kept of the output of all runs; the rest is read, so that the command goes on, and counted.
MAX_LINES = 100_000
MAX_BYTES = 16 * 2**20
MAX_LINE = 4096
READ_BYTES = 65536
# How long the group may take over SIGINT, then over SIGTERM.
GRACE_S = 2.0
# How long output is awaited after the end of a run, where something keeps the terminal open.
LINGER_S = 0.2
# The reader wakes this much later than the bytes come, at most; rectangular. On two busy cores: median 0.05 ms, p99
# 0.14 ms, largest of 300 0.5 ms.
LATENCY_S = 0.001
U_STAMP_S = LATENCY_S / 12**0.5
ROWS, COLUMNS = 24, 120

# Colours, cursor movements and titles, which programs send to what they take for a terminal.
_ESCAPE = re.compile(rb"\x1b(?:\[[0-9:;<=>?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")


def create(target: str, options: Mapping[str, str]) -> Command:
    """The option argv is a JSON list of texts: the program and its arguments. Raises UsageError."""
    refuse_unknown_options("command", options, ("argv",))
    remedy = "Put the command behind a lone --, such as: --workload command -- ./infer --model kws.bin"
    if target:
        raise UsageError(f"A command workload takes no {target!r} behind its name.", remedy)
    try:
        argv = json.loads(options.get("argv", "[]"))
    except ValueError as error:
        raise UsageError(f"The command is not a JSON list: {options['argv']!r}.", remedy) from error
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv) or not argv[0]:
        raise UsageError("A command workload needs a command.", remedy)
    if any("\0" in word for word in argv):
        raise UsageError("The command contains a null character, which no program can be given.")
    return Command(argv)


class Command(Workload):
    """`echo` is given each kept line as it comes, from a thread of its own; it should return soon."""

    habits = Habits(windows=1, at_once=1, warmup=0)

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = tuple(argv)
        self._program: str | None = None
        self._sha256: str | None = None
        self._edge: Edge | None = None
        self._exits: Counter[str] = Counter()
        self._output = _Output()

    @property
    def name(self) -> str:
        """The command as a shell would read it, shortened."""
        text = shlex.join(self.argv)
        return text if len(text) <= 80 else f"{text[:77]}..."

    def prepare(self) -> None:
        """Raises UsageError: no such program, or one that cannot be executed."""
        if self._program is not None:
            return
        if os.name != "posix":
            raise UsageError("A command workload needs pseudo-terminals, which this system does not have.")
        word = self.argv[0]
        program = shutil.which(word)
        if program is None:
            there = Path(word)
            if os.sep in word and there.is_dir():
                raise UsageError(f"{word} is a folder, not a program.")
            if os.sep in word and there.exists():
                raise UsageError(f"{word} cannot be executed.", f"Make it executable: chmod +x {shlex.quote(word)}")
            near = " Programs of the current folder are written ./NAME." if there.exists() else ""
            raise UsageError(f"There is no command {word!r}.", f"Check its name and the PATH.{near}")
        self._program = program
        with contextlib.suppress(OSError):
            self._sha256 = hashlib.sha256(Path(program).read_bytes()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """`exit_codes` counts the runs by how they ended, `lines_not_kept` the lines of output beyond the limit."""
        self.prepare()
        return {
            "runtime": "command",
            "version": None,
            "delegate": None,
            "threads": None,
            "model": Path(self.argv[0]).name,
            "model_sha256": self._sha256,
            "batch": None,
            "cpu": cpu_model(),
            "governor": cpu_governor(),
            "argv": list(self.argv),
            "exit_codes": dict(self._exits),
            "lines_not_kept": self._output.lines_not_kept,
            "bytes_not_kept": self._output.bytes_not_kept,
        }

    def run(self, count: int, inferences_per_window: int | None = None) -> Stamps:
        """Raises IncompleteError for an exit code other than 0 or a signal. Ctrl-C ends the command too."""
        self.prepare()
        if count < 1:
            raise UsageError(f"{count} runs of {self.name} measure nothing.", "Ask for at least 1.")
        begin_ns, end_ns = np.full((2, count), -1, dtype=np.int64)
        stamps = Stamps(begin_ns=begin_ns, end_ns=end_ns, inferences_per_window=inferences_per_window or 1)
        with salvaging(stamps):
            for window in range(count):
                begin_ns[window], end_ns[window] = self._once()
        return stamps

    def heard(self) -> Sequence[Event]:
        return self._output.take()

    def edges(self, edge: Edge) -> None:
        self._edge = edge

    def _once(self) -> tuple[int, int]:
        begin, end = (self._edge.begin, self._edge.end) if self._edge else (_nothing, _nothing)
        process: subprocess.Popen[bytes] | None = None
        self._output.last = ""
        with _terminal() as (ours, theirs), self._output.listen(ours, self.echo):
            try:
                begin()
                try:
                    with _undisturbed():
                        started = monotonic_ns()
                        process = self._start(theirs)
                    # The last one to close it ends our reading.
                    theirs.close()
                    _has_ended(process, wait=True)
                    ended = monotonic_ns()
                finally:
                    end()
                # Not reaped until now, so that its number cannot name a group of somebody else.
                _kill_group(process.pid, signal.SIGKILL)
                code = process.wait()
            except BaseException:
                if process is not None and process.returncode is None:
                    _end_politely(process)
                raise
        self._judge(code)
        return started, ended

    def _start(self, terminal: BinaryIO) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self.argv,
                executable=self._program,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
            )
        except OSError as error:
            raise UsageError(
                f"{self.name} cannot be executed: {error.strerror or error}.",
                "A script needs a first line such as #!/bin/sh, and a program one for this machine.",
            ) from error

    def _judge(self, code: int) -> None:
        ending = str(code) if code >= 0 else _signal_name(-code)
        self._exits[ending] += 1
        if code == 0:
            return
        last = self._output.last
        said = f" Its last line was {last[:200]!r}." if last else ""
        what = f"ended with exit code {code}" if code > 0 else f"was ended by {ending}"
        raise IncompleteError(f"{self.name} {what}.{said}", "What was recorded until then is kept.")


class _Output:
    """The lines of all runs, up to a limit."""

    def __init__(self) -> None:
        self.lines_not_kept = 0
        self.bytes_not_kept = 0
        self.last = ""
        self._lines = 0
        self._bytes = 0
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def take(self) -> list[Event]:
        """The events since the last call."""
        with self._lock:
            events, self._events = self._events, []
        return events

    @contextlib.contextmanager
    def listen(self, descriptor: int, echo: Echo | None) -> Iterator[None]:
        """Read the descriptor in a thread until its other end is closed by everybody, or this context ends."""
        finish, finished = os.pipe()
        thread = threading.Thread(target=self._read, args=(descriptor, finish, echo), daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.close(finished)
            thread.join()
            os.close(finish)

    def _read(self, descriptor: int, finish: int, echo: Echo | None) -> None:
        os.set_blocking(descriptor, False)
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        waiting.register(finish, select.POLLIN)
        part = b""
        deadline = None
        while deadline is None or time.monotonic() < deadline:
            try:
                raw = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                ready = [found for found, _ in waiting.poll(None if deadline is None else LINGER_S * 1000)]
                if finish in ready and deadline is None:
                    # The end of the output follows at once, unless something has kept the terminal for itself.
                    waiting.unregister(finish)
                    deadline = time.monotonic() + LINGER_S
                continue
            except OSError:
                break  # Linux: nobody has the other end open any more
            if not raw:
                break
            part = self._keep(part, raw, monotonic_ns(), echo)
        if part:
            self._add([part], monotonic_ns(), echo)

    def _keep(self, part: bytes, raw: bytes, now_ns: int, echo: Echo | None) -> bytes:
        """The lines that are complete become events; what is left of the last one is returned."""
        if self._lines >= MAX_LINES or self._bytes >= MAX_BYTES:
            self.lines_not_kept += raw.count(b"\n")
            self.bytes_not_kept += len(raw)
            # What a command says last is why it failed.
            self.last = next(
                (text for line in reversed(raw[-MAX_LINE:].splitlines()) if (text := _plain(line))), self.last
            )
            return b""
        *lines, part = re.split(rb"[\r\n]+", part + raw)
        if len(part) > MAX_LINE:
            lines, part = [*lines, part], b""
        self._add(lines, now_ns, echo)
        return part

    def _add(self, lines: Sequence[bytes], now_ns: int, echo: Echo | None) -> None:
        texts = [text for line in lines for piece in _cut(line) if (text := _plain(piece))]
        if not texts:
            return
        with self._lock:
            room = max(0, MAX_LINES - self._lines)
            self.lines_not_kept += len(texts[room:])
            texts = texts[:room]
            self._events += [Event(label=text, source=SOURCE, monotonic_ns=now_ns, u_s=U_STAMP_S) for text in texts]
            self._lines += len(texts)
            self._bytes += sum(map(len, texts))
        self.last = texts[-1] if texts else self.last
        if echo is not None:
            # Whatever becomes of the echo, the command must not wait for its output to be read.
            with contextlib.suppress(Exception):
                for text in texts:
                    echo(text)


def _cut(line: bytes) -> list[bytes]:
    return [line[at : at + MAX_LINE] for at in range(0, len(line), MAX_LINE)]


def _plain(line: bytes) -> str:
    return _ESCAPE.sub(b"", line).decode("utf-8", errors="replace").strip()


@contextlib.contextmanager
def _terminal() -> Iterator[tuple[int, BinaryIO]]:
    """Our end and the command's end of a pseudo-terminal that passes bytes on as they are."""
    import termios
    import tty

    ours, slave = os.openpty()
    theirs = os.fdopen(slave, "r+b", buffering=0)
    try:
        tty.setraw(slave)
        termios.tcsetwinsize(slave, (ROWS, COLUMNS))
        yield ours, theirs
    finally:
        theirs.close()
        os.close(ours)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits: between the fork and the moment its number is known, a process could not be ended."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


def _has_ended(process: subprocess.Popen[bytes], *, wait: bool = False) -> bool:
    """Whether it has ended, without reaping it where the system can tell."""
    if not hasattr(os, "waitid"):
        return (process.wait() if wait else process.poll()) is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)) is not None


def _end_politely(process: subprocess.Popen[bytes]) -> None:
    """SIGINT to the whole group, then SIGTERM, then SIGKILL; a second Ctrl-C skips the waiting."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            _kill_group(process.pid, number)
            deadline = time.monotonic() + GRACE_S
            while time.monotonic() < deadline:
                if _has_ended(process):
                    return
                time.sleep(0.01)
    finally:
        _kill_group(process.pid, signal.SIGKILL)
        process.wait()


def _kill_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _nothing() -> None:
    return None
