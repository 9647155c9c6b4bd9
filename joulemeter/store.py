"""The run directory: what a measurement leaves on disk, and reading it again.

    run.json              what was asked, by whom, with which versions; written first
    STREAM/header.json    who measured and how to read the bytes; written before the first sample
    STREAM/words.raw      append-only, exactly what the instrument sent
    STREAM/calibration.json  the user's calibration of that meter, where there was one
    STREAM/marks.jsonl    append-only: clock anchors, holes, decoder checkpoints, back-pressure, the end
    events.jsonl          append-only: stamps of the host and of the workload; "windows" is a line with many pairs

Lengths come from file sizes and a half-written last line is no line, so a run that was cut off at any byte opens.
Raw files are never rewritten; result.json, windows.csv and report.html are made from them and may be deleted.
"""

from __future__ import annotations

import bisect
import csv
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from joulemeter.capture import UNSEEN, Anchor, Block, Event, Gap, Header, Recording, Stream, Timebase
from joulemeter.caveat import Caveat, Code, doubt
from joulemeter.errors import AccessError, DataError, IncompleteError, UsageError
from joulemeter.instrument import Decoder
from joulemeter.physics import clock
from joulemeter.physics.calibration import Calibration, calibrated
from joulemeter.registry import instrument
from joulemeter.result import SCHEMA, Result
from joulemeter.window import WindowEnergy

# The label of a line that holds many pairs of stamps, and how many at most: a torn line loses no more.
WINDOWS, WINDOWS_PER_LINE = "windows", 4096
RUN, EVENTS, HEADER, WORDS, MARKS = "run.json", "events.jsonl", "header.json", "words.raw", "marks.jsonl"
CALIBRATION = "calibration.json"
CALIBRATION_REFUSED = "calibration-refused"
RUN_SCHEMA = "joulemeter.run/1"
READ_BYTES = 1 << 18


# -- writing ----------------------------------------------------------------------------------------------------------


