"""A meter that is watched: its bytes decoded in this process and nothing of them kept.

Decoding beside the measured workload would slow that down, so measurements record in a process of their own
(recorder.py). Here no workload runs.
"""

from __future__ import annotations

import contextlib
import math
import queue
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from joulemeter import calibrations, registry, session
from joulemeter.capture import Block, Header
from joulemeter.conduct import stream_names
from joulemeter.errors import DataError, IncompleteError, JouleMeterError, UsageError
from joulemeter.instrument import Driver, Info
from joulemeter.physics.calibration import Calibration, check, correct
from joulemeter.physics.livefigures import Figures, Live
from joulemeter.plan import Meter, Plan
from joulemeter.recorder import NONSENSE_S, NONSENSE_SAMPLES, QUEUE_CHUNKS, STALL_S, STALL_SAMPLES

# A rate that was seen for less than this is no figure yet.
RATE_S = 1.0
# Nothing is kept here, whatever an error that is usual while recording says.
_KEPT = re.compile(r"(?:^|;\s*|(?<=\.)\s*)what\s[^.;]*\bkept\b[.;]?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One meter as it stands. `elapsed_s` since its start, `heard_s` since it last gave samples (None: it never did).

    `rate_hz` are samples that came per second, None while that is not known. `remark` is what to know of the figures.
    """

    name: str
    header: Header
    figures: Figures
    elapsed_s: float
    heard_s: float | None
    rate_hz: float | None
    power_unknown: str | None
    calibrated: str | None
    remark: str | None


class _Ear(threading.Thread):
    """Takes bytes from the driver as they come, so that drawing cannot make the meter overflow."""

    def __init__(self, driver: Driver, header: Header) -> None:
        super().__init__(daemon=True)
        self._driver = driver
        # How long a trigger may be awaited is the driver's business.
        self._stall_s = math.inf if header.triggered else max(STALL_S, STALL_SAMPLES / header.rate_hz)
        self._stop_asked = threading.Event()
        self.chunks: queue.Queue[bytes] = queue.Queue(QUEUE_CHUNKS)
        self.error: Exception | None = None

    def run(self) -> None:
        heard = time.monotonic()
        try:
            while not self._stop_asked.is_set():
                raw = self._driver.read(0.05)
                if raw:
                    heard = time.monotonic()
                    self._put(raw)
                elif time.monotonic() - heard > self._stall_s:
                    raise IncompleteError(
                        f"The meter has sent nothing for {self._stall_s:g} s.", "Unplug it and plug it in again."
                    )
        except Exception as error:
            self.error = error  # for the one who watches

    def _put(self, raw: bytes) -> None:
        while not self._stop_asked.is_set():
            with contextlib.suppress(queue.Full):
                self.chunks.put(raw, timeout=0.05)
                return

    def stop(self) -> None:
        self._stop_asked.set()
        if self.is_alive():
            self.join(5)


class Watched:
    """One meter while it is watched, streaming inside the block. Raises what opening it and starting it raise."""

    def __init__(self, name: str, meter: Meter, address: str, span_s: float) -> None:
        self.name = name
        self._meter = meter
        self._address = address
        self._span_s = span_s
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        module = registry.instrument(self._meter.key)
        with contextlib.ExitStack() as starting:
            driver = starting.enter_context(module.open(self._address, self._meter.options))
            starting.callback(driver.stop)
            self._header = driver.start()
            self._started = self._measured = time.monotonic()
            self._ear = _Ear(driver, self._header)
            starting.callback(self._ear.stop)
            self._ear.start()
            self._decoder = module.decoder(self._header)
            self._live = Live(self._header, self._span_s)
            self._power_unknown = None if self._live.unit == "W" else power_unknown(module.INFO)
            self._calibration, self._remark = _calibration(self._header)
            self._first: tuple[float, int] | None = None
            self._last: tuple[float, int] | None = None
            self._held = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def poll(self) -> None:
        """Count what has come. Raises what ended it, once everything before that was counted."""
        ended = not self._ear.is_alive()
        chunks = []
        with contextlib.suppress(queue.Empty):
            while True:
                chunks.append(self._ear.chunks.get_nowait())
        try:
            self._take(self._decoder.feed(b"".join(chunks)))
            if ended:
                self._take(self._decoder.finish())
            self._check_sense(bool(chunks))
        except JouleMeterError as error:
            raise of_watching(error) from None
        why = self._ear.error
        if ended and why is not None:
            raise of_watching(why) if isinstance(why, JouleMeterError) else why

    def _take(self, blocks: Sequence[Block]) -> None:
        if self._calibration is not None:
            blocks = list(correct(blocks, self._header, self._calibration.corrections))
        self._live.feed(blocks)

    def _check_sense(self, heard: bool) -> None:
        """Raises DataError for a meter that sends and never measures."""
        now, samples = time.monotonic(), self._live.samples
        limit_s = max(NONSENSE_S, NONSENSE_SAMPLES / self._header.rate_hz)
        if samples > (self._last[1] if self._last else 0):
            self._measured = now
            self._last = (now, samples)
            self._first = self._first or self._last
        elif self._header.triggered and not heard:
            self._measured = now
        elif now - self._measured > limit_s:
            raise DataError(
                f"The meter sends, but for {limit_s:g} s nothing of it has been a measurement.",
                "Check the cable and what else talks to it.",
            )

    def look(self) -> View:
        """The figures now; what is called "now" in them begins anew."""
        now, rate_hz = time.monotonic(), None
        if self._first is not None and self._last is not None and not self._header.triggered:
            (first_at, before), (last_at, samples) = self._first, self._last
            if last_at - first_at >= RATE_S:
                rate_hz = (samples - before) / (last_at - first_at)
        return View(
            name=self.name,
            header=self._header,
            figures=self._live.look(),
            elapsed_s=now - self._started,
            heard_s=None if self._last is None else now - self._last[0],
            rate_hz=rate_hz,
            power_unknown=self._power_unknown,
            calibrated=None if self._calibration is None else self._calibration.created[:10],
            remark=self._remark,
        )


@contextlib.contextmanager
def watching(plan: Plan, span_s: float) -> Iterator[tuple[Watched, ...]]:
    """The meters of a plan, or their simulators, streaming while the block runs. Raises JouleMeterError."""
    session.check(plan)
    with session.stand_ins(plan) as (addresses, _), contextlib.ExitStack() as held:
        yield tuple(
            held.enter_context(Watched(name, meter, address, span_s))
            for name, meter, address in zip(stream_names(plan), plan.meters, addresses, strict=True)
        )


def power_unknown(info: Info) -> str:
    """Why there is current and no power, and what gives one."""
    options = "--supply or --assume-voltage" if info.supplies is not None else "--assume-voltage"
    return f"it measures current only; give {options}"


def _calibration(header: Header) -> tuple[Calibration | None, str | None]:
    """The user's calibration of this meter, else why the one there is was not used."""
    calibration = calibrations.find(header)
    if calibration is None:
        return None, None
    try:
        check(header, calibration)
    except UsageError as error:
        return None, f"The calibration of {calibration.created[:10]} is not used. {error}"
    return calibration, None


def of_watching(error: JouleMeterError) -> JouleMeterError:
    """The same error, without a word of what a recording would have kept."""
    remedy = _KEPT.sub(lambda found: ". " if found[0].startswith(";") else " ", error.remedy).strip(" .")
    error.remedy = f"{remedy[:1].upper()}{remedy[1:]}." if remedy else ""
    error.args = (error.what, error.remedy)
    return error
