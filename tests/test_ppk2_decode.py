"""PPK2 words to samples: the fields, the filter, any chunk borders, and bytes that are lost, added or spoilt."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ppk2_streams import CONSTANTS, header, joined, pack, typical

from joulemeter.capture import Block, Status
from joulemeter.errors import DataError, UsageError
from joulemeter.instruments import ppk2
from joulemeter.instruments.ppk2 import decode

KERNELS = [
    "numpy",
    pytest.param(
        "numba",
        marks=pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed"),
    ),
]
ALTERED, CLIPPED = int(Status.ALTERED), int(Status.CLIPPED)


def decoded(raw: bytes, cuts: Iterable[int] = (), *, filter_: str = "nordic", kernel: str = "numpy") -> list[Block]:
    """The blocks of `raw` fed in pieces that end at `cuts`."""
    decoder = decode.Ppk2Decoder(header(filter_), kernel)
    blocks: list[Block] = []
    start = 0
    for stop in [*sorted(cuts), len(raw)]:
        blocks += decoder.feed(raw[start:stop])
        start = stop
    blocks += decoder.finish()
    return blocks


def current_a(range_: int, code: int, volts: float = 3.0) -> float:
    """The published formula, once more."""
    r, gs, gi, o, s, i, ug = (CONSTANTS[name][range_] for name in ("R", "GS", "GI", "O", "S", "I", "UG"))
    x = (4 * code - o) * 1.8 / 163840 / r
    return ug * (x * (gs * x + gi) + s * volts + i)


def same(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> bool:
    return all(np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)


@pytest.mark.parametrize("kernel", KERNELS)
def test_fields_of_a_word(kernel: str) -> None:
    # 0x5A lines, counter 63, range 2, code 0x1234 by hand: 5A | FC+... -> the bytes as they lie on the wire.
    words = [0x5A_FC_92_34, 0x5A_00_92_34, 0xFF_04_92_34, 0x00_08_92_34]
    raw = b"".join(word.to_bytes(4, "little") for word in words)
    assert raw[:4] == bytes([0x34, 0x92, 0xFC, 0x5A])
    samples = joined(decoded(raw, kernel=kernel))
    assert samples["range"].tolist() == [2, 2, 2, 2]
    assert samples["digital"].tolist() == [0x5A, 0x5A, 0xFF, 0x00]
    assert samples["current"] == pytest.approx([current_a(2, 0x1234)] * 4, rel=1e-12, abs=0)
    assert samples["current"].dtype == np.float64


def test_bit_17_is_not_looked_at() -> None:
    raw = pack([500] * 100, 1)
    marked = (np.frombuffer(raw, "<u4") | 1 << 17).astype("<u4").tobytes()
    assert same(joined(decoded(raw)), joined(decoded(marked)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_three_samples_are_replaced_after_a_range_switch(kernel: str) -> None:
    """The exponential average written out: 0.18 of the new sample and 0.82 of the average so far."""
    codes, ranges = [400] * 10 + [900] * 10, [1] * 10 + [2] * 10
    samples = joined(decoded(pack(codes, ranges), kernel=kernel))
    low, high = current_a(1, 400), current_a(2, 900)
    expected = [low] * 10
    average = low
    for _ in range(3):
        average = 0.18 * high + 0.82 * average
        expected.append(average)
    assert samples["current"] == pytest.approx(expected + [high] * 7, rel=1e-12, abs=0)
    assert samples["status"].tolist() == [0] * 10 + [ALTERED] * 3 + [0] * 7


@pytest.mark.parametrize("kernel", KERNELS)
def test_into_the_top_range_two_samples_do_not_enter_and_the_slow_average_is_used(kernel: str) -> None:
    codes, ranges = [400] * 10 + [300] * 10, [3] * 10 + [4] * 10
    samples = joined(decoded(pack(codes, ranges), kernel=kernel))
    low, high = current_a(3, 400), current_a(4, 300)
    expected = [low] * 10 + [low, low, 0.06 * high + 0.94 * low] + [high] * 7
    assert samples["current"] == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_raw_leaves_every_sample_as_it_came(kernel: str) -> None:
    codes, ranges = [400] * 10 + [300] * 10, [3] * 10 + [4] * 10
    blocks = decoded(pack(codes, ranges), filter_="raw", kernel=kernel)
    expected = [current_a(3, 400)] * 10 + [current_a(4, 300)] * 10
    assert joined(blocks)["current"] == pytest.approx(expected, rel=1e-12, abs=0)
    assert all(block.status is None for block in blocks)


@pytest.mark.parametrize("kernel", KERNELS)
def test_full_scale_is_marked_as_clipped(kernel: str) -> None:
    codes = [1000] * 20
    codes[7] = codes[8] = 16383
    samples = joined(decoded(pack(codes, 4), kernel=kernel))
    assert np.flatnonzero(samples["status"]).tolist() == [7, 8]
    assert samples["status"][7] == CLIPPED


def test_a_range_that_does_not_exist_is_no_sample() -> None:
    ranges = [2] * 60
    ranges[30] = 6
    samples = joined(decoded(pack([500] * 60, ranges)))
    assert 30 not in samples["index"]
    assert set(samples["range"]) == {2}
    assert samples["index"][-1] == 59


@functools.cache
def lively() -> tuple[bytes, dict[str, NDArray[Any]]]:
    """A stream where one word in 25 switches the range, so that cuts fall everywhere in the filter."""
    raw = typical(1500, seed=3, switches_per_s=4000)
    return raw, joined(decoded(raw))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(0, 6000), max_size=40))
def test_chunk_borders_change_nothing(cuts: list[int]) -> None:
    raw, whole = lively()
    assert same(joined(decoded(raw, cuts)), whole)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(0, 6000), max_size=20), st.integers(400, 5000), st.integers(1, 300), st.booleans())
def test_chunk_borders_change_nothing_around_a_fault(cuts: list[int], at: int, amount: int, lose: bool) -> None:
    raw, _ = lively()
    spoilt = raw[:at] + (raw[at + amount :] if lose else bytes(range(256)) * 2 + raw[at:])
    assert same(joined(decoded(spoilt, cuts)), joined(decoded(spoilt)))


def test_both_kernels_give_the_same_bits() -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    raw = typical(70_000, seed=5, switches_per_s=4000)
    spoilt = raw[:100_000] + raw[100_401:200_003] + b"\x80" + raw[200_003:]
    for cuts in (range(0), range(0, len(spoilt), 1023)):
        one, other = decoded(spoilt, cuts), decoded(spoilt, cuts, kernel="numba")
        assert same(joined(one), joined(other))
        assert [(block.first_index, block.lost_before, block.consumed) for block in one] == [
            (block.first_index, block.lost_before, block.consumed) for block in other
        ]


@pytest.mark.parametrize("kernel", KERNELS)
def test_state_survives_json_at_any_byte(kernel: str) -> None:
    raw, whole = lively()
    raw = raw[:2001] + raw[2100:]
    expected = joined(decoded(raw))
    for at in (0, 1, 13, 64, 77, 1999, 2003, 2070, 4001, len(raw)):
        first = decode.Ppk2Decoder(header(), kernel)
        blocks = first.feed(raw[:at])
        second = decode.Ppk2Decoder(header(), kernel)
        second.restore(json.loads(json.dumps(first.state())))
        blocks += second.feed(raw[at:]) + second.finish()
        assert same(joined(blocks), expected), at
    assert len(whole["index"]) == 1500


def test_consumed_is_the_end_of_each_blocks_last_word() -> None:
    raw = typical(400)
    spoilt = raw[:400] + raw[480:800] + b"\x55" + raw[800:]
    blocks = decoded(spoilt, range(0, len(spoilt), 97))
    for block in blocks:
        word = int.from_bytes(spoilt[block.consumed - 4 : block.consumed], "little")
        assert word >> 18 & 63 == (block.first_index + len(block) - 1) % 64
        assert word >> 24 == block.data["digital"][-1]
    assert blocks[-1].consumed == len(spoilt)


def hole(blocks: list[Block]) -> Block:
    """The one block behind a hole."""
    (behind,) = [block for block in blocks if block.lost_before]
    return behind


@pytest.mark.parametrize("lost", [1, 2, 31, 63])
def test_lost_samples_are_counted(lost: int) -> None:
    raw = typical(1000)
    behind = hole(decoded(raw[:2000] + raw[2000 + 4 * lost :]))
    assert (behind.first_index, behind.lost_before) == (500 + lost, lost)


def test_a_multiple_of_64_lost_samples_cannot_be_seen() -> None:
    raw = typical(1000)
    blocks = decoded(raw[:2000] + raw[2000 + 256 :])
    assert sum(len(block) for block in blocks) == 936
    assert not any(block.lost_before for block in blocks)


def true_samples(raw: bytes) -> dict[str, NDArray[Any]]:
    return joined(decoded(raw, filter_="raw"))


# Lost or added at every byte of a word, and by amounts that leave each of the four alignments behind.
@pytest.mark.parametrize("at", [2000, 2001, 2002, 2003])
@pytest.mark.parametrize("amount", [1, 2, 3, 5, 121])
@pytest.mark.parametrize("lose", [True, False], ids=["lost", "added"])
def test_a_shift_by_bytes_leaves_a_small_hole_and_no_wrong_sample(at: int, amount: int, lose: bool) -> None:
    raw = typical(1000, seed=amount)
    noise = np.random.default_rng(amount).bytes(amount)
    spoilt = raw[:at] + (raw[at + amount :] if lose else noise + raw[at:])
    truth = true_samples(raw)
    blocks = decoded(spoilt, filter_="raw")
    samples = joined(blocks)
    index = samples["index"]
    for name in ("current", "range", "digital"):
        assert np.array_equal(samples[name], truth[name][index]), name
    assert index[-1] == 999
    assert hole(blocks).lost_before == 1000 - len(index)
    assert 1000 - len(index) <= (amount // 4 if lose else 0) + 6


@pytest.mark.parametrize("at", [2000, 2001, 2002, 2003])
@pytest.mark.parametrize("amount", [1, 4, 8, 100, 1000])
def test_garbled_bytes_in_place_do_not_come_out_as_samples(at: int, amount: int) -> None:
    raw = typical(1000, seed=9)
    spoilt = raw[:at] + bytes(byte ^ 0xFF for byte in raw[at : at + amount]) + raw[at + amount :]
    samples = joined(decoded(spoilt, filter_="raw"))
    index = samples["index"]
    assert index[-1] == 999
    assert np.array_equal(index, np.unique(index))
    if amount == 1 and at != 2002:
        return  # one byte without the counter in it cannot be seen to be wrong
    truth = true_samples(raw)
    assert np.array_equal(samples["digital"], truth["digital"][index])
    assert np.array_equal(samples["current"], truth["current"][index])
    assert len(index) >= 1000 - amount // 4 - 6


def test_stray_bytes_before_the_first_word_are_passed_over() -> None:
    raw = typical(200)
    samples = joined(decoded(b"END\n" + b"\x07\x19" + raw, filter_="raw"))
    assert np.array_equal(samples["current"], true_samples(raw)["current"][1:])
    assert samples["index"][0] == 2  # six bytes had room for one sample, and the first word is not vouched for


def test_shifted_words_that_follow_by_chance_are_taken_back() -> None:
    """A stray byte moves byte 1, ADC bits 8-13 and two of the range, to where the counter is: let it count twice."""
    codes = [500] * 200
    codes[101], codes[102] = (101 % 64 % 16) << 10, (102 % 64 % 16) << 10
    ranges = [1] * 200
    ranges[101] = ranges[102] = 101 % 64 // 16
    raw = pack(codes, ranges)
    spoilt = raw[:404] + b"\x00" + raw[404:]
    shifted = np.frombuffer(spoilt, "<u4", 4, 400)
    assert (shifted >> 18 & 63).tolist()[:3] == [36, 37, 38]  # words 100, and two that are none
    samples = joined(decoded(spoilt, filter_="raw"))
    assert np.array_equal(samples["current"], true_samples(raw)["current"][samples["index"]])
    assert set(samples["index"]) >= {*range(99), *range(107, 200)}


def test_words_behind_a_second_fault_close_by_are_not_believed() -> None:
    raw = typical(1000)
    spoilt = raw[:2000] + raw[2003:2040] + raw[2042:]
    blocks = decoded(spoilt, filter_="raw")
    samples = joined(blocks)
    assert np.array_equal(samples["current"], true_samples(raw)["current"][samples["index"]])
    assert samples["index"][-1] == 999


def test_noise_from_some_point_on_is_an_error_that_keeps_what_came_before() -> None:
    raw = typical(1000)
    noise = np.random.default_rng(1).bytes(200_000)
    decoder = decode.Ppk2Decoder(header())
    kept = decoder.feed(raw + noise)
    assert sum(len(block) for block in kept) >= 990
    for _ in range(2):
        with pytest.raises(DataError, match="do not look like its words"):
            decoder.feed(raw)


@pytest.mark.parametrize("chunk", [1000, 4096, 300_000])
def test_nothing_but_noise_is_an_error(chunk: int) -> None:
    noise = np.random.default_rng(2).bytes(200_000)
    decoder = decode.Ppk2Decoder(header())
    with pytest.raises(DataError, match=r"from byte 0 on"):
        for start in range(0, len(noise), chunk):
            assert decoder.feed(noise[start : start + chunk]) == []


def test_a_stream_of_zeros_is_an_error() -> None:
    """A dead converter would send words whose counter stands still."""
    decoder = decode.Ppk2Decoder(header())
    with pytest.raises(DataError):
        decoder.feed(bytes(100_000))


def test_an_empty_stream_has_no_samples() -> None:
    assert decoded(b"") == []


def test_another_wire_format_is_refused() -> None:
    with pytest.raises(UsageError, match="ppk2-words/9"):
        ppk2.decoder(replace(header(), wire="ppk2-words/9"))


def test_numba_is_used_only_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOULEMETER_FAST", raising=False)
    assert decode.wanted_kernel() == "numpy"
    monkeypatch.setenv("JOULEMETER_FAST", "1")
    assert decode.wanted_kernel() == "numba"
