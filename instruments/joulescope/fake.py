"""A stand-in for pyjoulescope_driver.Driver with a simulated meter behind it, reached by a link.

It offers the names of the real one that driver.py uses, with its signatures, and behaves as that one does where no
meter is needed to see it: which topics and values it takes, what it raises and with which text, that callbacks come
on a thread of its own. What passes the link is this project's own (simulator.py) and no meter's:

    to the meter     lines of JSON: {"do": "hello" | "open" | "close" | "set", "topic": ..., "value": ...}
    from the meter   b"JSsm", type (J or D), length u32, CRC-32 of the content u32, content (little-endian)
       J             JSON: {"topic": ..., "value": ...}
       D             length of topic u8, topic, sample_id u64, utc i64, sample_rate u32, decimate_factor u32,
                     field_id u8, index u8, numpy's name of the type 2 bytes, data compressed by zlib
"""

from __future__ import annotations

import contextlib
import json
import math
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from joulemeter.errors import JouleMeterError
from joulemeter.transport import Link

MARK = b"JSsm"
_HEAD = struct.Struct("<4scII")
_DATA = struct.Struct("<QqIIBB2s")
MAX_CONTENT = 1 << 24
ANSWER_S = 1.0
POLL_S = 0.005
CLOSING_S = 0.5

FLAGS = (
    "pub", "pub_retain", "metadata_req", "metadata_rsp", "metadata_rsp_retain", "metadata", "query_req", "query_rsp",
    "return_code",
)  # fmt: skip

_LOW_HZ = (1000, 500, 200, 100, 50, 20, 10, 5, 2, 1)
_HIGH_HZ = (2_000_000, 1_000_000, 500_000, 200_000, 100_000, 50_000, 20_000, 10_000, 5000, 2000)

_BOOL: tuple[tuple[Any, ...], ...] = ((0, "off"), (1, "on"), (False,), (True,))
_CODES = tuple((0x80 | 1 << bit,) for bit in range(6))
_GPI = "s/gpi/{}/ctrl"

