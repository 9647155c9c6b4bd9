"""A terminal small enough to read: what a program that draws leaves on the screen, and what it must not send."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence

# ECMA-48 control sequences, and the private modes of xterm's control sequences that are used here.
_SEQUENCE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")
MODES = {"25": "cursor", "7": "wrap", "1049": "alternate", "2026": "frame"}


class Terminal:
    """Characters in rows. A letter that would leave the screen to the right raises AssertionError, wrapped or not."""

    def __init__(self, columns: int, rows: int) -> None:
        self.modes = {"cursor": True, "wrap": True, "alternate": False, "frame": False}
        self.colours: set[str] = set()
        self.frames: list[list[str]] = []
        self.usual: list[str] = []  # what was written outside the alternate screen
        self._line = ""
        self._pending = ""
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self._cells = [[" "] * columns for _ in range(rows)]
        self._row = self._column = 0

    @property
    def screen(self) -> list[str]:
        return ["".join(row).rstrip() for row in self._cells]

    def feed(self, text: str) -> None:
        text = self._pending + text
        self._pending = ""
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = _SEQUENCE.match(text, at)
                if found is None:
                    assert len(text) - at < 16, f"no control sequence: {text[at : at + 16]!r}"
                    self._pending = text[at:]
                    return
                self._obey(*found.groups())
                at = found.end()
                continue
            self._put(text[at])
            at += 1

    def _obey(self, private: str, numbers: str, final: str) -> None:
        if private:
            assert numbers in MODES, f"private mode {numbers}"
            self.modes[MODES[numbers]] = final == "h"
            if numbers == "2026" and final == "l":
                self.frames.append(self.screen)
        elif final == "m":
            self.colours |= {numbers} - {"0"}
        elif final == "H":
            assert not numbers
            self._row = self._column = 0
        elif final == "K":
            self._cells[self._row][self._column :] = [" "] * (self.columns - self._column)
        elif final == "J":
            self._cells[self._row][self._column :] = [" "] * (self.columns - self._column)
            for row in self._cells[self._row + 1 :]:
                row[:] = [" "] * self.columns
        else:
            raise AssertionError(f"control sequence {numbers}{final}")

    def _put(self, letter: str) -> None:
        if not self.modes["alternate"]:
            if letter == "\n":
                self.usual.append(self._line)
                self._line = ""
            elif letter != "\r":
                self._line += letter
        elif letter == "\r":
            self._column = 0
        elif letter == "\n":
            self._row += 1
            assert self._row < self.rows, "the screen was scrolled"
        else:
            assert letter.isprintable(), repr(letter)
            assert self._column < self.columns, f"past column {self.columns}: {self.screen[self._row]!r}"
            self._cells[self._row][self._column] = letter
            self._column += 1


class Program:
    """A program on a pseudo-terminal of that size, its controlling one, so that Ctrl-C reaches it as from a person."""

    def __init__(self, command: Sequence[str], columns: int, rows: int, **environment: str) -> None:
        self.terminal = Terminal(columns, rows)
        self._host, self.device = os.openpty()
        self._size(columns, rows)
        self.before = termios.tcgetattr(self.device)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        usual = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            stdin=self.device,
            stdout=self.device,
            stderr=subprocess.PIPE,
            env={**usual, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.device, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        self.terminal.resize(columns, rows)
        self._size(columns, rows)

    def type(self, keys: bytes) -> None:
        os.write(self._host, keys)

    def until(self, what: Callable[[Terminal], object], timeout_s: float = 40.0) -> Terminal:
        deadline = time.monotonic() + timeout_s
        while not what(self.terminal):
            assert time.monotonic() < deadline, "\n".join(self.terminal.screen)
            self._hear(0.1)
            assert self.process.poll() is None or what(self.terminal), self.end()
        return self.terminal

    def _hear(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._host], [], [], timeout_s)
        if ready:
            self.terminal.feed(self._decode(os.read(self._host, 1 << 16)))
        return bool(ready)

    def end(self, timeout_s: float = 20.0) -> tuple[int, str]:
        """Exit code and standard error, once everything was heard."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self._hear(0.1)
        while self._hear(0.1):
            pass
        error = self.process.stderr.read().decode() if self.process.stderr else ""
        return self.process.returncode, error

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()
        os.close(self._host)
        os.close(self.device)
