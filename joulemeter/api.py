"""The library's face: open a meter, record, load a run, ask it for numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from joulemeter import loading, plan, session, store, units
from joulemeter.capture import Channel, Recording
from joulemeter.errors import UsageError
from joulemeter.instrument import Options
from joulemeter.lifetime import analyzed
from joulemeter.physics.analyze import Analysis, Request
from joulemeter.result import Result

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """A recording and what can be had from it. Use it in a `with` block when it is a zip, or close it."""

    def __init__(self, path: Path, recording: Recording, held: contextlib.ExitStack) -> None:
        self.path = path
        self.recording = recording
        self._held = held

    def analysis(
        self,
        *,
        trigger: str | None = None,
        inferences_per_window: int | None = None,
        convention: str = "native",
    ) -> Analysis:
        """Raises UsageError, DataError."""
        request = Request(trigger=trigger, inferences_per_window=inferences_per_window, convention=convention)
        return analyzed(self.recording, request)

    def result(self, *, trigger: str | None = None, inferences_per_window: int | None = None) -> Result:
        """The result, computed from the raw recording."""
        return self.analysis(trigger=trigger, inferences_per_window=inferences_per_window).result

    def windows(self, *, trigger: str | None = None) -> pd.DataFrame:
        """One row per window, columns as in windows.csv; unknown is NaN."""
        import pandas as pd

        return pd.DataFrame(store.window_rows(self.analysis(trigger=trigger).rows))

    def signal(self, name: str, start_s: float = 0.0, stop_s: float | None = None) -> NDArray[np.float64]:
        """Samples of one channel in [start, stop), float64 in the channel's unit; NaN where samples were lost.

        Raises UsageError naming the channels there are.
        """
        stream = self.recording.streams[0]
        channels: dict[str, Channel] = {channel.name: channel for channel in stream.header.channels}
        if name not in channels:
            raise UsageError(f"There is no channel {name!r}.", f"Channels: {', '.join(channels)}.")
        first = max(0, round(start_s * stream.timebase.rate_hz))
        last = stream.length if stop_s is None else min(stream.length, round(stop_s * stream.timebase.rate_hz))
        values = np.full(max(last - first, 0), np.nan)
        for block in stream.blocks(first, last):
            begin, end = max(block.first_index, first), min(block.first_index + len(block), last)
            if end > begin:
                part = block.data[name][begin - block.first_index : end - block.first_index]
                values[begin - first : end - first] = part
        return values

    def close(self) -> None:
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(path: str | Path) -> Run:
    """A run directory, a zip of one, or another program's recording. Raises UsageError, DataError."""
    held = contextlib.ExitStack()
    recording = held.enter_context(loading.opened(Path(path)))
    return Run(Path(path), recording, held)


class Meter:
    """A meter to record with. The device is opened for each recording and left as it was found."""

    def __init__(self, meter: plan.Meter, *, simulate: bool, load: str | None, output: Path) -> None:
        self._meter = meter
        self._simulate = simulate
        self._load = load
        self._output = output

    def record(self, duration: str, *, name: str | None = None, trigger: str | None = None) -> Run:
        """Record for `duration` ("5s") into a new run directory. Raises what ended the recording early."""
        asked = plan.Plan(
            meters=(self._meter,),
            output=self._output,
            name=name or self._meter.key,
            trigger=trigger,
            simulate=self._simulate,
            load=self._load,
            duration_s=units.parse_positive(duration, "s"),
        )
        folder, trouble = session.record(asked, lambda text: None)
        if trouble is not None:
            raise trouble
        return load(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing stays open between recordings."""


def open(  # noqa: A001 - jm.open reads like the thing it does
    meter: str,
    *,
    supply: str | None = None,
    assume_voltage: str | None = None,
    settings: Mapping[str, str] | None = None,
    simulate: bool = False,
    load: str | None = None,
    output: str | Path = "results",
) -> Meter:
    """A meter by KEY[@ADDRESS]. Raises NotFoundError for an unknown key, UsageError for a bad quantity."""
    options = Options(
        supply_v=units.parse_positive(supply, "V") if supply else None,
        declared_v=units.parse_positive(assume_voltage, "V") if assume_voltage else None,
        settings=settings or {},
    )
    parsed = plan.parse_meter(meter, options)
    if parsed is None:
        raise UsageError("'none' is no meter to open.")
    return Meter(parsed, simulate=simulate, load=load, output=Path(output))