def create_run(output: Path, name: str, meta: Mapping[str, Any]) -> Path:
    """A new run directory under `output` with its run.json. Raises AccessError when it cannot be written."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    created = datetime.now(UTC)
    stamp = created.strftime("%Y-%m-%dT%H-%M-%SZ")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for attempt in range(1000):
            folder = output / (f"{stamp}-{safe}" if not attempt else f"{stamp}-{safe}-{attempt + 1}")
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
        else:
            raise UsageError(f"{output} holds a thousand runs called {stamp}-{safe}.", "Choose another --name.")
        write_json(folder / RUN, {"schema": RUN_SCHEMA, "name": name, "created": created.isoformat(), **meta})
    except OSError as error:
        raise AccessError(
            f"{output} cannot be written ({error.strerror or error}).", "Choose another folder with --output."
        ) from error
    return folder


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    import msgspec

    part = path.with_name(path.name + ".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(content, enc_hook=_plain), indent=2) + b"\n")
    part.replace(path)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a JSON file")


class Lines:
    """An append-only file of JSON lines, each written at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, content: Mapping[str, Any]) -> None:
        self.write(json.dumps(content, separators=(",", ":")).encode() + b"\n")

    def write(self, lines: bytes) -> None:
        write_all(self._file, lines)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def write_all(descriptor: int, data: bytes) -> None:
    """All of `data`, at once and unbuffered. Raises OSError; what fitted is then on disk."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class StreamWriter:
    """One stream's folder. Every call reaches the operating system before it returns."""

    def __init__(self, folder: Path, header: Header) -> None:
        folder.mkdir()
        write_json(folder / HEADER, header)
        self._words = os.open(folder / WORDS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._marks = Lines(folder / MARKS)
        self.bytes = 0

    def append(self, raw: bytes) -> None:
        write_all(self._words, raw)
        self.bytes += len(raw)

    def mark(self, kind: str, **content: Any) -> None:
        self._marks.add({"type": kind, **content})

    def close(self) -> None:
        if self._words >= 0:
            os.close(self._words)
            self._words = -1
        self._marks.close()


def append_events(folder: Path, events: Sequence[Event]) -> None:
    """Raises IncompleteError when they cannot be written."""
    import msgspec

    try:
        lines = Lines(folder / EVENTS)
        try:
            lines.write(b"".join(msgspec.json.encode(event) + b"\n" for event in events))
        finally:
            lines.close()
    except OSError as error:
        raise IncompleteError(
            f"Stamps could not be written to {folder} ({error.strerror or error}).",
            "Free space or choose another --output; what was written is kept.",
        ) from error


WINDOW_COLUMNS = (
    "index", "label", "start_s", "stop_s", "duration_s", "inferences", "energy_j", "charge_c", "mean_power_w",
    "peak_power_w", "missing_s", "caveats",
)  # fmt: skip


def window_rows(windows: Sequence[WindowEnergy]) -> list[dict[str, Any]]:
    """The rows of windows.csv; unknown is None."""
    return [
        {
            "index": energy.window.index,
            "label": energy.window.label,
            "start_s": energy.window.start_ns * 1e-9,
            "stop_s": energy.window.stop_ns * 1e-9,
            "duration_s": energy.window.duration_s,
            "inferences": energy.window.inferences,
            "energy_j": energy.energy_j,
            "charge_c": energy.charge_c,
            "mean_power_w": energy.mean_power_w,
            "peak_power_w": energy.peak_power_w,
            "missing_s": energy.missing_s,
            "caveats": " ".join(energy.caveats),
        }
        for energy in windows
    ]


def write_result(folder: Path, result: Result, windows: Sequence[WindowEnergy]) -> None:
    """result.json and windows.csv. Raises IncompleteError when they cannot be written; the raw recording stays."""
    part = folder / "result.json.part"
    try:
        part.write_text(result.to_json() + "\n", encoding="utf-8")
        part.replace(folder / "result.json")
    except OSError as error:
        part.unlink(missing_ok=True)
        raise IncompleteError(
            f"The result could not be written to {folder} ({error.strerror or error}).",
            "Free space, then `joulemeter analyze` makes it again from the recording.",
        ) from error
    write_windows(folder / "windows.csv", windows)


def read_result(path: Path) -> Result:
    """A result.json. Raises UsageError, DataError."""
    import msgspec

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        result = msgspec.json.decode(content, type=Result)
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path} is not a result of this version: {error}.", "Run `joulemeter analyze` again."
        ) from error
    if result.schema != SCHEMA:
        raise DataError(f"{path} has the schema {result.schema!r}, not {SCHEMA!r}.", "Run `joulemeter analyze` again.")
    return result


