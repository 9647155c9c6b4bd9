"""python results/measured/clock.py [TRIALS]: does the stated uncertainty of time hold? As Markdown tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Anchor, Event, Limit, Timebase
from joulemeter.errors import DataError
from joulemeter.pattern import default_pattern
from joulemeter.physics.clock import fit
from joulemeter.physics.synccode import SyncFit, locate
from joulemeter.workload.beacon import play

Float = NDArray[np.float64]
TRIALS = 220
MAX_DRIFT = 200e-6

HEADING = """\
# Time: stated and true

Made by `python results/measured/clock.py`. {trials} simulated sessions per row, each with its own offset (within 1 s)
and drift (within 200 ppm, both signs). "covered" counts the sessions in which the truth lies inside the stated interval
(k = 2) of a host stamp at the beginning, in the middle and at the end of the session, and of the drift. "error" is the
largest of the three errors, at 95 % of sessions; "stated" is the median of the expanded uncertainty (k = 2) in the
middle; "refused" counts sessions in which the code did not stand out and no time was given.

Rows near 100 % state a bound that is not normal: of anchors the least latency (anywhere in 1 ms), of the fastest meters
the 10 us from a stamp to the first busy instruction, which these sessions do not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Errors of host stamps at the beginning, middle and end of a session, and what was stated (k = 2), seconds."""

    error_s: Float
    stated_s: Float
    drift_error_ppm: float
    drift_stated_ppm: float


def judge(timebase: Timebase, offset_s: float, drift: float, span_s: float) -> Trial:
    """Against the truth: a sample at stream time x was taken at host time offset + x (1 + drift)."""
    x = np.array([0.0, span_s / 2, span_s])
    placed = [timebase.from_monotonic(round((offset_s + at * (1 + drift)) * 1e9)) * 1e-9 for at in x.tolist()]
    stated = [2 * (timebase.u_host_at(at * 1e9) or 0.0) for at in x.tolist()]
    return Trial(
        error_s=np.abs(np.array(placed) - x),
        stated_s=np.array(stated),
        drift_error_ppm=abs((timebase.drift_ppm or 0.0) + drift / (1 + drift) * 1e6),
        drift_stated_ppm=2 * (timebase.u_drift_ppm or 0.0),
    )


def row(name: str, trials: list[Trial], refused: int = 0) -> str:
    inside = np.array([trial.error_s <= trial.stated_s for trial in trials]).mean(axis=0)
    drift = float(np.mean([trial.drift_error_ppm <= trial.drift_stated_ppm for trial in trials]))
    error = float(np.quantile([trial.error_s.max() for trial in trials], 0.95))
    stated = float(np.median([trial.stated_s[1] for trial in trials]))
    covered = " | ".join(f"{share:.1%}" for share in (*inside.tolist(), drift))
    return f"| {name} | {covered} | {show(error)} | {show(stated)} | {refused} |"


def show(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


# -- arrivals ---------------------------------------------------------------------------------------------------------


def arrivals(rng: np.random.Generator, kind: str, span_s: float, offset_s: float, drift: float) -> tuple[Float, Float]:
    """Samples received (as stream time, seconds) and host times of the reads that received them.

    A sample is ready at its own time, waits for the next 1 ms frame of the host, and is seen by the next read.
    """
    end = offset_s + span_s * (1 + drift)
    pause = {
        "exponential": lambda count: 0.005 + rng.exponential(0.003, count),
        "batched": lambda count: rng.uniform(0.010, 0.020, count),
        "stalled": lambda count: np.where(rng.random(count) < 0.01, 0.2, rng.uniform(0.010, 0.020, count)),
    }[kind](int(span_s / 0.005) + 10)
    reads = offset_s + np.cumsum(pause)
    reads = reads[reads < end]
    latency = rng.uniform(0, 2e-4)
    late = rng.exponential(0.003, len(reads)) if kind == "exponential" else np.zeros(len(reads))
    frames = np.floor((reads - late - latency) * 1e3) * 1e-3
    ready = np.maximum.accumulate((frames - offset_s) / (1 + drift))
    return ready[ready > 0], reads[ready > 0]


def anchored(rng: np.random.Generator, kind: str, span_s: float, rate_hz: float) -> Trial:
    drift, offset_s = rng.uniform(-MAX_DRIFT, MAX_DRIFT), 1e3 + rng.uniform(-1, 1)
    ready, reads = arrivals(rng, kind, span_s, offset_s, drift)
    index = np.floor(ready * rate_hz)
    chosen = np.flatnonzero(np.diff(np.floor((reads - reads[0]) / 0.05), prepend=-1))  # an anchor every 50 ms
    anchors = [
        Anchor(received_bytes=0, monotonic_ns=round(at * 1e9), utc_ns=round(at * 1e9) + 10**18)
        for at in reads[chosen].tolist()
    ]
    return judge(fit(index[chosen], anchors, rate_hz, Limit(value=MAX_DRIFT)), offset_s, drift, span_s)


# -- the sync code ----------------------------------------------------------------------------------------------------


class Host:
    """A host whose time passes in busy work and sleep; sleeps overshoot and work is uneven, as on a real one."""

    def __init__(self, rng: np.random.Generator, call_s: float) -> None:
        self.rng = rng
        self.call_s = call_s
        self.now_s = 0.0

    def clock(self) -> int:
        return round(self.now_s * 1e9)

    def busy(self) -> None:
        self.now_s += self.call_s * self.rng.uniform(0.8, 1.5)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds + self.rng.exponential(1e-4)


def drawn(edges_s: Float, borders_s: Float, tau_s: float) -> Float:
    """Mean over each interval between borders of an on-off load behind one pole.

    Each edge adds its own step response, whose integral is t - tau (1 - exp(-t / tau)).
    """
    on = np.diff(edges_s) * (np.arange(len(edges_s) - 1) % 2 == 0)
    total = np.interp(borders_s, edges_s, np.concatenate([[0.0], np.cumsum(on)]))
    if tau_s > 0:
        for k, edge_s in enumerate(edges_s.tolist()):
            first, settled = np.searchsorted(borders_s, [edge_s, edge_s + 40 * tau_s]).tolist()
            sign = 1.0 if k % 2 == 0 else -1.0
            total[first:settled] += sign * tau_s * np.expm1(-(borders_s[first:settled] - edge_s) / tau_s)
            total[settled:] -= sign * tau_s
    return np.diff(total) / np.diff(borders_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    power_w: Float
    stamps: tuple[Event, ...]
    offset_s: float
    drift: float
    span_s: float


def session(rng: np.random.Generator, rate_hz: float, between_s: float | None, noise: float) -> Session:
    """Idle, code, a workload of `between_s`, code, idle; `noise` per sample is in parts of the busy level."""
    pattern = default_pattern(rate_hz)
    host = Host(rng, pattern.chip_s * rng.uniform(0.02, 0.3))
    host.now_s = 1.5 + rng.uniform(0, 1)
    stamps = list(play(pattern, host.busy, host.clock, host.sleep))
    edges = [stamp.monotonic_ns for stamp in stamps if stamp.label != "end"][1:]
    if between_s is not None:
        until = host.now_s + between_s
        while host.now_s < until:
            edges.append(host.clock())
            host.now_s += rng.uniform(0.5, 3) * pattern.chip_s
            edges.append(host.clock())
            host.now_s += rng.uniform(0.5, 3) * pattern.chip_s
        more = play(pattern, host.busy, host.clock, host.sleep)
        edges += [stamp.monotonic_ns for stamp in more if stamp.label != "end"][1:]
        stamps += more
    drift, offset_s = rng.uniform(-MAX_DRIFT, MAX_DRIFT), rng.uniform(0, 1)
    span_s = host.now_s + 0.5 - offset_s
    count = int(span_s * rate_hz)
    borders = offset_s + np.arange(count + 1) / rate_hz * (1 + drift)
    tau_s = float(rng.choice([0.0, np.exp(rng.uniform(np.log(pattern.chip_s / 1000), np.log(pattern.chip_s / 4)))]))
    power = drawn(np.array(edges, dtype=np.float64) * 1e-9, borders, tau_s)
    level, idle = rng.uniform(0.1, 2), rng.uniform(0.1, 2)
    t = np.linspace(0, 1, count)
    wander = level * rng.uniform(0, 0.5) * (rng.choice([-1, 1]) * t + np.sin(7 * t + rng.uniform(0, 6)))
    power = idle + level * (power + noise * rng.standard_normal(count)) + wander
    return Session(power_w=power, stamps=tuple(stamps), offset_s=offset_s, drift=drift, span_s=span_s)


def timebase(found: SyncFit, rate_hz: float) -> Timebase:
    return Timebase(
        rate_hz=rate_hz,
        monotonic_ns=found.offset_ns,
        drift_ppm=found.drift_ppm,
        u_host_s=found.u_offset_s,
        u_drift_ppm=found.u_drift_ppm,
        reference_ns=found.reference_ns,
    )


def coded(rng: np.random.Generator, rate_hz: float, between_s: float | None, noise: float) -> Trial:
    one = session(rng, rate_hz, between_s, noise)
    found = locate(one.power_w, rate_hz, one.stamps, Limit(value=MAX_DRIFT))
    return judge(timebase(found, rate_hz), one.offset_s, one.drift, one.span_s)


ANCHORED = [
    (kind, span_s, rate_hz)
    for kind in ("exponential", "batched", "stalled")
    for span_s, rate_hz in ((2.0, 100e3), (10.0, 1e3), (60.0, 100e3), (600.0, 1e3))
]
# Rate, seconds between the two playings (None: played once), noise of a sample in parts of the step.
CODED: list[tuple[float, float | None, float]] = [
    (10.0, 120.0, 0.05), (10.0, 600.0, 0.3), (10.0, None, 0.1), (1e3, 5.0, 0.1), (1e3, 120.0, 0.5), (1e3, None, 0.1),
    (100e3, 2.0, 0.5), (100e3, 10.0, 1.0), (1e6, 0.5, 1.0), (1e6, 1.0, 0.05),
]  # fmt: skip
COLUMNS = "begin | middle | end | drift | error | stated | refused |\n|---|---|---|---|---|---|---|---|"


def main(trials: int) -> None:
    say = sys.stdout.write
    say(HEADING.format(trials=trials))
    say(f"\n\n## Clock anchors\n\n| arrivals | {COLUMNS}\n")
    for number, (kind, span_s, rate_hz) in enumerate(ANCHORED):
        rng = np.random.default_rng([1, number])
        done = [anchored(rng, kind, span_s, rate_hz) for _ in range(trials)]
        say(row(f"{kind}, {span_s:g} s at {rate_hz:,.0f} S/s", done) + "\n")
    say(f"\n## Sync code\n\n| meter | {COLUMNS}\n")
    for number, (rate_hz, between_s, noise) in enumerate(CODED):
        rng = np.random.default_rng([2, number])
        done, refused = [], 0
        for _ in range(trials):
            try:
                done.append(coded(rng, rate_hz, between_s, noise))
            except DataError:
                refused += 1
        played = "played once" if between_s is None else f"twice, {between_s:g} s between"
        say(row(f"{rate_hz:,.0f} S/s, noise {noise:.0%} of the step, {played}", done, refused) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS)
