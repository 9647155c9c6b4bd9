"""Sensors of a board through the agent on it: ask what there is, choose, have it polled, and stop that.

Where stream time 0 lies. The store takes it that k samples take k intervals and that their bytes arrive no earlier. So
sample 0 has to begin one interval before its line can be here at the earliest: before it was due, plus what a round
takes at the least, seen in a few rounds before, plus half of the shortest way to the board and back. Of that the store
takes off what it supposes a way to be.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from joulemeter import units
from joulemeter.capture import Basis, Channel, Header, Limit, Voltage
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import AccessError, DataError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import LinkDriver, Options
from joulemeter.transport import Link
from joulemeter.transport.process import ProcessLink

from . import channels, rails, wire
from .reach import BoardLink, local, reach

SILENCE_S = 0.1
# Of a device that speaks already, and of a Python that has to start first.
ANSWER_S, START_S = 3.0, 30.0
ANSWER_BYTES = 1 << 24
STOP_S = 3.0
# Rounds before the recording: they show whether the sensor can be read, and what a round takes at the least.
TRIAL_ROUNDS = 5
# A round that takes more of its interval than this would soon be late.
FULL_SHARE = 0.7
# A recorder that hears nothing for two seconds takes the meter for dead.
INTERVALS_S = (1e-3, 1.0)
USUAL_INTERVAL_S, SLOWEST_USUAL_S = 10e-3, 100e-3
# What the store takes the shortest way to be, give or take as much (physics.clock). Further ones are doubted.
USUAL_WAY_S = 0.5e-3
FAR_WAY_S = 1e-3
# Through a pipe on this host.
PIPE_S = 0.05e-3

# Nobody states it for these: what a board's bus may differ from the user's word.
DECLARED_LIMIT = 0.05


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.hwmon.open`."""
    check(options)
    interval_s(settings["interval"], None)
    link = reach(address, settings)
    named = {"sensor": address} if address and local(address) else {}
    return Driver(link, options, {**settings, **named})


def check(options: Options) -> None:
    """Raises UsageError for options that no sensor can take."""
    if options.supply_v is not None:
        raise UsageError("Sensors on a board measure its supply; they cannot be one.", "Leave --supply out.")
    if options.declared_v is not None and not options.declared_v > 0:
        raise UsageError(f"{options.declared_v:g} V is no supply voltage.", "Give the voltage that the board runs on.")


def interval_s(text: str, refresh_s: float | None) -> float:
    """`auto` is twice as often as the sensor has something new, but no oftener than each 10 ms. Raises UsageError."""
    if text == "auto":
        return min(max(USUAL_INTERVAL_S, (refresh_s or 0.0) / 2), SLOWEST_USUAL_S)
    asked_s = units.parse_positive(text, "s")
    low, high = INTERVALS_S
    if not low <= asked_s <= high:
        raise UsageError(
            f"Sensors cannot be polled every {units.show(asked_s, 's')}.",
            f"Choose from {units.show(low, 's')} to {units.show(high, 's')}.",
        )
    return asked_s


