"""The published oscilloscope measurement, done again on a simulated bench: 6,356 inferences on a simulated LeCroy.

    python results/measured/reference_deck.py [PULSES] > results/measured/reference_deck.md

R. Zingg and B. Zimmermann, Benchmarking the Intelligent Edge (ZHAW, 2019), print number, mean, least, greatest and
standard deviation of the width of a GPIO pulse around Dense1 on an STM32F4 (results/published/statements.csv). Nothing
of how the widths are distributed is printed; here some fifty are slow, which is the simplest set with those figures.
The currents, 12 mA and 2 mA at 3.0 V, are assumed.
"""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PULSES = 6356
LEAST_S, MEAN_S, MOST_S, STDEV_S = 1.12713143e-3, 1.129063e-3, 1.22685799e-3, 8.750e-6
CYCLE_S = 2.5e-3
ACTIVE_A, IDLE_A, SUPPLY_V = 12e-3, 2e-3, 3.0
SLOW_SHARE = 0.0082
# Far less than the distance of the least from the mean, and other than a whole number of samples.
JITTER_S = 0.31e-6


def widths(count: int) -> NDArray[np.float64]:
    """`count` widths, in seconds, with the published figures to the last digit."""
    slow = max(round(SLOW_SHARE * count), 2)
    plain = count - slow - 1
    jitter = JITTER_S * np.cos(np.arange(plain))
    jitter -= jitter.mean()
    # Plain ones at x, slow ones (but the greatest) at y: the sum and the sum of squares leave one pair.
    total = count * (MEAN_S - MEAN_S) - (LEAST_S - MEAN_S) - (MOST_S - MEAN_S)
    squares = (count - 1) * STDEV_S**2 - (LEAST_S - MEAN_S) ** 2 - (MOST_S - MEAN_S) ** 2 - float(jitter @ jitter)
    n, m = plain, slow - 1
    # n x + m y = total and n x^2 + m y^2 = squares
    a, b, c = m * (m + n) / n, -2 * m * total / n, total**2 / n - squares
    y = (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)
    x = (total - m * y) / n
    found = np.concatenate([[LEAST_S - MEAN_S, MOST_S - MEAN_S], x + jitter, np.full(m, y)]) + MEAN_S
    return np.random.default_rng(2019).permutation(found)


def write_load(path: Path, pulses: NDArray[np.float64]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("duration_s", "current_a", "lines"))
        for width in pulses.tolist():
            table.writerow((repr(width), ACTIVE_A, 1))
            table.writerow((repr(CYCLE_S - width), IDLE_A, 0))


def measure(folder: Path, count: int, *settings: str, windows: int | None = None) -> tuple[dict[str, Any], str]:
    """The result, and what the terminal shows of it."""
    load = folder / "load.csv"
    if not load.is_file():
        write_load(load, widths(count))
    command = [sys.executable, "-m", "joulemeter", "measure", "--meter", "lecroy", "--simulate", "--load", str(load)]
    command += ["--trigger", "c1@1.65V", "--assume-voltage", f"{SUPPLY_V}V", "--inferences-per-window", "1"]
    command += ["--windows", str(windows or count), "--output", str(folder), "--quiet"]
    command += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    newest = max(folder.glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text()), done.stdout


def exact_j(pulses: NDArray[np.float64], ohm: float) -> float:
    """Of the median pulse at the device: the shunt takes its part of the supply."""
    return float(np.median(pulses)) * ACTIVE_A * (SUPPLY_V - ACTIVE_A * ohm)


DECK = ("record=2ms", "peak=20mA", "zero=2mA±1%", "shunt=1ohm±0.5%")


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else PULSES
    pulses = widths(count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many, said = measure(folder, count, *DECK, "rate=10MHz", f"records={count}", "wait=5min")
        one, _ = measure(folder, count, *DECK, "rate=1GHz", "records=1", windows=1)
    sys.stdout.write(text(count, pulses, many, one, said))
    return 0


def text(count: int, pulses: NDArray[np.float64], many: dict[str, Any], one: dict[str, Any], said: str) -> str:
    latency, energy = many["latency_s"], many["energy_per_inference_j"]
    rows = [
        ("num", f"{PULSES}", f"{many['windows']['used']}"),
        ("min", f"{LEAST_S * 1e3:.8f} ms", f"{latency['min'] * 1e3:.6f} ms"),
        ("mean", f"{MEAN_S * 1e3:.6f} ms", f"{latency['mean'] * 1e3:.6f} ms"),
        ("median", "", f"{latency['median'] * 1e3:.6f} ms"),
        ("max", f"{MOST_S * 1e3:.8f} ms", f"{latency['max'] * 1e3:.6f} ms"),
        ("sdev", f"{STDEV_S * 1e6:.3f} us", f"{latency['stdev'] * 1e6:.3f} us"),
    ]
    low, high = energy["ci95_total"]
    truth_j = exact_j(pulses, 1.0)
    lines = ["# The reference deck on a simulated LeCroy", ""]
    lines += [
        f"{count} pulses in one sequence at 10 MS/s, so that an edge is known to 0.1 us; `{' '.join(DECK)}`.",
        "",
        "| | published | measured |",
        "|---|---|---|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += [
        "",
        f"Energy of the median pulse: exact {truth_j * 1e6:.4f} uJ, measured {energy['median'] * 1e6:.4f} uJ, 95 % in "
        f"all {low * 1e6:.4f} to {high * 1e6:.4f} uJ: {'inside' if low <= truth_j <= high else 'OUTSIDE'}.",
        f"Lost in the shunt: {many['loss_per_inference_j']['median'] * 1e9:.2f} nJ per inference.",
        f"Named doubts: {', '.join(caveat['code'] for caveat in many['caveats'])}.",
        "",
        f"One record of 2 ms at 1 GS/s (2 million samples): width {one['latency_s']['median'] * 1e3:.6f} ms, energy "
        f"{one['energy_per_inference_j']['median'] * 1e6:.4f} uJ.",
        "",
        "What the terminal shows:",
        "",
        *(f"    {line}".rstrip() for line in said.splitlines() if not line.startswith("Recording")),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
