""".ppk2 files, built field by field here and read back; written from streams and taken apart byte by byte."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest

from joulemeter.capture import ArrayStream, Block, Gap, Quantity, Status
from joulemeter.caveat import Code
from joulemeter.errors import DataError, UsageError
from joulemeter.instruments.ppk2 import reader

METADATA = {"metadata": {"samplesPerSecond": 100000, "startSystemTime": 1700000000123}, "formatVersion": 2}


def archive(path: Path, session: bytes, metadata: Any = METADATA, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("session.raw", session)
        file.writestr("metadata.json", metadata if isinstance(metadata, bytes) else json.dumps(metadata))
        file.writestr("minimap.raw", b"{}")
    return path


def sample(microamperes: float, pairs: str) -> bytes:
    """float32 little-endian, then the pairs D7 ... D0 as eight digits 0..3 in a u16 big-endian."""
    return struct.pack("<f", microamperes) + struct.pack(">H", int(pairs, 4))


def only(path: Path) -> ArrayStream:
    (stream,) = reader.read(path).streams
    assert isinstance(stream, ArrayStream)
    return stream


def codes(stream: ArrayStream) -> list[Code]:
    return [caveat.code for caveat in stream.header.caveats]


def test_every_field_of_a_small_file(tmp_path: Path) -> None:
    session = b"".join(
        [
            sample(1500.25, "11111112"),  # D0 high
            sample(12.5, "21111111"),  # D7 high
            sample(75000.0, "11111121"),  # D1 high
            sample(250.0, "11111111"),
        ]
    )
    # The bytes as they lie in the file: 1500.25 is 0x44BB8800.
    assert session[:6] == bytes([0x00, 0x88, 0xBB, 0x44, 0x55, 0x56])
    path = archive(tmp_path / "small.ppk2", session)
    assert reader.recognises(path)
    stream = only(path)
    assert stream.data["current"].dtype == np.float64
    assert stream.data["current"] == pytest.approx([1500.25e-6, 12.5e-6, 75e-3, 250e-6], rel=1e-15, abs=0)
    assert stream.data["digital"].tolist() == [1, 128, 2, 0]
    # By the maker's spans: 0.5-5 mA, up to 50 µA, above 50 mA, 50-500 µA.
    assert stream.data["range"].tolist() == [2, 0, 4, 1]
    assert (stream.timebase.rate_hz, stream.timebase.utc_ns) == (100000.0, 1700000000123000000)
    assert stream.header.voltage is None
    assert not stream.header.simulated
    assert codes(stream) == []
    assert stream.gaps == ()


def test_without_a_start_the_time_is_unknown(tmp_path: Path) -> None:
    metadata = {"metadata": {"samplesPerSecond": 1000}, "formatVersion": 2}
    stream = only(archive(tmp_path / "a.ppk2", sample(1.0, "11111111"), metadata))
    assert (stream.timebase.rate_hz, stream.timebase.utc_ns, stream.timebase.u_host_s) == (1000.0, None, None)


def test_a_line_in_both_states_counts_as_high_and_is_noted(tmp_path: Path) -> None:
    stream = only(archive(tmp_path / "a.ppk2", sample(1.0, "11111113") + sample(1.0, "11111111")))
    assert stream.data["digital"].tolist() == [1, 0]
    assert codes(stream) == [Code.BOUNCING_EDGES]


def test_a_line_in_no_state_counts_as_low_and_is_doubted(tmp_path: Path) -> None:
    stream = only(archive(tmp_path / "a.ppk2", sample(1.0, "22222210")))
    assert stream.data["digital"].tolist() == [0b11111100]
    assert codes(stream) == [Code.MISSING_EDGES]


def test_lines_as_a_plain_byte_are_told_from_pairs(tmp_path: Path) -> None:
    """m-mcgowan/ppk2-python writes the byte as a little-endian u16."""
    session = b"".join(struct.pack("<fH", 1.0, state) for state in (0, 1, 0x55, 0xFF))
    stream = only(archive(tmp_path / "a.ppk2", session))
    assert stream.data["digital"].tolist() == [0, 1, 0x55, 0xFF]
    assert stream.header.parameters["digital"] == "plain byte"


def test_a_file_without_lines_has_no_digital_channel(tmp_path: Path) -> None:
    stream = only(archive(tmp_path / "a.ppk2", sample(1.0, "00000000")))
    assert "digital" not in stream.data
    assert stream.header.channel(Quantity.DIGITAL) is None


def test_samples_that_the_application_invented_are_doubted(tmp_path: Path) -> None:
    real, invented = sample(900.0, "11111112"), sample(0.2, "11111111")
    stream = only(archive(tmp_path / "a.ppk2", real * 5 + invented * 3 + real))
    (caveat,) = stream.header.caveats
    assert (caveat.code, caveat.data) == (Code.LOST_SAMPLES, {"count": 3, "of": 9})
    assert codes(only(archive(tmp_path / "b.ppk2", real + sample(0.2, "11111112")))) == []


def test_what_is_not_a_number_is_marked_invalid(tmp_path: Path) -> None:
    stream = only(archive(tmp_path / "a.ppk2", sample(1.0, "11111111") + sample(float("nan"), "11111111")))
    assert stream.status is not None
    assert stream.status.tolist() == [0, int(Status.INVALID)]


def test_a_cut_last_sample_is_left_out(tmp_path: Path) -> None:
    stream = only(archive(tmp_path / "a.ppk2", sample(7.0, "11111111") * 3 + b"\x00\x01"))
    assert stream.length == 3
    assert codes(stream) == [Code.TRUNCATED]


@pytest.mark.parametrize(("metadata", "error"), [
    ({"metadata": {"samplesPerSecond": 100000}, "formatVersion": 3}, UsageError),
    ({"metadata": {}, "formatVersion": 2}, DataError),
    ({"metadata": {"samplesPerSecond": 0}, "formatVersion": 2}, DataError),
    ({"metadata": {"samplesPerSecond": "fast"}, "formatVersion": 2}, DataError),
    ({"metadata": {"samplesPerSecond": 1, "startSystemTime": []}, "formatVersion": 2}, DataError),
    (b"[]", DataError),
    (b"\xff{", DataError),
    (b"[" * 100_000, DataError),
    (b'{"metadata": {"samplesPerSecond": NaN}, "formatVersion": 2}', DataError),
])  # fmt: skip
def test_bad_metadata_is_refused(tmp_path: Path, metadata: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        reader.read(archive(tmp_path / "a.ppk2", sample(1.0, "11111111"), metadata))


def test_files_that_are_something_else(tmp_path: Path) -> None:
    text = tmp_path / "a.ppk2"
    text.write_text("Timestamp(ms),Current(uA)\n")
    other = tmp_path / "b.ppk2"
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("header", "device 1")
    for path in (text, other, tmp_path / "absent.ppk2", tmp_path):
        assert not reader.recognises(path)
        with pytest.raises((UsageError, DataError)):
            reader.read(path)


def test_no_samples_is_an_error_and_not_an_empty_result(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no samples"):
        reader.read(archive(tmp_path / "a.ppk2", b""))


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_damaged_file_is_an_error(tmp_path: Path, at: float) -> None:
    path = archive(tmp_path / "a.ppk2", np.random.default_rng(1).bytes(60_000))
    whole = path.read_bytes()
    spot = int(len(whole) * at)
    path.write_bytes(whole[:spot] + bytes(byte ^ 0xA5 for byte in whole[spot : spot + 9]) + whole[spot + 9 :])
    with pytest.raises(DataError):
        reader.read(path)
    path.write_bytes(whole[:spot])
    with pytest.raises(DataError):
        reader.read(path)


def test_a_file_that_claims_too_much_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "a.ppk2", sample(1.0, "11111111") * 1000)
    monkeypatch.setattr(reader, "SESSION_BYTES", 5999)
    with pytest.raises(UsageError, match="too large"):
        reader.read(path)
    monkeypatch.setattr(reader, "SESSION_BYTES", 6000)
    assert reader.read(path).streams[0].length == 1000
    # The size in the directory raised to 100 MB: more than deflate could have packed.
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<L", 6000), struct.pack("<L", 100_000_000)))
    monkeypatch.undo()
    with pytest.raises(DataError):
        reader.read(path)


# Writing.


def test_what_is_written_lies_in_the_file_byte_by_byte(tmp_path: Path) -> None:
    base = helpers.stream(np.array([1500.25e-6, 250e-6]), np.array([1, 0x82], np.uint8), 1e5)
    stream = replace(
        base,
        timebase=replace(base.timebase, utc_ns=1700000000123000000),
        gaps=(Gap(index=3, lost=2),),
    )
    path = tmp_path / "a.ppk2"
    assert reader.write(path, stream) == 2
    with zipfile.ZipFile(path) as file:
        assert sorted(file.namelist()) == ["metadata.json", "minimap.raw", "session.raw"]
        assert json.loads(file.read("metadata.json")) == METADATA
        session = file.read("session.raw")
        minimap = json.loads(file.read("minimap.raw"))
    lost = sample(0.2, "11111111")
    assert session == sample(1500.25, "11111112") + lost + lost + sample(250.0, "21111121")
    points = [
        {"x": 0, "y": pytest.approx(1_500_250)},
        {"x": 10, "y": pytest.approx(200)},
        {"x": 20, "y": pytest.approx(200)},
        {"x": 30, "y": pytest.approx(250_000)},
    ]
    assert minimap == {
        "lastElementFoldCount": 1,
        "data": {"length": 4, "min": points, "max": points},
        "maxNumberOfElements": 10000,
        "numberOfTimesToFold": 1,
    }


def test_round_trip_is_bit_equal(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    count = 70_000
    microamperes = (10 ** random.uniform(-2, 6, count)).astype("<f4")
    lines = random.integers(0, 256, count).astype(np.uint8)
    pairs = sum(((lines >> line & 1).astype(">u2") + 1) << 2 * line for line in range(8))
    session = np.empty(count, [("current", "<f4"), ("pairs", ">u2")])
    session["current"], session["pairs"] = microamperes, pairs
    first = archive(tmp_path / "first.ppk2", session.tobytes())
    stream = only(first)
    assert np.array_equal(stream.data["digital"], lines)
    second = tmp_path / "second.ppk2"
    assert reader.write(second, stream) == 0
    with zipfile.ZipFile(second) as file:
        assert file.read("session.raw") == session.tobytes()
        assert json.loads(file.read("metadata.json")) == METADATA


def test_minimap_of_a_long_recording_folds_by_powers_of_two(tmp_path: Path) -> None:
    """45,000 samples: 8 to a point, 5625 points, each with the least and the greatest of its own."""
    current_a = 1e-3 + 1e-6 * np.arange(45_000, dtype=np.float64)
    current_a[100] = 1e-9
    path = tmp_path / "a.ppk2"
    reader.write(path, helpers.stream(current_a, np.zeros(45_000, np.uint8), 1e5))
    with zipfile.ZipFile(path) as file:
        minimap = json.loads(file.read("minimap.raw"))
    assert (minimap["numberOfTimesToFold"], minimap["data"]["length"], minimap["lastElementFoldCount"]) == (8, 5625, 8)
    least, greatest = minimap["data"]["min"], minimap["data"]["max"]
    assert len(least) == len(greatest) == 5625
    assert least[0] == {"x": 35.0, "y": pytest.approx(1e6, rel=1e-6)}
    assert greatest[0] == {"x": 35.0, "y": pytest.approx(1.007e6, rel=1e-6)}
    assert least[12]["y"] == 200.0
    assert greatest[5624] == {"x": 449_955.0, "y": pytest.approx(45.999e6, rel=1e-6)}


def test_invalid_samples_are_filled_and_counted(tmp_path: Path) -> None:
    stream = helpers.stream(np.array([1e-3, np.nan, 1e-3]), np.array([1, 1, 1], np.uint8), 1e5)
    path = tmp_path / "a.ppk2"
    assert reader.write(path, stream) == 1
    with zipfile.ZipFile(path) as file:
        assert file.read("session.raw")[6:12] == sample(0.2, "11111111")


def test_a_stream_without_lines_says_so_in_the_file(tmp_path: Path) -> None:
    base = helpers.stream(np.array([1e-3]), np.array([0], np.uint8), 5000.0)
    stream = replace(
        base,
        header=replace(base.header, channels=base.header.channels[:1]),
        data={"current": base.data["current"]},
    )
    path = tmp_path / "a.ppk2"
    reader.write(path, stream)
    with zipfile.ZipFile(path) as file:
        assert file.read("session.raw") == sample(1000.0, "00000000")
        assert json.loads(file.read("metadata.json"))["metadata"] == {"samplesPerSecond": 5000}


def test_nothing_is_overwritten_and_no_current_is_refused(tmp_path: Path) -> None:
    stream = helpers.stream(np.array([1e-3]), np.array([0], np.uint8), 1e5)
    path = tmp_path / "a.ppk2"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        reader.write(path, stream)
    assert path.read_text() == "mine"
    volts = replace(stream, header=replace(stream.header, channels=stream.header.channels[1:]))
    with pytest.raises(UsageError, match="no current"):
        reader.write(tmp_path / "b.ppk2", volts)
    assert not (tmp_path / "b.ppk2").exists()


def test_a_stream_that_breaks_leaves_no_half_file(tmp_path: Path) -> None:
    class Breaking(ArrayStream):
        def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
            yield from super().blocks()
            raise DataError("The recording is damaged.")

    whole = helpers.stream(np.array([1e-3]), np.array([0], np.uint8), 1e5)
    broken = Breaking(name=whole.name, header=whole.header, timebase=whole.timebase, data=whole.data)
    with pytest.raises(DataError, match="damaged"):
        reader.write(tmp_path / "a.ppk2", broken)
    assert not (tmp_path / "a.ppk2").exists()
