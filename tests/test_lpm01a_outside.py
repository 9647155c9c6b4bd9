"""The simulator held against MLCommons' own client for this meter, which is started as a program of its own.

Its source is not on any package index: JOULEMETER_MLCOMMONS_TINY names a copy of the repository mlcommons/tiny.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from joulemeter.instrument import Options
from joulemeter.instruments import lpm01a
from joulemeter.synthetic import parse_load
from joulemeter.transport.serve import serve_pty

WITNESS = Path(__file__).with_name("lpm01a_witness.py")
CHECKOUT = Path(os.environ.get("JOULEMETER_MLCOMMONS_TINY", "/nonexistent"))

pytestmark = [
    pytest.mark.outside,
    pytest.mark.skipif(
        not (CHECKOUT / "benchmark/runner/power_manager/power_manager_lpm.py").is_file(),
        reason="JOULEMETER_MLCOMMONS_TINY names no copy of mlcommons/tiny",
    ),
    pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal"),
]


def test_the_runner_of_mlcommons_reads_energy_and_stamps_from_the_simulator() -> None:
    load = parse_load("8mA/100ms/d0,2mA/400ms")
    ports: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    def announce(path: str) -> None:
        ports.append(path)
        ready.set()

    device = lpm01a.simulate(load, Options())
    server = threading.Thread(target=serve_pty, args=(device, announce, stop.is_set), daemon=True)
    server.start()
    assert ready.wait(5)
    try:
        done = subprocess.run(
            [sys.executable, str(WITNESS), str(CHECKOUT), ports[0], "2.5"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        stop.set()
        server.join(5)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["powered"], found["started"], found["version"]) == (True, True, "1.0.6")
    assert found["samples"] > 2000
    # 3 V: 24 mJ a second while high, 6 mJ a second else; a whole number of cycles but for the last.
    count = found["samples"]
    truth_j = 3.0 * load.mean_current_a(0, count, 1000).sum() / 1000
    assert found["joules"] == pytest.approx(truth_j, rel=1e-3)
    assert found["stamps"][0] == "TimeStamp: 000s 000ms, buff 00%"
    assert found["unread"] == []
    # D7 falls at 0.1 s, 0.6 s, ...: so many samples had come by then.
    assert found["events"][:4] == [["00", 100], ["01", 600], ["02", 1100], ["03", 1600]]
