"""Recordings of the MLCommons Tiny Python runner, the energy harness of MLPerf Tiny from v1.3 on: results.json.

A list of trials, each `{file, infer: {iterations, warmups, ...}, power: {samples, timestamps, voltage}, ...}`:
`samples` are the energies in J of sampling periods, `timestamps` are [number of the event, samples received before
it]. The last two of a trial bound its inferences; earlier ones are pulses of the board's start. The file states
neither unit nor rate: the runner sets its monitors to 1000 samples per second, and reckons with that.

Sources: github.com/mlcommons/tiny, benchmark/runner; files published in github.com/mlcommons/tiny_results_v1.3.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np

from joulemeter.capture import ArrayStream, Channel, Event, Header, Kind, Quantity, Recording, Timebase
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import DataError, UsageError
from joulemeter.reader import ReaderInfo
from joulemeter.readers import results_txt
from joulemeter.readers.files import content, marked

INFO = ReaderInfo(
    key="mlcommons",
    summary="folder with results.json of an energy run (MLPerf Tiny from v1.3 on)",
    made_by="MLCommons Tiny Python runner",
)

T = TypeVar("T")

FILE = "results.json"
RATE_HZ = 1000.0

# An event falls into the sampling period that follows the samples received before it; which of its ends is nearer is
# not known. Half-width one period, rectangular.
U_STAMP_S = 1 / RATE_HZ / 3**0.5

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Infer(msgspec.Struct, frozen=True):
    iterations: Annotated[int, msgspec.Meta(ge=1)] | None = None
    warmups: _Count | None = None


class Power(msgspec.Struct, frozen=True):
    samples: list[float | None]
    timestamps: list[tuple[str, _Count]]
    voltage: float | None = None


class Trial(msgspec.Struct, frozen=True):
    infer: Infer
    power: Power
    file: str | None = None
    mode: str | None = None


def recognises(path: Path) -> bool:
    """Whether `path` is such a folder or its results.json: a list of trials with something about inference."""
    file = _file(path)
    head = content(file, 65536).lstrip() if file.is_file() else b""
    return head.startswith(b"[") and head[1:].lstrip().startswith(b"{") and b'"infer"' in head


def read(path: Path) -> Recording:
    """The recording in the folder `path`, or in the results.json `path`.

    One stream "energy monitor" with the channel "power" in watts: the trials one after the other, though the time
    between them is unknown. Per trial with a window the events "begin" and "end", whose data are `trial`, `name` and
    `inferences`; other stamps are events "stamp". `meta` holds `inferences_per_window` (None where trials differ or
    nothing states it), `workload` (`inputs` per trial, `warmups`, `mode`; None where not stated) and `published`
    (results_txt.parse; None where there is no results.txt).

    Raises UsageError for a missing file or one of another format, DataError for a damaged or empty one.
    """
    file = _file(path)
    trials = _trials(file)
    caveats: list[Caveat] = []
    events: list[Event] = []
    offset = 0
    for number, trial in enumerate(trials):
        events += _events(file, number, trial, offset, caveats)
        offset += len(trial.power.samples)
    if not offset:
        raise DataError(f"{file} holds no samples.", "The monitor recorded nothing; run the energy mode again.")
    if len(trials) > 1:
        caveats.append(
            note(
                Code.TRIALS_JOINED,
                f"{file} holds {len(trials)} separate recordings; they are shown one after the other. The time between "
                "them was not recorded, so times across trials and averages over all of it mean nothing; windows are "
                "not affected.",
                trials=len(trials),
            )
        )
    # null and NaN both stand for a reading that the runner could not parse.
    energy_j = np.array([sample for trial in trials for sample in trial.power.samples], dtype=np.float64)
    with np.errstate(over="ignore"):
        power_w = energy_j * RATE_HZ
    status, invalid = marked(file, power_w)
    caveats += invalid
    published = results_txt.beside(file.parent)
    return Recording(
        name=file.resolve().parent.name,
        streams=(
            ArrayStream(
                name="energy monitor",
                header=Header(
                    instrument=INFO.key,
                    model="MLCommons Tiny runner power manager",
                    wire="mlcommons-results/1",
                    rate_hz=RATE_HZ,
                    word_bytes=8,
                    channels=(Channel(name="power", quantity=Quantity.POWER, unit="W", kind=Kind.MEAN),),
                    parameters={"supply_set_v": _agreed(trial.power.voltage for trial in trials)},
                ),
                timebase=Timebase(rate_hz=RATE_HZ),
                data={"power": power_w},
                status=status,
            ),
        ),
        trigger="events",
        events=tuple(events),
        meta={
            "inferences_per_window": _agreed(trial.infer.iterations for trial in trials)
            or results_txt.inferences_per_window(published),
            "workload": {
                "inputs": [trial.file for trial in trials],
                "warmups": _agreed(trial.infer.warmups for trial in trials),
                "mode": _agreed(trial.mode for trial in trials),
            },
            "published": published,
        },
        caveats=tuple(caveats),
    )


def _file(path: Path) -> Path:
    return path if path.suffix == ".json" and not path.is_dir() else path / FILE


def _trials(file: Path) -> list[Trial]:
    """Raises UsageError for what is no list of trials with power, DataError for an empty one."""
    try:
        # The runner writes NaN where a reading failed, which is no JSON; json reads it all the same.
        plain: Any = json.loads(content(file))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON: {error}.", "Give the results.json of an energy run, whole.") from error
    try:
        trials = msgspec.convert(plain, list[Trial])
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{file} is not the record of an energy run: {error}.",
            "Give the results.json of the runner's energy mode; in the other modes it measures no power.",
        ) from error
    if not trials:
        raise DataError(f"{file} holds no trials.", "The run ended before its first trial; run it again.")
    return trials


def _events(file: Path, number: int, trial: Trial, offset: int, caveats: list[Caveat]) -> list[Event]:
    """The stamps of one trial in the time of the joined stream; `offset` samples lie before it."""
    held = len(trial.power.samples)
    at = [samples for _, samples in trial.power.timestamps]
    if any(earlier > later for earlier, later in pairwise(at)):
        raise DataError(f"{file}: the stamps of trial {number} are out of order ({at}).", "The file is damaged.")
    whole = len(at) >= 2 and at[-2] < at[-1] <= held
    if not whole:
        why = (
            f"it has {len(at)} stamp(s) and a window needs two"
            if len(at) < 2
            else f"its last stamps are {at[-2]} and {at[-1]} of {held} samples"
        )
        caveats.append(
            doubt(
                Code.CUT_WINDOW,
                f"Trial {number} in {file} has no window: {why}. It is left out and the statistics rest on fewer "
                "windows. Run it again if five are needed.",
                trial=number,
            )
        )
    labels = ["stamp"] * len(at)
    data = {"trial": number, "name": f"trial {number}", "inferences": trial.infer.iterations}
    if whole:
        labels[-2:] = ["begin", "end"]
    return [
        Event(
            label=label,
            source=INFO.key,
            time_ns=round((offset + samples) * 1e9 / RATE_HZ),
            u_s=U_STAMP_S,
            data=dict(data, stamp=text),
        )
        for label, (text, samples) in zip(labels, trial.power.timestamps, strict=True)
        # A stamp beyond its own trial would land in the next one.
        if samples <= held
    ]


def _agreed(stated: Iterable[T]) -> T | None:
    """What all trials state alike, else None."""
    different = set(stated)
    return different.pop() if len(different) == 1 else None
