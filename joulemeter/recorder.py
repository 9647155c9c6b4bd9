"""The recorder process: drains one instrument to disk and reports health. Started by record.Recorder.

It runs apart from the measured workload because decoding in the same process slows inferences down severalfold.
Standard input: one line of JSON with the task, then ENOUGH, anything else or the end of input to stop, so that it also
stops when its parent has died. Standard output: JSON lines (started, health, ended, error). SIGTERM stops it cleanly;
SIGINT is the parent's business.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from joulemeter import registry, store
from joulemeter.capture import Block, Header, Quantity
from joulemeter.errors import DataError, IncompleteError, JouleMeterError
from joulemeter.instrument import Driver, Holding, InstrumentModule, Options, Telling
from joulemeter.physics.edges import LineScanner
from joulemeter.physics.kinds import reading_s, source_of
from joulemeter.physics.livepulses import LivePulses
from joulemeter.trigger import Trigger, parse_trigger

# A meter that streams and then says nothing for this long, or for so many of its samples, has stopped.
STALL_S, STALL_SAMPLES = 2.0, 5
# Bytes that are no measurement for this long, or for so many samples, will not become any.
NONSENSE_S, NONSENSE_SAMPLES = 5.0, 10
# What the parent says where it has all that it wants.
ENOUGH = "e"
# How long fetching what an instrument holds may take in the end.
REMAINING_S = 600.0
HEALTH_S = 0.2
ANCHOR_S = 0.05
CHECKPOINT_SAMPLES = 1 << 20
# About half a minute of a 400 kB/s stream may wait for a slow disk before the meter has to.
QUEUE_CHUNKS = 4096
# Decoding in batches of at least this many samples keeps its fixed cost small.
DECODE_SAMPLES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the parent asks for; the windows of `trigger` are counted while recording."""

    key: str
    address: str
    options: Options
    folder: Path
    trigger: str | None = None


class _Reader(threading.Thread):
    """Takes bytes from the driver as they come, so that neither disk nor decoder can make the meter overflow."""

    def __init__(self, driver: Driver, stop: threading.Event, enough: threading.Event, header: Header) -> None:
        super().__init__(daemon=True)
        self._driver = driver
        self._enough = enough
        # How long a trigger may be awaited is the driver's business.
        self._stall_s = math.inf if header.triggered else max(STALL_S, STALL_SAMPLES / header.rate_hz)
        self._stop_asked = stop
        self.chunks: queue.Queue[tuple[bytes, int, int]] = queue.Queue(QUEUE_CHUNKS)
        self.error: JouleMeterError | None = None
        self.waits = 0

    def run(self) -> None:
        heard = time.monotonic()
        try:
            while not self._stop_asked.is_set():
                raw = self._driver.read(0.05)
                if not raw:
                    if time.monotonic() - heard > self._stall_s:
                        raise IncompleteError(
                            f"The meter has sent nothing for {self._stall_s:g} s.",
                            "Unplug it and plug it in again; what had arrived is kept.",
                        )
                    continue
                heard = time.monotonic()
                self._put(raw)
            if isinstance(self._driver, Holding) and not self._enough.is_set():
                for raw in self._driver.remaining():
                    self._put(raw)
        except JouleMeterError as error:
            self.error = error
        except Exception as error:
            # A fault in a driver must not look like the end of a good recording.
            traceback.print_exc()
            self.error = DataError(
                f"The meter's driver failed ({type(error).__name__}: {error}).",
                "What had arrived is kept. Report this, with what the meter is.",
            )

    @property
    def doing(self) -> str:
        return self._driver.doing if isinstance(self._driver, Telling) else ""

    def _put(self, raw: bytes) -> None:
        chunk = (raw, *store.now())
        try:
            self.chunks.put_nowait(chunk)
        except queue.Full:
            # What keeps its samples until they are fetched loses none by waiting.
            self.waits += not isinstance(self._driver, Holding)
            self.chunks.put(chunk)


