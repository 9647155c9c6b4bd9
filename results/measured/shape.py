"""python results/measured/shape.py FOLDER: windows found from power alone, beside the stamps, as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import ArrayStream, Channel, Header, Kind, Quantity, Stream, Timebase
from joulemeter.errors import DataError
from joulemeter.loading import opened
from joulemeter.physics.align import align
from joulemeter.physics.integrate import integrate
from joulemeter.physics.shape import LEAST_CONFIDENCE, Shape, find
from joulemeter.trigger import parse_trigger
from joulemeter.window import Window

EDGE_S = 0.05
POWER = 0.005
BINS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)

HEADING = f"""\
# Windows from the shape of the power alone

Made by `python results/measured/shape.py FOLDER`. The trigger `shape` sees the power and nothing else; the stamps of
the recordings only judge it. A run is right when all its windows are found, each start within {EDGE_S * 1e3:.0f} ms of
the warm-up's start, each stop within {EDGE_S * 1e3:.0f} ms of its stamp, and the mean power of each window within
{POWER:.1%} of that between the stamps. The warm-up's start is taken as the start stamp less one inference (window over
iterations): the runs have one warm-up, the power shows it, and the stamp comes after it. The pause of about 36 ms
between warm-up and stamp (stamp pulse and text) is not counted. A warm-up shorter than that pause mostly stays outside
the window, which is as good.

The method was developed on every second run by name ("dev") and then tried once on the others ("held out"). Afterwards
two rules were mended for made-up recordings (short pieces at a step; pulses that beat with a coarse look); no verdict
changed here.
Windows with a confidence below {LEAST_CONFIDENCE} are refused. Errors are the largest of a run, in ms, with sign.

