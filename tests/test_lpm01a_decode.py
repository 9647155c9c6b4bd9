"""The LPM01A's streams: right where they are whole, and a counted hole, never a wrong value or time, where not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from joulemeter.capture import Block, Header, Status
from joulemeter.errors import DataError, UsageError
from joulemeter.instruments import lpm01a
from joulemeter.instruments.lpm01a import channels, simulator, wire

RECORDINGS = Path(__file__).parent.parent / ".." / "shared" / "data" / "mlperf_tiny"

RIGHT = 1000  # samples from one stamp to the next (UM2269, 4.4.1)


def header(format_: str = "ascii", rate: str = "1k", output: str = "current") -> Header:
    return Header(
        instrument="lpm01a",
        model="X-NUCLEO-LPM01A",
        wire=wire.FORMATS[format_],
        rate_hz=wire.RATES_HZ[rate],
        word_bytes=wire.SAMPLE_BYTES[wire.FORMATS[format_]],
        channels=channels.channels(output, format_),
        parameters={"output": output},
    )


def stamp(milliseconds: int, load: int = 0) -> bytes:
    seconds, rest = divmod(milliseconds, 1000)
    return b"\r\nTimeStamp: %03ds %03dms, buff %02d%%\r\n\0" % (seconds, rest, load)


def line(index: int) -> bytes:
    """A sample that says which one it is: the digits are its index modulo 10 000, its power the next digit."""
    return b"%04d-%02d\r\n" % (index % 10000, 3 + index // 10000)


def value(index: int) -> float:
    return float(f"{index % 10000:04d}e-{3 + index // 10000:02d}")


def stream(count: int, events: Mapping[int, bytes] | None = None, rate_hz: float = 1000.0) -> bytes:
    """`events` are the bytes before the sample of that index."""
    parts = []
    for index in range(count):
        if index % RIGHT == 0:
            parts.append(stamp(int(index * 1000 / rate_hz)))
        parts.append((events or {}).get(index, b"") + line(index))
    return b"".join(parts)


def decoded(raw: bytes, about: Header | None = None, cuts: Iterable[int] = ()) -> list[Block]:
    decoder = lpm01a.decoder(about or header())
    borders = [0, *cuts, len(raw)]
    blocks: list[Block] = []
    for start, stop in itertools.pairwise(borders):
        blocks += decoder.feed(raw[start:stop])
    blocks += decoder.finish()
    return blocks


def joined(blocks: list[Block]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Index and value of each sample; blocks must follow each other."""
    following = 0
    for block in blocks:
        assert block.lost_before >= 0
        assert block.first_index == following + block.lost_before
        following = block.first_index + len(block)
    indices = [np.arange(len(block)) + block.first_index for block in blocks]
    values = [next(iter(block.data.values())) for block in blocks]
    return np.concatenate([*indices, []]).astype(int), np.concatenate([*values, []])