class _Health:
    """Live figures from the decoded stream: for people to watch and for the session to count windows."""

    def __init__(self, header: Header, module: InstrumentModule, trigger: Trigger | None) -> None:
        self.decoder = module.decoder(header)
        self._header = header
        self._source = source_of(header)
        self.samples = self.lost = self.rises = self.falls = 0
        self._sum = self._whole_sum = 0.0
        self._count = self._whole_count = 0
        self._power_w: float | None = None
        self._reached = 0
        self._scanner: LineScanner | None = None
        self._level: bool | None = None
        self._pulses: LivePulses | None = None
        line = trigger.source if trigger is not None else None
        for channel in header.channels:
            if channel.quantity is Quantity.DIGITAL and line in channel.lines:
                self._scanner = LineScanner(channel.name, channel.lines.index(line or ""))
            elif channel.name == line and trigger is not None and trigger.level is not None:
                self._pulses = LivePulses(channel.name, trigger.level, trigger.form, self._source)

    def feed(self, raw: bytes, writer: store.StreamWriter, word_bytes: int) -> None:
        self._take(self.decoder.feed(raw), writer, word_bytes)

    def finish(self, writer: store.StreamWriter, word_bytes: int) -> None:
        """Count also what the decoder has held back."""
        self._take(self.decoder.finish(), writer, word_bytes)

    def _take(self, blocks: list[Block], writer: store.StreamWriter, word_bytes: int) -> None:
        for block in blocks:
            begins = block.consumed - len(block) * word_bytes
            if block.lost_before:
                writer.mark("gap", index=block.first_index, lost=block.lost_before, bytes=begins)
                self.lost += 0 if self._header.triggered else block.lost_before
            elif begins != self._reached:
                writer.mark("seam", index=block.first_index, bytes=begins)
            self._reached = block.consumed
            self.samples = block.first_index + len(block)
            power = self._source.power_w(block)
            if power is not None:
                known = power[np.isfinite(power)]
                self._sum += float(known.sum())
                self._count += len(known)
            if self._pulses is not None:
                complete = self._pulses.feed(block, self._header.rate_hz)
                self.rises, self.falls = self.rises + complete, self.falls + complete
            elif self._header.triggered and self._scanner is None:
                self.rises, self.falls = self.rises + 1, self.falls + 1
            if self._scanner is not None:
                edges = self._scanner.feed(block)
                if self._level is None:
                    self._level = self._scanner.first_level
                # Edges alternate, so the level before the block tells how many of them rise.
                rises = (edges + (0 if self._level else 1)) // 2
                self.rises, self.falls = self.rises + rises, self.falls + edges - rises
                self._level = bool(self._level) ^ bool(edges % 2)

    def report(self) -> dict[str, Any]:
        # A slow meter still shows what it said last.
        self._power_w = self._sum / self._count if self._count else self._power_w
        self._whole_sum, self._whole_count = self._whole_sum + self._sum, self._whole_count + self._count
        self._sum, self._count = 0.0, 0
        return {
            "type": "health",
            "samples": self.samples,
            "lost": self.lost,
            "rises": self.rises,
            "falls": self.falls,
            "began_high": None if self._scanner is None else self._scanner.first_level,
            "power_w": self._power_w,
            "mean_w": self._whole_sum / self._whole_count if self._whole_count else None,
            "median_s": self._pulses.median_s if self._pulses else None,
            "median_j": self._pulses.median_j if self._pulses else None,
        }


def record(task: Task, stop: threading.Event, enough: threading.Event | None = None) -> str:
    """Record until asked to stop; why it ended. Where there is `enough`, what an instrument still holds is left there.

    Raises JouleMeterError after closing the recording cleanly.
    """
    module = registry.instrument(task.key)
    with module.open(task.address, task.options) as driver:
        header = driver.start()
        try:
            writer = store.StreamWriter(task.folder, header)
        except OSError as error:
            raise _disk(task.folder, error) from error
        reader = _Reader(driver, stop, enough or threading.Event(), header)
        reason = "stop"
        try:
            _say(
                {
                    "type": "started",
                    "simulated": header.simulated,
                    "rate_hz": header.rate_hz,
                    "triggered": header.triggered,
                    "reading_s": reading_s(header),
                    "model": header.model,
                }
            )
            reader.start()
            _write(task, header, module, reader, writer)
            if reader.error is not None:
                raise reader.error
        except OSError as error:
            reason = "disk full" if error.errno == 28 else "write error"
            raise _disk(task.folder, error) from error
        except JouleMeterError as error:
            reason = error.what
            raise
        finally:
            stop.set()
            reader.join(timeout=REMAINING_S if isinstance(driver, Holding) else 5)
            driver.stop()
            try:
                for _ in range(reader.waits):
                    writer.mark("wait", bytes=writer.bytes)
                writer.mark("end", reason=reason, bytes=writer.bytes)
            except OSError:
                pass  # a full disk cannot take this line either; its absence says "cut off"
            writer.close()
    return reason


