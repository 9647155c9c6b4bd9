"""Data logs that an N6705 or N6700 writes itself (.dlog): XML, then numbers.

    <dlog> ... </dlog> LF     for each output: channel id, sense_volt, sense_curr, ident/model; frame/tint in s;
                              some elements have names that begin with a digit, which XML does not allow
    8 bytes                   of unknown meaning
    float32, big-endian       a row for each sample: of each channel, in order, volts and then amperes, where logged

As derf/dlog-viewer reads it. With frame/sense_minmax each column has three values in an order that one source only
tells: such files are refused. Numbers beyond 1e6 are fill.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import ArrayStream, Header, Recording, Status, Timebase
from joulemeter.errors import DataError, UsageError
from joulemeter.reader import ReaderInfo

from . import channels, wire

INFO = ReaderInfo(key="dlog", summary="Keysight data log (.dlog)", made_by="Keysight N6705, N6700")

WIRE = "keysight-dlog/1"
HEAD_BYTES = 1 << 18
END, UNKNOWN_BYTES = b"</dlog>\n", 8
_DIGIT_FIRST = re.compile(r"<(/?)(\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the file: output, module, quantity and samples (n,) float64, fill as NaN."""

    output: int
    module: str
    name: str
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dlog:
    period_s: float
    columns: tuple[Column, ...]


def recognises(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:
        return False
    return b"<dlog>" in head


def read(path: Path) -> Recording:
    """A stream for each output. Raises UsageError, DataError."""
    try:
        found = parse_dlog(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror or error}).", "Check its name and permissions."
        ) from error
    outputs = sorted({column.output for column in found.columns})
    return Recording(name=path.stem, streams=tuple(_stream(found, number) for number in outputs))


def parse_dlog(raw: bytes) -> Dlog:
    """Raises DataError for what is no whole data log, UsageError for one with least and greatest values."""
    ends = raw.find(END, 0, HEAD_BYTES)
    if ends < 0:
        raise DataError("This is no data log: its description does not end.", "Copy the file again.")
    text = raw[: ends + len(END)].decode("latin-1")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError("The description of this data log is none that the instrument writes.", "Copy it again.")
    try:
        root = ElementTree.fromstring(_DIGIT_FIRST.sub(r"<\1_\2", text))  # noqa: S314 - entities are refused above
        period_s = float(root.findtext("frame/tint") or "")
        logged = [(int(one.get("id", "")), one.findtext("ident/model") or "", one) for one in root.iter("channel")]
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"The description of this data log cannot be read ({error}).", "Copy it again.") from error
    if root.findtext("frame/sense_minmax") == "1":
        raise UsageError(
            "This data log has least and greatest values, whose order nobody states.", "Log again without Min/Max."
        )
    named = [
        (output, model, name)
        for output, model, channel in logged
        for tag, name in (("sense_volt", wire.VOLTAGE), ("sense_curr", wire.CURRENT))
        if channel.findtext(tag) == "1"
    ]
    if not named or not period_s > 0:
        raise DataError("This data log describes no measured quantity.", "Copy it again.")
    values = np.frombuffer(raw, np.uint8, offset=min(ends + len(END) + UNKNOWN_BYTES, len(raw)))
    row = len(named) * wire.SINGLE.itemsize
    table = values[: len(values) // row * row].view(wire.SINGLE).reshape(-1, len(named)).astype(np.float64)
    if not len(table):
        raise DataError("This data log holds no samples.", "Copy it again.")
    table[~(np.abs(table) <= wire.FILL)] = np.nan
    return Dlog(
        period_s=period_s,
        columns=tuple(
            Column(output=output, module=model, name=name, values=table[:, k])
            for k, (output, model, name) in enumerate(named)
        ),
    )


def _stream(found: Dlog, output: int) -> ArrayStream:
    held = {column.name: column for column in found.columns if column.output == output}
    module = next(iter(held.values())).module
    described = channels.channels(wire.module(module), None, found.period_s, both=True)
    missing = np.any([np.isnan(column.values) for column in held.values()], axis=0)
    header = Header(
        instrument="n6705",
        model=f"data log of {module}" if module else "data log",
        wire=WIRE,
        rate_hz=1 / found.period_s,
        word_bytes=wire.record_bytes(len(held)),
        channels=tuple(channel for channel in described if channel.name in held),
    )
    return ArrayStream(
        name=f"output{output}",
        header=header,
        timebase=Timebase(rate_hz=header.rate_hz),
        data={channel.name: held[channel.name].values for channel in header.channels},
        status=np.where(missing, Status.INVALID, 0).astype(np.uint8) if missing.any() else None,
    )