| half | run | rule | windows | confidence | start off ms | stop off ms | power off | verdict |
|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One recording tried: what was found (None: nothing), and why it is not right (empty: it is)."""

    confidence: float
    why: str
    cells: str = ""


def largest(values: NDArray[np.float64]) -> float:
    return float(values[np.argmax(np.abs(values))])


def judged(stream: Stream, shape: Shape, truth: list[tuple[Window, float]]) -> tuple[str, str]:
    """Cells of the table, and the reason why it is wrong; empty where it is right."""
    if len(shape.spans) != len(truth):
        first = shape.spans[0][0] * 1e-9
        return (
            f"{len(shape.spans)} | {shape.confidence:.2f} | | |",
            f"{len(shape.spans)} windows, first at {first:.2f} s",
        )
    windows = [Window(start_ns=a, stop_ns=b, index=k) for k, (a, b) in enumerate(shape.spans)]
    powers = np.array([one.mean_power_w or np.nan for one in integrate(stream, windows)])
    true = [window for window, _ in truth]
    start = np.array([(a.start_ns - b.start_ns) * 1e-9 + b.latency_s for a, b in zip(windows, true, strict=True)])
    stop = np.array([(a.stop_ns - b.stop_ns) * 1e-9 for a, b in zip(windows, true, strict=True)])
    power = powers / np.array([watts for _, watts in truth]) - 1
    reasons = [
        name
        for name, values, limit in (("start", start, EDGE_S), ("stop", stop, EDGE_S), ("power", power, POWER))
        if not np.abs(values).max() <= limit
    ]
    cells = (
        f"{len(windows)} | {shape.confidence:.2f} | {largest(start) * 1e3:+.1f} | {largest(stop) * 1e3:+.1f} | "
        f"{largest(power):+.2%}"
    )
    if abs(largest(start)) > 1.0:
        return cells, "took what lies between the windows for them"
    return cells, ", ".join(f"{reason} off" for reason in reasons)


def recorded(folder: Path) -> Trial:
    with opened(folder) as recording:
        stream = recording.streams[0]
        count = recording.meta["inferences_per_window"]
        alignment = align(recording, stream, parse_trigger(recording.trigger or ""), inferences_per_window=count)
        truth = [(one.window, one.mean_power_w or np.nan) for one in integrate(stream, alignment.windows)]
        try:
            shape = find(stream)
        except DataError:
            return Trial(confidence=0.0, why="nothing found", cells="| | 0.00 | | |")
        cells, why = judged(stream, shape, truth)
    return Trial(confidence=shape.confidence, why=why, cells=f"{shape.kind} | {cells}")


# -- made-up recordings, for the confidence ---------------------------------------------------------------------------


def made(rng: np.random.Generator) -> tuple[ArrayStream, list[tuple[float, float]]]:
    """A recording at random and its windows: pulses up or down on noise, drift, ripple or jitter, or none at all."""
    rate_hz, count = 1000.0, int(rng.integers(2, 30))
    lead, width, gap = rng.uniform(0.2, 2.0), rng.uniform(0.1, 2.0), rng.uniform(0.1, 2.0)
    jitter = rng.choice([0.0, 0.02, 0.1])
    widths = width * (1 + jitter * rng.standard_normal(count).clip(-2, 2))
    gaps = gap * (1 + rng.choice([0.0, 0.05, 0.3]) * rng.standard_normal(count).clip(-2, 2))
    starts = lead + np.concatenate([[0.0], np.cumsum(widths + gaps)[:-1]])
    total = starts[-1] + widths[-1] + gaps[-1]
    borders = np.arange(round(total * rate_hz) + 1) / rate_hz
    low = 0.01
    step = low * rng.choice([0.2, 1.0, 5.0]) * rng.choice([1.0, 1.0, 1.0, -0.15])
    energy = low * borders
    kind = rng.choice(["pulses", "pulses", "pulses", "noise", "walk", "sine"])
    windows: list[tuple[float, float]] = []
    if kind == "pulses":
        for start, wide in zip(starts, widths, strict=True):
            energy = energy + step * np.clip(borders - start, 0, wide)
        windows = list(zip(starts.tolist(), (starts + widths).tolist(), strict=True))
    power = np.diff(energy) * rate_hz
    seconds = borders[1:]
    scale = abs(step)
    if kind == "walk":
        power = power + 0.01 * scale * np.cumsum(rng.standard_normal(len(power)))
    if kind == "sine":
        power = power + scale * np.sin(2 * np.pi * seconds / (width + gap))
    power = power + scale * rng.choice([0.01, 0.1, 0.5]) * rng.standard_normal(len(power))
    power = power + scale * rng.choice([0.0, 0.3, 2.0]) * seconds / total
    channel = Channel(name="power", quantity=Quantity.POWER, unit="W", kind=Kind.MEAN)
    header = Header(instrument="made", model="made", wire="made/1", rate_hz=rate_hz, word_bytes=4, channels=(channel,))
    return ArrayStream(name="made", header=header, timebase=Timebase(rate_hz=rate_hz), data={"power": power}), windows


def invented(rng: np.random.Generator) -> Trial:
    stream, windows = made(rng)
    try:
        shape = find(stream)
    except DataError:
        return Trial(confidence=0.0, why="" if not windows else "missed")
    if len(shape.spans) != len(windows):
        return Trial(confidence=shape.confidence, why="other windows")
    off = np.abs(np.array(shape.spans) * 1e-9 - np.array(windows)).max(axis=1)
    wide = np.diff(np.array(windows), axis=1)[:, 0]
    return Trial(confidence=shape.confidence, why="" if (off < 0.05 * wide).all() else "edges")


def calibration(trials: list[Trial]) -> Iterator[str]:
    for low, high in pairwise(BINS):
        inside = [trial for trial in trials if low <= trial.confidence < high or trial.confidence == high == 1.0]
        right = sum(not trial.why for trial in inside)
        yield f"| {low:.1f} to {high:.1f} | {len(inside)} | {right} | " + (
            f"{right / len(inside):.0%} |" if inside else "|"
        )


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    trials: dict[str, list[Trial]] = {"dev": [], "held out": []}
    lines = [HEADING]
    for number, folder in enumerate(folders):
        half = ("dev", "held out")[number % 2]
        trial = recorded(folder)
        trials[half].append(trial)
        refused = trial.confidence < LEAST_CONFIDENCE
        verdict = ("refused; " if refused else "") + (trial.why or "right")
        lines.append(f"| {half} | {folder.name} | {trial.cells} | {verdict} |")
        sys.stderr.write(f"\r{number + 1} runs")
    lines += [
        "",
        "| half | runs | right | right and not refused | wrong and not refused | wrong above 0.9 |",
        "|---|---|---|---|---|---|",
    ]
    for name, some in (*trials.items(), ("all", [*trials["dev"], *trials["held out"]])):
        kept = [trial for trial in some if trial.confidence >= LEAST_CONFIDENCE]
        right, good = sum(not trial.why for trial in some), sum(not trial.why for trial in kept)
        high = sum(bool(trial.why) for trial in kept if trial.confidence > 0.9)
        share = f"{good} ({good / len(some):.0%})"
        lines.append(f"| {name} | {len(some)} | {right} | {share} | {len(kept) - good} | {high} |")
    rng = np.random.default_rng(20)
    synthetic = [invented(rng) for _ in range(600)]
    lines += ["", "## What the confidence is worth", "", "The runs above:", ""]
    head = ["| confidence | recordings | right | share |", "|---|---|---|---|"]
    lines += [*head, *calibration([*trials["dev"], *trials["held out"]])]
    lines += [
        "",
        "600 made-up recordings (pulses up and down, of 2 to 30 windows, with noise, drift and jitter; noise, random",
        "walks and sines without any window). Right: all windows, each edge within 5 % of the window, or nothing where",
        "there is nothing. Below 0.3 nothing is reported; those stand in the first row.",
        "",
        *head,
        *calibration(synthetic),
        "",
    ]
    sys.stderr.write("\n")
    sys.stdout.write("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
