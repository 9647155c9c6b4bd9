"""What a benchmark runner printed about its own energy run: the results.txt beside a recording.

Two runners write one: EEMBC's EnergyRunner (windows, energy in uJ, power in uW) and the Python runner of MLCommons
Tiny (trials, power in mW). Numbers keep the units they were printed in, and the printed digits beside the numbers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from joulemeter.readers.files import content

NAMES = ("results.txt", "energy_results.txt")

# (label, unit) as printed -> key
PER_WINDOW = {
    ("Energy", "uJ"): "energy_uj",
    ("Total Energy", "uJ"): "energy_uj",
    ("Power", "uW"): "power_uw",
    ("Power", "mW."): "power_mw",
    ("Energy/Inf.", "uJ/inf."): "uj_per_inf",
    ("Energy/Inf", "uJ/inf"): "uj_per_inf",
    ("# Inferences", ""): "inferences",
    ("Inferences", ""): "inferences",
    ("Runtime", "sec."): "runtime_s",
    ("Elapsed time", ""): "elapsed_s",
    ("Throughput", "inf./sec."): "throughput",
}

_NUMBER = r"(-?\d{1,18}(?:\.\d+)?)"
_HEADING = re.compile(r"(?:Energy data|Performance results) for (?:window|trial) (\d{1,9})\b")
_LINE = re.compile(rf"\s+(\S[^:]*?)\s*:\s*{_NUMBER}\s*(\S*)\s*$")
_MEDIAN = {
    "median_uj_per_inf": re.compile(rf"Median energy cost is {_NUMBER} uJ/inf\."),
    "median_throughput": re.compile(rf"Median throughput is {_NUMBER} inf\./sec\."),
}
_REFUSED = re.compile(r"e-\[(.*)\]")
_STAMP = re.compile(r"^\d+\.\d+ ulp-ml:")


def parse(text: str) -> dict[str, Any] | None:
    """The published numbers in `text`, or None where it has no window.

    windows            one dict per window or trial: `window` (its number) and those of the keys in PER_WINDOW that
                       were printed; `error` where the runner refused the window; `printed` {key: digits}
    median_uj_per_inf  float, or None where not printed
    median_throughput  float, or None where not printed
    printed            {key: digits} of the medians
    """
    windows: dict[int, dict[str, Any]] = {}
    medians: dict[str, str] = {}
    current: dict[str, Any] | None = None
    for raw in text.splitlines():
        line = _STAMP.sub("", raw)
        if heading := _HEADING.search(line):
            number = int(heading[1])
            current = windows.setdefault(number, {"window": number, "printed": {}})
            continue
        for key, pattern in _MEDIAN.items():
            if median := pattern.search(line):
                medians[key] = median[1]
                current = None
        if current is None:
            continue
        if refused := _REFUSED.search(line):
            current["error"] = refused[1]
        elif (found := _LINE.fullmatch(line)) and (found[1], found[3]) in PER_WINDOW:
            key = PER_WINDOW[found[1], found[3]]
            current[key] = int(found[2]) if key == "inferences" and found[2].isdigit() else float(found[2])
            current["printed"][key] = found[2]
    if not windows:
        return None
    return {
        "windows": [windows[number] for number in sorted(windows)],
        **{key: float(medians[key]) if key in medians else None for key in _MEDIAN},
        "printed": medians,
    }


def beside(folder: Path) -> dict[str, Any] | None:
    """The published numbers of the results.txt in `folder`, or None where there is none that can be used."""
    for path in (folder / name for name in NAMES):
        if path.is_file() and (published := parse(content(path).decode("utf-8", errors="replace"))):
            return published
    return None


def inferences_per_window(published: dict[str, Any] | None) -> int | None:
    """The number of inferences that every window states alike, else None."""
    stated = {window.get("inferences") for window in published["windows"]} if published else set()
    return stated.pop() or None if len(stated) == 1 else None