class Driver(LinkDriver):
    def __init__(self, link: Link, options: Options, settings: Mapping[str, str]) -> None:
        """Takes over `link`, and closes it if there is nothing behind it to measure with.

        Raises NotFoundError, AccessError, UsageError, DataError, IncompleteError.
        """
        check(options)
        self._link = link
        self._options = options
        self._pending = b""
        self._polling = False
        self._way_s = PIPE_S if isinstance(link, ProcessLink) else USUAL_WAY_S
        try:
            self.hello = self._identify()
            files = self._survey(settings["root"])
            self.rails = rails.choose(rails.rails(files), settings["sensor"], settings["rail"])
            self._files = files
            refreshes = [rail.refresh_s for rail in self.rails]
            self._refresh_s = None if None in refreshes else max(each for each in refreshes if each is not None)
            self._interval_ns = round(interval_s(settings["interval"], self._refresh_s) * 1e9)
            self._interval_free = settings["interval"] == "auto"
            self._voltage()
        except BaseException:
            self.close()
            raise

    def _identify(self) -> dict[str, Any]:
        """Stop what an earlier program left running, then ask who is there."""
        self._link.write(wire.STOP + wire.request("hello"))
        answer_s = START_S if isinstance(self._link, ProcessLink | BoardLink) else ANSWER_S
        for fields in self._answers(answer_s):
            if isinstance(hello := fields.get("ok"), dict) and "kernel" in hello:
                return hello
        raise NotFoundError(
            f"What is at {self._link.address or 'the other end'} does not answer as JouleMeter's agent does.",
            "Give ssh://[user@]host for a board, and no address for this host's own sensors.",
        )

    def _survey(self, root: str) -> wire.Files:
        patterns = [f"{root.rstrip('/')}/{pattern}" for pattern in rails.PATTERNS]
        self._link.write(wire.request("files", patterns=patterns))
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
        """Have the files polled. Raises UsageError, DataError where the sensor does not read, IncompleteError."""
        if self._polling:
            raise UsageError("These sensors are polled already.", "Stop that first.")
        compared = self._link.compare() if isinstance(self._link, BoardLink) else None
        sources = [source for rail in self.rails for source in rail.sources]
        first_ns, trials = self._poll(sources)
        read_ns = sorted(trial.reads[-1].after_ns - trial.reads[0].before_ns for trial in trials)[TRIAL_ROUNDS // 2]
        if read_ns > FULL_SHARE * self._interval_ns:
            self.stop()
            self._slow_down(read_ns)
            first_ns, trials = self._poll(sources)
        last_slot = trials[-1].slot
        # From when a round is due to when its last file was read.
        takes_ns = min(trial.reads[-1].after_ns - first_ns - trial.slot * self._interval_ns for trial in trials)
        way_s = compared["rtt_min_s"] / 2 if compared is not None else self._way_s
        age_s = max((_age_s(rail) for rail in self.rails), default=0.0)
        zero_ns = first_ns + last_slot * self._interval_ns + takes_ns + round((way_s - USUAL_WAY_S) * 1e9)
        made, products = self._channels()
        return Header(
            instrument="hwmon",
            model=self._model(),
            wire=wire.FORMAT,
            rate_hz=1e9 / self._interval_ns,
            word_bytes=wire.width(len(sources)),
            channels=made,
            firmware=str(self.hello["kernel"]),
            address=self._link.address or None,
            simulated="simulator" in self.hello,
            voltage=self._voltage(),
            parameters={
                "files": [{"path": source.path, "per_si": source.per_si} for source in sources],
                "channels": products,
                "interval_ns": self._interval_ns,
                "first_ns": first_ns,
                "first_slot": last_slot + 1,
                "zero_ns": zero_ns,
                "age_ns": round(age_s * 1e9),
                "board": self.hello,
                "clock": compared,
                "rails": [
                    {"name": rail.name, "sensor": rail.sensor, "shunt_ohm": rail.shunt_ohm, "refresh_s": rail.refresh_s}
                    for rail in self.rails
                ],
            },
            caveats=tuple(self._caveats(way_s)),
        )

    def _poll(self, sources: list[rails.Source]) -> tuple[int, list[wire.Round]]:
        """Have them polled: when slot 0 was due, and the rounds of a trial. Raises DataError where none reads."""
        width = wire.width(len(sources))
        paths = [source.path for source in sources]
        self._polling = True
        self._link.write(wire.request("poll", paths=paths, interval_ns=self._interval_ns, width=width))
        first_ns: int | None = None
        trials: list[wire.Round] = []
        for line in self._lines(START_S):
            fields = wire.answer(line) or {}
            _raise_error(fields)
            match fields.get("polling"):
                case {"first_ns": int(due)}:
                    first_ns = due
            trial = wire.parse_round(line, len(sources))
            if trial is None or first_ns is None:
                continue
            trials.append(trial)
            if len(trials) == TRIAL_ROUNDS:
                if all(any(read.number is None for read in each.reads) for each in trials):
                    self.stop()
                    raise _unreadable(sources, trial)
                return first_ns, trials
        raise IncompleteError(
            f"{self._link.address or 'This host'} was asked for readings and sends none.", "Check what the board does."
        )

    def _slow_down(self, read_ns: int) -> None:
        """Poll more seldom, for a round has to end before the next is due. Raises UsageError for the user's wish."""
        enough_ns = math.ceil(read_ns / FULL_SHARE / 1e6) * 1_000_000
        if not self._interval_free or enough_ns > INTERVALS_S[1] * 1e9:
            raise UsageError(
                f"Reading {'+'.join(rail.name for rail in self.rails)} once takes {units.show(read_ns * 1e-9, 's')}.",
                f"Give --set interval={units.show(enough_ns * 1e-9, 's').replace(' ', '')} or more, or fewer rails.",
            )
        self._interval_ns = enough_ns

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

    # -- the header ---------------------------------------------------------------------------------------------------

    def _model(self) -> str:
        names = "+".join(rails.names(self.rails))
        chips = "+".join(sorted({rail.chip for rail in self.rails}))
        return f"{chips} {names}" if any(rail.label for rail in self.rails) else names

    def _channels(self) -> tuple[tuple[Channel, ...], dict[str, list[list[int]]]]:
        """The channels, and of which products of files each is the sum, by the files' numbers."""
        at = 0
        products: list[list[int]] = []
        for rail in self.rails:
            products.append([*range(at, at + len(rail.sources))])
            at += len(rail.sources)
        if len(self.rails) == 1:
            return self._one(self.rails[0])
        powers = [product[:1] if rail.power else product for rail, product in zip(self.rails, products, strict=True)]
        parts = [self._part(rail) for rail in self.rails]
        each = [
            channels.power([part], rail.refresh_s, f"power {name}")
            for rail, part, name in zip(self.rails, parts, rails.names(self.rails), strict=True)
        ]
        made = (channels.power(parts, self._refresh_s), *each)
        sums = [powers, *([power] for power in powers)]
        return made, {channel.name: sum_ for channel, sum_ in zip(made, sums, strict=True)}

    def _one(self, rail: rails.Rail) -> tuple[tuple[Channel, ...], dict[str, list[list[int]]]]:
        chip = channels.CHIPS.get(rail.chip)
        made: list[Channel] = []
        if rail.power is not None:
            made.append(channels.power([self._part(rail)], rail.refresh_s))
        if rail.current is not None:
            made.append(channels.current(chip, rail.shunt_ohm, rail.refresh_s))
        if rail.voltage is not None:
            made.append(channels.voltage(chip, rail.refresh_s))
        return tuple(made), {channel.name: [[k]] for k, channel in enumerate(made)}

    def _part(self, rail: rails.Rail) -> channels.Part:
        """With the voltage of the survey: what an offset of current weighs hardly depends on it."""
        volts = None
        if rail.voltage is not None:
            text = self._files.texts.get(rail.voltage.path)
            volts = int(text) / rail.voltage.per_si if text is not None else None
        return channels.Part(
            chip=channels.CHIPS.get(rail.chip),
            shunt_ohm=rail.shunt_ohm,
            volts=volts,
            multiplied=rail.power is None,
        )

    def _voltage(self) -> Voltage | None:
        """The user's word, where no rail has a voltage of its own. Raises UsageError."""
        declared_v = self._options.declared_v
        if declared_v is None:
            return None
        if len(self.rails) > 1 or self.rails[0].power is not None or self.rails[0].voltage is not None:
            raise UsageError("These sensors measure their voltage.", "Leave --assume-voltage out.")
        return Voltage(volts=declared_v, basis=Basis.DECLARED, limit=Limit(value=DECLARED_LIMIT * declared_v))

    def _caveats(self, way_s: float) -> Iterator[Caveat]:
        unstated = [
            rail.name
            for rail in self.rails
            if rail.shunt_ohm is None and rail.chip in channels.CHIPS and channels.CHIPS[rail.chip].shunt
        ]
        if unstated:
            text = (
                f"The board does not say which shunt {', '.join(unstated)} has. The driver takes 10 milliohms where it "
                "was told none, and a wrong one scales every reading. Compare with a known load."
            )
            yield doubt(Code.ACCURACY_UNVERIFIED, text, rails=unstated)
        slow = [rail.name for rail in self.rails if rail.refresh_s is None]
        if slow:
            text = (
                f"How often {', '.join(slow)} has a new value is not known, so windows may be shorter than one. "
                "Make them a second or longer."
            )
            yield note(Code.FEW_SAMPLES, text, rails=slow)
        if way_s > FAR_WAY_S:
            text = (
                f"The board answers {units.show(2 * way_s, 's')} after it was asked, at the least. Its readings are "
                "placed as if both ways took the same, so windows may be off by half of that. Use a cable."
            )
            yield doubt(Code.HOST_CLOCK_ONLY, text, round_trip_s=2 * way_s)


def _age_s(rail: rails.Rail) -> float:
    """How long before it was read the middle of what a reading stands for lies."""
    chip = channels.CHIPS.get(rail.chip)
    return (rail.refresh_s or 0.0) * (chip.age if chip is not None else 1.0)


def _raise_error(fields: Mapping[str, Any]) -> None:
    """What the agent answers as an error, as ours."""
    error = fields.get("error")
    if not isinstance(error, Mapping):
        return
    kinds: dict[str, type[JouleMeterError]] = {"incomplete": IncompleteError, "data": DataError, "access": AccessError}
    kind = kinds.get(str(error.get("kind")), UsageError)
    raise kind(str(error.get("what", error)), str(error.get("remedy") or "Check the board."))


def _unreadable(sources: list[rails.Source], trial: wire.Round) -> DataError:
    source, read = next(pair for pair in zip(sources, trial.reads, strict=True) if pair[1].number is None)
    why = f"says {read.failure}" if read.text is None else f"holds {read.text!r}, which is no number"
    return DataError(f"{source.path} {why}: the sensor cannot be read.", "Choose another rail.")


def _denied(what: str) -> JouleMeterError:
    from joulemeter.errors import AccessError

    paths = [word for word in what.split() if word.startswith("/")]
    return AccessError(what, rails.permit(paths[:1]) if paths else "Give yourself read access to it.")
