"""Recordings of EEMBC's EnergyRunner, the energy harness of MLPerf Tiny v0.5 to v1.2.

    trace1-energy.bin       1 byte 0xF1, float32 sample rate in Hz, then float32 samples to the end of the file, each
                            the energy in uJ of one sampling period; little-endian. No count, no supply voltage and
                            no name of the monitor are stored
    trace1-timestamps.json  list of seconds since the beginning of the trace, to the millisecond: falling edges of the
                            stamp pin. The first is a set-up pulse; then come start and stop of each window
    results.txt             what the runner printed (see results_txt.py); optional

Sources: the files published by MLCommons in github.com/mlcommons/tiny_results_v0.5 to v1.3 and the guide of
github.com/eembc/energyrunner.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from joulemeter.capture import ArrayStream, Channel, Event, Header, Kind, Quantity, Recording, Timebase
from joulemeter.caveat import Caveat, Code, doubt
from joulemeter.errors import DataError, UsageError
from joulemeter.reader import ReaderInfo
from joulemeter.readers import results_txt
from joulemeter.readers.files import content, marked

INFO = ReaderInfo(
    key="eembc",
    summary="folder with trace1-energy.bin and trace1-timestamps.json (MLPerf Tiny energy runs)",
    made_by="EEMBC EnergyRunner",
)

VERSION = 0xF1
HEAD = struct.Struct("<Bf")
SAMPLE = np.dtype("<f4")
ENERGY, STAMPS = "-energy.bin", "-timestamps.json"

# Stamps are rounded to the millisecond: half-width 0.5 ms, rectangular.
U_STAMP_S = 0.5e-3 / 3**0.5

# A trace of years is not a trace; the bound also keeps a stamp in whole nanoseconds.
_Stamps = list[Annotated[float, msgspec.Meta(ge=0, le=1e9)]]


def recognises(path: Path) -> bool:
    """Whether `path` is such a folder or its *-energy.bin: the first byte decides."""
    trace = _trace(path)
    return trace.is_file() and content(trace, 1) == bytes([VERSION])


def read(path: Path) -> Recording:
    """The recording in the folder `path`, or of the *-energy.bin `path`.

    One stream "energy monitor" with the channel "power" in watts, one event "stamp" per time stamp. `meta` holds
    `inferences_per_window` (from results.txt; None where it is not stated) and `published` (results_txt.parse; None
    where there is no results.txt).

    Raises UsageError for a missing file or one of another format, DataError for a damaged or empty one.
    """
    trace = _trace(path)
    rate_hz, samples_uj, caveats = _samples(trace)
    stamps_path = trace.with_name(trace.name.removesuffix(ENERGY) + STAMPS)
    stamps_s = _stamps(stamps_path)

    # uJ per period -> W in double precision: rounding costs 2e-16 of a sample, the printed digits need 1e-11.
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        power_w = samples_uj.astype(np.float64) * 1e-6 * rate_hz
    status, invalid = marked(trace, power_w)
    caveats += invalid
    late = sum(stamp > len(samples_uj) / rate_hz for stamp in stamps_s)
    if late:
        caveats.append(
            doubt(
                Code.TRUNCATED,
                f"The last {late} of {len(stamps_s)} stamps in {stamps_path} lie after the last sample of {trace.name} "
                f"at {len(samples_uj) / rate_hz:.3f} s: the trace was cut short. Windows that reach beyond it cannot "
                "be used. Fetch the trace again from where it was published.",
                stamps=late,
            )
        )
    published = results_txt.beside(trace.parent)
    return Recording(
        name=trace.resolve().parent.name,
        streams=(
            ArrayStream(
                name="energy monitor",
                header=Header(
                    instrument=INFO.key,
                    model="EEMBC EnergyRunner energy monitor",
                    wire="eembc-emon/1",
                    rate_hz=rate_hz,
                    word_bytes=SAMPLE.itemsize,
                    channels=(Channel(name="power", quantity=Quantity.POWER, unit="W", kind=Kind.MEAN),),
                ),
                timebase=Timebase(rate_hz=rate_hz),
                data={"power": power_w},
                status=status,
            ),
        ),
        trigger="events:falling-pairs",
        events=tuple(
            Event(label="stamp", source=INFO.key, time_ns=round(stamp_s * 1e9), u_s=U_STAMP_S, data={"index": index})
            for index, stamp_s in enumerate(stamps_s)
        ),
        meta={"inferences_per_window": results_txt.inferences_per_window(published), "published": published},
        caveats=tuple(caveats),
    )


def write(folder: Path, power_w: ArrayLike, stamps_s: Sequence[float], rate_hz: float = 1000.0) -> Path:
    """Write a recording as EnergyRunner does; the path of its trace1-energy.bin.

    `power_w` is (n,), watts, the mean over each sampling period; it is stored as float32. `stamps_s` are seconds
    since the beginning of sample 0, ascending: a set-up pulse, then start and stop of each window; they are stored
    to the millisecond. `folder` is made where it does not exist.

    Raises UsageError for a rate or stamps that the format cannot hold, and rather than overwrite a trace.
    """
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise UsageError(f"A sample rate of {rate_hz} Hz cannot be written.", "Give a positive number.")
    rounded = [round(float(stamp_s), 3) for stamp_s in stamps_s]
    if not _ascending(rounded) or not all(0 <= stamp_s <= 1e9 for stamp_s in rounded):
        raise UsageError(
            "The stamps cannot be written: to the millisecond they are not ascending from 0 s on.",
            "Give ascending stamps that are at least 1 ms apart.",
        )
    energy_uj = np.asarray(power_w, dtype=np.float64) * 1e6 / rate_hz
    trace = folder / ("trace1" + ENERGY)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with trace.open("xb") as file:
            file.write(HEAD.pack(VERSION, rate_hz) + energy_uj.astype(SAMPLE).tobytes())
    except FileExistsError as error:
        raise UsageError(f"{trace} exists already.", "Choose another folder.") from error
    (folder / ("trace1" + STAMPS)).write_text(json.dumps(rounded, indent="\t"), encoding="utf-8")
    return trace


def _trace(path: Path) -> Path:
    return path if path.name.endswith(ENERGY) and not path.is_dir() else path / ("trace1" + ENERGY)


def _samples(trace: Path) -> tuple[float, NDArray[np.float32], list[Caveat]]:
    """Sample rate in Hz and (n,) float32 energies in uJ, n > 0."""
    raw = content(trace)
    if len(raw) < HEAD.size:
        raise DataError(f"{trace} holds only {len(raw)} bytes: not even its header is whole.", "Fetch it again.")
    version, rate_hz = HEAD.unpack_from(raw)
    if version != VERSION:
        raise DataError(
            f"{trace} begins with the byte 0x{version:02X} instead of 0x{VERSION:02X}: it is damaged, or no trace of "
            "EnergyRunner.",
            "Fetch it again.",
        )
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise DataError(f"{trace} states a sample rate of {rate_hz} Hz.", "The file is damaged; fetch it again.")
    count, rest = divmod(len(raw) - HEAD.size, SAMPLE.itemsize)
    if not count:
        raise DataError(f"{trace} holds no samples.", "The monitor recorded nothing; run the energy mode again.")
    caveats = []
    if rest:
        caveats.append(
            doubt(
                Code.TRUNCATED,
                f"{trace} ends inside a sample: its last {rest} bytes were left out. The file does not say how many "
                "samples it should hold, so more may be missing. Compare its size with the original's.",
                bytes=rest,
            )
        )
    return rate_hz, np.frombuffer(raw, dtype=SAMPLE, count=count, offset=HEAD.size), caveats


def _stamps(path: Path) -> list[float]:
    """Seconds, ascending."""
    if not path.exists():
        raise UsageError(
            f"{path} is missing: without its stamps nothing says when the inferences ran.",
            "Put it beside the trace; EnergyRunner writes both into the run's folder.",
        )
    try:
        stamps_s: list[float] = msgspec.json.decode(content(path), type=_Stamps)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{path} is not a list of stamps in seconds: {error}.", "Fetch it again from where it was published."
        ) from error
    if not _ascending(stamps_s):
        k = next(k for k in range(1, len(stamps_s)) if stamps_s[k] <= stamps_s[k - 1])
        raise DataError(
            f"{path}: stamp {k} ({stamps_s[k]} s) does not come after stamp {k - 1} ({stamps_s[k - 1]} s).",
            "The file is damaged or was edited; fetch it again.",
        )
    return stamps_s


def _ascending(values: Sequence[float]) -> bool:
    return all(earlier < later for earlier, later in pairwise(values))