def same(one: tuple[NDArray[Any], ...], other: tuple[NDArray[Any], ...]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


def lost(blocks: list[Block]) -> int:
    return sum(block.lost_before for block in blocks)


def falls(blocks: list[Block]) -> list[int]:
    return [int(block.first_index + k) for block in blocks for k in np.flatnonzero(block.data["digital"] == 0)]


def all_right(blocks: list[Block]) -> bool:
    indices, values = joined(blocks)
    return np.array_equal(values, [value(index) for index in indices.tolist()])


# -- values -----------------------------------------------------------------------------------------------------------


def test_values_are_the_manuals() -> None:
    """UM2269 rev 6, 4.4.1, 4.4.2 and tables 48 and 49."""
    texts = {b"6409-07": 640.9e-6, b"1958-09": 1.958e-6, b"2041-09": 2.041e-6, b"0023-10": 2.3e-9, b"0008-10": 8e-10}
    raw = stamp(0) + b"".join(text + b"\r\n" for text in texts)
    assert joined(decoded(raw))[1].tolist() == pytest.approx(list(texts.values()), rel=1e-15)
    binary = bytes.fromhex("f0f3 00000000 00 ffff 52a0 3145")
    _, values = joined(decoded(binary, header("binary")))
    assert values[0] == pytest.approx(640.9e-6, abs=0.05e-6)
    assert values[1] == pytest.approx(79.35e-3, abs=0.005e-3)


def test_a_binary_stream_as_the_manual_prints_it() -> None:
    """UM2269 rev 6, table 47: a stamp, samples 3AB8 and 3C86, later 4716, the end, and a summary that is none."""
    raw = bytes.fromhex("f0f3 00000000 00 ffff 3ab8 3c86 4716 f0f4 ffff f0") + b"\r\nsummary beg\r\n"
    indices, values = joined(decoded(raw, header("binary")))
    assert indices.tolist() == [0, 1, 2]
    assert values.tolist() == [0xAB8 / 16**3, 0xC86 / 16**3, 0x716 / 16**4]


def test_output_energy_is_power() -> None:
    """30 µJ in each millisecond are 30 mW."""
    (block,) = decoded(stamp(0) + b"3000-08\r\n", header(output="energy"))
    assert block.data["power"].tolist() == pytest.approx([30e-3])


def test_published_samples_fit_the_line_format() -> None:
    """Samples of real units, kept as float32 microjoules by EEMBC's runner, have the four digits that lines have."""
    trace = next(iter(sorted(RECORDINGS.rglob("trace1-energy.bin"))), None)
    if trace is None:
        pytest.skip("the MLPerf Tiny recordings are not here")
    joules = np.frombuffer(trace.read_bytes(), "<f4", 5000, 5).astype(np.float64) * 1e-6
    raw = b"".join(b"%b" % text for text in simulator._pack_decimal(joules.tolist()))
    values = wire.decimals(raw, 0, len(raw))
    assert np.allclose(values, joules, rtol=2e-7, atol=0)


# -- whole streams ----------------------------------------------------------------------------------------------------


def test_a_whole_stream_comes_out_whole_also_in_pieces_and_across_a_saved_state() -> None:
    raw = stream(3500, {700: b"event 00 ris\r\n", 1000: b"event 01 ris\r\n"})
    blocks = decoded(raw)
    assert joined(blocks)[0].tolist() == list(range(3500))
    assert all_right(blocks)
    assert falls(blocks) == [700, 1000]
    random = np.random.default_rng(1)
    damaged = bytearray(raw)
    del damaged[12_000:12_011]
    for whole in (raw, bytes(damaged)):
        expected = joined(decoded(whole))
        cuts = sorted(random.integers(0, len(whole), 50).tolist())
        assert same(joined(decoded(whole, cuts=cuts)), expected)
        for middle in (1, 37, 9_001, 12_005, 20_000, len(whole) - 2):
            first, second = lpm01a.decoder(header()), lpm01a.decoder(header())
            parts = first.feed(whole[:middle])
            second.restore(json.loads(json.dumps(first.state())))
            parts += second.feed(whole[middle:]) + second.finish()
            assert same(joined(parts), expected)


def test_samples_wait_for_the_next_stamp_at_1_khz_and_not_below() -> None:
    """1000 samples are a second at 1 kHz, and 1000 seconds at 1 Hz."""
    fast, slow = lpm01a.decoder(header()), lpm01a.decoder(header(rate="1"))
    assert fast.feed(stream(999)) == []
    assert len(joined(fast.feed(stream(1001)[len(stream(999)) :]))[0]) == 1000
    assert [len(block) for block in slow.feed(stamp(0) + line(0))] == [1]
    assert [block.first_index for block in slow.feed(line(1))] == [1]


def test_what_follows_the_end_is_no_sample() -> None:
    """The summary's lowest and highest current have the form of samples (UM2269, table 35)."""
    tail = b"\r\nend\r\n\r\nsummary beg\r\n1958-09\r\n2041-09\r\nsummary end\r\nPowerShield > Acquisition completed\r\n"
    assert joined(decoded(stream(1200) + tail))[0].tolist() == list(range(1200))


def test_answers_and_messages_between_samples_disturb_nothing() -> None:
    said = b"\r\nPowerShield > ack targrst 100m\r\n\r\n"
    blocks = decoded(stream(1500, {400: said, 900: b"\r\nerror voltage drop\r\n", 901: b"\r\npwr on\r\n"}))
    assert len(joined(blocks)[0]) == 1500
    assert all_right(blocks)


def test_a_stream_of_another_wire_is_refused() -> None:
    with pytest.raises(UsageError, match="ppk2-words/1"):
        lpm01a.decoder(Header(instrument="x", model="x", wire="ppk2-words/1", rate_hz=1, word_bytes=4, channels=()))


# -- damage -----------------------------------------------------------------------------------------------------------


def test_the_published_merged_line_is_two_lost_samples() -> None:
    """33930-08, from the README of mlcommons/tiny's runner: what remains of one sample, and another."""
    raw = stamp(0) + b"3393-08\r\n" * 500 + b"33930-08\r\n" + b"3393-08\r\n" * 498 + stamp(1000) + b"3393-08\r\n"
    blocks = decoded(raw)
    indices, values = joined(blocks)
    assert sorted(set(range(1001)) - set(indices.tolist())) == [500, 501]
    assert set(values.tolist()) == {3393e-8}


@pytest.mark.parametrize("spoilt", [b"12\xe54-03\r\n", b"1234\xad03\r\n", b"1234-0\x00\r\n", b"1234x03\r\n"])
def test_an_undecodable_byte_costs_its_own_sample_only(spoilt: bytes) -> None:
    raw = stream(2500).replace(line(1234), spoilt)
    blocks = decoded(raw)
    assert set(range(2500)) - set(joined(blocks)[0].tolist()) == {1234}
    assert all_right(blocks)
    # Also behind the last stamp, for the length of the line shows that nothing else is lost.
    blocks = decoded(stream(500).replace(line(123), spoilt[:7].ljust(7, b"?") + b"\r\n"))
    assert set(range(500)) - set(joined(blocks)[0].tolist()) == {123}


def test_several_damaged_lines_are_holes_where_they_account_for_what_is_missing() -> None:
    raw = stream(3000)
    merged = raw.replace(line(1100) + line(1101), b"1" + line(1101)).replace(line(1800), b"18\xe50-03\r\n")
    blocks = decoded(merged)
    assert all_right(blocks)
    assert set(range(3000)) - set(joined(blocks)[0].tolist()) == {1100, 1101, 1800}


def test_where_they_do_not_the_whole_span_is_lost() -> None:
    """60 bytes are gone at 1100, and a line is merged at 1800: which samples are which, nobody knows."""
    raw = stream(3000)
    merged = raw.replace(line(1800) + line(1801), b"1" + line(1801))
    at = merged.index(line(1100)) + 3
    blocks = decoded(merged[:at] + merged[at + 60 :])
    assert all_right(blocks)
    assert set(range(3000)) - set(joined(blocks)[0].tolist()) == set(range(1000, 2000))


def test_a_loss_that_leaves_no_trace_costs_the_span_and_not_the_time() -> None:
    """Nine bytes from inside two lines leave one that looks well and is wrong."""
    raw = stream(3000)
    at = raw.index(line(1500)) + 2
    blocks = decoded(raw[:at] + raw[at + 9 :])
    assert all_right(blocks)
    assert set(range(3000)) - set(joined(blocks)[0].tolist()) == set(range(1000, 2000))


def test_an_overrun_is_counted_by_the_meters_clock() -> None:
    """`buff 100%` and 2700 samples that were never sent: the next stamp says that four seconds have passed."""
    head, tail = stream(2300), stream(7000)
    raw = head + stamp(5000, 100) + tail[tail.index(line(5000)) :]
    blocks = decoded(raw)
    indices, _ = joined(blocks)
    assert all_right(blocks)
    assert indices.tolist() == [*range(2000), *range(5000, 7000)]
    assert lost(blocks) == 3000


@pytest.mark.parametrize("shown", ["{:03d}s", "wrapped"])
def test_stamps_beyond_999_seconds(shown: str) -> None:
    """With a fourth digit, or with the three digits of UM2269 starting over: a 1200 s recording stays whole."""
    parts = [stamp(998_000), stamp(999_000), stamp(1_000_000 if shown != "wrapped" else 0), stamp(1_001_000)]
    if shown == "wrapped":
        parts[3] = stamp(1000)
    samples = [b"".join(line(k) for k in range(start, start + 1000)) for start in range(0, 4000, 1000)]
    raw = b"".join(part + some for part, some in zip(parts, samples, strict=True))
    blocks = decoded(raw)
    assert joined(blocks)[0].tolist() == list(range(4000))
    assert all_right(blocks)


@pytest.mark.parametrize(("remains", "kept"), [
    (b"\r\nTimeStamp: 001s 0\xe50ms, buff 00%\r\n", 3500),
    (b"", 3500),
    (b"\r\nTimeStamp: 001s 00", 1500),  # it swallows the sample behind it, which its length does not show
])  # fmt: skip
def test_a_damaged_stamp_is_no_sample(remains: bytes, kept: int) -> None:
    blocks = decoded(stream(3500).replace(stamp(1000), remains))
    assert all_right(blocks)
    assert len(joined(blocks)[0]) == kept
    assert joined(blocks)[0][-1] == 3499


def test_stamps_that_are_a_little_late_are_no_loss() -> None:
    """How well a unit keeps them is not known: 12 ms are granted."""
    raw = stream(4500).replace(b"003s 000ms", b"003s 012ms")
    assert lost(decoded(raw)) == 0
    fast = stream(45_000, rate_hz=5000).replace(b"003s 000ms", b"003s 012ms")
    assert lost(decoded(fast, header(rate="5k"))) == 0


@pytest.mark.parametrize("seed", range(40))
def test_bytes_lost_anywhere_never_make_a_wrong_value_or_time(seed: int) -> None:
    random = np.random.default_rng(seed)
    raw = stream(5400, {700: b"event 00 ris\r\n", 2400: b"event 01 ris\r\n", 3999: b"event 02 ris\r\n"})
    at, count = int(random.integers(40, len(raw) - 9 * 1400)), int(random.integers(1, [12, 80, 3000][seed % 3]))
    blocks = decoded(raw[:at] + raw[at + count :])
    indices, values = joined(blocks)
    # NaN stands for an edge that lies somewhere within the hole.
    known = ~np.isnan(values)
    assert np.array_equal(values[known], [value(index) for index in indices[known].tolist()])
    assert np.count_nonzero(~known) <= 2
    assert indices[-1] == 5399
    assert lost(blocks) <= 1000 * (2 + count // 9000)


@pytest.mark.parametrize("seed", range(10))
def test_garbled_bytes_never_make_a_wrong_value_or_time(seed: int) -> None:
    random = np.random.default_rng(100 + seed)
    raw = bytearray(stream(5400))
    at, count = int(random.integers(40, len(raw) - 9 * 1400)), int(random.integers(1, 400))
    raw[at : at + count] = bytes(byte ^ 0xFF for byte in raw[at : at + count])
    blocks = decoded(bytes(raw))
    assert all_right(blocks)
    assert joined(blocks)[0][-1] == 5399
    assert lost(blocks) <= count // 9 + 2 or lost(blocks) <= 1000


def test_neither_do_several_losses_and_garbled_places_in_one_stream() -> None:
    raw = stream(5400, {index: event(k) for k, index in enumerate(range(50, 5200, 431))})
    for seed in range(150):
        random = np.random.default_rng(1000 + seed)
        damaged = raw
        for _ in range(random.integers(2, 4)):
            at, count = int(random.integers(40, len(raw) - 9 * 1400)), int(random.integers(1, [12, 80, 3000][seed % 3]))
            garbled = bytes(byte ^ 0xFF for byte in damaged[at : at + count]) if random.random() < 0.4 else b""
            damaged = damaged[:at] + garbled + damaged[at + count :]
        indices, values = joined(decoded(damaged))
        known = ~np.isnan(values)
        assert np.array_equal(values[known], [value(index) for index in indices[known].tolist()]), seed
        assert indices[-1] == 5399


def test_slow_streams_give_out_at_once_and_wait_after_damage() -> None:
    raw = stream(1500, rate_hz=10)
    damaged = raw.replace(line(500) + line(501), b"0" + line(501))
    decoder = lpm01a.decoder(header(rate="10"))
    blocks = decoder.feed(damaged[: damaged.index(line(600))])
    assert joined(blocks)[0].tolist() == list(range(500))
    blocks += decoder.feed(damaged[damaged.index(line(600)) :]) + decoder.finish()
    assert all_right(blocks)
    assert set(range(1500)) - set(joined(blocks)[0].tolist()) == {500, 501}


def test_nonsense_is_an_error_after_what_came_before_it() -> None:
    decoder = lpm01a.decoder(header())
    noise = np.random.default_rng(5).integers(0, 256, 1 << 18, dtype=np.uint8).tobytes()
    assert joined(decoder.feed(stream(1300) + b"\xff" + noise))[0].tolist() == list(range(1300))
    with pytest.raises(DataError, match="do not look like"):
        decoder.feed(noise)
    with pytest.raises(DataError):
        lpm01a.decoder(header()).feed(b"\xff" * (1 << 17))
    with pytest.raises(DataError):
        lpm01a.decoder(header("binary")).feed(noise)


# -- edges ------------------------------------------------------------------------------------------------------------


def event(number: int) -> bytes:
    return b"event %02d ris\r\n" % number


def test_the_events_number_wraps() -> None:
    at = {10 + 20 * k: event((97 + k) % 100) for k in range(6)}
    assert falls(decoded(stream(1500, at))) == [10, 30, 50, 70, 90, 110]


def test_an_event_that_was_lost_is_put_back_so_that_pairs_stay_pairs() -> None:
    at = {100: event(98), 300: event(0), 500: event(1)}  # 99 is missing
    assert falls(decoded(stream(1500, at))) == [100, 298, 300, 500]


@pytest.mark.parametrize("damaged", [b"ev\xe5nt 07 ris\r\n", b"event 0", b"nt 07 ris\r\n"])
def test_a_damaged_event_is_an_edge_all_the_same(damaged: bytes) -> None:
    at = {100: event(6), 300: damaged, 500: event(8)}
    blocks = decoded(stream(1500, at))
    (first, second, third) = falls(blocks)
    assert (first, third) == (100, 500)
    assert 300 <= second <= 302
    assert all_right(blocks)
    assert lost(blocks) <= 1


def test_an_event_that_vanished_without_a_letter_stands_behind_the_damage_before_it() -> None:
    """0295-0|3, event 7, 02|96-03: what remains are two samples' worth, and the next event has the number 8."""
    raw = stream(1500, {100: event(6), 296: event(7), 700: event(8)})
    at = raw.index(line(295)) + 6
    blocks = decoded(raw[:at] + raw[at + 3 + len(event(7)) + 2 :])
    assert falls(blocks) == [100, 297, 700]
    assert lost(blocks) == 2


def test_a_tail_that_cannot_be_counted_is_told_as_lost() -> None:
    raw = stream(1800)
    at = raw.index(line(1300)) + 3
    blocks = decoded(raw[:at] + raw[at + 13 :])
    indices, values = joined(blocks)
    assert indices[:-1].tolist() == list(range(1300))
    assert np.isnan(values[-1])
    assert blocks[-1].status is not None
    assert blocks[-1].status.tolist() == [int(Status.INVALID)]
    assert 1795 <= indices[-1] <= 1799


def test_edges_closer_than_two_samples_are_moved_apart() -> None:
    at = {100: event(0) + event(1), 200: event(2), 201: event(3)}
    assert falls(decoded(stream(1500, at))) == [100, 102, 200, 202]


def test_an_edge_before_the_first_sample_is_seen_to_fall() -> None:
    assert falls(decoded(stream(1200, {0: event(0)}))) == [1]


def test_an_edge_in_a_large_hole_makes_its_sample_doubtful() -> None:
    raw = stream(3000, {500: event(0), 1400: event(1), 2500: event(2)})
    at = raw.index(line(1200))
    blocks = decoded(raw[:at] + raw[at + 9 * 30 :])
    assert falls(blocks) == [500, 2000, 2500]
    (marked,) = [block for block in blocks if block.status is not None]
    assert marked.first_index == 2000
    assert marked.status is not None
    assert marked.status.tolist() == [int(Status.INVALID)] + [0] * (len(marked) - 1)
    assert np.isnan(marked.data["current"][0])


# -- binary -----------------------------------------------------------------------------------------------------------


def binary(count: int, rate_hz: float = 1e5) -> bytes:
    """Sample k is k modulo 4000 in units of 16^-5."""
    parts = []
    for start in range(0, count, RIGHT):
        parts.append(b"\xf0\xf3" + int(start * 1000 / rate_hz).to_bytes(4, "big") + b"\0\xff\xff")
        parts.append((np.arange(start, min(start + RIGHT, count)) % 4000 + 0x5000).astype(">u2").tobytes())
    return b"".join(parts)


def binary_right(blocks: list[Block]) -> bool:
    indices, values = joined(blocks)
    return bool(np.array_equal(values, indices % 4000 / 16**5))


def test_binary_records_between_samples() -> None:
    """Voltage, temperature, target power and texts (UM2269, tables 38, 39, 44 to 46)."""
    said = bytes.fromhex("f0f7 0ce4 ffff f0f8 000a ffff f0f9 01 ffff f0f6 ffff") + b"\xf0\xf2hello\r\n\xff\xff"
    raw = binary(4500)
    at = 9 + 2 * 300
    blocks = decoded(raw[:at] + said + raw[at:], header("binary", "100k"))
    assert joined(blocks)[0].tolist() == list(range(4500))
    assert binary_right(blocks)


@pytest.mark.parametrize("count", [1, 2, 7, 64, 2009, 4018, 5001])
def test_binary_losses_cost_whole_spans(count: int) -> None:
    raw = binary(12_500, 1e4)
    blocks = decoded(raw[:7000] + raw[7000 + count :], header("binary", "10k"))
    assert binary_right(blocks)
    assert joined(blocks)[0][-1] == 12_499
    assert lost(blocks) in (1000, 2000, 3000, 4000)


def test_the_last_part_of_a_binary_stream_without_a_stamp_behind_it_comes_out() -> None:
    assert len(joined(decoded(binary(2300), header("binary", "100k")))[0]) == 2300


def test_the_clock_of_31_bits_starts_over() -> None:
    top = 0x7FFFFFFF
    records = [
        b"\xf0\xf3" + ms.to_bytes(4, "big") + b"\0\xff\xff" for ms in (top - 5, 0x80000000 + 994, 0x80000000 + 1994)
    ]
    samples = (np.arange(1000) + 0x5000).astype(">u2").tobytes()
    blocks = decoded(samples.join(records) + samples, header("binary"))
    assert joined(blocks)[0].tolist() == list(range(3000))


def test_what_precedes_the_first_stamp_is_no_sample() -> None:
    assert joined(decoded(b"\r\n" + binary(1200), header("binary", "100k")))[0].tolist() == list(range(1200))
