"""Asks a board what there is, has it polled, and stops that. What is polled, an instrument says by a Plan.

Stream time 0 is when slot 0 is due by the board's clock. The agent of this host stamps with the host's own monotonic
clock; over SSH the two clocks are compared before the start (workload.twoway); at a port the request itself is the
exchange that relates them. How the drift of another clock goes on from there is left open.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from joulemeter import units
from joulemeter.boardfiles import wire
from joulemeter.boardfiles.reach import BoardLink
from joulemeter.capture import Channel, Epoch, Header, Limit, Voltage
from joulemeter.caveat import Caveat
from joulemeter.errors import (
    AccessError,
    DataError,
    IncompleteError,
    JouleMeterError,
    NotFoundError,
    UsageError,
)
from joulemeter.instrument import LinkDriver, Options
from joulemeter.transport import Link
from joulemeter.transport.process import ProcessLink

SILENCE_S = 0.1
# Of a device that speaks already, and of a Python that has to start first.
ANSWER_S, START_S = 3.0, 30.0
ANSWER_BYTES = 1 << 24
STOP_S = 3.0
# Rounds before the recording: they show whether everything can be read, and how long that takes.
TRIAL_ROUNDS = 5
TRIAL_INTERVAL_S = 10e-3
# A round that takes more of its interval than this would soon be late.
FULL_SHARE = 0.7
# A recorder that hears nothing for two seconds takes the meter for dead.
INTERVALS_S = (1e-3, 1.0)
# Two crystals, of which a poor one is wrong by 100 ppm.
DRIFT = Limit(value=100e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the agent says of the board, and the files and outputs that were asked for. `root` begins their paths."""

    hello: Mapping[str, Any]
    files: wire.Files
    root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be polled and what it makes.

    `subject` is for errors. `usual_s` is the interval of `auto`. `age_s` is how old what is read is on average. The
    decoder finds `parameters` in the header. `tried` is given the rounds of the trial: it returns further caveats, and
    may raise what a driver's start may.
    """

    model: str
    subject: str
    sources: tuple[wire.Source, ...]
    channels: tuple[Channel, ...]
    usual_s: float
    age_s: float = 0.0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    voltage: Voltage | None = None
    caveats: tuple[Caveat, ...] = ()
    tried: Callable[[Sequence[wire.Round]], Sequence[Caveat]] = lambda rounds: ()


def check(options: Options) -> None:
    """Raises UsageError for a supply: boards that measure themselves are none."""
    if options.supply_v is not None:
        raise UsageError("A board that measures its own power cannot supply one.", "Leave --supply out.")


def measures_voltage(options: Options) -> None:
    """Raises UsageError where a voltage was declared to a meter of power."""
    if options.declared_v is not None:
        raise UsageError("This meter needs no voltage: it measures power or energy.", "Leave --assume-voltage out.")


def interval_s(text: str, usual_s: float) -> float:
    """Raises UsageError."""
    if text == "auto":
        return usual_s
    asked_s = units.parse_positive(text, "s")
    low, high = INTERVALS_S
    if not low <= asked_s <= high:
        raise UsageError(
            f"A board cannot be polled every {units.show(asked_s, 's')}.",
            f"Choose from {units.show(low, 's')} to {units.show(high, 's')}.",
        )
    return asked_s


class FilesDriver(LinkDriver):
    def __init__(
        self,
        link: Link,
        key: str,
        settings: Mapping[str, str],
        patterns: Sequence[str],
        look: Callable[[Survey], Plan],
        commands: Sequence[Sequence[str]] = (),
    ) -> None:
        """Takes over `link`, and closes it if there is nothing behind it to measure with.

        `look` is given what the files that fit `patterns`, below the root, and the `commands` hold. `settings` has
        interval and root. Raises NotFoundError, DataError, IncompleteError, UsageError, and what `look` raises.
        """
        self._link = link
        self._key = key
        self._pending = b""
        self._polling = False
        try:
            self._free = settings["interval"] == "auto"
            hello = self._identify()
            root = settings["root"].rstrip("/")
            self._survey = Survey(hello=hello, files=self._files(root, patterns, commands), root=root)
            self.plan = look(self._survey)
            self.interval_s = interval_s(settings["interval"], self.plan.usual_s)
        except BaseException:
            self.close()
            raise

    @property
    def hello(self) -> Mapping[str, Any]:
        return self._survey.hello

    def _identify(self) -> dict[str, Any]:
        """Stop what an earlier program left running, then ask who is there."""
        self._link.write(wire.STOP + wire.request("hello"))
        answer_s = START_S if isinstance(self._link, ProcessLink | BoardLink) else ANSWER_S
        for fields in self._answers(answer_s):
            if isinstance(hello := fields.get("ok"), dict) and "kernel" in hello:
                return hello
        raise NotFoundError(
            f"What is at {self._link.address or 'the other end'} does not answer as JouleMeter's agent does.",
            "Give ssh://[user@]host for a board, and no address for this host itself.",
        )

    def _files(self, root: str, patterns: Sequence[str], commands: Sequence[Sequence[str]]) -> wire.Files:
        asked = [f"{root}/{pattern}" for pattern in patterns]
        self._link.write(wire.request("files", patterns=asked, commands=[list(argv) for argv in commands]))
        for fields in self._answers(START_S):
            _raise_error(fields)
            if isinstance(ok := fields.get("ok"), dict) and "files" in ok:
                try:
                    return wire.parse_files(ok)
                except (TypeError, ValueError) as error:
                    raise DataError(f"{self._link.address} lists its files in another way ({error}).") from error
        raise IncompleteError(f"{self._link.address} does not say which files it has.", "Try again.")

    def _answers(self, timeout_s: float) -> Iterator[dict[str, Any]]:
        """What is answered from now on; ends when nothing more comes in time."""
        for line in self._lines(timeout_s):
            fields = wire.answer(line)
            if fields is not None:
                yield fields

    def _lines(self, timeout_s: float) -> Iterator[bytes]:
        deadline = time.monotonic() + timeout_s
        taken = 0
        while True:
            while b"\n" in self._pending:
                line, _, self._pending = self._pending.partition(b"\n")
                taken += len(line)
                yield line
            if time.monotonic() > deadline or taken + len(self._pending) > ANSWER_BYTES:
                return
            self._pending += self._link.read(SILENCE_S)

    def start(self) -> Header:
        """Try a few rounds, then have the board polled.

        Raises UsageError, DataError where something does not read, IncompleteError, and what the plan raises.
        """
        if self._polling:
            raise UsageError(f"{self.plan.subject} is polled already.", "Stop that first.")
        compared = self._link.compare() if isinstance(self._link, BoardLink) else None
        rounds = self._try()
        caveats = (*self.plan.caveats, *self.plan.tried(rounds))
        taken_ns = sorted(each.reads[-1].after_ns - each.reads[0].before_ns for each in rounds)[len(rounds) // 2]
        self._slow_down(taken_ns * 1e-9)
        interval_ns = round(self.interval_s * 1e9)
        first_ns, epoch = self._poll(interval_ns, compared)
        # When within a round its values were taken is not known: a rectangle (JCGM 100, 4.3.7).
        epoch = replace(epoch, u_s=math.hypot(epoch.u_s, taken_ns * 1e-9 / 2 / 3**0.5))
        return Header(
            instrument=self._key,
            model=self.plan.model,
            wire=wire.FORMAT,
            rate_hz=1e9 / interval_ns,
            word_bytes=wire.width(self.plan.sources),
            channels=self.plan.channels,
            firmware=str(self.hello["kernel"]),
            address=self._link.address or None,
            simulated="simulator" in self.hello,
            epoch=epoch,
            voltage=self.plan.voltage,
            parameters={
                "sources": [source.asked for source in self.plan.sources],
                "interval_ns": interval_ns,
                "first_ns": first_ns,
                "age_ns": round(self.plan.age_s * 1e9),
                "board": dict(self.hello),
                "clock": compared,
                **self.plan.parameters,
            },
            caveats=caveats,
        )

    def _try(self) -> list[wire.Round]:
        """A few rounds in quick succession. Raises DataError where no round is whole, IncompleteError."""
        self._poll(round(min(self.interval_s, TRIAL_INTERVAL_S) * 1e9), None)
        size = wire.width(self.plan.sources)
        rounds: list[wire.Round] = []
        for line in self._lines(START_S):
            _raise_error(wire.answer(line) or {})
            found = wire.parse_round(line, len(self.plan.sources), size)
            rounds += [found] if found is not None else []
            if len(rounds) == TRIAL_ROUNDS:
                break
        else:
            raise IncompleteError(
                f"{self._link.address or 'This host'} was asked for readings and sends none.",
                "Check what the board does.",
            )
        self.stop()
        whole = [each for each in rounds if all(read.text is not None for read in each.reads)]
        if not whole:
            raise _unreadable(self.plan.sources, rounds[-1])
        return whole

    def _slow_down(self, taken_s: float) -> None:
        """Poll more seldom, for a round has to end before the next is due. Raises UsageError for the user's wish."""
        if taken_s <= FULL_SHARE * self.interval_s:
            return
        enough_s = math.ceil(taken_s / FULL_SHARE * 1e3) / 1e3
        if not self._free or enough_s > INTERVALS_S[1]:
            raise UsageError(
                f"Reading {self.plan.subject} once takes {units.show(taken_s, 's')}.",
                f"Give --set interval={units.show(enough_s, 's').replace(' ', '')} or more, or choose less to read.",
            )
        self.interval_s = enough_s

    def _poll(self, interval_ns: int, compared: Mapping[str, Any] | None) -> tuple[int, Epoch]:
        """Have it polled: when slot 0 is due by the board's clock, and the host's clocks then."""
        self._polling = True
        asked = [source.asked for source in self.plan.sources]
        size = wire.width(self.plan.sources)
        sent_ns = time.monotonic_ns()
        self._link.write(wire.request("poll", sources=asked, interval_ns=interval_ns, width=size))
        for fields in self._answers(START_S):
            _raise_error(fields)
            match fields.get("polling"):
                case {"first_ns": int(first_ns)}:
                    # When it took the request it looked at its clock, and added an interval.
                    return first_ns, self._epoch(first_ns, sent_ns, first_ns - interval_ns, compared)
        raise IncompleteError(
            f"{self._link.address or 'This host'} was asked for readings and does not begin.", "Try again."
        )

    def _epoch(self, first_ns: int, sent_ns: int, taken_ns: int, compared: Mapping[str, Any] | None) -> Epoch:
        """The request left at `sent_ns` of our clock, the board took it at `taken_ns` of its own."""
        now_ns, utc_ns = time.monotonic_ns(), time.time_ns()
        if isinstance(self._link, ProcessLink):
            offset_ns, u_s, drift_ppm = 0, 0.0, 0.0
        elif compared is not None:
            offset_ns, u_s = round(compared["offset_s"] * 1e9), float(compared["u_offset_s"])
            drift_ppm = DRIFT.standard * 1e6
        else:
            # Anywhere between the two is possible: a rectangle (JCGM 100, 4.3.7).
            offset_ns, u_s = taken_ns - (sent_ns + now_ns) // 2, (now_ns - sent_ns) / 2e9 / 3**0.5
            drift_ppm = DRIFT.standard * 1e6
        here_ns = first_ns - offset_ns
        return Epoch(monotonic_ns=here_ns, utc_ns=utc_ns + here_ns - now_ns, u_s=u_s, u_drift_ppm=drift_ppm)

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when the board is gone, and what the agent answers where it cannot go on."""
        raw, self._pending = self._pending, b""
        raw = raw or self._link.read(timeout_s)
        if b'{"error"' in raw:
            for line in raw.split(b"\n"):
                _raise_error(wire.answer(line) or {})
        return raw

    def stop(self) -> None:
        """Stop polling; the agent stays for another start."""
        if not self._polling:
            return
        self._polling = False
        with contextlib.suppress(JouleMeterError):
            self._link.write(wire.STOP)
            for fields in self._answers(STOP_S):
                if "ok" in fields or "error" in fields:
                    break
        self._pending = b""


_ERRORS: dict[str, type[JouleMeterError]] = {
    "incomplete": IncompleteError,
    "data": DataError,
    "access": AccessError,
}


def _raise_error(fields: Mapping[str, Any]) -> None:
    """What the agent answers as an error, as ours."""
    error = fields.get("error")
    if not isinstance(error, Mapping):
        return
    kind = _ERRORS.get(str(error.get("kind")), UsageError)
    raise kind(str(error.get("what", error)), str(error.get("remedy") or "Check the board."))


def _unreadable(sources: Sequence[wire.Source], found: wire.Round) -> DataError:
    source, read = next(pair for pair in zip(sources, found.reads, strict=True) if pair[1].text is None)
    return DataError(f"{source.name} says {read.failure}: it cannot be read.", "Choose another one.")


def permit(paths: Sequence[str]) -> str:
    """What gives everybody read access to files of sysfs, until the next boot and for good."""
    rules = "\\n".join(f"z {path} 0444 - - -" for path in paths)
    return (
        f"Until the next boot: sudo chmod a+r {' '.join(paths)}. For good: "
        f"printf '{rules}\\n' | sudo tee /etc/tmpfiles.d/joulemeter.conf, then sudo systemd-tmpfiles --create."
    )
