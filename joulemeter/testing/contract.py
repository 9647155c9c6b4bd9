"""The contract that every instrument is held to, ours and anybody's.

    from joulemeter.testing.contract import CHECKS, Subject
    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check): check(Subject(module=my_instrument))

or `joulemeter conform KEY[@ADDRESS]`. A check returns nothing when the driver keeps it, raises Broken with a sentence
when it does not, and Skipped when it cannot be tried (faults need the simulator).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from joulemeter.capture import Array, Block, Header, Kind, Quantity
from joulemeter.errors import DataError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Decoder, Device, Driver, InstrumentModule, Options
from joulemeter.synthetic import Load, Step, parse_load
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.scpidevice import BentDevice, MessageDevice
from joulemeter.transport.scpiserve import serving
from joulemeter.transport.serve import serve_tcp

# Both levels lie in one range of a meter, so that range switching does not blur the truth.
LOW_SHARE, HIGH_S, LOW_S = 0.75, 0.02, 0.03
# A slower meter would see that cycle at random: it is shown a constant current.
FAST_HZ = 500.0
# How long the line of an instrument that waits for it stays high, and low.
TOGGLE_S = 1e-3
# An instrument that answers questions takes this long to be taken for dead, one that streams this long.
PATIENCE_S, PATIENCE_STREAMING_S = 40.0, 5.0
# How far the mean of a second may be from the closed form: quantisation and noise, not calibration.
TRUTH = 0.005
# The share of slots that a busy host may be too late for.
LATE = 0.2
# What a capture holds at least, however slow the meter.
LEAST_SAMPLES = 6


class Broken(AssertionError):  # noqa: N818 - read aloud: the contract is broken
    """The driver does not keep the contract."""


class Skipped(Exception):  # noqa: N818 - an outcome, not an error
    """The check does not apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A driver to hold to the contract: on its simulator, or on a real device when an address is given."""

    module: InstrumentModule
    address: str | None = None
    _captured: dict[str, tuple[Header, bytes]] = field(default_factory=dict)

    @property
    def load(self) -> Load:
        """What the simulator draws: the highest current of its usual load and a part of it in turn."""
        info = self.module.INFO
        high_a = max(step.current_a for step in parse_load(info.load).steps)
        if self.triggered:
            # Its records begin where the line rises, so that a cycle is not seen evenly.
            return Load(steps=tuple(Step(current_a=high_a, duration_s=TOGGLE_S, lines=k) for k in (1, 0)))
        if max(info.rates_hz) < FAST_HZ:
            return Load(steps=(Step(current_a=high_a, duration_s=1.0, lines=1),))
        low = Step(current_a=LOW_SHARE * high_a, duration_s=LOW_S)
        return Load(steps=(Step(current_a=high_a, duration_s=HIGH_S, lines=1), low))

    @property
    def triggered(self) -> bool:
        return any(channel.quantity is Quantity.SIGNAL for channel in self.module.INFO.channels)

    @contextlib.contextmanager
    def wire(self, faults: str = "", device: Device | None = None) -> Iterator[str]:
        """An address with a device behind it."""
        if self.address is not None:
            if faults or device is not None:
                raise Skipped("needs the simulator")
            yield self.address
            return
        made = device or self.module.simulate(self.load, Options())
        if self.module.INFO.faces and isinstance(made, MessageDevice):
            with serving(BentDevice(made, timed=parse_faults(faults)), self.module.INFO.faces[0]) as addresses:
                yield next(iter(addresses.values()))
            return
        made = device or FaultyDevice(made, parse_faults(faults))
        stop, ready, where = threading.Event(), threading.Event(), [""]

        def announce(address: str) -> None:
            where[0] = address
            ready.set()

        server = threading.Thread(target=serve_tcp, args=(made, ("127.0.0.1", 0), announce, stop.is_set), daemon=True)
        server.start()
        ready.wait(5)
        try:
            yield where[0]
        finally:
            stop.set()
            server.join(5)

    def options(self) -> Options:
        """A supply where the instrument has one and the device is simulated; real boards are never powered."""
        supplies = self.module.INFO.supplies
        if self.address is not None or supplies is None:
            return Options()
        return Options(supply_v=min(max(3.0, supplies[0]), supplies[1]))

    @contextlib.contextmanager
    def streaming(self, faults: str = "") -> Iterator[tuple[Driver, Header]]:
        with self.wire(faults) as address, self.module.open(address, self.options()) as driver:
            yield driver, driver.start()

    def capture(self) -> tuple[Header, bytes]:
        """A second of raw bytes, or more of a slow meter; the same for all checks."""
        if not self._captured:
            with self.streaming() as (driver, header):
                self._captured["clean"] = header, _gather(driver, header, 1.0)
        return self._captured["clean"]


def _gather(driver: Driver, header: Header, seconds: float, least: int = LEAST_SAMPLES) -> bytes:
    samples = max(round(seconds * header.rate_hz), least)
    wanted = samples * header.word_bytes
    raw = b""
    deadline = time.monotonic() + 10 * samples / header.rate_hz + 5
    while len(raw) < wanted and time.monotonic() < deadline:
        raw += driver.read(0.1)
    return raw[:wanted]


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise Broken(sentence)


def _joined(blocks: list[Block], name: str) -> Array:
    return np.concatenate([block.data[name] for block in blocks]) if blocks else np.empty(0)


def _decode(decoder: Decoder, raw: bytes, cuts: list[int]) -> list[Block]:
    blocks = []
    for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        blocks += decoder.feed(raw[start:stop])
    return blocks + decoder.finish()


def _same(first: list[Block], second: list[Block], what: str) -> None:
    names = first[0].data if first else {}
    for name in names:
        a, b = _joined(first, name), _joined(second, name)
        _require(a.tobytes() == b.tobytes(), f"{what} changes channel {name!r}")
    lost = [sum(block.lost_before for block in blocks) for blocks in (first, second)]
    _require(lost[0] == lost[1], f"{what} changes the count of lost samples from {lost[0]} to {lost[1]}")


# -- the checks -------------------------------------------------------------------------------------------------------


def describes_itself(subject: Subject) -> None:
    info = subject.module.INFO
    for name in ("key", "maker", "models", "summary", "wire", "transport", "channels", "rates_hz", "verified_note"):
        _require(bool(getattr(info, name)), f"INFO.{name} is empty")
    for channel in info.channels:
        _require(
            bool(channel.unit) or channel.quantity in (Quantity.DIGITAL, Quantity.RANGE),
            f"channel {channel.name!r} has no unit",
        )
        for row in channel.accuracy:
            _require(bool(row.source), f"an accuracy row of {channel.name!r} has no source")


def discovery_never_fails(subject: Subject) -> None:
    for device in subject.module.discover():
        _require(device.key == subject.module.INFO.key, "discovery returns another instrument's key")
        _require((device.problem is None) == (device.remedy is None), "a problem comes without a remedy")


def header_survives_the_disk(subject: Subject) -> None:
    import msgspec

    with subject.streaming() as (_, header):
        again = msgspec.convert(msgspec.json.decode(msgspec.json.encode(header)), Header)
    _require(again == header, "the header changes when written as JSON and read again")
    _require(header.instrument == subject.module.INFO.key, "the header names another instrument")
    _require(header.simulated == (subject.address is None), "the header does not say whether the device is simulated")


def samples_are_well_formed(subject: Subject) -> None:
    header, raw = subject.capture()
    blocks = _decode(subject.module.decoder(header), raw, [])
    _require(bool(blocks), "a second of streaming decodes to nothing")
    following = 0
    for block in blocks:
        _require(block.first_index == following + block.lost_before, "block indices do not follow each other")
        following = block.first_index + len(block)
        for channel in header.channels:
            values = block.data.get(channel.name)
            _require(values is not None, f"a block lacks channel {channel.name!r}")
            if values is None:
                continue
            _require(len(values) == len(block), f"channel {channel.name!r} has another length than its block")
            wanted = np.uint8 if channel.kind is Kind.STATE else np.float64
            _require(values.dtype == wanted, f"channel {channel.name!r} is {values.dtype}, not {np.dtype(wanted)}")
    # A host that is late loses slots of a meter that is asked for each reading, and has to say so.
    share = LATE if any(block.times_ns is not None for block in blocks) else 0.0
    if header.triggered:
        share = 1.0  # what lies between records was not to be seen
    lost = sum(block.lost_before for block in blocks)
    _require(lost <= share * following, "a clean wire is said to have lost samples")
    # Text between the samples of some wires takes the place of a few.
    asked = max(header.rate_hz, LEAST_SAMPLES)
    _require(
        abs(following - lost - asked) <= max(8, 0.06 * following), f"{asked:g} samples decode to {following - lost}"
    )


def chunk_borders_do_not_matter(subject: Subject) -> None:
    header, raw = subject.capture()
    whole = _decode(subject.module.decoder(header), raw, [])
    random = np.random.default_rng(0)
    for pieces in (2, 40, 400):
        cuts = sorted(random.integers(0, len(raw), pieces).tolist())
        _same(whole, _decode(subject.module.decoder(header), raw, cuts), f"cutting the bytes into {pieces} pieces")


def decoding_can_be_resumed(subject: Subject) -> None:
    import json

    header, raw = subject.capture()
    whole = _decode(subject.module.decoder(header), raw, [])
    for middle in (1, len(raw) // 3 + 1, len(raw) // 2, len(raw) - 3):
        first, second = subject.module.decoder(header), subject.module.decoder(header)
        blocks = first.feed(raw[:middle])
        second.restore(json.loads(json.dumps(first.state())))
        blocks += second.feed(raw[middle:]) + second.finish()
        _same(whole, blocks, f"saving the decoder's state at byte {middle}")
        _require(blocks[-1].consumed == whole[-1].consumed, "Block.consumed does not survive a saved state")


def measures_the_truth(subject: Subject) -> None:
    if subject.address is not None:
        raise Skipped("the load is not known")
    header, raw = subject.capture()
    flows = (Quantity.CURRENT, Quantity.POWER, Quantity.CHARGE, Quantity.ENERGY)
    channel = next(filter(None, map(header.channel, flows)), None)
    if channel is None:
        raise Broken("it measures neither current nor power, and counts neither charge nor energy")
    blocks = _decode(subject.module.decoder(header), raw, [])
    values = _joined(blocks, channel.name)
    mean = float(np.mean(values))
    if channel.kind is Kind.CUMULATIVE:
        times = [block.times_ns for block in blocks if block.times_ns is not None]
        passed_s = float(np.ptp(np.concatenate(times))) * 1e-9 if times else (len(values) - 1) / header.rate_hz
        mean = float(values[-1] - values[0]) / passed_s
    truth = subject.load.mean_a
    if channel.quantity in (Quantity.POWER, Quantity.ENERGY):
        truth *= _volts(subject, header)
    room = TRUTH * truth
    if header.triggered and channel.accuracy:
        # Where zero lies on a screen is part of what its maker allows.
        room += channel.accuracy[0].offset.value
    _require(abs(mean - truth) <= room, f"{channel.name} is {mean:.6g} on average where {truth:.6g} is drawn")


def _volts(subject: Subject, header: Header) -> float:
    volts = subject.module.INFO.load_v if header.voltage is None else header.voltage.volts
    if volts is None:
        raise Broken("its simulator measures power, and INFO.load_v does not say at which voltage")
    return volts


def ends_as_often_as_asked(subject: Subject) -> None:
    with subject.wire() as address:
        driver = subject.module.open(address, subject.options())
        driver.start()
        driver.read(0.1)
        for end in (driver.stop, driver.stop, driver.close, driver.close, driver.stop):
            end()


def can_be_opened_again(subject: Subject) -> None:
    with subject.wire() as address:
        for _ in range(2):
            with subject.module.open(address, subject.options()) as driver:
                header = driver.start()
                _require(bool(_gather(driver, header, 0.05, least=1)), "nothing comes after opening it again")


def a_stalled_device_does_not_hang(subject: Subject) -> None:
    patience_s = PATIENCE_S if subject.module.INFO.faces else PATIENCE_STREAMING_S
    with subject.streaming("stall@0.3s") as (driver, header):
        started = time.monotonic()
        try:
            _gather_until_quiet(driver)
            started = time.monotonic()
            _require(driver.read(0.2) == b"", "bytes come from a stalled device")
        except IncompleteError:
            # Who is asked and does not answer is told by name.
            _require(bool(subject.module.INFO.faces), "a device that only streams falls silent and is not waited for")
        _require(time.monotonic() - started < patience_s, "read does not keep its timeout")
        del header


def _gather_until_quiet(driver: Driver) -> None:
    quiet = 0
    deadline = time.monotonic() + 10
    while quiet < 3 and time.monotonic() < deadline:
        quiet = 0 if driver.read(0.1) else quiet + 1


def an_unplugged_device_is_told(subject: Subject) -> None:
    with subject.wire("unplug@1s") as address:
        driver = subject.module.open(address, subject.options())
        driver.start()
        deadline = time.monotonic() + 10
        try:
            while time.monotonic() < deadline:
                driver.read(0.1)
        except IncompleteError:
            driver.stop()
            driver.close()
            return
    raise Broken("reading from an unplugged device goes on as if nothing had happened")


def lost_samples_are_counted(subject: Subject) -> None:
    header, raw = subject.capture()
    clean = subject.module.decoder(header).feed(raw)
    polled = any(block.times_ns is not None for block in clean)
    if header.triggered or (header.loss_modulo is None and not polled):
        raise Skipped("how this instrument shows a loss is its own; its own tests have to count them")
    lost = min(7, len(raw) // header.word_bytes // 3)
    at = len(raw) // 2 // header.word_bytes * header.word_bytes
    damaged = raw[:at] + raw[at + lost * header.word_bytes :]
    blocks = _decode(subject.module.decoder(header), damaged, [])
    counted = sum(block.lost_before for block in blocks) - sum(block.lost_before for block in clean)
    _require(counted == lost, f"{lost} lost samples are counted as {counted}")


def nonsense_is_refused(subject: Subject) -> None:
    header, raw = subject.capture()
    noise = np.random.default_rng(5).integers(0, 256, 4 * len(raw) + (1 << 20), dtype=np.uint8).tobytes()
    try:
        blocks = _decode(subject.module.decoder(header), raw + noise, [])
    except DataError:
        return
    good = max(header.rate_hz, LEAST_SAMPLES)
    made = sum(len(block) for block in blocks)
    _require(made <= good * 1.05, f"noise decodes to {made - good} samples without a word")


def a_missing_port_is_told(subject: Subject) -> None:
    _raises(NotFoundError, lambda: subject.module.open("127.0.0.1:9", Options()), "an absent port")


def another_device_is_told(subject: Subject) -> None:
    class Mute:
        def receive(self, data: bytes) -> None:
            """Something else altogether."""

        def transmit(self, now_s: float) -> bytes:
            return b""

    with subject.wire(device=Mute()) as address:
        started = time.monotonic()
        _raises(NotFoundError, lambda: subject.module.open(address, Options()), "a device that says nothing")
        _require(time.monotonic() - started < 30, "it takes too long to see that a device is another one")


def unknown_settings_are_refused(subject: Subject) -> None:
    with subject.wire() as address:
        options = Options(settings={"no-such-setting": "1"})
        _raises(UsageError, lambda: subject.module.open(address, options), "an unknown setting")


def impossible_supplies_are_refused(subject: Subject) -> None:
    supplies = subject.module.INFO.supplies
    with subject.wire() as address:
        for volts in (supplies[1] * 2, supplies[0] / 2) if supplies else (3.0,):
            options = Options(supply_v=volts)
            _raises(UsageError, lambda o=options: subject.module.open(address, o), f"a supply of {volts:g} V")  # type: ignore[misc]


def _raises(kind: type[JouleMeterError], call: Callable[[], Driver], what: str) -> None:
    try:
        driver = call()
    except kind as error:
        _require(bool(error.what) and bool(error.remedy), f"the error for {what} has no remedy")
        return
    except JouleMeterError as error:
        raise Broken(f"{what} raises {type(error).__name__}, not {kind.__name__}: {error}") from error
    driver.close()
    raise Broken(f"{what} is accepted")


Check = Callable[[Subject], None]

CHECKS: tuple[Check, ...] = (
    describes_itself,
    discovery_never_fails,
    header_survives_the_disk,
    samples_are_well_formed,
    chunk_borders_do_not_matter,
    decoding_can_be_resumed,
    measures_the_truth,
    ends_as_often_as_asked,
    can_be_opened_again,
    a_stalled_device_does_not_hang,
    an_unplugged_device_is_told,
    lost_samples_are_counted,
    nonsense_is_refused,
    a_missing_port_is_told,
    another_device_is_told,
    unknown_settings_are_refused,
    impossible_supplies_are_refused,
)
