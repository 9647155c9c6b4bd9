"""The session's end of the recorder process."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from joulemeter.errors import BY_EXIT_CODE, DataError, IncompleteError, JouleMeterError
from joulemeter.instrument import Options

# Opening a meter may drain a stale stream first; saying goodbye may wait for a slow disk.
START_S = 20.0
STOP_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the recording is doing.

    `rises` and `falls` count the watched line's edges since it began low or high; `power_w` is the latest mean,
    `mean_w` that of all samples so far.
    `doing` is what the instrument takes its time over.
    `median_s` and `median_j` are those of the pulses of a triggered instrument so far.
    """

    samples: int = 0
    lost: int = 0
    rises: int = 0
    falls: int = 0
    began_high: bool | None = None
    power_w: float | None = None
    mean_w: float | None = None
    median_s: float | None = None
    median_j: float | None = None
    doing: str = ""
    queued: int = 0
    waits: int = 0


class Recorder:
    """Records one meter into one stream folder, in a process of its own.

    with Recorder(...) as recorder: returns once samples are being written. Raises what the recorder raised.
    """

    def __init__(self, key: str, address: str, options: Options, folder: Path, trigger: str | None = None) -> None:
        self.health = Health()
        self.started: dict[str, Any] = {}
        # Set where what an instrument still holds is not wanted any more.
        self.enough = False
        self.error: JouleMeterError | None = None
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "joulemeter.recorder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        task = {"key": key, "address": address, "options": asdict(options), "folder": str(folder), "trigger": trigger}
        self._send(json.dumps(task).encode() + b"\n")
        self._said = b""
        self._ears = [
            threading.Thread(target=target, args=(pipe,), daemon=True)
            for target, pipe in ((self._listen, self._process.stdout), (self._overhear, self._process.stderr))
        ]
        for ear in self._ears:
            ear.start()

    def _send(self, data: bytes) -> None:
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            try:
                pipe.write(data)
                pipe.flush()
            except BrokenPipeError:
                pass  # it has ended; the reason arrives on its standard output

    def _listen(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._messages.put(json.loads(line))
        self._messages.put(None)

    def _overhear(self, pipe: IO[bytes]) -> None:
        with pipe:
            self._said = pipe.read()[-4000:]

    def __enter__(self) -> Self:
        while not self.started:
            if not self._take(START_S):
                self.stop()
                raise self.error or IncompleteError("The meter did not start in time.", "Unplug it and try again.")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _take(self, timeout_s: float) -> bool:
        """Digest one message; False when there is none or the recorder has ended."""
        try:
            message = self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return False
        if message is None:
            self._messages.put(None)
            if self.error is None and self._process.wait(STOP_S) != 0:
                self.error = DataError(
                    "The recorder ended unexpectedly.",
                    f"What was recorded is kept. It said: {self._said.decode(errors='replace').strip()[-600:]}",
                )
            return False
        kind = message.pop("type")
        if kind == "started":
            self.started = message
        elif kind == "health":
            self.health = Health(**message)
        elif kind == "error":
            error_type = BY_EXIT_CODE.get(message["exit_code"], JouleMeterError)
            self.error = error_type(message["what"], message["remedy"])
        return True

    def poll(self, timeout_s: float) -> Health:
        """Wait for news and return the latest health. Raises what ended the recording early."""
        self._take(timeout_s)
        while not self._messages.empty() and self._take(0):
            pass
        if self.error is not None:
            raise self.error
        return self.health

    def stop(self) -> JouleMeterError | None:
        """End the recording and wait until it is whole on disk; what went wrong, if anything. May be called twice."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._send(b"e" if self.enough else b"\n")
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        while self._process.poll() is None:
            if not self._take(STOP_S) and self._process.poll() is None:
                try:
                    self._process.wait(1)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self.error = self.error or IncompleteError(
                        "The recorder did not end in time and was killed.", "What was recorded is kept."
                    )
        while self._take(0.2):
            pass
        for ear in self._ears:
            ear.join(1)
        return self.error
