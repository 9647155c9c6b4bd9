"""What all oscilloscopes have in common: the front end, the set-up, arming and fetching, records in an analysis."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter import frames
from joulemeter.capture import (
    UNSEEN,
    ArrayStream,
    Basis,
    Channel,
    Gap,
    Header,
    Kind,
    Limit,
    Quantity,
    Recording,
    Status,
)
from joulemeter.caveat import Code
from joulemeter.errors import DataError, IncompleteError, UsageError
from joulemeter.instrument import Info, Options, Verified
from joulemeter.physics.analyze import Request, analyze
from joulemeter.physics.regression import same_meter
from joulemeter.result import Result
from joulemeter.scope.decode import ScopeDecoder, Trace
from joulemeter.scope.driver import APART, Record, ScopeDriver, pack_parts, unpack_parts
from joulemeter.scope.frontend import SETTINGS as FRONT
from joulemeter.scope.frontend import FrontEnd
from joulemeter.scope.setup import CHANNELS, SETTINGS, Family, Granted, Input, Setup, one_two_five, setup
from joulemeter.scpi import Identity
from joulemeter.synthetic import parse_load

FAMILY = Family(
    divisions=8, bits=8, least_v=1e-3, most_v=10.0, gain=0.03, offset_divisions=0.1, offset_v=2e-3, offset_share=0.01,
    clock=25e-6, source="made up", verified=False, most_records=100,
)  # fmt: skip
INFO = Info(
    key="scope", maker="Nobody", models=("S",), summary="A scope.", wire="scope/1", transport="visa",
    channels=CHANNELS, rates_hz=(1e6,), verified=Verified.SIMULATOR, verified_note="A test.", settings=SETTINGS,
)  # fmt: skip


def front(options: Options = Options(), /, **settings: str) -> FrontEnd:  # noqa: B008 - it is frozen
    defaults = {name: setting.default for name, setting in FRONT.items()}
    return FrontEnd.of(defaults | settings, options)


# -- the front end ----------------------------------------------------------------------------------------------------


def test_volts_become_amperes_and_the_shunt_takes_its_part() -> None:
    # 24 mV on 0.5 ohm behind an amplifier of 4: 12 mA; the shunt drops 6 mV of 3.3 V and burns 72 uW.
    end = front(Options(declared_v=3.3), shunt="0.5ohm±1%", amplifier="4±2%")
    got = end.columns({1: np.array([0.0, 3.3]), 2: np.array([24e-3, 24e-3])}, before=1)
    np.testing.assert_allclose(got["current"], 12e-3)
    np.testing.assert_allclose(got["voltage"], 3.294)
    np.testing.assert_allclose(got["shunt loss"], 72e-6)
    np.testing.assert_array_equal(got["c1"], [0.0, 3.3])


def test_a_voltage_that_is_measured_behind_the_shunt_is_the_devices_own() -> None:
    volts = {1: np.zeros(2), 2: np.full(2, 0.1), 3: np.full(2, 3.0)}
    assert front(voltage="c3", seen="supply").columns(volts, 1)["voltage"][0] == pytest.approx(2.9)
    assert front(voltage="c3", seen="device").columns(volts, 1)["voltage"][0] == pytest.approx(3.0)


def test_a_current_probe_loses_nothing() -> None:
    end = front(Options(declared_v=5.0), probe="100mV/A±1%")
    got = end.columns({1: np.zeros(1), 2: np.array([0.05])}, 1)
    assert got["current"][0] == pytest.approx(0.5)
    assert got["voltage"][0] == 5.0
    assert "shunt loss" not in got


@pytest.mark.parametrize(
    ("zero", "expected"),
    [
        # The input shows 5 mV too much on 1 ohm; before the trigger 2 mA flow.
        ("2mA±1%", [2e-3, 2e-3, 2e-3, 12e-3]),
        ("5mV", [2e-3, 2e-3, 2e-3, 12e-3]),
        ("none", [7e-3, 7e-3, 7e-3, 17e-3]),
    ],
)
def test_an_offset_is_taken_out_by_what_is_known_of_zero(zero: str, expected: list[float]) -> None:
    seen = np.array([7e-3, 7e-3, 7e-3, 17e-3])
    got = front(zero=zero).columns({1: np.zeros(4), 2: seen}, before=3)["current"]
    np.testing.assert_allclose(got, expected)


def test_a_baseline_that_is_not_steady_is_none() -> None:
    """The end of the pulse before reaches into what precedes the trigger."""
    seen = np.concatenate([np.full(60, 12e-3), np.full(140, 2e-3), np.full(300, 12e-3)])
    got = front(zero="2mA").columns({1: np.zeros(500), 2: seen}, before=200)["current"]
    assert np.isnan(got).all()
    noisy = np.concatenate([np.full(200, 2e-3), np.full(300, 12e-3)]) + np.random.default_rng(3).normal(0, 2e-3, 500)
    known = front(zero="2mA").columns({1: np.zeros(500), 2: noisy}, before=200)["current"]
    assert float(known[:180].mean()) == pytest.approx(2e-3)


def test_what_is_known_of_zero_and_the_tolerances_feed_the_budget() -> None:
    asked = Input(number=2, volts_per_div=10e-3, centre_v=0.0, attenuation=1.0)
    open_rows = front().channels({2: FAMILY.accuracy(asked, zeroed=False)})[0]
    zeroed = front(zero="2mA±10%", shunt="2ohm±0.5%", amplifier="10±1%").channels(
        {2: FAMILY.accuracy(asked, zeroed=True)}
    )[0]
    # 0.1 div and 2 mV on one ohm; 0.05 div and half a step, with 0.2 mA x 20 V/A beside, in 20 V/A.
    assert open_rows.accuracy[0].offset.value == pytest.approx(3e-3)
    half_step = 10e-3 * 8 / 256 / 2
    assert zeroed.accuracy[0].offset.value == pytest.approx(math.hypot(0.5e-3 + half_step, 0.2e-3 * 20) / 20)
    assert open_rows.accuracy[0].gain.value == pytest.approx(0.04)
    factors = {one.name: one.limit.value for one in zeroed.factors}
    assert factors == pytest.approx({"shunt": 0.005, "shunt temperature": 1e-3, "amplifier": 0.01})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"coupling": "ac"}, "takes away the mean"),
        ({"current": "c1"}, "a channel each"),
        ({"current": "b2"}, "no channel"),
        ({"trigger": "d0"}, "no trigger of an oscilloscope"),
        ({"probe": "100mV"}, "no current probe"),
        ({"shunt": "0ohm"}, "greater than zero"),
        ({"amplifier": "0"}, "greater than zero"),
    ],
)
def test_front_ends_that_cannot_be(settings: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        front(**settings)


def test_an_oscilloscope_powers_nothing() -> None:
    with pytest.raises(UsageError, match="powers no board"):
        front(Options(supply_v=3.0))


def test_the_front_end_survives_the_header() -> None:
    end = front(Options(declared_v=3.3), zero="2mA", voltage="c3")
    assert FrontEnd.from_dict(json.loads(json.dumps(end.to_dict()))) == end


# -- the set-up -------------------------------------------------------------------------------------------------------


def wanted(**settings: str) -> Setup:
    chosen = {name: setting.default for name, setting in SETTINGS.items()} | settings
    return setup(chosen, FrontEnd.of(chosen, Options()), FAMILY)


def test_scale_and_position_follow_from_what_is_to_be_seen() -> None:
    # 50 mA on 1 ohm in six divisions: 10 mV/div; zero is one division above the lower edge.
    got = {one.number: one for one in wanted(peak="50mA", attenuation="1", high="3.3V").inputs}
    assert (got[2].volts_per_div, got[2].centre_v) == pytest.approx((10e-3, 30e-3))
    assert (got[1].volts_per_div, got[1].attenuation) == pytest.approx((1.0, 10.0))
    assert got[2].limited and not got[1].limited


@pytest.mark.parametrize(("least", "step"), [(1e-3, 1e-3), (1.0001e-3, 2e-3), (0.0021, 5e-3), (0.051, 0.1), (0.2, 0.2)])
def test_steps_of_one_two_five(least: float, step: float) -> None:
    assert one_two_five(least) == pytest.approx(step)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"records": "0"}, "Choose 1 to 100"),
        ({"records": "many"}, "Choose 1 to 100"),
        ({"pretrigger": "95%"}, "1% to 90%"),
        ({"record": "1us"}, "more than 20"),
        ({"peak": "1000A"}, "fit on the screen"),
    ],
)
def test_set_ups_that_cannot_be(settings: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wanted(**settings)


# -- the driver -------------------------------------------------------------------------------------------------------


class Silent:
    address = "nowhere"
    closed = 0

    def close(self) -> None:
        self.closed += 1


class Scripted:
    """A dialect that has records when it is told to."""

    def __init__(self) -> None:
        self.scpi: Any = Silent()
        self.said: list[str] = []
        self.ready: list[list[Record]] = []
        self.held: list[Record] = []

    def configure(self, wanted: Setup) -> Granted:
        self.said.append("configure")
        return Granted(rate_hz=wanted.rate_hz, points=100, before=10, records=wanted.records, inputs=wanted.inputs)

    def arm(self) -> None:
        self.said.append("arm")

    def done(self) -> bool:
        if self.ready:
            self.held = self.ready.pop(0)
            return True
        return False

    def halt(self) -> None:
        self.said.append("halt")

    def fetch(self) -> Iterator[Record]:
        self.said.append("fetch")
        held, self.held = self.held, []
        yield from held

    def restore(self) -> None:
        self.said.append("restore")


def record(after_s: float = 0.0, count: int = 100) -> Record:
    volts = np.zeros(count)
    return Record(after_s=after_s, parts=[volts.tobytes(), volts.tobytes()])


def driver(dialect: Scripted, **settings: str) -> ScopeDriver:
    identity = Identity(maker="Nobody", model="S1", serial="1", firmware="2")
    return ScopeDriver(dialect, identity, INFO, FAMILY, Options(settings=settings), simulated=True)


def trace(part: bytes) -> Trace:
    volts = np.frombuffer(part, np.float64)
    return Trace(volts=volts, interval_s=1e-6, clipped=volts > 9, hole=volts < -9)


def test_it_is_armed_before_it_says_that_it_has_started() -> None:
    dialect = Scripted()
    with driver(dialect) as scope:
        header = scope.start()
        assert dialect.said == ["configure", "arm"]
    assert header.triggered
    assert [channel.name for channel in header.channels] == ["current", "c1", "shunt loss"]
    assert dialect.said[-2:] == ["halt", "restore"]
    assert dialect.scpi.closed == 1


def test_records_become_frames_and_it_is_armed_again() -> None:
    dialect = Scripted()
    with driver(dialect) as scope:
        header = scope.start()
        dialect.ready = [[record(0.0), record(0.01)], [record()]]
        raw = b"".join(scope.read(0.01) for _ in range(3))
        assert dialect.said.count("arm") == 2
        assert scope.read(0.01) == b""
    blocks = ScopeDecoder(header, "scope/1", trace).feed(raw)
    assert [len(block) for block in blocks] == [100, 100, 100]
    # The second is 10 ms after the first at 1 MHz, whatever the host's clock says.
    assert blocks[1].first_index - blocks[0].first_index == 10_000
    assert blocks[2].first_index >= blocks[1].first_index + 100 + APART


def test_no_trigger_is_told_and_what_there_is_is_fetched_first() -> None:
    dialect = Scripted()
    with driver(dialect, wait="50ms") as scope:
        scope.start()
        dialect.held = [record()]
        deadline = time.monotonic() + 5
        raw = b""
        while not raw and time.monotonic() < deadline:
            raw = scope.read(0.02)
        assert raw
        with pytest.raises(IncompleteError, match=r"No trigger came within 50.00 ms on c1 at 1.650 V"):
            while time.monotonic() < deadline:
                scope.read(0.02)


def test_what_is_held_when_the_recording_ends_is_fetched() -> None:
    dialect = Scripted()
    with driver(dialect) as scope:
        scope.start()
        dialect.held = [record(), record(0.002)]
        assert len(list(scope.remaining())) == 2
        assert dialect.said[-2:] == ["halt", "fetch"]


def test_fewer_segments_than_wanted_are_told() -> None:
    class Small(Scripted):
        def configure(self, wanted: Setup) -> Granted:
            return replace(super().configure(wanted), records=3)

    with driver(Small(), records="50") as scope:
        codes = [caveat.code for caveat in scope.start().caveats]
    assert Code.FEWER_RECORDS in codes
    assert Code.SKEW in codes
    assert Code.ZERO_UNKNOWN in codes


# -- the decoder ------------------------------------------------------------------------------------------------------


def header(**changes: Any) -> Header:
    with driver(Scripted()) as scope:
        return replace(scope.start(), **changes)


def frame(number: int, *parts: bytes) -> bytes:
    return frames.pack(frames.Frame(number=number, before_ns=0, after_ns=0, payload=pack_parts(parts)))


def test_parts_survive_the_packing() -> None:
    parts = [b"", b"#" * 300, bytes(range(256))]
    assert unpack_parts(pack_parts(parts)) == parts


def test_clipped_and_missing_codes_are_marked() -> None:
    seen = np.array([0.0, 10.0, -10.0])
    line = np.array([10.0, 0.0, 0.0])
    (block,) = ScopeDecoder(header(), "scope/1", trace).feed(frame(0, line.tobytes(), seen.tobytes()))
    assert block.status is not None
    # The trigger line may leave the screen.
    assert block.status.tolist() == [Status.GOOD, Status.CLIPPED, Status.INVALID]


@pytest.mark.parametrize(
    "parts",
    [
        [np.zeros(3).tobytes()],
        [np.zeros(3).tobytes(), np.zeros(4).tobytes()],
        [b"", b""],
    ],
    ids=["one of two", "unequal", "empty"],
)
def test_records_that_cannot_be(parts: Sequence[bytes]) -> None:
    decoder = ScopeDecoder(header(), "scope/1", trace)
    good = np.zeros(3).tobytes()
    assert len(decoder.feed(frame(0, good, good) + frame(100, *parts))) == 1
    with pytest.raises(DataError):
        decoder.feed(b"")


def test_another_sample_rate_than_the_headers_is_refused() -> None:
    decoder = ScopeDecoder(header(rate_hz=2e6), "scope/1", trace)
    good = np.zeros(3).tobytes()
    with pytest.raises(DataError, match="Leave the oscilloscope's controls alone"):
        decoder.feed(frame(0, good, good))


# -- records in an analysis -------------------------------------------------------------------------------------------

RATE_HZ = 1e6


def records(pulses: Sequence[tuple[int, int]], length: int = 2000, apart: int = 50_000, **changes: Any) -> Recording:
    """A record each, with the line high and 10 mA from sample a to b of it, else 1 mA; 3 V."""
    current, line = [], []
    for start, stop in pulses:
        high = (np.arange(length) >= start) & (np.arange(length) < stop)
        current.append(np.where(high, 10e-3, 1e-3))
        line.append(np.where(high, 3.3, 0.0))
    gaps = tuple(Gap(index=k * (length + apart), lost=apart, cause=UNSEEN) for k in range(1, len(pulses)))
    told = Header(
        instrument="scope", model="S", wire="scope/1", rate_hz=RATE_HZ, word_bytes=2, triggered=True,
        channels=(
            Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.INSTANT),
            Channel(name="voltage", quantity=Quantity.VOLTAGE, unit="V", kind=Kind.INSTANT),
            Channel(name="c1", quantity=Quantity.SIGNAL, unit="V", kind=Kind.INSTANT),
            Channel(name="shunt loss", quantity=Quantity.POWER, unit="W", kind=Kind.INSTANT, loss=True),
        ),
    )  # fmt: skip
    from joulemeter.capture import Timebase

    amperes = np.concatenate(current)
    stream = ArrayStream(
        name="scope",
        header=replace(told, **changes),
        timebase=Timebase(rate_hz=RATE_HZ),
        data={
            "current": amperes,
            "voltage": np.full(len(amperes), 3.0),
            "c1": np.concatenate(line),
            "shunt loss": amperes**2 * 1.0,
        },
        gaps=gaps,
    )
    return Recording(name="bench", streams=(stream,), trigger="c1@1.65V")


def test_what_lies_between_records_is_not_lost() -> None:
    result = analyze(records([(200, 1200)] * 12), Request(inferences_per_window=1)).result
    assert result.windows.used == 12
    assert result.windows.rejected == {}
    assert Code.LOST_SAMPLES not in [caveat.code for caveat in result.caveats]
    assert Code.MISSING_EDGES not in [caveat.code for caveat in result.caveats]
    # 10 mA, 3 V, 1 ms; the steps lie within one interval.
    assert result.energy_per_inference_j.median == pytest.approx(30e-6, rel=2e-3)
    assert result.loss_per_inference_j is not None
    assert result.loss_per_inference_j.median == pytest.approx(1e-4 * 1e-3, rel=2e-3)


def test_a_pulse_that_leaves_its_record_is_left_out() -> None:
    result = analyze(records([(200, 1200), (200, 2000), (200, 1200)]), Request(inferences_per_window=1)).result
    assert result.windows.used == 2
    assert result.windows.rejected == {"cut-by-record": 1}


def test_an_edge_between_two_records_says_nothing_of_the_others() -> None:
    """A record may hold several pulses, of which the last is cut."""
    result = analyze(records([(200, 1200), (200, 2000)] * 6), Request(inferences_per_window=1)).result
    assert result.windows.used == 6
    assert result.sync.residual_s is not None
    assert result.sync.residual_s < 1 / RATE_HZ


def test_records_that_are_too_short_for_all_windows_are_told() -> None:
    with pytest.raises(DataError, match="make records longer"):
        analyze(records([(200, 2000)] * 4), Request(inferences_per_window=1))


def test_a_clipped_pulse_is_left_out() -> None:
    recording = records([(200, 1200)] * 3)
    (stream,) = recording.streams
    assert isinstance(stream, ArrayStream)
    status = np.zeros(6000, np.uint8)
    status[2500] = Status.CLIPPED
    clipped = replace(recording, streams=(replace(stream, status=status),))
    result = analyze(clipped, Request(inferences_per_window=1)).result
    assert result.windows.rejected == {"clipped": 1}


def test_the_delay_of_the_current_is_taken_out_and_its_doubt_is_in_the_budget() -> None:
    recording = records([(200, 1200)] * 8)
    (stream,) = recording.streams
    assert isinstance(stream, ArrayStream)
    late = replace(stream, data={**stream.data, "current": np.roll(stream.data["current"], 100)})
    first = stream.header.channels[0]
    known = replace(first, delay_s=100e-6, u_delay=Limit(value=10e-6))
    told = replace(stream.header, channels=(known, *stream.header.channels[1:]))
    plain = analyze(replace(recording, streams=(late,)), Request(inferences_per_window=1)).result
    mended = analyze(replace(recording, streams=(replace(late, header=told),)), Request(inferences_per_window=1)).result
    # 100 us at 1 mA instead of 10 mA.
    assert plain.energy_per_inference_j.median == pytest.approx(30e-6 - 9e-3 * 3 * 100e-6, rel=2e-3)
    assert mended.energy_per_inference_j.median == pytest.approx(30e-6, rel=2e-3)
    (skew,) = [term for term in mended.uncertainty if term.term == "skew"]
    # A shift loses 30 mW and gains 3 mW.
    assert skew.contribution_j == pytest.approx(27e-3 * 10e-6 / math.sqrt(3), rel=0.02)


def test_each_record_can_be_a_window() -> None:
    recording = replace(records([(0, 2000)] * 4, apart=9000), trigger="records")
    result = analyze(recording, Request(inferences_per_window=1)).result
    assert result.windows.used == 4
    assert result.latency_s.median == pytest.approx(1999e-6)
    with pytest.raises(UsageError, match="has no records"):
        analyze(records([(0, 2000)] * 4, triggered=False), Request(trigger="records", inferences_per_window=1))


def test_an_energy_below_zero_is_invalid() -> None:
    """What a wrong word about zero makes of it."""
    recording = records([(200, 1200)] * 4)
    (stream,) = recording.streams
    assert isinstance(stream, ArrayStream)
    moved = replace(stream, data={**stream.data, "current": stream.data["current"] - 20e-3})
    result = analyze(replace(recording, streams=(moved,)), Request(inferences_per_window=1)).result
    assert Code.NEGATIVE_ENERGY in [one.code for one in result.caveats if one.severity == "invalid"]


def test_records_are_not_compared_with_another_meter_by_time() -> None:
    recording = records([(200, 1200)] * 4)
    (stream,) = recording.streams
    assert isinstance(stream, ArrayStream)
    both = replace(recording, streams=(stream, replace(stream, name="other")))
    result = analyze(both, Request(inferences_per_window=1)).result
    assert result.agreement is None
    (told,) = [one.text for one in result.caveats if one.code is Code.METERS_DIFFER]
    assert "never related to the host's clock" in told


def test_another_shunt_is_another_meter() -> None:
    """What two shunts may be wrong by does not cancel, on one oscilloscope at one scale."""
    asked = Input(number=2, volts_per_div=10e-3, centre_v=0.0, attenuation=1.0)

    def measured(shunt: str) -> Result:
        recording = records([(200, 1200)] * 6)
        (stream,) = recording.streams
        assert isinstance(stream, ArrayStream)
        (current, *_) = front(shunt=shunt).channels({2: FAMILY.accuracy(asked, zeroed=True)})
        told = replace(stream.header, serial="7", channels=(current, *stream.header.channels[1:]))
        bench = replace(recording, streams=(replace(stream, header=told),))
        return analyze(bench, Request(inferences_per_window=1)).result

    one, again, other = measured("1ohm±1%"), measured("1ohm±1%"), measured("0.5ohm±1%")
    assert same_meter(one, again)
    assert not same_meter(one, other)


def test_a_derived_voltage_is_no_measurement() -> None:
    recording = records([(200, 1200)] * 3)
    (stream,) = recording.streams
    channels = tuple(
        replace(channel, basis=Basis.DERIVED) if channel.name == "voltage" else channel
        for channel in stream.header.channels
    )
    assert isinstance(stream, ArrayStream)
    derived = replace(stream, header=replace(stream.header, channels=channels))
    result = analyze(replace(recording, streams=(derived,)), Request(inferences_per_window=1)).result
    assert result.energy_per_inference_j.basis is Basis.DERIVED


# -- loads from a file ------------------------------------------------------------------------------------------------


def test_a_load_may_be_a_table(tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    path.write_text("duration_s,current_a,lines\n1e-3,12e-3,1\n2e-3,2e-3,0\n3e-3,10e-3,1\n2e-3,2e-3,\n")
    load = parse_load(str(path))
    assert load.pulses(0) == 2
    assert load.pulse_duration_s(0) == pytest.approx(2e-3)
    assert load.pulse_charge_c(0) == pytest.approx((12e-6 + 30e-6) / 2)
    assert load.period_s == pytest.approx(8e-3)


@pytest.mark.parametrize("text", ["", "duration_s,current_a\n", "a,b\n1,2\n", "duration_s,current_a\n0,1\n"])
def test_tables_that_are_no_load(tmp_path: Path, text: str) -> None:
    path = tmp_path / "load.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match="is not a load"):
        parse_load(str(path))


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        parse_load("absent.csv")


# -- the whole chain --------------------------------------------------------------------------------------------------


def test_the_reference_deck_in_small(tmp_path: Path) -> None:
    """200 of the 6,356 pulses, with the published figures; results/measured/reference_deck.md has all of them."""
    root = Path(__file__).parents[1]
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import reference_deck as deck; "
        "result, _ = deck.measure(Path(sys.argv[2]), 200, *deck.DECK, 'rate=5MHz', 'records=200'); "
        "print(json.dumps([result, deck.exact_j(deck.widths(200), 1.0), float(deck.widths(200).std(ddof=1))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root / "results/measured"), str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    result, exact_j, stdev_s = json.loads(done.stdout)
    latency, energy = result["latency_s"], result["energy_per_inference_j"]
    assert result["windows"]["used"] == 200
    assert latency["mean"] == pytest.approx(1.129063e-3, abs=0.03e-6)
    assert latency["min"] == pytest.approx(1.12713143e-3, abs=0.25e-6)
    assert latency["stdev"] == pytest.approx(stdev_s, rel=0.01)
    low, high = energy["ci95_total"]
    assert low < exact_j < high
    assert energy["median"] == pytest.approx(exact_j, rel=2e-3)
    codes = {caveat["code"] for caveat in result["caveats"]}
    assert {"skew", "skewed", "simulated"} <= codes


def test_records_in_which_the_level_is_never_crossed_come_to_an_end(tmp_path: Path) -> None:
    """The simulated oscilloscope triggers on the line, whatever the level."""
    done = subprocess.run(
        [sys.executable, "-m", "joulemeter", "measure", "--meter", "lecroy", "--simulate", "--trigger", "c1@9V",
         "--windows", "5", "--timeout", "2s", "-o", str(tmp_path), "--quiet"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "did not cross 9 V" in " ".join(done.stderr.split())


def test_a_simulated_board_is_seen(tmp_path: Path) -> None:
    """A board that is told over its serial port when to infer, and an oscilloscope on its pin and its shunt."""
    done = subprocess.run(
        [sys.executable, "-m", "joulemeter", "measure", "--meter", "lecroy", "--simulate", "--workload",
         "uart@simulated", "--windows", "5", "--set", "record=50ms", "-o", str(tmp_path),
         "--json", "--quiet"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["windows"]["used"] >= 4
    # 8 mA for 20 ms at 3.0 V, less what 1 ohm takes.
    low, high = result["energy_per_inference_j"]["ci95_total"]
    assert low < 8e-3 * 20e-3 * (3.0 - 8e-3) < high
    assert result["latency_s"]["median"] == pytest.approx(20e-3, rel=0.01)


# -- what the documents say -------------------------------------------------------------------------------------------


def test_the_documented_settings_are_those_that_there_are() -> None:
    text = (Path(__file__).parents[1] / "docs/oscilloscopes.md").read_text(encoding="utf-8")
    table = text.partition("<!-- settings -->")[2].partition("<!-- end of settings -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    wanted = [f"| `{name}` | `{setting.default}` | {setting.summary} |" for name, setting in SETTINGS.items()]
    assert rows == wanted