def write_windows(path: Path, windows: Sequence[WindowEnergy]) -> None:
    """One row per window. Raises AccessError."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, WINDOW_COLUMNS)
            table.writeheader()
            table.writerows(window_rows(windows))
    except OSError as error:
        raise AccessError(f"{path} cannot be written ({error.strerror}).", "Choose another place.") from error


# -- reading ----------------------------------------------------------------------------------------------------------


def is_run(path: Path) -> bool:
    return (path / RUN).is_file()


def open_run(folder: Path) -> Recording:
    """A run directory as a recording, also one that is still being written or was cut off.

    Raises UsageError when it is not a run directory, DataError when its headers are damaged.
    """
    meta = _read_json(folder / RUN)
    if not isinstance(meta, dict):
        raise DataError(f"{folder / RUN} is damaged: it does not hold an object.")
    caveats: list[Caveat] = []
    streams: list[Stream] = []
    for path in sorted(folder.iterdir()):
        if (path / HEADER).is_file():
            stream = RunStream(path)
            caveats += stream.caveats
            streams.append(_calibrated(path, stream))
    events = [event for line in read_lines(folder / EVENTS) for event in _events(line)]
    caveats += [doubt(Code.CALIBRATED, event.label) for event in events if event.source == CALIBRATION_REFUSED]
    return Recording(
        name=str(meta.get("name", folder.name)),
        streams=tuple(streams),
        trigger=meta.get("trigger"),
        events=tuple(events),
        meta=meta,
        caveats=tuple(caveats),
    )


def _calibrated(folder: Path, stream: RunStream) -> Stream:
    """The stream with the calibration that was copied beside it when it was recorded, if one was."""
    if not (folder / CALIBRATION).is_file():
        return stream
    import msgspec

    try:
        calibration = msgspec.convert(_read_json(folder / CALIBRATION), Calibration)
    except msgspec.ValidationError as error:
        raise DataError(f"{folder / CALIBRATION} is damaged: {error}.", "Remove it to analyse without it.") from error
    return calibrated(stream, calibration)


def _events(line: Mapping[str, Any]) -> list[Event]:
    """The event of a line; the begin and end of each window where it holds many."""
    import msgspec

    event = msgspec.convert(line, Event)
    if event.label != WINDOWS:
        return [event]
    data = dict(event.data)
    begins, ends = data.pop("begin_ns"), data.pop("end_ns")
    return [
        Event(label=label, source=event.source, monotonic_ns=at, u_s=event.u_s, data=given)
        for pair in zip(begins, ends, strict=True)
        for label, at, given in zip(("begin", "end"), pair, ({}, data), strict=True)
    ]


def read_header(folder: Path) -> Header:
    """Raises DataError when it is damaged."""
    import msgspec

    try:
        return msgspec.convert(_read_json(folder / HEADER), Header)
    except msgspec.ValidationError as error:
        raise DataError(f"{folder / HEADER} is damaged: {error}.") from error


def _read_json(path: Path) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} is not a run directory: it has no {path.name}.") from error
    except OSError as error:
        raise AccessError(f"{path} cannot be read ({error.strerror}).") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is damaged: {error}.", "The raw samples beside it may still be good.") from error


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines of a JSON-lines file; one that was cut off in the middle of writing is left out."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict):
                yield content


_BEGINNING: dict[str, Any] = {"bytes": 0, "index": 0, "state": None}


class RunStream:
    """A stream on disk: decoded when asked for, never held in memory.

    The decoder alone says where holes are; marks.jsonl adds what bytes cannot tell: when they arrived, and where
    decoding may begin other than at the first byte.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._words = folder / WORDS
        self.header = read_header(folder)
        self._anchors: list[Anchor] = []
        self._checkpoints: list[dict[str, Any]] = []
        # Where samples do not follow each other in the bytes: byte, index, and samples lost before it.
        self._segments: list[tuple[int, int, int]] = []
        self._end: dict[str, Any] | None = None
        self._waits = 0
        self._damage: DataError | None = None
        self._size = self._words.stat().st_size if self._words.is_file() else 0
        self._read_marks(folder / MARKS)
        self._next = self._scan_tail()
        self.gaps, self._shifts = self._resolve()
        self.length = self._next + (self._shifts[-1][1] if self._shifts else 0)
        self.timebase = self._fit()
        self.caveats = self._judge()

    def _decoder(self) -> Decoder:
        return instrument(self.header.instrument).decoder(self.header)

    def _read_marks(self, path: Path) -> None:
        for mark in read_lines(path):
            if mark.get("bytes", 0) > self._size:
                break  # marks that outlived their bytes
            match mark.get("type"):
                case "anchor":
                    self._anchors.append(
                        Anchor(
                            received_bytes=mark["bytes"],
                            monotonic_ns=mark["monotonic_ns"],
                            utc_ns=mark["utc_ns"],
                        )
                    )
                case "checkpoint":
                    self._checkpoints.append(mark)
                case "gap":
                    self._segments.append((mark["bytes"], mark["index"], mark["lost"]))
                case "seam":
                    self._segments.append((mark["bytes"], mark["index"], 0))
                case "wait":
                    self._waits += 1
                case "end":
                    self._end = mark

    def _scan_tail(self) -> int:
        """Decode what follows the last checkpoint; the index after the last sample by the counter alone."""
        start = self._checkpoints[-1] if self._checkpoints else _BEGINNING
        self._segments = [segment for segment in self._segments if segment[1] < start["index"]]
        following: int = start["index"]
        reached = 0
        for block in self._decode(start):
            begins = block.consumed - len(block) * self.header.word_bytes
            if block.lost_before or begins != reached:
                self._segments.append((begins, block.first_index, block.lost_before))
            reached = block.consumed
            following = block.first_index + len(block)
        return following

    def _decode(self, start: Mapping[str, Any]) -> Iterator[Block]:
        """Blocks from a checkpoint on, indices by the counter alone."""
        if not self._size:
            return
        decoder = self._decoder()
        if start["state"] is not None:
            decoder.restore(start["state"])
        with self._words.open("rb", buffering=0) as file:
            file.seek(start["bytes"])
            left = self._size - start["bytes"]
            try:
                while left and (raw := file.read(min(READ_BYTES, left))):
                    left -= len(raw)
                    yield from decoder.feed(raw)
                yield from decoder.finish()
            except DataError as error:
                # What came before is good; the stream ends where its bytes stop making sense.
                self._damage = error

    def _index_at(self, received_bytes: int) -> float:
        """Sample index by the counter alone when so many bytes had arrived."""
        after = bisect.bisect_left(self._segments, (received_bytes,))
        begins, index, _ = self._segments[after - 1] if after else (0, 0, 0)
        at = index + (received_bytes - begins) / self.header.word_bytes
        if after == len(self._segments):
            return at
        # What lies between the samples of two segments is no sample.
        _, following, lost = self._segments[after]
        return min(at, following - lost)

    def _resolve(self) -> tuple[tuple[Gap, ...], list[tuple[int, int]]]:
        """Holes with their true length, and how far indices move from each counter index on."""
        cause = UNSEEN if self.header.triggered else "lost"
        counted = [Gap(index=index, lost=lost, cause=cause) for _, index, lost in self._segments if lost]
        modulo = self.header.loss_modulo
        if modulo is None or not counted:
            return tuple(counted), []
        index = np.array([self._index_at(anchor.received_bytes) for anchor in self._anchors])
        sized = clock.size_gaps(counted, modulo, index, self._anchors, self.header.rate_hz)
        return sized, [(raw.index, true.index - raw.index) for raw, true in zip(counted, sized, strict=True)]

    def _shift(self, index: float) -> int:
        moved = 0
        for begins, shift in self._shifts:
            if index < begins:
                break
            moved = shift
        return moved

    def _fit(self) -> Timebase:
        if self.header.triggered:
            # Records arrive long after they were made.
            self._steps: Sequence[clock.ClockStep] = ()
            return Timebase(rate_hz=self.header.rate_hz)
        index = [self._index_at(anchor.received_bytes) for anchor in self._anchors]
        moved = np.array([at + self._shift(at) for at in index])
        self._steps = clock.steps(self._anchors, moved, self.header.rate_hz)
        if (epoch := self.header.epoch) is not None:
            return Timebase(
                rate_hz=self.header.rate_hz,
                monotonic_ns=epoch.monotonic_ns,
                utc_ns=epoch.utc_ns,
                u_host_s=epoch.u_s,
                u_drift_ppm=epoch.u_drift_ppm,
            )
        return clock.fit(moved, self._anchors, self.header.rate_hz, self.header.clock)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """Blocks that cover [start, stop); see capture.Stream."""
        begin = _BEGINNING
        for checkpoint in self._checkpoints:
            if checkpoint["index"] + self._shift(checkpoint["index"]) > start:
                break
            begin = checkpoint
        for block in self._decode(begin):
            shift = self._shift(block.first_index)
            if stop is not None and block.first_index + shift >= stop:
                return
            if block.first_index + shift + len(block) <= start:
                continue
            yield replace(block, first_index=block.first_index + shift) if shift else block

    def _judge(self) -> list[Caveat]:
        caveats = [step.caveat for step in self._steps]
        if self._damage is not None:
            caveats.append(doubt(Code.MISALIGNED, f"{self._damage} The stream ends there for all purposes."))
        if self._end is None or self._end.get("reason") not in ("stop", "duration"):
            why = "was cut off" if self._end is None else f"ended early ({self._end.get('reason')})"
            caveats.append(
                doubt(
                    Code.UNFINISHED,
                    f"The recording {why}. What had arrived is complete up to there; fewer windows than wanted may "
                    "have been measured.",
                )
            )
        if self._waits:
            caveats.append(
                doubt(
                    Code.BACK_PRESSURE,
                    f"The disk or the host could not keep up {self._waits} times and the meter had to wait; samples "
                    "may have been lost, which would be listed as such. Record to a faster disk.",
                    times=self._waits,
                )
            )
        return caveats


def now() -> tuple[int, int]:
    """Host monotonic and UTC clocks, nanoseconds, read together."""
    return time.monotonic_ns(), time.time_ns()