def _write(task: Task, header: Header, module: InstrumentModule, reader: _Reader, writer: store.StreamWriter) -> None:
    """Bytes to disk first, then what can be made of them."""
    health = _Health(header, module, parse_trigger(task.trigger) if task.trigger else None)
    pending = bytearray()
    anchored = reported = checkpoint = 0.0
    nonsense_s = max(NONSENSE_S, NONSENSE_SAMPLES / header.rate_hz)
    measured, measured_at = 0, time.monotonic()
    while True:
        try:
            raw, monotonic_ns, utc_ns = reader.chunks.get(timeout=0.05)
        except queue.Empty:
            if not reader.is_alive():
                break
            raw = b""
        if raw:
            writer.append(raw)
            pending += raw
            if monotonic_ns * 1e-9 - anchored >= ANCHOR_S:
                anchored = monotonic_ns * 1e-9
                writer.mark("anchor", bytes=writer.bytes, monotonic_ns=monotonic_ns, utc_ns=utc_ns)
        due = time.monotonic() - reported >= HEALTH_S
        if len(pending) >= DECODE_SAMPLES * header.word_bytes or (due and pending):
            health.feed(bytes(pending), writer, header.word_bytes)
            pending.clear()
            if health.samples - checkpoint >= CHECKPOINT_SAMPLES:
                checkpoint = health.samples
                writer.mark("checkpoint", bytes=writer.bytes, index=health.samples, state=health.decoder.state())
        if health.samples > measured or (header.triggered and not raw):
            measured, measured_at = health.samples, time.monotonic()
        elif time.monotonic() - measured_at > nonsense_s:
            raise DataError(
                f"The meter sends, but for {nonsense_s:g} s nothing of it has been a measurement.",
                "Check the cable and what else talks to it; what came before is kept.",
            )
        if due:
            reported = time.monotonic()
            _say({**health.report(), "doing": reader.doing, "queued": reader.chunks.qsize(), "waits": reader.waits})
    if pending:
        health.feed(bytes(pending), writer, header.word_bytes)
    health.finish(writer, header.word_bytes)
    _say({**health.report(), "queued": 0, "waits": reader.waits})
    if not health.samples and reader.error is None and header.triggered:
        raise DataError(
            "The instrument was armed and its trigger never came.",
            "Check the trigger's wire, level and slope, and that the device runs.",
        )
    if not health.samples and reader.error is None:
        raise DataError("The meter was started but sent no samples.", "Unplug it, plug it in again, and retry.")


def _disk(folder: Path, error: OSError) -> IncompleteError:
    return IncompleteError(
        f"Writing to {folder} failed after part of the recording ({error.strerror or error}).",
        "Free space or choose another --output; what was written is kept and can be analysed.",
    )


def _say(content: dict[str, Any]) -> None:
    # A parent that has died hears nothing, and its end of standard input has already stopped the recording.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(content).encode() + b"\n")


def main() -> int:
    stop, enough = threading.Event(), threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # A file size limit must come as an error that can be told, not as a silent death.
    if hasattr(signal, "SIGXFSZ"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    asked = json.loads(sys.stdin.readline())
    task = Task(
        key=asked["key"],
        address=asked["address"],
        options=Options(**asked["options"]),
        folder=Path(asked["folder"]),
        trigger=asked["trigger"],
    )

    def wait_for_parent() -> None:
        if sys.stdin.read(1) == ENOUGH:
            enough.set()
        stop.set()

    threading.Thread(target=wait_for_parent, daemon=True).start()
    try:
        reason = record(task, stop, enough)
    except JouleMeterError as error:
        _say({"type": "error", "exit_code": error.exit_code, "what": error.what, "remedy": error.remedy})
        return error.exit_code
    _say({"type": "ended", "reason": reason})
    return 0


if __name__ == "__main__":
    # Leave at once: the thread that waits on standard input would hold the interpreter's shutdown.
    code = main()
    sys.stdout.flush()
    os._exit(code)
