"""What marking an inference costs, beside Zeus and pyJoules in one process, as a Markdown table.

    pip install zeus pyJoules
    python results/measured/marker_cost.py > results/measured/marker_cost.md

No energy is read by any of them, so what is left is the marking itself. They take turns in every round, each round in
another order; a round's figure is the time of many pairs divided by their number, less that of the empty loop.
"""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import os
import platform
import random
import sys
import tempfile
import textwrap
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import repeat
from pathlib import Path
from time import monotonic_ns

import numpy as np

import joulemeter as jm
from joulemeter.markers import CAPACITY, Marks
from joulemeter.workload import cpu_governor, cpu_model

ROUNDS = 50
PAIRS = 20_000
MANY = 1_000_000
GOAL_NS = 500

# Runs that many pairs; what it takes is their time in nanoseconds.
Timed = Callable[[int], int]


def nothing(pairs: int) -> int:
    started = monotonic_ns()
    for _ in repeat(None, pairs):
        pass
    return monotonic_ns() - started


def called(begin: Callable[[], object], end: Callable[[], object]) -> Timed:
    def timed(pairs: int) -> int:
        started = monotonic_ns()
        for _ in repeat(None, pairs):
            begin()
            end()
        return monotonic_ns() - started

    return timed


def named(begin: Callable[[str], object], end: Callable[[str], object]) -> Timed:
    def timed(pairs: int) -> int:
        started = monotonic_ns()
        for _ in repeat(None, pairs):
            begin("inference")
            end("inference")
        return monotonic_ns() - started

    return timed


def entered(mark: AbstractContextManager[object]) -> Timed:
    def timed(pairs: int) -> int:
        started = monotonic_ns()
        for _ in repeat(None, pairs):
            with mark:
                pass
        return monotonic_ns() - started

    return timed


def asked(inference: Callable[[], AbstractContextManager[object]]) -> Timed:
    def timed(pairs: int) -> int:
        started = monotonic_ns()
        for _ in repeat(None, pairs):
            with inference():
                pass
        return monotonic_ns() - started

    return timed


def candidates() -> dict[str, Timed]:
    from pyJoules.device.device import Device
    from pyJoules.energy_meter import EnergyMeter
    from zeus.monitor import ZeusMonitor

    class Nothing(Device):  # type: ignore[misc]
        """A device of no domain, whose reading costs one call."""

        @staticmethod
        def available_domains() -> list[object]:
            return []

        def get_energy(self) -> list[float]:
            return []

    # Zeus warns at each window that it has nothing to read.
    logging.disable(logging.CRITICAL)
    zeus = ZeusMonitor(gpu_indices=[], cpu_indices=[])
    pyjoules = EnergyMeter([Nothing()])
    marks = Marks(lambda stamps: None)
    versions = {name: importlib.metadata.version(name) for name in ("zeus", "pyJoules")}
    return {
        "empty loop": nothing,
        "two readings of `monotonic_ns`": called(monotonic_ns, monotonic_ns),
        "JouleMeter, `with m.inference():`": asked(marks.inference),
        "JouleMeter, the marker kept": entered(marks.inference()),
        "JouleMeter, a phase kept": entered(marks.phase("pre")),
        f"pyJoules {versions['pyJoules']}, `EnergyMeter.start`, `stop`": called(pyjoules.start, pyjoules.stop),
        f"Zeus {versions['zeus']}, `begin_window`, `end_window`": named(zeus.begin_window, zeus.end_window),
    }


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth() -> tuple[int, int, int]:
    """After a million pairs: what is held more, at most beside the copy that is handed over, and resident; bytes."""
    marks = Marks(lambda stamps: None)
    timed = asked(marks.inference)
    timed(CAPACITY)
    gc.collect()
    resident = rss_bytes()
    timed(MANY)
    resident = rss_bytes() - resident
    tracemalloc.start()
    timed(CAPACITY)
    gc.collect()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    timed(MANY)
    gc.collect()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before, peak - before, resident


