"""Nordic's .ppk2 files (Power Profiler 4.0 and later), in and out. A ZIP with three members:

    session.raw     6 bytes per sample: float32 little-endian µA, then u16 big-endian with one pair of bits per digital
                    line, D0 lowest: 1 low, 2 high, 3 both within the sample, 0 not known
    metadata.json   {"metadata": {"samplesPerSecond", "startSystemTime" in ms}, "formatVersion": 2}
    minimap.raw     JSON: at most 10,000 points of least and greatest current (x in µs, y in nA, at least 200)

The file has no voltage, no ranges and no list of lost samples; the application puts 0.2 µA with all lines low in place
of each sample that it knows it lost. The range given here is read off the value by the maker's spans, because the
maker states accuracy by span. Some other writers store the eight lines as a plain byte; that is told by the content.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import ArrayStream, Header, Quantity, Recording, Status, Stream, Timebase
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import DataError, UsageError
from joulemeter.reader import ReaderInfo

from . import channels
from .minimap import Minimap

INFO = ReaderInfo(key="ppk2", summary="Nordic Power Profiler recording (.ppk2)", made_by="nRF Connect Power Profiler 4")

WIRE = "ppk2-file/2"
FORMAT_VERSION = 2
SESSION, METADATA, MINIMAP = "session.raw", "metadata.json", "minimap.raw"
SAMPLE = np.dtype([("microamperes", "<f4"), ("pairs", ">u2")])

METADATA_BYTES = 1 << 20
SESSION_BYTES = 1 << 32  # two hours at full rate: it becomes arrays in memory
DEFLATE_RATIO = 1100  # deflate cannot do better than 1032:1
PIECE = 1 << 16

LOST_MICROAMPERES = np.float32(0.2)
ALL_LOW = 0x5555
# The application reads its port every 30 ms, and that is when it stamps.
U_START_S = 0.03 / 3**0.5


def recognises(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return {SESSION, METADATA} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read(path: Path) -> Recording:
    """The recording, float64 amperes from the file's float32 µA. Raises UsageError, DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            rate_hz, start_ms = _parameters(_member(archive, METADATA, METADATA_BYTES, path), path)
            session = _member(archive, SESSION, SESSION_BYTES, path)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror or error}).", "Check its name and permissions."
        ) from error
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not a whole .ppk2 file ({error}).", "Save or copy it again.") from error
    samples = np.frombuffer(session, SAMPLE, count=len(session) // SAMPLE.itemsize)
    if not len(samples):
        raise DataError(f"{path} holds no samples.", "Record again, and save after the measurement.")
    caveats = [] if len(session) % SAMPLE.itemsize == 0 else [_truncated(len(session) % SAMPLE.itemsize)]

    microamperes = samples["microamperes"]
    current_a = microamperes.astype(np.float64) * 1e-6
    finite = np.isfinite(current_a)
    data: dict[str, NDArray[Any]] = {
        "current": np.where(finite, current_a, np.nan),
        "range": np.searchsorted(channels.SPAN_TOPS_A[:-1], current_a, side="left").astype(np.uint8),
    }
    encoding, lines = _lines(samples["pairs"], caveats)
    offered = list(channels.channels())
    if lines is None:
        offered = [channel for channel in offered if channel.quantity is not Quantity.DIGITAL]
    else:
        data["digital"] = lines
    invented = int(np.count_nonzero((microamperes == LOST_MICROAMPERES) & (samples["pairs"] == ALL_LOW)))
    if invented:
        caveats.append(_filled(invented, len(samples)))

    header = Header(
        instrument="ppk2",
        model="PPK2",
        wire=WIRE,
        rate_hz=rate_hz,
        word_bytes=SAMPLE.itemsize,
        channels=tuple(offered),
        parameters={"digital": encoding, "range": "by value"},
        caveats=tuple(caveats),
    )
    utc_ns = None if start_ms is None else round(start_ms * 1_000_000)
    stream = ArrayStream(
        name="ppk2",
        header=header,
        timebase=Timebase(rate_hz=rate_hz, utc_ns=utc_ns, u_host_s=None if utc_ns is None else U_START_S),
        data=data,
        status=None if finite.all() else np.where(finite, 0, Status.INVALID).astype(np.uint8),
    )
    # The line that people wire up first, if it ever moves.
    moves = lines is not None and len(np.unique(lines & 1)) == 2
    return Recording(name=path.stem, streams=(stream,), trigger="d0" if moves else None)


def _member(archive: zipfile.ZipFile, name: str, most_bytes: int, path: Path) -> bytes:
    """One member by its exact name, never more than it says and never more than `most_bytes`."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise UsageError(
            f"{path} has no {name}.", "It is not a .ppk2 file; files of version 3 of the application cannot be read."
        ) from None
    if info.file_size > most_bytes:
        raise UsageError(f"{name} in {path} is too large ({info.file_size} bytes).", "Save a shorter selection.")
    if info.flag_bits & 1 or info.file_size > DEFLATE_RATIO * max(info.compress_size, 1):
        raise DataError(f"{name} in {path} is not packed as the application packs it.", "Save the recording again.")
    try:
        return archive.read(info)
    except (EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:
        raise DataError(f"{name} in {path} is damaged ({error}).", "Save or copy it again.") from error


def _parameters(text: bytes, path: Path) -> tuple[float, float | None]:
    """Rate in Hz, and the start in milliseconds since 1970 if it is there."""
    try:
        whole = json.loads(text)
        version, metadata = whole["formatVersion"], whole["metadata"]
        rate_hz, start_ms = float(metadata["samplesPerSecond"]), metadata.get("startSystemTime")
        if start_ms is not None and not isinstance(start_ms, int):
            start_ms = float(start_ms)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{METADATA} in {path} is damaged ({error!r}).", "Save the recording again.") from error
    if version != FORMAT_VERSION:
        raise UsageError(
            f"{path} has format version {version!r}; version {FORMAT_VERSION} is known.", "Update JouleMeter."
        )
    if not 0 < rate_hz < 1e9 or (start_ms is not None and not 0 <= start_ms < 1e15):
        raise DataError(f"{METADATA} in {path} has a rate or a start that cannot be.", "Save the recording again.")
    return rate_hz, start_ms


def _lines(pairs: NDArray[np.uint16], caveats: list[Caveat]) -> tuple[str, NDArray[np.uint8] | None]:
    """How the lines are stored, and their states with bit k = line k; None if the file knows none."""
    if not pairs.any():
        return "absent", None
    if not (pairs & 0xFF).any():
        return "plain byte", (pairs >> 8).astype(np.uint8)
    lines = np.zeros(len(pairs), np.uint8)
    both = unknown = 0
    for line in range(8):
        pair = pairs >> np.uint16(2 * line) & np.uint16(3)
        lines |= ((pair >> np.uint16(1)) << np.uint16(line)).astype(np.uint8)
        both += int(np.count_nonzero(pair == 3))
        unknown += int(np.count_nonzero(pair == 0))
    if both:
        text = (
            f"In {both} places a line was low and high within one sample of the file, which was saved at a lower rate. "
            "They count as high, so edges may be one sample off. Save at 100 kS/s to see them."
        )
        caveats.append(note(Code.BOUNCING_EDGES, text, count=both))
    if unknown:
        text = (
            f"In {unknown} places the state of a line is not in the file. They count as low, so windows may be "
            "missing or cut there. Record again with all digital channels on."
        )
        caveats.append(doubt(Code.MISSING_EDGES, text, count=unknown))
    return "pairs", lines


def _truncated(extra: int) -> Caveat:
    text = (
        f"The last sample of the file is cut off ({extra} of {SAMPLE.itemsize} bytes) and was left out. Copy it again."
    )
    return doubt(Code.TRUNCATED, text, bytes=extra)


def _filled(count: int, of: int) -> Caveat:
    text = (
        f"{count} of {of} samples are exactly 0.2 µA with all lines low: the application writes that in place of "
        "samples it lost. Energy is too low by what the board drew in them. Record again without a hub between."
    )
    return doubt(Code.LOST_SAMPLES, text, count=count, of=of)


def write(path: Path, stream: Stream) -> int:
    """Write a stream as .ppk2, for Nordic's application; how many samples had to be invented where none was measured.

    They become 0.2 µA with all lines low, as that application does it. Lines of a stream without any are "not known".
    Raises UsageError if there is such a file already, or the stream has no current.
    """
    if stream.header.channel(Quantity.CURRENT) is None:
        raise UsageError(f"{stream.name} has no current, and a .ppk2 file holds nothing else.", "Export it as CSV.")
    metadata: dict[str, Any] = {"samplesPerSecond": _plain(stream.timebase.rate_hz)}
    if stream.timebase.utc_ns is not None:
        metadata["startSystemTime"] = round(stream.timebase.utc_ns / 1_000_000)
    minimap = Minimap(stream.length, stream.timebase.rate_hz)
    invented = 0
    try:
        file = path.open("xb")
    except FileExistsError as error:
        raise UsageError(f"{path} exists already.", "Choose another name or remove it.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror or error}).", "Choose another folder.") from error
    try:
        with file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open(SESSION, "w", force_zip64=True) as session:
                for samples, missing in _samples(stream):
                    session.write(samples.tobytes())
                    minimap.add(samples["microamperes"])
                    invented += missing
            archive.writestr(METADATA, json.dumps({"metadata": metadata, "formatVersion": FORMAT_VERSION}))
            archive.writestr(MINIMAP, json.dumps(minimap.to_json()))
    except BaseException:
        path.unlink(missing_ok=True)  # half a file would look like a short recording
        raise
    return invented


def _samples(stream: Stream) -> Iterator[tuple[NDArray[np.void], int]]:
    """Pieces of session.raw with the number of invented samples in each."""
    current, digital = (stream.header.channel(quantity) for quantity in (Quantity.CURRENT, Quantity.DIGITAL))
    for block in stream.blocks():
        for start in range(0, block.lost_before, PIECE):
            count = min(PIECE, block.lost_before - start)
            yield np.array([(LOST_MICROAMPERES, ALL_LOW)], SAMPLE).repeat(count), count
        for start in range(0, len(block), PIECE):
            part = slice(start, start + PIECE)
            current_a = block.data[current.name][part] if current else np.empty(0)
            samples = np.zeros(len(current_a), SAMPLE)
            samples["microamperes"] = current_a * 1e6
            if digital:
                samples["pairs"] = _PAIRS[block.data[digital.name][part]]
            missing = ~np.isfinite(samples["microamperes"])
            samples[missing] = (LOST_MICROAMPERES, ALL_LOW)
            yield samples, int(np.count_nonzero(missing))


def _plain(value: float) -> float:
    """3.0 as 3, which is how the application writes it."""
    return int(value) if value == int(value) else value


# The pairs of every state of eight lines: 1 low, 2 high.
_PAIRS = np.array(
    [sum((2 if state >> line & 1 else 1) << 2 * line for line in range(8)) for state in range(256)], ">u2"
)
