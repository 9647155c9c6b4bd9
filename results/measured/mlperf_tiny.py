"""python results/measured/mlperf_tiny.py FOLDER: published MLPerf Tiny energy, recomputed, as a Markdown table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from joulemeter.errors import JouleMeterError
from joulemeter.loading import opened
from joulemeter.physics.analyze import Analysis, Request, analyze

HEADING = """\
# MLPerf Tiny energy runs, recomputed

Made by `python results/measured/mlperf_tiny.py FOLDER`. Energy per inference in uJ: the published median, ours with
`--convention eembc` (the publisher's own rule) and with `--convention native` (border samples shared). "digits" counts
the published figures (energy, power and energy per inference of each window, and the medians) that come out the same to
the last printed digit. "native off" is the largest deviation of a window's energy from the published one.

| run | windows | published | eembc | digits | native | native off |
|---|---|---|---|---|---|---|"""


def digits(value: float, like: str) -> bool:
    """Whether `value` prints as the published text."""
    return f"{value:.{len(like.partition('.')[2])}f}" == like


def compare(analysis: Analysis, published: dict[str, Any]) -> tuple[int, int]:
    """How many published figures agree, and how many there are."""
    checks = []
    for ours, theirs in zip(analysis.windows, published["windows"], strict=True):
        energy_uj = (ours.energy_j or float("nan")) * 1e6
        power_w = ours.mean_power_w or float("nan")
        figures = {
            "energy_uj": energy_uj,
            "uj_per_inf": energy_uj / ours.window.inferences,
            "power_uw": power_w * 1e6,
            "power_mw": power_w * 1e3,
        }
        checks += [digits(figures[key], text) for key, text in theirs["printed"].items() if key in figures]
    result = analysis.result
    medians = {
        "median_uj_per_inf": (result.energy_per_inference_j.median or float("nan")) * 1e6,
        "median_throughput": 1 / (result.latency_s.median or float("nan")),
    }
    checks += [digits(medians[key], text) for key, text in published["printed"].items() if key in medians]
    return sum(checks), len(checks)


def row(folder: Path) -> tuple[str, int, int]:
    with opened(folder) as recording:
        published = recording.meta["published"]
        eembc = analyze(recording, Request(convention="eembc"))
        native = analyze(recording, Request())
    agree, count = compare(eembc, published)
    off = max(
        abs((ours.energy_j or 0.0) / (theirs.energy_j or 1.0) - 1)
        for ours, theirs in zip(native.windows, eembc.windows, strict=True)
    )
    medians = [(a.result.energy_per_inference_j.median or float("nan")) * 1e6 for a in (eembc, native)]
    text = (
        f"| {folder.name} | {len(published['windows'])} | {published['printed']['median_uj_per_inf']} | "
        f"{medians[0]:.3f} | {agree}/{count} | {medians[1]:.3f} | {off:.1e} |"
    )
    return text, agree, count


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    rows, agree, count, runs = [], 0, 0, 0
    for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
        try:
            text, same, of = row(folder)
        except JouleMeterError as error:
            sys.stderr.write(f"{folder.name}: {error}\n")
            return error.exit_code
        rows.append(text)
        agree, count, runs = agree + same, count + of, runs + 1
        sys.stderr.write(f"\r{runs} runs")
    sys.stderr.write("\n")
    sys.stdout.write("\n".join([HEADING, *rows, "", f"{runs} runs: {agree} of {count} published figures agree.", ""]))
    return 0 if agree == count else 1


if __name__ == "__main__":
    sys.exit(main())