class NoAnalysisError(Exception):
    """Ends a measurement that is not to be analysed."""


def in_earnest() -> tuple[float, float]:
    """Within `jm.measure`: nanoseconds per pair with the writing of events, and seconds of its longest pause."""
    longest = 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            with jm.measure("ppk2", supply="3.0V", simulate=True, output=folder) as m:
                mark = m.inference()
                started = last = monotonic_ns()
                for _ in repeat(None, MANY):
                    with mark:
                        pass
                    now = monotonic_ns()
                    longest = max(longest, now - last)
                    last = now
                taken = monotonic_ns() - started
                raise NoAnalysisError
        except NoAnalysisError:
            pass
    return taken / MANY, longest * 1e-9


def main() -> None:
    load = os.getloadavg()[0]
    each = candidates()
    taken: dict[str, list[float]] = {name: [] for name in each}
    order = list(each)
    for timed in each.values():
        timed(PAIRS)
    gc.collect()
    gc.disable()
    for number in range(ROUNDS):
        random.Random(number).shuffle(order)  # noqa: S311
        for name in order:
            taken[name].append(each[name](PAIRS) / PAIRS)
        gc.collect()
        sys.stderr.write(f"\r{number + 1}/{ROUNDS} rounds")
    gc.enable()
    sys.stderr.write("\n")
    ns = {name: np.array(values) - np.array(taken["empty loop"]) for name, values in taken.items()}
    ours = ns["JouleMeter, `with m.inference():`"]
    held, peak, resident = growth()
    logging.disable(logging.NOTSET)
    written_ns, pause_s = in_earnest()
    met = "met" if np.median(ours) <= GOAL_NS else "not met"
    paragraphs = [
        "# The cost of marking an inference",
        "Made by `python results/measured/marker_cost.py`. One pair of begin and end, in nanoseconds: median of "
        f"{ROUNDS} rounds of {PAIRS:,} pairs, in which all take turns within one process, less the empty loop "
        f"({np.median(taken['empty loop']):.0f} ns). {os.cpu_count()} cores of {cpu_model()}, governor "
        f"{cpu_governor() or 'unknown'}, Python {platform.python_version()}, load average {load:.1f} before.",
        "No device is read by any of them: this is not the cost of a meter, which JouleMeter reads in another process. "
        "Zeus gives each window's duration at once; JouleMeter and pyJoules keep stamps and compute later.",
        "\n".join(
            [
                "| | median, ns | 5 % to 95 % of rounds | times JouleMeter |",
                "|---|---|---|---|",
                *(
                    f"| {name} | {np.median(values):.0f} | {np.percentile(values, 5):.0f} to "
                    f"{np.percentile(values, 95):.0f} | {np.median(values / ours):.2f} |"
                    for name, values in ns.items()
                    if name != "empty loop"
                ),
            ]
        ),
        f"Goal of JouleMeter: at most {GOAL_NS} ns: {met}.",
        f"Allocation over {MANY:,} pairs of JouleMeter: {held:,} bytes are held more at the end than at the beginning "
        f"(tracemalloc), at most {peak / 2**20:.2f} MiB meanwhile, which is the copy handed over every {CAPACITY:,} "
        f"pairs; resident memory grew by {resident / 2**20:.2f} MiB.",
        f"In a measurement (`jm.measure` with a simulated PPK2, whose processes share the cores) {MANY:,} pairs back "
        f"to back took {written_ns:.0f} ns each, with a further clock reading and the writing of all events to disk. "
        f"The writing is done every {CAPACITY:,} pairs, between two windows and never inside one; the longest such "
        f"pause was {pause_s * 1e3:.0f} ms.",
    ]
    wrapped = [text if text.startswith("|") else textwrap.fill(text, 120) for text in paragraphs]
    sys.stdout.write("\n\n".join(wrapped) + "\n")


if __name__ == "__main__":
    main()
