"""A recording as a file that other programs open."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from joulemeter import registry
from joulemeter.capture import Quantity, Recording, Stream
from joulemeter.errors import AccessError, UsageError
from joulemeter.physics.integrate import envelope, source_of

# suffix -> what writes it; each returns the number of rows or samples written
Writer = Callable[[Recording, Path, float | None], int]


def export(recording: Recording, path: Path, step_s: float | None = None) -> int:
    """Write `recording` in the format of the suffix; how many rows or samples were written.

    `step_s` thins a CSV to one row per step with lowest, mean and highest value.
    Raises UsageError for a format that is not known, AccessError when the file cannot be written.
    """
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise UsageError(f"{path.name!r} has no format that can be written.", f"Formats: {', '.join(sorted(WRITERS))}.")
    if step_s is not None and path.suffix.lower() != ".csv":
        raise UsageError("Only CSV can be thinned.", "Leave --step out.")
    try:
        return writer(recording, path, step_s)
    except OSError as error:
        raise AccessError(f"{path} cannot be written ({error.strerror or error}).", "Choose another place.") from error


def _stream(recording: Recording) -> Stream:
    if len(recording.streams) != 1:
        raise UsageError(
            f"{recording.name} holds {len(recording.streams)} streams; one is needed for a file of samples."
        )
    return recording.streams[0]


def _csv(recording: Recording, path: Path, step_s: float | None) -> int:
    """time_s, then a column per channel with its unit, power where it can be had, digital lines, and lost_before."""
    import pandas as pd

    stream = _stream(recording)
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        if step_s is not None:
            thin = envelope(stream, max(1, round(stream.length / stream.timebase.rate_hz / step_s)))
            times = thin.start_s + thin.step_s * np.arange(len(thin.mean))
            unit = thin.unit.lower()
            columns = {"time_s": times, f"low_{unit}": thin.low, f"mean_{unit}": thin.mean, f"high_{unit}": thin.high}
            pd.DataFrame(columns).to_csv(file, index=False)
            return len(times)
        source = source_of(stream.header)
        for block in stream.blocks():
            times = (block.first_index + np.arange(len(block))) / stream.timebase.rate_hz
            if block.times_ns is not None:
                times = block.times_ns * 1e-9
            table: dict[str, Any] = {"time_s": times}
            for channel in stream.header.channels:
                values = block.data[channel.name]
                if channel.quantity is Quantity.DIGITAL:
                    table |= {line: values >> bit & 1 for bit, line in enumerate(channel.lines)}
                else:
                    table[f"{channel.name}_{channel.unit.lower()}" if channel.unit else channel.name] = values
            power = source.power_w(block)
            if power is not None and source.power is None:
                table["power_w"] = power
            lost = np.zeros(len(block), dtype=np.int64)
            lost[0] = block.lost_before
            table["lost_before"] = lost
            pd.DataFrame(table).to_csv(file, index=False, header=rows == 0)
            rows += len(block)
    return rows


def _ppk2(recording: Recording, path: Path, step_s: float | None) -> int:
    del step_s
    stream = _stream(recording)
    if any(block.times_ns is not None for block in itertools.islice(stream.blocks(), 1)):
        raise UsageError(
            f"A .ppk2 file holds evenly spaced samples, and the {stream.header.model} is asked for each of its own.",
            "Export .csv, which has the time of each.",
        )
    writer: Any = registry.reader("ppk2")
    writer.write(path, stream)
    return stream.length


WRITERS: dict[str, Writer] = {".csv": _csv, ".ppk2": _ppk2}
