"""Meters that are asked for each reading.

The questions lie on a grid of the host's clock. An answer is one sample: its index is the slot of the grid in which it
was asked for, its time the middle between question and answer, less the age of what the meter shows. A slot without a
good answer is a lost sample, so a slow or spoilt answer never shifts those after it. What the meter answered is kept as
it came, good or not, one frame (frames.py) for each answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter import frames, units
from joulemeter.capture import Block, Epoch, Header, Status
from joulemeter.errors import DataError, IncompleteError, UsageError
from joulemeter.transport import Link

# Questions before the recording: they show whether the meter answers, and how long that takes.
TRIALS = 3
# Answers that take more of the interval than this would soon be late.
FULL_SHARE = 0.7
# A recorder that hears nothing for two seconds takes the meter for dead.
SLOWEST_S = 1.0
# A link gives what has arrived, so this only bounds a wait for the rest of an answer.
SILENCE_S = 0.02


class Poller:
    """Asks a meter on a grid of the host's clock. A driver holds one and hands its `read` through."""

    def __init__(self, ask: Callable[[], bytes], width: int, interval: str, usual_s: float, name: str) -> None:
        """`ask` returns one answer of at most `width` bytes, b"" where none came, and raises what a driver's read may.

        `interval` is the user's word: a time, or auto for `usual_s` or what the meter needs. `name` is for errors.
        Raises UsageError for an interval that is none.
        """
        self._ask = ask
        self._width = width
        self._name = name
        self._free = interval == "auto"
        self.interval_s = usual_s if self._free else units.parse_positive(interval, "s")
        if self.interval_s > SLOWEST_S:
            raise UsageError(
                f"A reading every {units.show(self.interval_s, 's')} is too seldom.",
                f"Choose up to {units.show(SLOWEST_S, 's')}.",
            )
        self._first_ns = 0
        self._next = 0
        self._u_s = 0.0

    @property
    def word_bytes(self) -> int:
        return frames.OVERHEAD + self._width

    @property
    def rate_hz(self) -> float:
        return 1 / self.interval_s

    def start(self, good: Callable[[bytes], object]) -> Epoch:
        """Try the meter, then begin the grid: where the host's clocks stand at its beginning.

        `good` returns None for an answer that is none. Raises IncompleteError where the meter does not answer,
        DataError where its answers are spoilt, UsageError where the user's interval is too short for it.
        """
        taken_s, answers = [], []
        for _ in range(TRIALS):
            began = time.monotonic()
            answers.append(self._ask())
            taken_s.append(time.monotonic() - began)
        if not any(answers):
            raise IncompleteError(f"{self._name} is asked for readings and sends none.", "Check the meter.")
        if all(good(answer) is None for answer in answers):
            raise DataError(f"What {self._name} answers is no reading.", "Check which meter that is, and the cable.")
        self._slow_down(sorted(taken_s)[TRIALS // 2])
        # When between question and answer the meter looked is not known: a rectangle (JCGM 100, 4.3.7).
        self._u_s = max(taken_s) / 2 / 3**0.5
        return self.begin()

    def begin(self) -> Epoch:
        """Begin the grid, or begin it anew: where the host's clocks stand at its beginning."""
        self._first_ns, utc_ns = time.monotonic_ns(), time.time_ns()
        self._next = 0
        return Epoch(monotonic_ns=self._first_ns, utc_ns=utc_ns, u_s=self._u_s)

    def _slow_down(self, answer_s: float) -> None:
        if answer_s <= FULL_SHARE * self.interval_s:
            return
        enough_s = math.ceil(answer_s / FULL_SHARE * 1e3) / 1e3
        if not self._free or enough_s > SLOWEST_S:
            raise UsageError(
                f"{self._name} takes {units.show(answer_s, 's')} for an answer.",
                f"Give --set interval={units.show(enough_s, 's').replace(' ', '')} or more."
                if enough_s <= SLOWEST_S
                else "That is too slow to measure with; check the connection.",
            )
        self.interval_s = enough_s

    def read(self, timeout_s: float) -> bytes:
        """The next answer as a frame, b"" where it is not due in time or did not come."""
        interval_ns = round(self.interval_s * 1e9)
        wait_s = (self._first_ns + self._next * interval_ns - time.monotonic_ns()) * 1e-9
        if wait_s > timeout_s:
            time.sleep(timeout_s)
            return b""
        time.sleep(max(wait_s, 0.0))
        before_ns = time.monotonic_ns()
        answer = self._ask()
        after_ns = time.monotonic_ns()
        slot = max((before_ns - self._first_ns) // interval_ns, self._next)
        self._next = slot + 1
        if not answer:
            return b""
        payload = answer[: self._width].ljust(self._width, b"\0")
        return frames.pack(frames.Frame(number=slot, before_ns=before_ns, after_ns=after_ns, payload=payload))


def exchange(link: Link, question: bytes, size: int, within_s: float) -> bytes:
    """One answer of `size` bytes, as much of it as came `within_s`.

    What was still on its way is thrown away first, so that no answer is taken for the next one. Raises IncompleteError.
    """
    deadline = time.monotonic() + within_s
    while link.read(0) and time.monotonic() < deadline:
        pass
    link.write(question)
    answer = b""
    while len(answer) < size and (left_s := deadline - time.monotonic()) > 0:
        answer += link.read(min(left_s, SILENCE_S))
    return answer


class PolledDecoder:
    """Frames of a Poller to samples."""

    def __init__(self, header: Header, wire: str, values: Callable[[bytes], Sequence[float] | None]) -> None:
        """`values` makes the values of header.channels, in that order, of an answer; None of a spoilt one.

        `age_ns` among the header's parameters is how old what an answer shows is. Raises UsageError.
        """
        if header.wire != wire:
            raise UsageError(f"This stream is {header.wire}, not {wire}.", "Use the JouleMeter that recorded it.")
        if header.epoch is None:
            raise DataError("The header of this stream lacks its epoch.", "Record anew.")
        self._values = values
        self._names = [channel.name for channel in header.channels]
        self._zero_ns = header.epoch.monotonic_ns + int(header.parameters.get("age_ns", 0))
        self._frames = frames.Splitter()
        self._runs = Runs(self._names)

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more."""
        for frame in self._frames.feed(raw):
            values = self._values(frame.payload)
            if values is not None and frame.number >= self._runs.index:
                middle_ns = (frame.before_ns + frame.after_ns) // 2
                self._runs.add(frame.number, middle_ns - self._zero_ns, values, frame.ends - frame.size, frame.ends)
        return self._runs.take()

    def finish(self) -> list[Block]:
        """Nothing is held back but a frame without its end."""
        return []

    def state(self) -> dict[str, Any]:
        return {"frames": self._frames.state(), "index": self._runs.index}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._frames.restore(state["frames"])
        self._runs.index = state["index"]


class Runs:
    """Readings that follow each other become blocks; one with a NaN in it is marked as no measurement.

    `index` is the one after the last reading.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.index = 0
        self._done: list[Block] = []
        self._open: tuple[int, int] = (0, 0)  # first index, lost before it
        self._times: list[int] = []
        self._values: list[Sequence[float]] = []
        self._ends = 0

    def add(self, index: int, time_ns: int, values: Sequence[float], begins: int, ends: int) -> None:
        """One reading, from byte `begins` to `ends` of the stream."""
        if self._times and (index != self.index or begins != self._ends):
            self._close()
        if not self._times:
            self._open = (index, index - self.index)
        self._times.append(time_ns)
        self._values.append(values)
        self._ends = ends
        self.index = index + 1

    def take(self) -> list[Block]:
        """The blocks so far."""
        self._close()
        done, self._done = self._done, []
        return done

    def _close(self) -> None:
        if not self._times:
            return
        columns: NDArray[np.float64] = np.array(self._values, dtype=np.float64).T
        first, lost = self._open
        nothing = np.isnan(columns).any(axis=0)
        self._done.append(
            Block(
                first_index=first,
                data=dict(zip(self._names, columns, strict=True)),
                lost_before=lost,
                status=np.where(nothing, np.uint8(Status.INVALID), np.uint8(0)) if nothing.any() else None,
                consumed=self._ends,
                times_ns=np.array(self._times, dtype=np.int64),
            )
        )
        self._times, self._values = [], []
