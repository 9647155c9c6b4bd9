"""What the tests of small serial meters share: a simulated time in which nothing waits, wires, and outside programs."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter.capture import ArrayStream, Block, Gap, Header, Timebase
from joulemeter.errors import IncompleteError
from joulemeter.instrument import Decoder, Device, Driver
from joulemeter.synthetic import Load
from joulemeter.transport import UnpluggedError
from joulemeter.transport.serve import serve_pty, serve_tcp

pty_only = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
SIGROK = Path(os.environ.get("JOULEMETER_SIGROK_CLI", "/nonexistent"))
# The libsigrok of most distributions lacks the drivers for these meters.
needs_sigrok = pytest.mark.skipif(
    not SIGROK.is_file(),
    reason="JOULEMETER_SIGROK_CLI names no sigrok-cli with the drivers rdtech-um, rdtech-tc and atorch",
)


# What asking the operating system takes at least.
CALL_S = 1e-4


class Bench:
    """A link to a device, and a clock: the device's time and the host's are one, and waiting takes no time."""

    address = "simulated"

    def __init__(self, device: Device) -> None:
        self.device = device
        self.now_s = 0.0
        self.said = b""
        self.closed = 0

    def take_over(self, monkeypatch: pytest.MonkeyPatch, *modules: str) -> Bench:
        """Stand in for the module `time` in these modules."""
        for name in modules:
            monkeypatch.setattr(f"{name}.time", self)
        return self

    def monotonic(self) -> float:
        return self.now_s

    def monotonic_ns(self) -> int:
        return round(self.now_s * 1e9)

    def time_ns(self) -> int:
        return 1_700_000_000_000_000_000 + self.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        self.now_s += max(seconds, 0.0)

    def read(self, timeout_s: float) -> bytes:
        deadline = self.now_s + timeout_s
        self.now_s += CALL_S
        while True:
            try:
                data = self.device.transmit(self.now_s)
            except UnpluggedError as error:
                raise IncompleteError("Unplugged.", "What had arrived is kept.") from error
            if data or self.now_s >= deadline:
                return data
            self.now_s = min(self.now_s + 2e-3, deadline)

    def write(self, data: bytes) -> None:
        self.said += data
        try:
            self.device.receive(data)
        except UnpluggedError as error:
            raise IncompleteError("Unplugged.", "What had arrived is kept.") from error

    def close(self) -> None:
        self.closed += 1


class Says:
    """A device that says one thing again and again, asked or not; or only when asked."""

    def __init__(self, text: bytes, *, asked: bool = True) -> None:
        self.text, self.asked = text, asked
        self._outbox = b""

    def receive(self, data: bytes) -> None:
        self._outbox = self.text

    def transmit(self, now_s: float) -> bytes:
        sent, self._outbox = self._outbox if self.asked else self.text, b""
        return sent


class Spoiled:
    """A device behind a wire that changes some of what it sends: the answers whose numbers are in `which`."""

    def __init__(self, device: Device, change: Callable[[bytes], bytes], which: Container[int]) -> None:
        self.device, self.change, self.which = device, change, which
        self.sent = 0

    def receive(self, data: bytes) -> None:
        self.device.receive(data)

    def transmit(self, now_s: float) -> bytes:
        data = self.device.transmit(now_s)
        if not data:
            return b""
        self.sent += 1
        return self.change(data) if self.sent in self.which else data


def read_for(bench: Bench, meter: Driver, seconds: float) -> bytes:
    raw, until_s = b"", bench.now_s + seconds
    while bench.now_s < until_s:
        raw += meter.read(0.5)
    return raw


def decoded(decoder: Decoder, raw: bytes) -> list[Block]:
    return decoder.feed(raw) + decoder.finish()


def column(blocks: Sequence[Block], name: str) -> Any:
    return np.concatenate([block.data[name] for block in blocks])


def indices(blocks: Sequence[Block]) -> list[int]:
    return [block.first_index + k for block in blocks for k in range(len(block))]


def times_s(blocks: Sequence[Block]) -> Any:
    held = [block.times_ns for block in blocks]
    return np.concatenate([one for one in held if one is not None]) * 1e-9


def stream_of(header: Header, blocks: Sequence[Block]) -> ArrayStream:
    polled = blocks[0].times_ns is not None
    return ArrayStream(
        name="test",
        header=header,
        timebase=Timebase(rate_hz=header.rate_hz),
        data={one.name: column(blocks, one.name) for one in header.channels},
        gaps=tuple(Gap(index=block.first_index, lost=block.lost_before) for block in blocks if block.lost_before),
        times_ns=np.rint(times_s(blocks) * 1e9).astype(np.int64) if polled else None,
    )


def charge_c(load: Load, start_s: float, stop_s: float) -> float:
    """Drawn by the load between two times of its own."""
    before, after = load.charge_c(np.array([start_s, stop_s]))
    return float(after - before)


@contextlib.contextmanager
def served(device: Device, *, pty: bool = False) -> Iterator[str]:
    """The address of a device on a real wire."""
    ports: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    def announce(address: str) -> None:
        ports.append(address)
        ready.set()

    def serve() -> None:
        if pty:
            serve_pty(device, announce, stop.is_set)
        else:
            serve_tcp(device, ("127.0.0.1", 0), announce, stop.is_set)

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    assert ready.wait(5)
    try:
        yield ports[0]
    finally:
        stop.set()
        server.join(5)


def sigrok_reads(driver: str, device: Device) -> dict[str, str]:
    """What sigrok-cli, a program of its own, shows of a frame: quantities as it names them, with its units."""
    with served(device) as address:
        command = [str(SIGROK), "-d", f"{driver}:conn=tcp-raw/{address.replace(':', '/')}", "--frames", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    shown = dict(re.findall(r"^(\S+): (.+)$", done.stdout, re.MULTILINE))
    assert shown, done.stderr
    return shown
