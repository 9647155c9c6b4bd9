"""A run directory survives being cut off anywhere, and opens as what it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from joulemeter import api, store
from joulemeter.capture import Header, Quantity, Stream
from joulemeter.caveat import Code
from joulemeter.errors import AccessError, DataError, IncompleteError, UsageError
from joulemeter.instrument import Options
from joulemeter.loading import opened
from joulemeter.physics.analyze import analyze
from joulemeter.physics.calibration import Calibration, Correction, constants_of
from joulemeter.recorder import CHECKPOINT_SAMPLES
from joulemeter.registry import instrument
from joulemeter.synthetic import parse_load
from joulemeter.transport.faults import FaultyDevice, parse_faults

LOAD = "8mA/20ms/d0,250uA/30ms"


def write_run(folder: Path, seconds: float, *, faults: str = "", anchor_every_s: float = 0.05) -> Path:
    """A run as the recorder writes it, but straight from a simulated device, without a clock to wait for."""
    module = instrument("ppk2")
    device = FaultyDevice(module.simulate(parse_load(LOAD), Options()), parse_faults(faults))
    run = store.create_run(folder, "made", {"trigger": "d0", "inferences_per_window": 1})
    from joulemeter.testing.contract import Subject

    # A real driver makes the header; the samples then come from a device of our own.
    with Subject(module=module).streaming() as (_, header):
        pass
    device.receive(bytes([0x11, 2, 0x0D, 3000 >> 8, 3000 & 255, 0x0C, 1, 0x06]))
    writer = store.StreamWriter(run / "ppk2", header)
    decoder = module.decoder(header)
    checkpoint = 0
    for step in range(1, round(seconds / anchor_every_s) + 1):
        at_s = step * anchor_every_s
        raw = device.transmit(at_s)
        writer.append(raw)
        for block in decoder.feed(raw):
            if block.lost_before:
                begins = block.consumed - len(block) * header.word_bytes
                writer.mark("gap", index=block.first_index, lost=block.lost_before, bytes=begins)
            if block.first_index + len(block) - checkpoint >= CHECKPOINT_SAMPLES // 8:
                checkpoint = block.first_index + len(block)
        writer.mark("anchor", bytes=writer.bytes, monotonic_ns=round(at_s * 1e9), utc_ns=round(at_s * 1e9) + 10**18)
        if checkpoint:
            writer.mark("checkpoint", bytes=writer.bytes, index=_next_index(decoder, run), state=decoder.state())
            checkpoint = 0
    writer.mark("end", reason="stop", bytes=writer.bytes)
    writer.close()
    return run


def _next_index(decoder: object, run: Path) -> int:
    """Index after the last whole sample that the bytes so far make, by decoding them afresh."""
    header = store.RunStream(run / "ppk2").header
    fresh = instrument("ppk2").decoder(header)
    blocks = fresh.feed((run / "ppk2" / store.WORDS).read_bytes())
    return blocks[-1].first_index + len(blocks[-1])


def samples(stream: Stream, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([block.data[name] for block in stream.blocks()])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs"), 2.0)


def test_a_run_opens_as_it_was_written(run: Path) -> None:
    recording = store.open_run(run)
    (stream,) = recording.streams
    assert stream.length == pytest.approx(200_000, abs=4)
    assert stream.gaps == ()
    assert recording.caveats == ()
    result = analyze(recording).result
    assert result.windows.used == 39
    assert result.energy_per_inference_j.median == pytest.approx(480e-6, rel=3e-3)
    assert result.simulated


def test_every_truncation_opens_and_invents_nothing(run: Path, tmp_path: Path) -> None:
    whole = samples(store.open_run(run).streams[0], "current")
    random = np.random.default_rng(1)
    for k in range(60):
        cut = tmp_path / f"cut{k}"
        shutil.copytree(run, cut)
        for name in (store.WORDS, store.MARKS):
            path = cut / "ppk2" / name
            os.truncate(path, int(random.integers(0, path.stat().st_size + 1)))
        kept = (cut / "ppk2" / store.WORDS).stat().st_size // 4
        recording = store.open_run(cut)
        stream = recording.streams[0]
        # A few words may be held back where the decoder looks ahead; none may come from nowhere.
        assert kept - 64 <= stream.length <= kept
        if stream.length:
            found = samples(stream, "current")
            np.testing.assert_array_equal(found, whole[: len(found)])
        assert Code.UNFINISHED in {caveat.code for caveat in recording.caveats} or kept == len(whole)
        shutil.rmtree(cut)


def test_reading_may_begin_anywhere(run: Path) -> None:
    stream = store.open_run(run).streams[0]
    whole = samples(stream, "current")
    for start, stop in ((0, 10), (123_456, 123_999), (199_000, 200_000), (65_536, 131_072)):
        got = api.load(run).signal("current", start / 1e5, stop / 1e5)
        np.testing.assert_array_equal(got, whole[start : min(stop, len(whole))])


def test_long_holes_are_sized_by_the_clock(tmp_path: Path) -> None:
    # 20,000 samples are 312 turns of the sample counter and 32 more.
    run = write_run(tmp_path, 3.0, faults="drop@1s:80000", anchor_every_s=0.01)
    stream = store.open_run(run).streams[0]
    assert [(gap.lost, gap.doubt) for gap in stream.gaps] == [(20_000, 0)]
    assert stream.length == pytest.approx(300_000, abs=4)
    signal_a = api.load(run).signal("current")
    assert np.isnan(signal_a).sum() == 20_000
    # Pulses after the hole are where the load says they are.
    digital = stream.header.channel(Quantity.DIGITAL)
    assert digital is not None
    high = [
        (block.first_index + np.flatnonzero(np.diff((block.data["digital"] & 1).astype(np.int8)) == 1) + 1) / 1e5
        for block in stream.blocks()
    ]
    rises = np.concatenate(high)
    assert np.abs((rises + 0.025) % 0.05 - 0.025).max() < 2e-5


@pytest.mark.parametrize("damage", ["run.json", "ppk2/header.json"])
def test_damaged_headers_are_told(run: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / damage).write_text('{"schema": ')
    with pytest.raises(DataError, match="damaged"):
        store.open_run(copy)


def test_a_zip_of_a_run_gives_the_same_result(run: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "run"), "zip", run.parent, run.name)
    with opened(Path(archive)) as zipped, opened(run) as plain:
        assert analyze(zipped).result == analyze(plain).result


def test_a_hostile_zip_stays_inside(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("run.json", "{}")
        archive.writestr("../outside.txt", "x")
    with pytest.raises(DataError, match="land outside"), opened(path):
        pass
    assert not (tmp_path.parent / "outside.txt").exists()


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        store.open_run(tmp_path)
    with pytest.raises(UsageError, match="not a recording"), opened(tmp_path):
        pass


def test_names_are_made_safe_and_never_collide(tmp_path: Path) -> None:
    names = {store.create_run(tmp_path, "../../a b/ü", {}).name for _ in range(3)}
    assert len(names) == 3
    assert all(".." not in name and "/" not in name for name in names)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AccessError, match="cannot be written"):
        store.create_run(tmp_path / "file", "x", {})


def killed_run(folder: Path) -> tuple[Path, int]:
    """A run of the real recorder on a paced simulator, killed without warning, and when."""
    from joulemeter.simulation import SimulatedMeter

    run = store.create_run(folder, "killed", {"trigger": "d0", "inferences_per_window": 1})
    with SimulatedMeter("ppk2", load=LOAD) as meter:
        task = {
            "key": "ppk2",
            "address": meter.address,
            "options": {"supply_v": 3.0, "declared_v": None, "settings": {}},
            "folder": str(run / "ppk2"),
            "trigger": "d0",
        }
        recorder = subprocess.Popen(
            [sys.executable, "-P", "-m", "joulemeter.recorder"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert recorder.stdin is not None
        assert recorder.stdout is not None
        recorder.stdin.write(json.dumps(task).encode() + b"\n")
        recorder.stdin.flush()
        words = run / "ppk2" / store.WORDS
        deadline = time.monotonic() + 30
        while not words.is_file() or words.stat().st_size < 600_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        killed_ns = time.monotonic_ns()
        recorder.send_signal(signal.SIGKILL)
        recorder.wait()
        recorder.stdin.close()
        recorder.stdout.close()
    return run, killed_ns


def test_kill_minus_nine_loses_at_most_a_tenth_of_a_second(tmp_path: Path) -> None:
    """The recorder keeps nothing back; a machine that gives it no time at all may need another try."""
    lost_s = []
    for attempt in range(3):
        run, killed_ns = killed_run(tmp_path / str(attempt))
        recording = store.open_run(run)
        stream = recording.streams[0]
        assert Code.UNFINISHED in {caveat.code for caveat in recording.caveats}
        assert analyze(recording).result.windows.used >= 20
        assert stream.timebase.monotonic_ns is not None
        lost_s.append((killed_ns - stream.timebase.monotonic_ns) / 1e9 - stream.length / 1e5)
        if lost_s[-1] <= 0.1:
            return
    pytest.fail(f"lost {lost_s} seconds")


def test_a_result_that_cannot_be_written_leaves_no_half(run: Path, tmp_path: Path) -> None:
    analysis = analyze(store.open_run(run))
    with pytest.raises(IncompleteError, match="could not be written"):
        store.write_result(tmp_path / "absent", analysis.result, analysis.windows)
    (tmp_path / "result.json").mkdir()
    with pytest.raises(IncompleteError, match="could not be written"):
        store.write_result(tmp_path, analysis.result, analysis.windows)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def calibration(header: Header, **changes: object) -> Calibration:
    """Of a simulated PPK2 that reads 5 % too much in range 3, where the pulses lie."""
    made = Calibration(
        instrument="ppk2",
        model="PPK2",
        serial="simulator",
        created="2026-11-20T12:00:00",
        reference="a resistor",
        simulated=True,
        corrections=(Correction(channel="current", range=3, gain=1.05, u_gain=0.003, offset=0.0, u_offset=1e-6),),
        points=(),
        constants=constants_of(header),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_calibration_kept_with_the_run_corrects_it(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    plain = analyze(store.open_run(copy)).result
    store.write_json(copy / "ppk2" / store.CALIBRATION, calibration(store.read_header(copy / "ppk2")))
    better = analyze(store.open_run(copy)).result
    before, after = plain.energy_per_inference_j, better.energy_per_inference_j
    assert after.median == pytest.approx((before.median or 0) / 1.05, rel=1e-3)
    gain = {term.term: term.value for term in better.uncertainty}["gain"]
    assert gain == pytest.approx(0.003, rel=0.05)
    assert (after.expanded_k2 or 0) < 0.3 * (before.expanded_k2 or 0)
    assert Code.CALIBRATED in {caveat.code for caveat in better.caveats}
    (copy / "ppk2" / store.CALIBRATION).write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        store.open_run(copy)


def test_a_calibration_that_no_longer_fits_is_not_used_and_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from joulemeter import calibrations, conduct

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    stale = calibration(store.read_header(copy / "ppk2"), constants={"calibration": {"R": [1.0]}})
    monkeypatch.setattr(calibrations, "find", lambda header: stale)
    conduct._copy_calibration(copy / "ppk2")
    assert not (copy / "ppk2" / store.CALIBRATION).exists()
    result = analyze(store.open_run(copy)).result
    told = [caveat.text for caveat in result.caveats if caveat.code is Code.CALIBRATED]
    assert "have changed since" in told[0]


def test_stamps_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match=r"Stamps could not be written.*--output"):
        store.append_events(tmp_path / "absent", [])
