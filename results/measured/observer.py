"""What recording does to the inference beside it: latency of a small model with and without a meter, in one run.

    python results/measured/observer.py MODEL.tflite [ROUNDS] > results/measured/observer.md

Each round times the model alone and beside a recording of a PPK2 at 100 kS/s, in turn, and takes the ratio of their
percentiles. The meter is a recording of the simulated one, played back by a process that only writes bytes: computing
them live would load the host as no real meter does.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
import tty
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import joulemeter as jm
from joulemeter import registry
from joulemeter.instrument import Options
from joulemeter.synthetic import parse_load
from joulemeter.workload import cpu_model, tflite

INVOKES = 30_000
PERCENTILES = (50, 90, 99, 99.9)
GOAL = 1.5
RATE = 400_000  # bytes per second
TICK_S = 0.01
# Played again and again: a whole number of turns of the words' 6-bit counter.
LOOP_BYTES = RATE * 64 // 25


def play() -> None:
    """A PPK2 on a pseudo-terminal, until stdin closes."""
    device: Any = registry.instrument("ppk2").simulate(parse_load("8mA/20ms/d0,250uA/80ms"), Options())
    host, port = os.openpty()
    tty.setraw(host)
    tty.setraw(port)
    os.set_blocking(host, False)
    sys.stdout.write(os.ttyname(port) + "\n")
    sys.stdout.flush()
    loop, started, sent, outbox = b"", 0.0, 0, b""
    while True:
        readable, _, _ = select.select([host, 0], [host] if outbox else [], [], TICK_S)
        if 0 in readable:
            return
        if host in readable:
            device.receive(os.read(host, 4096))
            outbox += b"" if device._streaming else device.transmit(0.0)
            if device._streaming and not loop:
                loop = device.transmit(device._now_s + LOOP_BYTES / RATE)[:LOOP_BYTES]
                started, sent = time.monotonic(), 0
            elif not device._streaming:
                loop = b""
        if loop and not outbox:
            due = int((time.monotonic() - started) * RATE) // 4 * 4
            while sent < due:
                at = sent % LOOP_BYTES
                piece = loop[at : at + due - sent]
                outbox += piece
                sent += len(piece)
        if outbox:
            try:
                outbox = outbox[os.write(host, outbox) :]
            except BlockingIOError:
                continue


def percentiles_us(model: tflite.Tflite) -> NDArray[np.float64]:
    model.warm_up(2000)
    stamps = model.run(INVOKES)
    taken: NDArray[np.float64] = np.percentile((stamps.end_ns - stamps.begin_ns) * 1e-3, PERCENTILES)
    return taken


def main() -> None:
    path, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 15
    model = tflite.create(str(path), {})
    model.warm_up(5000)
    alone, beside = [], []
    player = subprocess.Popen([sys.executable, __file__, "--play"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    port = player.stdout.readline().decode().strip() if player.stdout else ""
    with tempfile.TemporaryDirectory() as folder, player:
        for number in range(rounds):
            alone.append(percentiles_us(model))
            recording = jm.measure(f"ppk2@{port}", supply="3.0V", output=folder, max_alignment=1e9)
            with recording as m, m.inference():
                beside.append(percentiles_us(model))
            if any(gap.lost for gap in jm.load(m.folder or folder).recording.streams[0].gaps):
                sys.exit("samples were lost, so this was no recording")
            sys.stderr.write(f"{number + 1}/{rounds} {alone[-1].round(1)} {beside[-1].round(1)} us\n")
        if player.stdin is not None:
            player.stdin.close()
    ratios = np.array(beside) / np.array(alone)
    about = model.describe()
    met = "met" if np.median(ratios[:, PERCENTILES.index(99)]) <= GOAL else "not met"
    lines = [
        "# The inference beside a recording",
        "",
        f"{path.name} in {about['runtime']} {about['version']}, one thread, {os.cpu_count()} cores of {cpu_model()}; "
        f"{rounds} rounds of {INVOKES} invokes alone and {INVOKES} beside a PPK2 (played back, 100 kS/s, decoded live "
        "in the recorder's process, no sample lost).",
        "",
        "| percentile | alone, us | recording, us | ratio, median of rounds (min to max) |",
        "|---|---|---|---|",
        *(
            f"| {percentile:g} | {np.median(alone, axis=0)[k]:.1f} | {np.median(beside, axis=0)[k]:.1f} | "
            f"{np.median(ratios[:, k]):.2f} ({ratios[:, k].min():.2f} to {ratios[:, k].max():.2f}) |"
            for k, percentile in enumerate(PERCENTILES)
        ),
        "",
        f"Goal: a ratio of at most {GOAL:g} at the 99th percentile: {met}.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    play() if sys.argv[1] == "--play" else main()
