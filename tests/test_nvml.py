"""NVIDIA GPUs: the driver against simulated GPUs, most of it in a time of its own."""

from __future__ import annotations

import binascii
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter import frames
from joulemeter.capture import ArrayStream, Block, Gap, Header, Kind, Timebase
from joulemeter.caveat import Code, Severity
from joulemeter.errors import (
    AccessError,
    DataError,
    IncompleteError,
    JouleMeterError,
    MissingExtraError,
    NotFoundError,
    UsageError,
)
from joulemeter.instrument import Device, Found, Options
from joulemeter.instruments import nvml
from joulemeter.instruments.nvml import discovery, driver, fake, library, refresh, wire
from joulemeter.physics.integrate import integrate
from joulemeter.physics.stats import summarise
from joulemeter.physics.uncertainty import budget, systematic
from joulemeter.physics.witness import cross_check
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport import UnpluggedError
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.window import Window, WindowEnergy

VOLTS = 12.0
STEPS = parse_load("20A/6s/d0,5A/4s")
STEADY = parse_load("20A/1s")


class Clock:
    """The module `time`, in a time of its own that goes on when somebody waits."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def monotonic_ns(self) -> int:
        return round(self.now_s * 1e9)

    def time_ns(self) -> int:
        return round((self.now_s + 1.7e9) * 1e9)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Wire:
    """A link in that time: an answer takes `way_s`, and silence the whole timeout."""

    address = "simulated"

    def __init__(self, device: Device, clock: Clock, way_s: float = 1e-3) -> None:
        self.device, self.clock, self.way_s = device, clock, way_s
        self.plugged_s = clock.now_s
        self.closed = 0

    def read(self, timeout_s: float) -> bytes:
        self.clock.sleep(min(self.way_s, timeout_s))
        got = self._transmit()
        if not got:
            self.clock.sleep(max(timeout_s - self.way_s, 0.0))
            got = self._transmit()
        return got

    def _transmit(self) -> bytes:
        try:
            return self.device.transmit(self.clock.now_s - self.plugged_s)
        except UnpluggedError as error:
            raise IncompleteError("It was unplugged.", "Plug it in.") from error

    def write(self, data: bytes) -> None:
        try:
            self.device.receive(data)
        except UnpluggedError as error:
            raise IncompleteError("It was unplugged.", "Plug it in.") from error

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in ("polled", "instruments.nvml.fake", "instruments.nvml.refresh"):
        monkeypatch.setattr(f"joulemeter.{module}.time", made)
    return made


def wired(clock: Clock, load: Load = STEPS, faults: str = "", **settings: str) -> Wire:
    device = nvml.simulate(load, Options(settings=settings))
    return Wire(FaultyDevice(device, parse_faults(faults)), clock)


def opened(link: Wire, **settings: str) -> driver.Driver:
    options = Options(settings=settings)
    return driver.Driver(fake.Fake(link), options, nvml.INFO.chosen(options), link.address)


def meter(clock: Clock, load: Load = STEPS, faults: str = "", **settings: str) -> driver.Driver:
    return opened(wired(clock, load, faults, **settings), **settings)


def read_for(one: driver.Driver, clock: Clock, seconds: float) -> bytes:
    raw, until_s = b"", clock.now_s + seconds
    while clock.now_s < until_s:
        raw += one.read(0.1)
    return raw


def decoded(header: Header, raw: bytes) -> list[Block]:
    decoder = nvml.decoder(header)
    blocks: list[Block] = decoder.feed(raw) + decoder.finish()
    return blocks


def joined(blocks: list[Block], name: str) -> Any:
    return np.concatenate([block.data[name] for block in blocks])


def as_stream(header: Header, blocks: list[Block]) -> ArrayStream:
    assert header.epoch is not None
    return ArrayStream(
        name="nvml",
        header=header,
        timebase=Timebase(rate_hz=header.rate_hz, monotonic_ns=header.epoch.monotonic_ns, u_host_s=0.0),
        data={channel.name: joined(blocks, channel.name) for channel in header.channels},
        gaps=tuple(Gap(index=block.first_index, lost=block.lost_before) for block in blocks if block.lost_before),
        times_ns=np.concatenate([block.times_ns for block in blocks if block.times_ns is not None]),
    )


def recorded(clock: Clock, seconds: float, load: Load = STEPS, **settings: str) -> tuple[ArrayStream, float]:
    """A recording, and when it began, seconds after the load."""
    link = wired(clock, load, **settings)
    with opened(link, **settings) as one:
        header = one.start()
        assert header.epoch is not None
        began_s = header.epoch.monotonic_ns * 1e-9 - link.plugged_s
        raw = read_for(one, clock, seconds)
    return as_stream(header, decoded(header, raw)), began_s


def measured(stream: ArrayStream, began_s: float, *spans_s: tuple[float, float]) -> list[WindowEnergy]:
    """Energy of spans given in seconds of the load."""
    windows = [
        Window(start_ns=round((start - began_s) * 1e9), stop_ns=round((stop - began_s) * 1e9), index=k)
        for k, (start, stop) in enumerate(spans_s)
    ]
    return integrate(stream, windows)


def truth_j(load: Load, start_s: float, stop_s: float) -> float:
    before, after = load.charge_c(np.array([start_s, stop_s]))
    return float(after - before) * VOLTS


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_a_reading_has_the_layout_that_is_written_down() -> None:
    """123456.789 J; 250.5 W at 1 s past 1970; no average (code 3); 61 °C: put together by hand."""
    raw = bytes.fromhex(
        "15cd5b0700000000 0000000084d20300 00000000 40420f000000000000000000 03000000 00000000000000003d000000 00000000"
    )
    assert len(raw) == wire.READING_BYTES
    assert wire.parse(raw) == [
        wire.Reading(
            energy=wire.Answer(value=123_456_789, code=0),
            instant=wire.Answer(value=250_500, code=0, timestamp_us=1_000_000),
            average=wire.Answer(value=0, code=3),
            temperature=wire.Answer(value=61, code=0),
        )
    ]
    assert wire.pack(wire.parse(raw)[0]) == raw
    values = wire.values(["energy", "power", "average power", "temperature"])(raw)
    np.testing.assert_allclose(values, [123_456.789, 250.5, np.nan, 61.0])
    assert wire.values(["average power", "energy"])(raw) is None, "the channel that is reported has no value"
    assert wire.values(["energy"])(raw + raw) == [2 * 123_456.789]
    assert wire.parse(raw[:-1]) is None and wire.parse(b"") is None


def test_a_spoilt_line_is_no_answer() -> None:
    # cbf43926 is the check value that is published for CRC-32.
    assert wire.call(1, "x", ())[:8] != b"cbf43926"
    assert wire.answer(b"cbf43926 123456789") is None, "right, and no object"
    text = b'{"n":1,"simulated":true,"return":0,"value":7}'
    good = b"%08x %s" % (binascii.crc32(text), text)
    assert wire.answer(good) == {"n": 1, "simulated": True, "return": 0, "value": 7}
    for at in range(len(good)):
        spoilt = bytearray(good)
        spoilt[at] ^= 0x01
        assert wire.answer(bytes(spoilt)) is None, f"byte {at}"


# -- the refresh ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refresh_s", [0.02, 0.1, 0.25])
@pytest.mark.parametrize("source", ["energy", "average"])
def test_the_refresh_is_found_by_looking(clock: Clock, refresh_s: float, source: str) -> None:
    with meter(clock, parse_load("20A/37ms,5A/21ms"), refresh=f"{refresh_s}s", source=source) as one:
        header = one.start()
    main = header.channels[0]
    smeared_s = 1.0 if source == "average" else 0.0
    assert main.refresh_s is not None
    assert main.refresh_s - smeared_s == pytest.approx(refresh_s, rel=0.1)
    assert header.parameters["refresh"]["found_s"][source] == main.refresh_s - smeared_s
    assert not header.parameters["refresh"]["bound"] and not header.caveats
    # Four readings in a refresh, but no faster than three answers allow.
    assert header.rate_hz == pytest.approx(min(4 / refresh_s, 0.7 / 3e-3), rel=0.35)


def test_looking_leaves_pauses(clock: Clock) -> None:
    asked: list[float] = []

    def ask() -> bytes:
        asked.append(clock.now_s)
        clock.sleep(0.5e-3)
        raw: bytes = wire.pack(wire.Reading(energy=wire.Answer(value=int(clock.now_s / 0.1), code=wire.SUCCESS)))
        return raw

    found = refresh.watch(ask, "energy")
    assert found.of("energy") == pytest.approx(0.1, rel=0.03)
    assert min(later - earlier for earlier, later in itertools.pairwise(asked)) >= refresh.PAUSE_S
    assert found.watched_s < 0.8


def test_of_several_gpus_the_slowest_refresh_counts(clock: Clock) -> None:
    def ask() -> bytes:
        clock.sleep(0.5e-3)
        return b"".join(
            wire.pack(wire.Reading(energy=wire.Answer(value=int(clock.now_s / period_s), code=wire.SUCCESS)))
            for period_s in (0.02, 0.15)
        )

    assert refresh.watch(ask, "energy").of("energy") == pytest.approx(0.15, rel=0.03)


def test_where_nothing_moves_the_refresh_is_a_bound_and_doubted(clock: Clock) -> None:
    with meter(clock, STEADY, boards="p100") as one:
        header = one.start()
    assert header.parameters["refresh"]["bound"]
    assert header.channels[0].refresh_s == pytest.approx(refresh.LONGEST_S, rel=0.02)
    assert (Code.FEW_SAMPLES, Severity.DOUBT) in {(one.code, one.severity) for one in header.caveats}


def test_a_power_that_stands_still_takes_the_counters_refresh(clock: Clock) -> None:
    with meter(clock, STEADY, source="instant") as one:
        header = one.start()
    assert header.parameters["refresh"]["moves"]["instant"] == 0
    assert header.channels[0].refresh_s == pytest.approx(0.1, rel=0.05)


def test_a_link_that_dies_while_it_is_watched_is_told_by_the_first_read(clock: Clock) -> None:
    with meter(clock, faults="unplug@0.3s") as one:
        assert one.start().parameters["refresh"]["watched_s"] < 0.3
        with pytest.raises(IncompleteError, match="unplugged"):
            read_for(one, clock, 1.0)


# -- energy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refresh_s", ["20ms", "100ms"])
@pytest.mark.parametrize("source", ["energy", "instant", "average"])
def test_a_known_energy_comes_out_within_what_is_stated(clock: Clock, source: str, refresh_s: str) -> None:
    stream, began_s = recorded(clock, 40.0, source=source, refresh=refresh_s)
    spans = [(10.0 * k, 10.0 * k + 6.0) for k in range(1, 4)]
    found = measured(stream, began_s, *spans)
    for one, (start, stop) in zip(found, spans, strict=True):
        assert one.energy_j is not None and not one.missing_s and not one.caveats
        assert abs(one.energy_j - truth_j(STEPS, start, stop)) <= one.resolution_j
        # A step of 180 W that is placed to half a refresh, or of the whole 240 W for a counter, at both edges.
        main = stream.header.channels[0]
        spacing_s = max(main.refresh_s or 0.0, 1 / stream.header.rate_hz)
        assert 0 < one.resolution_j <= 240.0 * 1.3 * spacing_s
    total = sum(one.energy_j or 0.0 for one in found) / 3
    # A mean of T seconds loses T/8 of the step at either edge: 45 J of 180 W and 1 s.
    lost_j = 2 * 180.0 / 8 if source == "average" else 0.0
    assert total == pytest.approx(truth_j(STEPS, 10.0, 16.0) - lost_j, rel=0.005)
    terms = budget(found, stream.header, summarise([one.energy_j or 0.0 for one in found]))
    assert abs(total - truth_j(STEPS, 10.0, 16.0)) < systematic(terms)


def test_the_budget_holds_the_published_scatter_and_offset(clock: Clock) -> None:
    """1440 J in 6 s: 4.5 % with 19 degrees of freedom, and 5 W for 6 s, rectangular."""
    stream, began_s = recorded(clock, 30.0)
    found = measured(stream, began_s, (10.0, 16.0))
    terms = {one.term: one for one in budget(found, stream.header, summarise([found[0].energy_j or 0.0]))}
    assert terms["gain"].contribution_j == pytest.approx(0.045 * 1440, rel=0.02)
    assert terms["gain"].dof == 19
    assert terms["offset"].contribution_j == pytest.approx(5.0 * 6.0 / 3**0.5, rel=1e-6)
    # Two ends, each half a refresh at 240 W.
    assert terms["refresh"].contribution_j == pytest.approx(240.0 * 0.1 / 3**0.5, rel=0.3)


def test_windows_of_a_few_refreshes_are_doubted_and_shorter_ones_refused(clock: Clock) -> None:
    stream, began_s = recorded(clock, 20.0)
    long, few, short = measured(stream, began_s, (11.0, 12.0), (11.0, 11.45), (11.0, 11.25))
    assert not long.caveats
    assert few.caveats == (Code.FEW_SAMPLES,)
    assert set(short.caveats) == {Code.FEW_SAMPLES, Code.TOO_SHORT}


@pytest.mark.parametrize("source", ["instant", "average"])
def test_the_counter_bears_witness_beside_power(clock: Clock, source: str) -> None:
    stream, _ = recorded(clock, 40.0, source=source)
    assert stream.header.channels[1].name == "energy" and stream.header.channels[1].witness
    found = cross_check(stream)
    assert found is not None and found.channel == "energy"
    assert found.agrees


def test_a_sensor_that_looks_a_quarter_of_the_time_misjudges_work_in_step_with_it(clock: Clock) -> None:
    """25 of 100 ms at 20 A and the rest at 4 A: 8 A are drawn; a sensor that looks at the end of each sees 20 A."""
    load = parse_load("4A/75ms,20A/25ms")
    stream, began_s = recorded(clock, 10.0, load, source="instant", boards="a100")
    (seen,) = measured(stream, began_s, (3.0, 8.0))
    assert seen.mean_power_w == pytest.approx(20.0 * VOLTS, rel=1e-3)
    assert truth_j(load, 3.0, 8.0) == pytest.approx(8.0 * VOLTS * 5.0)
    (doubted,) = [one for one in stream.header.caveats if one.severity is Severity.DOUBT and "seen" in one.data]
    assert doubted.data["seen"] == 0.25 and "25%" in doubted.text


def test_the_counter_goes_on_where_readings_are_lost(clock: Clock) -> None:
    link = wired(clock, STEADY)
    with opened(link) as one:
        header = one.start()
        raw = read_for(one, clock, 10.0)
    cut = len(raw) // header.word_bytes // 3 * header.word_bytes
    blocks = decoded(header, raw[:cut] + raw[cut + 40 * header.word_bytes :])
    assert sum(block.lost_before for block in blocks) == 40
    assert header.epoch is not None
    began_s = header.epoch.monotonic_ns * 1e-9 - link.plugged_s
    (whole,) = measured(as_stream(header, blocks), began_s, (began_s + 1.0, began_s + 9.0))
    assert whole.energy_j == pytest.approx(20.0 * VOLTS * 8.0, rel=0.005)


# -- what is reported -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("board", "asked", "first", "kind"),
    [
        ("a4000", "auto", "energy", Kind.CUMULATIVE),
        ("a4000", "instant", "power", Kind.INSTANT),
        ("a4000", "average", "average power", Kind.INSTANT),
        ("v100", "auto", "energy", Kind.CUMULATIVE),
        ("p100", "auto", "power", Kind.INSTANT),
        ("k40", "auto", "power", Kind.INSTANT),
        ("a2", "auto", "average power", Kind.INSTANT),
    ],
)
def test_the_best_that_there_is_comes_first(clock: Clock, board: str, asked: str, first: str, kind: Kind) -> None:
    with meter(clock, boards=board, source=asked) as one:
        header = one.start()
        blocks = decoded(header, read_for(one, clock, 2.0))
    assert (header.channels[0].name, header.channels[0].kind, header.channels[0].witness) == (first, kind, False)
    assert header.simulated and header.instrument == "nvml" and header.firmware == "driver 999.1"
    assert np.isfinite(joined(blocks, first)).all()
    assert joined(blocks, "temperature").tolist() == [55.0] * len(joined(blocks, first))


@pytest.mark.parametrize(
    ("board", "asked", "error", "says"),
    [
        ("p100", "energy", UsageError, "or: instant"),
        ("a100", "average", UsageError, "or: energy, instant"),
        ("a2", "instant", UsageError, "or: average"),
        ("orin", "auto", NotFoundError, "--meter hwmon"),
        ("vgpu", "auto", NotFoundError, "virtual GPU"),
        ("a4000+p100", "energy", UsageError, "or: instant"),
        ("a2+p100", "auto", UsageError, "nothing|quantity in common"),
    ],
)
def test_what_a_gpu_does_not_tell_is_refused(
    clock: Clock, board: str, asked: str, error: type[JouleMeterError], says: str
) -> None:
    with pytest.raises(error, match=says):
        meter(clock, boards=board, source=asked, gpu="all" if "+" in board else "")


@pytest.mark.parametrize(("board", "means"), [("k40", "an instantaneous value"), ("a2", "a mean of the last second")])
def test_the_older_call_is_never_used_without_a_word(clock: Clock, board: str, means: str) -> None:
    with meter(clock, boards=board) as one:
        header = one.start()
        blocks = decoded(header, read_for(one, clock, 4.0))
    (told,) = [one for one in header.caveats if "nvmlDeviceGetPowerUsage" in one.text]
    assert means in told.text
    assert header.parameters["gpus"][0]["power_usage_call"] is True
    assert joined(blocks, header.channels[0].name)[-1] == pytest.approx(240.0)


@pytest.mark.parametrize(
    ("board", "says"),
    [
        ("mig", "whole Simulated A100"),
        ("gh200", "whole module"),
        ("gb10", "CPU and memory beside it"),
        ("a100", "looks for 25% of the time"),
        ("v100", "looks for 50% of the time"),
    ],
)
def test_what_is_known_of_a_board_is_said(clock: Clock, board: str, says: str) -> None:
    with meter(clock, boards=board) as one:
        assert any(says in caveat.text for caveat in one.start().caveats)


# -- which GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    ["1", "GPU-00000000-4a4d-0000-0000-000000000001", "gpu-00000000-4A4D-0000-0000-000000000001", "66:00.0",
     "0000:66:00.0", "00000000:66:00.0"],
)  # fmt: skip
def test_a_gpu_goes_by_index_uuid_and_pci_bus_id(clock: Clock, asked: str) -> None:
    with meter(clock, boards="a4000+a100", gpu=asked) as one:
        assert [gpu.name for gpu in one.gpus] == ["Simulated A100-PCIE-40GB"]
    assert not driver.is_link(asked)


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ("", UsageError, "0 or GPU-.*; 1 or GPU-"),
        ("7", NotFoundError, "There is no GPU 7"),
        ("66:01.0", NotFoundError, "There is no GPU"),
        ("MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f", UsageError, "no energy of a MIG instance"),
    ],
)
def test_a_gpu_that_is_not_there_or_not_named_is_told(
    clock: Clock, asked: str, error: type[JouleMeterError], says: str
) -> None:
    with pytest.raises(error, match=says):
        meter(clock, boards="a4000+a100", gpu=asked)


def test_a_gpu_that_is_lost_spoils_no_other(clock: Clock) -> None:
    with meter(clock, boards="lost+a100") as one:
        assert [gpu.index for gpu in one.gpus] == [1]
    with pytest.raises(IncompleteError, match="does not answer any more"):
        meter(clock, boards="lost")


def test_all_is_the_sum(clock: Clock) -> None:
    stream, began_s = recorded(clock, 20.0, boards="a4000+v100", gpu="all")
    assert stream.header.word_bytes == frames.OVERHEAD + 2 * wire.READING_BYTES
    (both,) = measured(stream, began_s, (10.0, 16.0))
    assert both.energy_j == pytest.approx(2 * truth_j(STEPS, 10.0, 16.0), rel=0.02)
    (row,) = stream.header.channels[0].accuracy
    assert row.offset.value == 10.0


@pytest.mark.parametrize("address", ["/dev/ttyACM0", "COM7", "localhost:5555", "tcp://127.0.0.1:5555"])
def test_ports_and_hosts_are_links(address: str) -> None:
    assert driver.is_link(address)


# -- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        (9, NotFoundError, "no NVIDIA driver"),
        (12, NotFoundError, "no NVIDIA driver"),
        (18, AccessError, "different versions.*reboot"),
        (4, AccessError, "/dev/nvidia"),
        (999, DataError, "nvidia-smi"),
    ],
)
@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetHandleByIndex"])
def test_return_codes_are_told_in_words(
    clock: Clock, call: str, code: int, error: type[JouleMeterError], says: str
) -> None:
    link = wired(clock, trouble=f"{call}={code}")
    with pytest.raises(error, match=says):
        opened(link)
    assert link.closed == (call != "nvmlInit"), "what was begun is ended"


@pytest.mark.parametrize("call", ["nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues"])
def test_a_gpu_that_is_lost_ends_the_recording(clock: Clock, call: str) -> None:
    with meter(clock, trouble=f"{call}={wire.GPU_IS_LOST}@5s") as one:
        header = one.start()
        with pytest.raises(IncompleteError, match=r"does not answer any more.*Xid"):
            read_for(one, clock, 10.0)
        one.stop()
    assert header.rate_hz > 1


def test_answers_that_fail_are_lost_samples_and_kept_as_they_came(clock: Clock) -> None:
    link = wired(clock, trouble=f"nvmlDeviceGetTotalEnergyConsumption={wire.UNKNOWN}@5s")
    with opened(link) as one:
        header = one.start()
        raw = read_for(one, clock, 8.0)
    blocks = decoded(header, raw)
    good = sum(len(block) for block in blocks)
    assert header.epoch is not None
    until_s = 5.0 - (header.epoch.monotonic_ns * 1e-9 - link.plugged_s)
    assert good == pytest.approx(until_s * header.rate_hz, abs=2)
    assert len(raw) // header.word_bytes > good * 1.3


def test_of_a_witness_a_failure_is_no_loss(clock: Clock) -> None:
    with meter(clock, trouble=f"nvmlDeviceGetFieldValues={wire.UNKNOWN}@3s") as one:
        header = one.start()
        blocks = decoded(header, read_for(one, clock, 6.0))
    assert not any(block.lost_before for block in blocks)
    assert np.isnan(joined(blocks, "power")[-1]) and np.isfinite(joined(blocks, "energy")).all()


def test_garbage_on_the_link_loses_readings_and_never_spoils_one(clock: Clock) -> None:
    with meter(clock, STEADY, faults="garble@3s:40,insert@4s:300,drop@5s:33") as one:
        header = one.start()
        blocks = decoded(header, read_for(one, clock, 8.0))
    assert 1 <= sum(block.lost_before for block in blocks) <= 3 * header.rate_hz
    assert set(joined(blocks, "power")) == {240.0}
    assert (np.diff(joined(blocks, "energy")) >= 0).all()


def test_noise_and_silence_neither_hang_nor_count(clock: Clock) -> None:
    for fault in ("noise@2s", "stall@2s"):
        with meter(clock, faults=fault) as one:
            one.start()
            before_s = clock.now_s
            read_for(one, clock, 5.0)
            began_s = clock.now_s
            assert one.read(0.2) == b""
            assert clock.now_s - began_s < 2.0
            assert before_s < began_s


def test_it_can_be_started_again_while_it_streams(clock: Clock) -> None:
    with meter(clock) as one:
        for _ in range(2):
            header = one.start()
            blocks = decoded(header, read_for(one, clock, 1.0))
            assert blocks[0].first_index == 0 and not any(block.lost_before for block in blocks)


def test_another_device_is_told_soon(clock: Clock) -> None:
    class Chatter:
        def receive(self, data: bytes) -> None:
            """Something else altogether."""

        def transmit(self, now_s: float) -> bytes:
            return b'{"n":1,"return":0}\r\nhello\r\n'

    began_s = clock.now_s
    with pytest.raises(NotFoundError, match="simulated GPUs"):
        opened(Wire(Chatter(), clock))
    assert clock.now_s - began_s < 5


def test_nvml_is_given_back_once(clock: Clock) -> None:
    link = wired(clock)
    one = opened(link)
    one.start()
    for end in (one.stop, one.close, one.close, one.stop):
        end()
    assert link.closed == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(supply_v=12.0), "--supply"),
        (Options(declared_v=12.0), "--assume-voltage"),
        (Options(settings={"source": "draw"}), "Choose one of"),
        (Options(settings={"interval": "2s"}), "too seldom"),
        (Options(settings={"interval": "fast"}), "quantity"),
    ],
)
def test_what_it_cannot_do_is_refused(clock: Clock, options: Options, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        driver.Driver(fake.Fake(wired(clock)), options, nvml.INFO.chosen(options))


def test_an_interval_that_is_too_short_for_the_answers_is_refused(clock: Clock) -> None:
    with meter(clock, interval="1ms") as one, pytest.raises(UsageError, match="--set interval="):
        one.start()


def test_the_interval_that_the_user_gives_is_kept(clock: Clock) -> None:
    with meter(clock, interval="50ms") as one:
        header = one.start()
        blocks = decoded(header, read_for(one, clock, 2.0))
    assert header.rate_hz == pytest.approx(20.0)
    times_ns = np.concatenate([block.times_ns for block in blocks if block.times_ns is not None])
    np.testing.assert_allclose(np.diff(times_ns), 50e6, atol=1e3)


@pytest.mark.parametrize("settings", [{"boards": "a4000+voodoo"}, {"trouble": "nvmlInit"}, {"refresh": "0s"}])
def test_a_simulation_that_cannot_be_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        nvml.simulate(STEPS, Options(settings=settings))


# -- discovery --------------------------------------------------------------------------------------------------------


def found(clock: Clock, **settings: str) -> list[Found]:
    there: list[Found] = discovery.discover("nvml", fake.Fake(wired(clock, STEPS, **settings)))
    return there


def test_every_gpu_is_found_and_what_stands_in_its_way(clock: Clock) -> None:
    good, bad = found(clock, boards="a4000+orin")
    assert (good.address, good.problem) == ("GPU-00000000-4a4d-0000-0000-000000000000", None)
    assert "RTX A4000 (0, 00000000:65:00.0)" in good.description
    assert "neither energy nor power" in (bad.problem or "") and "hwmon" in (bad.remedy or "")


@pytest.mark.parametrize("code", [wire.LIBRARY_NOT_FOUND, wire.DRIVER_NOT_LOADED])
def test_no_driver_is_nothing_to_tell(clock: Clock, code: int) -> None:
    assert found(clock, trouble=f"nvmlInit={code}") == []


@pytest.mark.parametrize("trouble", ["nvmlInit=18", "nvmlDeviceGetCount=4"])
def test_a_driver_that_cannot_be_used_is_told(clock: Clock, trouble: str) -> None:
    (told,) = found(clock, trouble=trouble)
    assert told.problem and told.remedy


def test_a_missing_package_is_told_only_where_there_is_a_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(library.importlib, "import_module", missing)
    assert discovery.discover("nvml", driver=tmp_path / "none") == []
    there = tmp_path / "version"
    there.write_text("NVRM version")
    (told,) = discovery.discover("nvml", driver=there)
    assert told.remedy == "Install it: pip install 'joulemeter[nvidia]'."
    with pytest.raises(MissingExtraError, match=r"joulemeter\[nvidia\]"):
        nvml.open("0", Options())
