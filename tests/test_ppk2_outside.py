"""Held against ppk2-api 0.9.2, which is started as a program of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from ppk2_streams import TRANSCRIPT, header, joined, typical

from joulemeter.instrument import Options
from joulemeter.instruments import ppk2
from joulemeter.instruments.ppk2 import decode, wire
from joulemeter.synthetic import parse_load
from joulemeter.transport.serve import serve_pty

WITNESS = Path(__file__).with_name("ppk2_witness.py")

INCOMPLETE = (
    TRANSCRIPT.replace(b"R1: 101.5865", b"R1: 0").replace(b"GI3: 0.9519\n", b"").replace(b"UG2: 1.0", b"UG2: 1.03")
)

pytestmark = [
    pytest.mark.outside,
    pytest.mark.skipif(importlib.util.find_spec("ppk2_api") is None, reason="ppk2-api is not installed"),
    pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal"),
]


def witness(*arguments: object) -> str:
    command = [sys.executable, str(WITNESS), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("switches_per_s", "metadata"), [
    (160.0, TRANSCRIPT),
    (4000.0, TRANSCRIPT),
    (60_000.0, TRANSCRIPT),
    (4000.0, INCOMPLETE),
], ids=["typical", "stress", "every other sample", "defaults"])  # fmt: skip
def test_every_bit_is_that_of_ppk2_api(tmp_path: Path, switches_per_s: float, metadata: bytes) -> None:
    count, millivolts = 50_000, 3300
    raw = typical(count, seed=11, switches_per_s=switches_per_s)
    (tmp_path / "raw").write_bytes(raw)
    (tmp_path / "meta").write_bytes(metadata)
    witness("decode", tmp_path / "meta", tmp_path / "raw", millivolts, 4093, tmp_path / "out")
    out = (tmp_path / "out").read_bytes()
    theirs_ua, their_lines = np.frombuffer(out, np.float64, count), np.frombuffer(out, np.uint8, count, 8 * count)

    head = header(volts=millivolts / 1000)
    head.parameters["calibration"] = dict(wire.parse_metadata(metadata).calibration.constants)
    for kernel in ["numpy", "numba"] if importlib.util.find_spec("numba") else ["numpy"]:
        decoder = decode.Ppk2Decoder(head, kernel)
        blocks = [block for at in range(0, len(raw), 4001) for block in decoder.feed(raw[at : at + 4001])]
        ours = joined(blocks + decoder.finish())
        # It gives microamperes, by one multiplication at the end.
        assert np.array_equal((ours["current"] * 10**6).view(np.uint64), theirs_ua.view(np.uint64)), kernel
        assert np.array_equal(ours["digital"], their_lines)


def test_ppk2_api_measures_our_simulator() -> None:
    """A whole session on a pty: constants, source mode, regulator, power, stream. The load keeps to one range."""
    load = parse_load("2mA/3ms/d0,1mA/7ms")
    ports: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    def announce(path: str) -> None:
        ports.append(path)
        ready.set()

    device = ppk2.simulate(load, Options())
    server = threading.Thread(target=serve_pty, args=(device, announce, stop.is_set), daemon=True)
    server.start()
    try:
        assert ready.wait(5)
        seen = json.loads(witness("live", ports[0], 1.5))
    finally:
        stop.set()
        server.join(5)
    count = seen["samples"]
    assert count > 50_000
    assert (seen["hardware"], seen["shunt"]) == ("9173", 0.0574)
    # 2.4 codes of 4.3 µA per sample make 0.05 µA in the mean; the codes' own steps are dithered away.
    truth_a = float(load.charge_c(np.array([count / 1e5]))[0]) / (count / 1e5)
    assert seen["mean_a"] == pytest.approx(truth_a, abs=0.3e-6)
    assert seen["d0"] == pytest.approx(0.3, abs=0.01)
