"""What recording does to the inference beside it: latency of a small model with and without a meter, in one run.

    python results/measured/observer.py MODEL.tflite [ROUNDS] > results/measured/observer.md

Each round times the model alone and beside a recording of a PPK2 at 100 kS/s, in turn, and takes the ratio of their
percentiles. The meter is simulated by a process of its own, which shares the cores with the recorder; a real meter
takes that load off the host.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import joulemeter as jm
from joulemeter.workload import cpu_model, tflite

INVOKES = 30_000
PERCENTILES = (50, 90, 99, 99.9)
GOAL = 1.5


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
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            alone.append(percentiles_us(model))
            recording = jm.measure("ppk2", supply="3.0V", simulate=True, output=folder, max_alignment=1e9)
            with recording as m, m.inference():
                beside.append(percentiles_us(model))
            sys.stderr.write(f"{number + 1}/{rounds} {alone[-1].round(1)} {beside[-1].round(1)} us\n")
    ratios = np.array(beside) / np.array(alone)
    about = model.describe()
    met = "met" if np.median(ratios[:, PERCENTILES.index(99)]) <= GOAL else "not met"
    lines = [
        "# The inference beside a recording",
        "",
        f"{path.name} in {about['runtime']} {about['version']}, one thread, {os.cpu_count()} cores of {cpu_model()}; "
        f"{rounds} rounds of {INVOKES} invokes alone and {INVOKES} beside a PPK2 (simulated, 100 kS/s, decoded live in "
        "the recorder's process).",
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
    main()
