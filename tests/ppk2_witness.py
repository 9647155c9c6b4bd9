"""A program of its own around ppk2-api 0.9.2 (GPL-2.0), which tests start and compare with. Not imported by anything.

decode META RAW MILLIVOLTS CHUNK OUT    decode RAW in chunks; OUT gets float64 µA, then one byte of lines per sample
time META RAW MILLIVOLTS CHUNK...       print seconds per chunk size: median of three runs over RAW
live PORT SECONDS                       a session with a meter; prints JSON
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
import tty
from pathlib import Path
from typing import Any

import ppk2_api.ppk2_api as ppk2  # type: ignore[import-untyped]


def calibrated(metadata: bytes, millivolts: int) -> Any:
    """A client that has asked for its constants and was answered `metadata`."""
    host, port = os.openpty()
    tty.setraw(host)
    tty.setraw(port)

    def answer() -> None:
        while b"\x19" not in os.read(host, 64):
            pass
        os.write(host, metadata)

    threading.Thread(target=answer, daemon=True).start()
    client = ppk2.PPK2_API(os.ttyname(port))
    client.get_modifiers()
    client.current_vdd = millivolts
    return client


def fed(client: Any, raw: bytes, chunk: int) -> tuple[list[float], list[int]]:
    # Its filter is not reset by anything else.
    client.rolling_avg = client.rolling_avg4 = client.prev_range = None
    client.consecutive_range_samples = client.after_spike = 0
    current: list[float] = []
    lines: list[int] = []
    for start in range(0, len(raw), chunk):
        samples, digital = client.get_samples(raw[start : start + chunk])
        current += samples
        lines += digital
    return current, lines


def decode(metadata: str, raw: str, millivolts: str, chunk: str, out: str) -> None:
    import numpy as np

    client = calibrated(Path(metadata).read_bytes(), int(millivolts))
    current, lines = fed(client, Path(raw).read_bytes(), int(chunk))
    Path(out).write_bytes(np.array(current, np.float64).tobytes() + np.array(lines, np.uint8).tobytes())


def time_(metadata: str, raw: str, millivolts: str, *chunks: str) -> None:
    client = calibrated(Path(metadata).read_bytes(), int(millivolts))
    data = Path(raw).read_bytes()
    taken = {}
    for chunk in map(int, chunks):
        runs = []
        for _ in range(3):
            start = time.perf_counter()
            fed(client, data, chunk)
            runs.append(time.perf_counter() - start)
        taken[chunk] = statistics.median(runs)
    print(json.dumps(taken))


def live(port: str, seconds: str) -> None:
    client = ppk2.PPK2_API(port)
    client.get_modifiers()
    client.use_source_meter()
    client.set_source_voltage(3000)
    client.toggle_DUT_power("ON")
    client.start_measuring()
    current: list[float] = []
    lines: list[int] = []
    deadline = time.monotonic() + float(seconds)
    while time.monotonic() < deadline:
        if data := client.get_data():
            samples, digital = client.get_samples(data)
            current += samples
            lines += digital
        time.sleep(0.005)
    client.stop_measuring()
    client.toggle_DUT_power("OFF")
    print(
        json.dumps(
            {
                "samples": len(current),
                "mean_a": statistics.fmean(current) * 1e-6,
                "d0": statistics.fmean(state & 1 for state in lines),
                "hardware": client.modifiers["HW"],
                "shunt": client.modifiers["R"]["4"],
            }
        )
    )


if __name__ == "__main__":
    action: Any = {"decode": decode, "time": time_, "live": live}[sys.argv[1]]
    action(*sys.argv[2:])
    sys.stdout.flush()
    os._exit(0)
