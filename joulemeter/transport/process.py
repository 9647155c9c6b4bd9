"""Bytes to and from a child process, through its standard input and output."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from joulemeter.errors import IncompleteError, NotFoundError

READ_BYTES = 65536
# How long a child may take to end once its input is closed.
CLOSE_S = 2.0
MAX_SAID = 300


class ProcessLink:
    """`address` is what the user would type to reach it. Unix only: pipes cannot be waited for elsewhere."""

    def __init__(self, command: Sequence[str], address: str) -> None:
        """Raises NotFoundError where the program cannot be started."""
        self.address = address
        self._program = command[0]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as the process
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                # Ctrl-C is for us: what the child does is ended in order then.
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise NotFoundError(
                f"{command[0]} cannot be started ({error.strerror or error}).", "Check that it is installed."
            ) from error

    def read(self, timeout_s: float) -> bytes:
        stdout = self._pipe("stdout")
        if not select.select([stdout], [], [], timeout_s)[0]:
            return b""
        raw = os.read(stdout.fileno(), READ_BYTES)
        if not raw:
            raise self._ended()
        return raw

    def write(self, data: bytes) -> None:
        stdin = self._pipe("stdin")
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(stdin.fileno(), view) :]
        except OSError as error:
            raise self._ended() from error

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._stderr.close()

    def _pipe(self, name: str) -> IO[bytes]:
        pipe: IO[bytes] | None = None if self._process is None else getattr(self._process, name)
        if pipe is None:
            raise IncompleteError(f"{self._program} was ended.", "Start it again.")
        return pipe

    def _ended(self) -> IncompleteError:
        """The end of the child, with the last line that it said."""
        process = self._process
        until = time.monotonic() + CLOSE_S
        while process is not None and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        code = None if process is None else process.returncode
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        said = f" It said: {lines[-1].strip()[:MAX_SAID]}" if lines else ""
        return IncompleteError(f"{self._program} has ended with {code}.{said}", "What had arrived is kept.")