# Topic -> the values that it takes, each with its names; () for any number. As the library's metadata states them for
# the JS110 and for what is handled on the host; as the maker's application uses them where the meter itself says.
_ANY: tuple[tuple[Any, ...], ...] = ()
_RATES = tuple((hz, f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz") for hz in (*_HIGH_HZ, *_LOW_HZ))
_NEWER = {
    "h/fs": _RATES,
    "h/fp": tuple((hz,) for hz in (10_000, 5000, 2000, *_LOW_HZ)),
    "c/gpio/vref": ((0, "external"), (1, "3v3")),
    "s/i/range/mode": ((4, "auto"), (5, "manual"), (0, "off")),
    "s/i/range/select": _CODES,
    **{f"{topic}/ctrl": _BOOL for topic in ("s/i", "s/v", "s/p", "s/i/range", "s/stats")},
    **{_GPI.format(index): _BOOL for index in (0, 1, 2, 3, 7)},
    "s/stats/scnt": _ANY,
}
TOPICS: dict[str, dict[str, tuple[tuple[Any, ...], ...]]] = {
    "js110": {
        "h/fs": _RATES,
        "s/i/range/select": (
            (128, "auto"), (1, "10 A"), (2, "2 A"), (4, "180 mA"), (8, "18 mA"), (16, "1.8 mA"), (32, "180 µA"),
            (64, "18 µA"), (0, "off"),
        ),
        "s/extio/voltage": (
            (0, "0V", "off"), (1800, "1.8V"), (2100, "2.1V"), (2500, "2.5V"), (2700, "2.7V"), (3000, "3.0V"),
            (3300, "3.3V"), (3600, "3.6V"), (5000, "5.0V"),
        ),
        "s/i/lsb_src": ((0, "normal"), (2, "gpi0"), (3, "gpi1")),
        "s/v/lsb_src": ((0, "normal"), (2, "gpi0"), (3, "gpi1")),
        **{f"{topic}/ctrl": _BOOL for topic in ("s/i", "s/v", "s/p", "s/i/range", "s/stats", "s/sstats")},
        **{_GPI.format(index): _BOOL for index in (0, 1)},
        "s/stats/scnt": _ANY,
    },
    "js220": {**_NEWER, "h/filter": ((0, "wideband"), (1, "sinc1"))},
    "js320": _NEWER,
}  # fmt: skip

Call = Callable[[str, Any], None]


class Driver:
    """See pyjoulescope_driver.Driver; the real one finds its meters by itself and takes no `link`."""

    def __init__(self, link: Link, timeout: float | None = None) -> None:
        self.log_level: Any = "off"
        self._link = link
        self._calls: list[tuple[str, Call]] = []
        self._held: dict[str, Any] = {}
        self._unsent: deque[bytes] = deque()
        self._path: str | None = None
        self._heard = threading.Condition()
        self._ended = threading.Event()
        self._gone = self._open = self._closing = False
        self._thread = threading.Thread(target=self._listen, name="fake joulescope", daemon=True)
        self._thread.start()
        self._tell("hello")
        with self._heard:
            self._heard.wait_for(lambda: self._path is not None or self._gone, ANSWER_S if timeout is None else timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.finalize()

    def finalize(self, timeout: float | None = None) -> None:
        if self._open and self.device_paths():
            self.close(self.device_paths()[0])
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(ANSWER_S if timeout is None else timeout)
        with contextlib.suppress(JouleMeterError, OSError):
            self._link.close()

    def device_paths(self, timeout: float | None = None) -> list[str]:
        return [] if self._path is None or self._gone else [self._path]

    def open(self, device_prefix: str, mode: Any = None, timeout: float | None = None) -> None:
        if mode not in (None, 0, 1, 0xFF, "defaults", "restore", "raw"):
            raise KeyError(mode)
        self._there(device_prefix.rstrip("/"), "jsdrv_open", device_prefix)
        if self._open:
            raise RuntimeError(f"jsdrv_open failed 21 IN_USE | The requested resource is currently in use. | {mode}")
        self._tell("open")
        with self._heard:
            if not self._heard.wait_for(lambda: self._open or self._gone, ANSWER_S if timeout is None else timeout):
                raise TimeoutError(f"jsdrv_open timed out | {device_prefix}")

    def close(self, device_prefix: str, timeout: float | None = None) -> None:
        self._there(device_prefix.rstrip("/"), "jsdrv_close", device_prefix)
        self._open, self._closing = False, True
        self._tell("close")

    def publish(self, topic: str, value: Any, timeout: float | None = None) -> None:
        if not isinstance(value, str | int | bytes | float):
            raise ValueError(f"Unsupported value type: {type(value)}")
        path, topics = self._split(topic)
        self._there(path, "jsdrv_publish", topic)
        name = topic[len(path) + 1 :]
        if name not in topics:
            raise RuntimeError(
                f"jsdrv_publish failed 20 UNAVAILABLE | The requested resource is currently unavailable. | {topic}"
            )
        fitting = [row[0] for row in topics[name] if value in row]
        if topics[name] and not fitting:
            raise RuntimeError(f"jsdrv_publish failed 5 PARAMETER_INVALID | The parameter value is invalid | {topic}")
        number = int(fitting[0]) if fitting else value
        self._held[topic] = number
        self._tell("set", topic=name, value=number)

    def query(self, topic: str, timeout: float | None = None) -> Any:
        if topic == "@/list":
            return ",".join(self.device_paths())
        if topic not in self._held:
            raise RuntimeError(f"jsdrv_query failed 16 NOT_FOUND | The requested resource was not found | {topic}")
        return self._held[topic]

    def subscribe(self, topic: str, flags: Any, fn: Call, timeout: float | None = None) -> None:
        names: Sequence[Any] = [flags] if isinstance(flags, str) else flags
        for name in names:
            if name not in FLAGS:
                raise KeyError(name)
        self._calls.append((topic, fn))

    def unsubscribe(self, topic: str, fn: Call, timeout: float | None = None) -> None:
        with contextlib.suppress(ValueError):
            self._calls.remove((topic, fn))

    # -- the link -----------------------------------------------------------------------------------------------------

    def _split(self, topic: str) -> tuple[str, dict[str, tuple[tuple[Any, ...], ...]]]:
        path = "/".join(topic.split("/")[:3])
        model = path.split("/")[1] if path.count("/") == 2 else ""
        return path, TOPICS.get(model, {})

    def _there(self, path: str, name: str, cause: str) -> None:
        """The real one waits for an answer that never comes, and then raises this."""
        if path not in self.device_paths():
            raise TimeoutError(f"{name} timed out | {cause}")

    def _tell(self, what: str, **more: Any) -> None:
        self._unsent.append(json.dumps({"do": what, **more}).encode() + b"\n")

    def _listen(self) -> None:
        """The only thread that uses the link, for a link is not made for two."""
        pending = b""
        last = math.inf
        while True:
            if self._ended.is_set():
                last = min(last, time.monotonic() + CLOSING_S)
            try:
                while self._unsent:
                    self._link.write(self._unsent.popleft())
                # What is still on its way is let in, so that nobody writes to a link that is no more.
                if self._ended.is_set() and (not self._closing or time.monotonic() > last):
                    break
                pending += self._link.read(POLL_S)
            except (JouleMeterError, OSError):
                break
            pending = self._take(pending)
        with self._heard:
            self._gone = True
            self._heard.notify_all()
        if not self._ended.is_set():
            self._call("@/!remove", self._path)

    def _take(self, data: bytes) -> bytes:
        """Hands on what is complete; what is left. Content that was spoilt on the way is left out."""
        at = 0
        while (at := _found(data, at)) + _HEAD.size <= len(data):
            _, kind, length, crc = _HEAD.unpack_from(data, at)
            if length > MAX_CONTENT:
                at += 1
                continue
            end = at + _HEAD.size + length
            if end > len(data):
                break
            content = data[at + _HEAD.size : end]
            if zlib.crc32(content) != crc:
                at += 1
                continue
            at = end
            self._hand_on(kind, content)
        return data[at:]

    def _hand_on(self, kind: bytes, content: bytes) -> None:
        if kind == b"D":
            self._stream(content)
            return
        said = json.loads(content)
        topic, value = said["topic"], said["value"]
        with self._heard:
            if topic == "@/!add":
                self._path = value
            elif topic == "@/!opened":
                self._open = True
            elif topic == "@/!closed":
                self._closing = False
            elif topic.startswith("@"):
                return
            else:
                topic = f"{self._path}/{topic}"
                self._held[topic] = value
            self._heard.notify_all()
        self._call(topic, value)

    def _stream(self, content: bytes) -> None:
        length = content[0]
        topic = content[1 : 1 + length].decode()
        sample_id, utc, sample_rate, decimate, field, index, dtype = _DATA.unpack_from(content, 1 + length)
        data = np.frombuffer(zlib.decompress(content[1 + length + _DATA.size :]), dtype=dtype.decode())
        message = {
            "sample_id": sample_id,
            "utc": utc,
            "field_id": field,
            "index": index,
            "sample_rate": sample_rate,
            "decimate_factor": decimate,
            "time_map": {"offset_time": utc, "offset_counter": sample_id, "counter_rate": float(sample_rate)},
            "data": data,
        }
        self._call(f"{self._path}/{topic}", message)

    def _call(self, topic: str, value: Any) -> None:
        for known, call in list(self._calls):
            if known == topic:
                call(topic, value)


def _found(data: bytes, start: int) -> int:
    """Where the next mark begins, or may begin at the end."""
    at = data.find(MARK, start)
    return at if at >= 0 else max(start, len(data) - len(MARK) + 1)
