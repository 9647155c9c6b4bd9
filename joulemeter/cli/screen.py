"""A terminal that is redrawn as a whole. What was on it comes back in the end, whatever happens.

The alternate screen of a terminal (DEC private mode 1049, xterm control sequences) is drawn from its upper left corner
each time, so a change of size leaves nothing behind; mode 2026 has terminals that know it show whole frames only.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # alternate screen, no cursor, no wrapping of long lines
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
BEGIN, END = "\x1b[?2026h\x1b[H", "\x1b[J\x1b[?2026l"
USUAL = (80, 24)


class Screen:
    """The screen of standard output, and the keys of standard input where that is a terminal too."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        self._quiet_keys()
        self._write(ENTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A terminal that was closed takes nothing any more.
        with contextlib.suppress(OSError):
            self._write(LEAVE)
        if self._before is not None:
            import termios

            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def _quiet_keys(self) -> None:
        """Keys come at once and are not echoed; suspending, which would leave the screen as it is, is switched off."""
        try:
            import termios
        except ImportError:
            return  # Windows, where keys are left alone
        if not sys.stdin or not sys.stdin.isatty():
            return
        with contextlib.suppress(termios.error):
            before = termios.tcgetattr(sys.stdin)
            wanted = [*before[:6], list(before[6])]
            wanted[3] &= ~(termios.ECHO | termios.ICANON)
            wanted[6][termios.VSUSP] = b"\0"
            wanted[6][termios.VMIN], wanted[6][termios.VTIME] = 0, 0
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, wanted)
            self._before = before

    def typed(self) -> str:
        """What was typed since the last call."""
        if self._before is None:
            return ""
        with contextlib.suppress(OSError):
            return os.read(sys.stdin.fileno(), 1024).decode("ascii", "replace")
        return ""

    def size(self) -> tuple[int, int]:
        """Columns and lines as they are now."""
        with contextlib.suppress(OSError):
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
            return columns or USUAL[0], lines or USUAL[1]
        return USUAL

    def draw(self, lines: Sequence[str]) -> None:
        """All lines in one write: each clears what is left of the one before it, the last one what is below."""
        self._write(BEGIN + "\r\n".join(f"{line}\x1b[K" for line in lines) + END)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
