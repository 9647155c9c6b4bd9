"""The device end: a Joulescope as its library's users see it, over a link of this project's own (see fake.py).

It shares no code with wire.py or fake.py. Sample ids count from a number far beyond 2**32, as after days of running
(on a JS110 from 0 with each start), the load begins (t = 0) when the first signal is switched on, and each line begins
at a sample id of its own. Every sample is the load's true mean; the total of energy is that of what was sent.

No real meter speaks this way, so whoever records through it can say that it is simulated.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.synthetic import Draw

UTC_AT_START = 265_000_000 << 30  # of 2018-01-01, as the library counts
DAYS = 3 * 86_400
# All streams begin on a multiple of these seconds, which the rates divide.
GRID_S = 0.001
# Ids a second; ids from one GPI element to the next; ids between the first elements of neighbouring lines.
CLOCK = {"js110": (2_000_000, 1, 0), "js220": (2_000_000, 1, 32), "js320": (16_000_000, 16, 512)}
FULL_HZ = {"js110": 2_000_000, "js220": 1_000_000, "js320": 1_000_000}
GPI = {"js110": (0, 1), "js220": (0, 1, 2, 3, 7), "js320": (0, 1, 2, 3, 7)}
TOPS_A = {
    "js110": (10.0, 2.0, 0.18, 0.018, 1.8e-3, 180e-6, 18e-6),
    "js220": (10.0, 0.18, 0.018, 1.8e-3, 180e-6, 18e-6),
    "js320": (10.0, 0.18, 0.018, 1.8e-3, 180e-6, 18e-6),
}
# The JS110's filter at range switches is 64 samples long, and begins with nothing.
JS110_EMPTY = 64
VERSION = 1 << 24 | 3 << 16 | 2
CURRENT, VOLTAGE, RANGE, INPUT = 1, 2, 4, 5


class _Stream:
    """One signal: where it goes on, in sample ids, and how far its elements are apart."""

    def __init__(self, field: int, index: int, next_id: int, between: int) -> None:
        self.field, self.index, self.next_id, self.between = field, index, next_id, between


class JoulescopeSimulator:
    def __init__(self, load: Draw, model: str, volts: float) -> None:
        self._load = load
        self._model = model
        self._volts = volts
        self._ids_hz, self._gpi_between, self._apart = CLOCK[model]
        self._inbox = b""
        self._outbox = b""
        self._now_s = 0.0
        self._opened_s = 0.0
        self._values: dict[str, Any] = {}
        self._reset()
        load.powered(True, 0.0)

    def _reset(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._drawn: Draw = self._load
        self._origin = 0
        self._energy_j = 0.0
        self._counting = False
        self._block_end = 0
        self._block_ids = 0
        self._values = {"h/fs": FULL_HZ[self._model], "h/fp": 20}
        if self._model == "js110":
            self._values |= {"s/i/range/select": 128, "s/extio/voltage": 3300}
        else:
            self._values |= {"s/i/range/mode": 4, "c/gpio/vref": 0}
            self._values |= {"c/fw/version": VERSION, "s/fpga/version": VERSION}

    # -- from the host ------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            try:
                asked = json.loads(line)
                what = asked["do"]
            except (ValueError, KeyError, TypeError):
                continue
            if what == "hello":
                self._say("@/!add", f"u/{self._model}/000000")
            elif what == "open":
                self._reset()
                for topic, value in self._values.items():
                    self._say(topic, value)
                self._say("@/!opened", 1)
            elif what == "close":
                self._reset()
                self._say("@/!closed", 1)
            elif what == "set":
                self._set(asked["topic"], asked["value"])

    def _set(self, topic: str, value: Any) -> None:
        self._values[topic] = value
        if topic == "s/stats/ctrl":
            self._begin_counting(bool(value))
        elif topic.endswith("/ctrl"):
            self._switch(topic.removesuffix("/ctrl"), bool(value))

    def _switch(self, topic: str, on: bool) -> None:
        if not on:
            self._streams.pop(topic, None)
            return
        if not self._streams:
            self._origin = 0 if self._model == "js110" else self._id_now(GRID_S)
            self._opened_s = self._now_s
            self._drawn = self._load.from_time(self._now_s)
        begin = 0 if self._model == "js110" else self._id_now(GRID_S)
        if topic in ("s/i", "s/v"):
            field = CURRENT if topic == "s/i" else VOLTAGE
            self._streams[topic] = _Stream(field, 0, begin, self._ids_hz // self._values["h/fs"])
        elif topic == "s/i/range":
            self._streams[topic] = _Stream(RANGE, 0, begin, self._gpi_between)
        elif topic.startswith("s/gpi/"):
            index = int(topic.removeprefix("s/gpi/"))
            if index in GPI[self._model]:
                begin += self._apart * (1 + index)
                self._streams[topic] = _Stream(INPUT, index, begin, self._gpi_between)

    def _begin_counting(self, on: bool) -> None:
        self._counting = on and "s/i" in self._streams
        if self._counting:
            self._block_ids = self._values["s/stats/scnt"] * self._ids_hz // FULL_HZ[self._model]
            self._block_end = self._streams["s/i"].next_id + self._block_ids

    def _id_now(self, grid_s: float) -> int:
        grid = round(grid_s * self._ids_hz)
        return (DAYS * self._ids_hz + int(self._now_s * self._ids_hz)) // grid * grid + grid

    # -- to the host --------------------------------------------------------------------------------------------------

    def transmit(self, now_s: float) -> bytes:
        self._now_s = max(self._now_s, now_s)
        if self._streams:
            now = int((self._now_s - self._opened_s) * self._ids_hz + 1e-6) + self._origin
            each = self._ids_hz // self._values["h/fp"]
            behind = min(stream.next_id for stream in self._streams.values())
            while behind + each <= now:
                behind += each
                for topic, stream in self._streams.items():
                    if stream.next_id + each <= now:
                        self._send(topic, stream, each)
        sent, self._outbox = self._outbox, b""
        return sent

    def _send(self, topic: str, stream: _Stream, ids: int) -> None:
        """The next message of a signal, `ids` sample ids long."""
        count = ids // stream.between
        first = (stream.next_id - self._origin) // stream.between
        rate_hz = self._ids_hz / stream.between
        if stream.field == CURRENT:
            data = self._drawn.mean_current_a(first, count, rate_hz)
            self._add_up(stream, data)
            self._message(topic, stream, self._begun(first, data))
        elif stream.field == VOLTAGE:
            self._message(topic, stream, self._begun(first, np.full(count, self._volts)))
        elif stream.field == RANGE:
            current_a = self._drawn.mean_current_a(first, count, rate_hz)
            tops = np.array(TOPS_A[self._model])
            codes = len(tops) - 1 - np.searchsorted(tops[::-1], np.abs(current_a))
            self._message(topic, stream, np.maximum(codes, 0).astype("u1"))
        else:
            lines = self._drawn.lines(first, count, rate_hz)
            self._message(topic, stream, np.packbits(lines >> stream.index & 1, bitorder="little"))
        stream.next_id += ids
        self._tell_total(stream)

    def _begun(self, first: int, values: NDArray[np.float64]) -> NDArray[np.float32]:
        made = values.astype("<f4")
        if self._model == "js110":
            made[: max(JS110_EMPTY - first, 0)] = np.nan
        return made

    def _add_up(self, stream: _Stream, current_a: NDArray[np.float64]) -> None:
        if self._counting:
            self._energy_j += float(current_a.sum()) * self._volts * stream.between / self._ids_hz

    def _tell_total(self, stream: _Stream) -> None:
        if stream.field != CURRENT or not self._counting or stream.next_id < self._block_end:
            return
        end = stream.next_id
        start = end - self._block_ids
        self._block_end += self._block_ids
        self._say(
            "s/stats/value",
            {
                "time": {
                    "samples": {"value": [start, end], "units": "samples"},
                    "sample_freq": {"value": self._ids_hz, "units": "Hz"},
                },
                "accumulators": {
                    "charge": {"value": self._energy_j / self._volts, "units": "C"},
                    "energy": {"value": self._energy_j, "units": "J"},
                },
                "source": "sensor",
            },
        )

    def _say(self, topic: str, value: Any) -> None:
        self._pack(b"J", json.dumps({"topic": topic, "value": value}).encode())

    def _message(self, topic: str, stream: _Stream, data: NDArray[Any]) -> None:
        name = f"{topic}/!data".encode()
        utc = UTC_AT_START + (stream.next_id << 30) // self._ids_hz
        head = struct.pack("<QqII", stream.next_id, utc, self._ids_hz, stream.between)
        head += bytes([stream.field, stream.index]) + data.dtype.str[1:].encode()
        self._pack(b"D", bytes([len(name)]) + name + head + zlib.compress(data.tobytes(), 1))

    def _pack(self, kind: bytes, content: bytes) -> None:
        self._outbox += b"JSsm" + kind + struct.pack("<II", len(content), zlib.crc32(content)) + content
