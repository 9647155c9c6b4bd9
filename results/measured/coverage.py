"""python results/measured/coverage.py [SESSIONS] [SEED]: how often the stated 95 % interval holds the truth, Markdown.

Each session draws one true instrument from the limits that its header states (gain, offset, clock, voltage), one true
board (pulses at random phases, lengths that scatter a little), makes the samples that this instrument would record of
it, and gives them to the analysis. The truth is the closed form of the pulses. Nothing of the draw is known to the
analysis but the header.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from benches import METERS, Meter, Rng

from joulemeter.physics.analyze import analyze
from joulemeter.units import show, show_duration


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What many sessions came to: shares of sessions in which an interval held the truth; medians and means, relative.

    `uncorrected` is the mean error of the median as it is reported, `corrected` with the loss at the edges put back.
    """

    covered: float
    covered_k2: float
    half_width: float
    k95: float
    uncorrected: float
    corrected: float


def study(meter: Meter, rng: Rng, sessions: int, *, short: bool, amperes: bool) -> Cell:
    """One cell. `covered_k2` is that of the median plus and minus U at k = 2."""
    rows = np.empty((sessions, 6))
    for row in rows:
        made, truth_j = meter.session(rng, short=short, amperes=amperes)
        stated = analyze(made).result.energy_per_inference_j
        if stated.median is None or stated.ci95_total is None or stated.expanded_k2 is None:
            raise ValueError(f"{meter.name}: the analysis states no interval")
        low, high = stated.ci95_total
        off, middle_off = stated.median - truth_j, (low + high) / 2 - truth_j
        row[:] = (
            low <= truth_j <= high, abs(off) <= stated.expanded_k2, (high - low) / 2 / truth_j, stated.k95,
            off / truth_j, middle_off / truth_j,
        )  # fmt: skip
    middle, mean = np.median(rows, axis=0), rows.mean(axis=0)
    return Cell(
        covered=float(mean[0]), covered_k2=float(mean[1]), half_width=float(middle[2]), k95=float(middle[3]),
        uncorrected=float(middle[4]), corrected=float(middle[5]),
    )  # fmt: skip


def variants() -> Iterator[tuple[str, Meter]]:
    """What else may be true of a bench, each on short windows and the larger load."""
    for meter in METERS:
        yield f"{meter.name}: one window", replace(meter, counts=(1, 1))
    for meter in METERS[:3]:
        yield f"{meter.name}: workload locked to the sample clock", replace(meter, locked=True)
    yield f"{METERS[0].name}: gain as a share of the truth", replace(METERS[0], gain_of_truth=True)


HEADING = """\
# Coverage of the stated interval

Made by `python results/measured/coverage.py {sessions} {seed}`: {sessions} simulated sessions per line, each with an
instrument drawn from the limits that its header states. "covered" is the share of sessions in which the 95 % interval
(`ci95_total`, k95) holds the closed-form truth; with {sessions} sessions a share of 95 % is uncertain by
{noise:.1%} (k = 2). "U" is half the interval as a share of the truth. "k = 2" is the share covered by the reported
median plus and minus `expanded_k2`, in which the loss at the edges is added, not put back. "median off" is the middle
error of the reported median and, in brackets, of the interval's middle.
"""
COLUMNS = "covered | U | k95 | k = 2 | median off |"


def line(cell: Cell) -> str:
    return (
        f"{cell.covered:.1%} | {cell.half_width:.2%} | {cell.k95:.2f} | {cell.covered_k2:.1%} | "
        f"{cell.uncorrected:+.2%} ({cell.corrected:+.2%}) |"
    )


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(sessions: int = 1000, seed: int = 20261120) -> None:
    rng = np.random.default_rng(seed)
    say(HEADING.format(sessions=sessions, seed=seed, noise=2 * math.sqrt(0.95 * 0.05 / sessions)))
    say(f"| meter | window | load | {COLUMNS}\n|---|---|---|---|---|---|---|---|")
    for meter in METERS:
        for short in (False, True):
            for amperes in (False, True):
                cell = study(meter, rng, sessions, short=short, amperes=amperes)
                span = f"{meter.counts[short]} x {show_duration(meter.windows_s[short])}"
                say(f"| {meter.name} | {span} | {show(meter.loads_a[amperes][0], 'A')} | {line(cell)}")
    say(f"\n## Other benches\n\nShort windows, the larger load.\n\n| bench | {COLUMNS}\n|---|---|---|---|---|---|")
    for name, meter in variants():
        say(f"| {name} | {line(study(meter, rng, sessions, short=True, amperes=True))}")
    say(REMARKS)


REMARKS = """
## What the table says

The goal is 93 to 97 %. Three things were found by it and put right in the budget. (1) Edge errors of a trigger that
moves against the samples are in the scatter already; as a systematic term they counted twice. (2) Misplaced edges lose
energy on average, which no scatter shows: in short windows of the 1 kS/s meter and of the slow ones the reported
median is low by about 1 %, and the median plus and minus 2 u alone held the truth in 51 to 88 % of sessions there. The
loss is known (`placement.edge_loss_j`): the 95 % interval is moved by it, and `expanded_k2` is made larger by it, which
is why "k = 2" is on the wide side. (3) One rectangular term that decides the sum, as in
the counter, needs k = 1.65 to 1.8 and not 2.

Known to be too wide: one window alone on a meter whose samples are long beside it. Idle is taken between windows, so
nothing is known of the power beside a single one, and the edges count with their bound. Record a baseline, or more
windows. Known to be too narrow: a workload that is locked to the sample clock but pauses for differing numbers of whole
samples. It cannot be told from a free one and is taken as free.

Gain is drawn as makers state it, as a share of the reading. Were it a share of the truth, readings far too low would
get an interval too narrow by as much; the last line shows that this matters little even at 15 %.
"""


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
