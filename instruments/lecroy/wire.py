"""The waveform block of LeCroy oscilloscopes, template LECROY_2_3 (X-Stream Remote Control Manual, appendix II).

The same bytes come from the instrument and lie in a .trc file: text before it, the descriptor, user text, the trigger
times of a sequence, then the codes. It says itself how it is to be read, the byte order first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import DataError
from joulemeter.scope.decode import Trace

WIRE = "lecroy/1"
NAME = b"WAVEDESC"
SIZE = 346
# Where it may begin: `C1:WF ALL,#9` and nine digits come before it.
SEARCH_BYTES = 64

# Name, numpy format, offset.
FIELDS: Sequence[tuple[str, str, int]] = (
    ("descriptor_name", "S16", 0),
    ("template_name", "S16", 16),
    ("comm_type", "i2", 32),
    ("comm_order", "i2", 34),
    ("wave_descriptor", "i4", 36),
    ("user_text", "i4", 40),
    ("res_desc1", "i4", 44),
    ("trigtime_array", "i4", 48),
    ("ris_time_array", "i4", 52),
    ("res_array1", "i4", 56),
    ("wave_array_1", "i4", 60),
    ("wave_array_2", "i4", 64),
    ("res_array2", "i4", 68),
    ("res_array3", "i4", 72),
    ("instrument_name", "S16", 76),
    ("instrument_number", "i4", 92),
    ("trace_label", "S16", 96),
    ("reserved1", "i2", 112),
    ("reserved2", "i2", 114),
    ("wave_array_count", "i4", 116),
    ("pnts_per_screen", "i4", 120),
    ("first_valid_pnt", "i4", 124),
    ("last_valid_pnt", "i4", 128),
    ("first_point", "i4", 132),
    ("sparsing_factor", "i4", 136),
    ("segment_index", "i4", 140),
    ("subarray_count", "i4", 144),
    ("sweeps_per_acq", "i4", 148),
    ("points_per_pair", "i2", 152),
    ("pair_offset", "i2", 154),
    ("vertical_gain", "f4", 156),
    ("vertical_offset", "f4", 160),
    ("max_value", "f4", 164),
    ("min_value", "f4", 168),
    ("nominal_bits", "i2", 172),
    ("nom_subarray_count", "i2", 174),
    ("horiz_interval", "f4", 176),
    ("horiz_offset", "f8", 180),
    ("pixel_offset", "f8", 188),
    ("vertunit", "S48", 196),
    ("horunit", "S48", 244),
    ("horiz_uncertainty", "f4", 292),
    ("trigger_second", "f8", 296),
    ("trigger_minute", "u1", 304),
    ("trigger_hour", "u1", 305),
    ("trigger_day", "u1", 306),
    ("trigger_month", "u1", 307),
    ("trigger_year", "i2", 308),
    ("acq_duration", "f4", 312),
    ("record_type", "i2", 316),
    ("processing_done", "i2", 318),
    ("reserved5", "i2", 320),
    ("ris_sweeps", "i2", 322),
    ("timebase", "i2", 324),
    ("vert_coupling", "i2", 326),
    ("probe_att", "f4", 328),
    ("fixed_vert_gain", "i2", 332),
    ("bandwidth_limit", "i2", 334),
    ("vertical_vernier", "f4", 336),
    ("acq_vert_offset", "f4", 340),
    ("wave_source", "i2", 344),
)
_ORDER = slice(34, 36)
_STAMP = slice(296, 312)
_SINGLE_SWEEP, _SEQUENCE = 0, 7
_TIMES = 16  # two doubles to a segment


def _layout(little: bool) -> np.dtype[np.void]:
    mark = "<" if little else ">"
    return np.dtype(
        {
            "names": [name for name, _, _ in FIELDS],
            "formats": [kind if kind[0] == "S" else mark + kind for _, kind, _ in FIELDS],
            "offsets": [offset for _, _, offset in FIELDS],
            "itemsize": SIZE,
        }
    )


_LAYOUTS = {little: _layout(little) for little in (False, True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """`raw` are its bytes as sent, `little` their order, `fields` all of FIELDS by name."""

    raw: bytes
    little: bool
    fields: np.void

    def whole(self, name: str) -> int:
        return int(self.fields[name])

    def real(self, name: str) -> float:
        return float(self.fields[name])

    def text(self, name: str) -> str:
        return bytes(self.fields[name]).partition(b"\0")[0].decode("latin-1")

    @property
    def segments(self) -> int:
        return max(self.whole("subarray_count"), 1)

    @property
    def points(self) -> int:
        """Of one segment."""
        return self.whole("wave_array_count") // self.segments

    @property
    def codes(self) -> np.dtype[np.int8] | np.dtype[np.int16]:
        if self.whole("comm_type") == 0:
            return np.dtype(np.int8)
        return np.dtype("<i2" if self.little else ">i2")

    @property
    def stamp(self) -> bytes:
        """The bytes of TRIGGER_TIME: another acquisition has another one."""
        return self.raw[_STAMP]

    @property
    def interval_s(self) -> float:
        """Of a float32, rounded to what it can hold: 9.99999972e-10 is 1e-9."""
        return float(f"{self.real('horiz_interval'):.7g}")


def find(block: bytes) -> int:
    """Where the descriptor begins. Raises DataError."""
    at = block.find(NAME, 0, SEARCH_BYTES)
    if at < 0 or len(block) < at + SIZE:
        raise DataError("These bytes hold no LeCroy waveform.", "Check the format that the oscilloscope is set to.")
    return at


def descriptor(block: bytes) -> Descriptor:
    """The descriptor at or near the beginning of `block`. Raises DataError for one that cannot be used."""
    at = find(block)
    raw = bytes(block[at : at + SIZE])
    # Zero is big-endian in either order.
    little = raw[_ORDER] != b"\0\0"
    fields = np.frombuffer(raw, _LAYOUTS[little])[0]
    found = Descriptor(raw=raw, little=little, fields=fields)
    if not found.text("template_name").startswith("LECROY_2_") or found.whole("wave_descriptor") < SIZE:
        raise DataError(
            f"The waveform is described by {found.text('template_name')!r}, not LECROY_2_3.",
            "This oscilloscope is too old, or not a LeCroy.",
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Waveform:
    """`data` are the bytes of each segment as sent, oldest first, `after_s` (n,) when each was triggered.

    `offset_s` (n,) is the time of each segment's first sample against its own trigger.
    """

    descriptor: Descriptor
    data: tuple[bytes, ...]
    after_s: NDArray[np.float64]
    offset_s: NDArray[np.float64]


def parse(block: bytes) -> Waveform:
    """A whole waveform block. Raises DataError where it is shorter than it says, or is no record of voltages."""
    told = descriptor(block)
    if told.whole("record_type") not in (_SINGLE_SWEEP, _SEQUENCE) or told.whole("ris_sweeps") > 1:
        raise DataError(
            "The waveform is no plain record (averaged, interleaved, a histogram or a function).",
            "Set the oscilloscope to real-time sampling, and read the channel itself.",
        )
    if told.whole("sweeps_per_acq") > 1:
        raise DataError("The waveform is an average of several.", "Switch averaging off: each pulse counts here.")
    at = find(block) + told.whole("wave_descriptor") + told.whole("user_text")
    times_bytes = told.whole("trigtime_array")
    start = at + times_bytes + told.whole("ris_time_array")
    size = told.points * told.codes.itemsize
    if size <= 0 or len(block) < start + size * told.segments:
        raise DataError(
            f"A waveform of {told.segments} times {told.points} samples came with {len(block) - start} bytes.",
            "Record anew; what came before is kept.",
        )
    if times_bytes:
        order = "<f8" if told.little else ">f8"
        count = min(times_bytes // _TIMES, told.segments)
        times = np.frombuffer(block, order, 2 * count, at).reshape(count, 2).astype(np.float64)
        if count < told.segments:
            raise DataError("The waveform has fewer trigger times than segments.", "Record anew.")
    else:
        times = np.array([[0.0, told.real("horiz_offset")]])
    view = memoryview(block)
    data = tuple(bytes(view[start + k * size : start + (k + 1) * size]) for k in range(told.segments))
    return Waveform(descriptor=told, data=data, after_s=times[:, 0], offset_s=times[:, 1])


def trace(part: bytes) -> Trace:
    """A descriptor and the codes of one segment: volts are VERTICAL_GAIN times code less VERTICAL_OFFSET.

    PROBE_ATT is contained in the gain already. Codes at or beyond MIN_VALUE and MAX_VALUE are clipped.
    """
    told = descriptor(part)
    codes: NDArray[np.int16] = np.frombuffer(part, told.codes, offset=SIZE).astype(np.int16)
    volts = codes.astype(np.float64) * told.real("vertical_gain") - told.real("vertical_offset")
    clipped = (codes >= told.real("max_value")) | (codes <= told.real("min_value"))
    first, last = told.whole("first_valid_pnt"), told.whole("last_valid_pnt")
    hole = None
    if told.segments == 1 and (first > 0 or 0 < last < len(codes) - 1):
        index = np.arange(len(codes))
        hole = (index < first) | (index > last)
    return Trace(volts=volts, interval_s=told.interval_s, clipped=clipped, hole=hole)
