from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from joulemeter.errors import DataError
from joulemeter.workload.twoway import MAX_DRIFT, WANDER, Exchange, TwoWayClock, relate

START_NS = 5_000 * 10**9


@dataclass(frozen=True, kw_only=True)
class Network:
    """Delays in seconds: what each way takes at least, and the mean of what comes on top of it."""

    there_s: float
    back_s: float
    jitter_s: float

    def delay_ns(self, least_s: float, generator: np.random.Generator) -> int:
        # Heavy tails, as networks and schedulers have them.
        return round((least_s + self.jitter_s * generator.pareto(1.5)) * 1e9)


CABLE = Network(there_s=80e-6, back_s=80e-6, jitter_s=30e-6)
WIFI = Network(there_s=1e-3, back_s=2.5e-3, jitter_s=2e-3)
ONE_WAY = Network(there_s=50e-6, back_s=20e-3, jitter_s=100e-6)


def straight(offset_ns: int, drift: float) -> Callable[[int], int]:
    """Their clock as a function of ours."""
    return lambda here_ns: here_ns + offset_ns + round(drift * (here_ns - START_NS))


def batch(
    at_ns: int, clock: Callable[[int], int], network: Network, generator: np.random.Generator, count: int = 20
) -> tuple[list[Exchange], int]:
    """Exchanges one after the other, and our clock after them."""
    made = []
    for _ in range(count):
        arrived = at_ns + network.delay_ns(network.there_s, generator)
        answered = arrived + 4_000
        received = answered + network.delay_ns(network.back_s, generator)
        made.append(
            Exchange(sent_ns=at_ns, arrived_ns=clock(arrived), answered_ns=clock(answered), received_ns=received)
        )
        at_ns = received + 3_000
    return made, at_ns


def session(
    clock: Callable[[int], int], network: Network, generator: np.random.Generator, batches: int = 12
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], list[float], TwoWayClock]:
    """Windows between batches, as a session places them: their errors in seconds, and the uncertainties."""
    known = TwoWayClock()
    errors: list[float] = []
    uncertainties: list[float] = []
    exchanges, now_ns = batch(START_NS, clock, network, generator)
    known.add(exchanges)
    for _ in range(batches):
        truth_ns = now_ns + np.sort(generator.integers(0, 10**9, 50))
        there_ns = np.array([clock(int(at)) for at in truth_ns], dtype=np.int64)
        exchanges, now_ns = batch(int(truth_ns[-1]) + 10**6, clock, network, generator)
        known.add(exchanges)
        here_ns, u_s = known.place(there_ns)
        errors += ((here_ns - truth_ns) * 1e-9).tolist()
        uncertainties += [u_s] * len(here_ns)
    return np.array(errors), uncertainties, known


# --- one exchange


def test_one_exchange_is_what_ntp_makes_of_it() -> None:
    """RFC 5905, 8: offset = ((T2 - T1) + (T3 - T4)) / 2 and delay = (T4 - T1) - (T3 - T2)."""
    exchange = Exchange(sent_ns=1_000, arrived_ns=900_500, answered_ns=900_700, received_ns=2_600)
    assert exchange.delay_ns == 1_400
    relation = relate([[exchange]], 1_800)
    assert relation.offset_s == pytest.approx(898_800e-9, abs=2e-9)
    assert relation.half_width_s == pytest.approx(700e-9, abs=2e-9)
    assert not relation.drift_known
    assert relation.residual_s < 2e-9


def test_without_exchanges_nothing_is_placed() -> None:
    with pytest.raises(DataError, match="never compared"):
        TwoWayClock().place(np.array([1, 2]))
    assert TwoWayClock().describe() == {
        "offset_s": None,
        "u_offset_s": None,
        "drift_ppm": None,
        "u_drift_ppm": None,
        "residual_s": None,
        "exchanges": 0,
        "rtt_min_s": None,
    }
    empty = TwoWayClock()
    empty.add([])
    assert empty.exchanges == 0


# --- many


@pytest.mark.parametrize("network", [CABLE, WIFI, ONE_WAY], ids=["cable", "wifi", "one-way"])
@pytest.mark.parametrize("drift_ppm", [-200, -20, 0, 200])
def test_coverage(network: Network, drift_ppm: float) -> None:
    """u is that of a rectangle, so the true time lies within sqrt(3) u of the estimate; 2 u is the stated interval."""
    generator = np.random.default_rng(round(drift_ppm + 1000))
    inside, total = 0, 0
    for _ in range(8):
        offset_ns = int(generator.integers(-(10**15), 10**15))
        errors, uncertainties, known = session(straight(offset_ns, drift_ppm * 1e-6), network, generator)
        inside += int(np.sum(np.abs(errors) <= 2 * np.array(uncertainties)))
        total += len(errors)
        # And no wider than the best exchange and a little wander explain.
        assert known.least_delay_ns is not None
        assert uncertainties[-1] * 3**0.5 <= 1.5 * known.least_delay_ns / 2e9 + 20 * WANDER
        described = known.describe()
        assert (described["drift_ppm"] is not None) == (network is CABLE), "milliseconds in 12 s limit no drift"
        if described["drift_ppm"] is not None:
            assert described["u_drift_ppm"] is not None
            assert described["u_drift_ppm"] < 30
            assert abs(described["drift_ppm"] - drift_ppm) <= 2 * described["u_drift_ppm"]
        assert described["exchanges"] == 13 * 20
    assert inside >= 0.95 * total


def test_more_exchanges_know_more() -> None:
    """Jitter that is much longer than the least delay leaves luck to many exchanges, and drift to a long time."""
    network = Network(there_s=20e-6, back_s=20e-6, jitter_s=2e-3)
    generator = np.random.default_rng(5)
    clock = straight(-(10**12), 35e-6)
    _, short, young = session(clock, network, generator, batches=2)
    _, long, old = session(clock, network, generator, batches=30)
    assert long[-1] < short[-1]
    drift_young, drift_old = (known.describe()["u_drift_ppm"] for known in (young, old))
    assert drift_old is not None
    assert drift_young is None or drift_old < drift_young


@pytest.mark.parametrize("seed", range(5))
def test_the_polygon_is_what_linear_programming_finds(seed: int) -> None:
    """scipy's solver on the same inequalities, as an independent witness."""
    from scipy.optimize import linprog

    generator = np.random.default_rng(seed)
    clock, now_ns, batches = straight(10**14, 120e-6), START_NS, []
    for _ in range(5):
        exchanges, now_ns = batch(now_ns + 10**9, clock, WIFI, generator, count=4)
        batches.append(exchanges)
    reference_ns = START_NS + 3 * 10**9
    relation = relate(batches, reference_ns)
    assert relation.wander == WANDER
    rows, limits = [], []
    for e in itertools.chain(*batches):
        sent_s, received_s = (e.sent_ns - reference_ns) * 1e-9, (e.received_ns - reference_ns) * 1e-9
        rows += [[1.0, sent_s], [-1.0, -received_s]]
        limits += [
            (e.arrived_ns - e.sent_ns - 10**14) * 1e-9 + WANDER * abs(sent_s),
            -(e.answered_ns - e.received_ns - 10**14) * 1e-9 + WANDER * abs(received_s),
        ]
    bounds = [(-1, 1), (-MAX_DRIFT, MAX_DRIFT)]

    def extreme(direction: Sequence[float]) -> float:
        return float(linprog(direction, A_ub=rows, b_ub=limits, bounds=bounds).fun)

    lowest, highest = extreme([1, 0]), -extreme([-1, 0])
    assert relation.offset_s - 10**5 == pytest.approx((lowest + highest) / 2, abs=1e-9)
    assert relation.half_width_s == pytest.approx((highest - lowest) / 2, abs=1e-9)
    slowest, fastest = extreme([0, 1]), -extreme([0, -1])
    assert relation.drift == pytest.approx((slowest + fastest) / 2, abs=1e-9)
    assert relation.drift_half_width == pytest.approx((fastest - slowest) / 2, abs=1e-9)


# --- clocks that are not straight


def test_a_rate_that_changes_is_covered() -> None:
    """A board that warms up, and NTP that starts to slew by 100 ppm in the middle of it."""

    def clock(here_ns: int) -> int:
        since_s = (here_ns - START_NS) * 1e-9
        warming = 10e-6 * 20 * (np.exp(-since_s / 20) - 1) + 10e-6 * since_s
        slewing = 100e-6 * max(0.0, since_s - 6)
        return here_ns + 10**12 + int((warming + slewing) * 1e9)

    errors, uncertainties, known = session(clock, CABLE, np.random.default_rng(1))
    assert np.mean(np.abs(errors) <= 2 * np.array(uncertainties)) >= 0.95
    assert known.relation().wander > WANDER


@pytest.mark.parametrize(("jump_ns", "who"), [(-3 * 10**9, "other machine's"), (2 * 10**9, "this host's")])
def test_a_suspended_machine_is_noticed(jump_ns: int, who: str) -> None:
    generator = np.random.default_rng(2)
    known = TwoWayClock()
    for place in range(3):
        known.add(batch(START_NS + place * 10**9, straight(0, 0), CABLE, generator)[0])
    with pytest.raises(DataError, match=f"jumped by .*{who} clock stood still.*Keep both machines awake"):
        known.add(batch(START_NS + 4 * 10**9, straight(jump_ns, 0), CABLE, generator)[0])
    # What comes after it can be placed again.
    known.add(batch(START_NS + 5 * 10**9, straight(jump_ns, 0), CABLE, generator)[0])
    truth_ns = START_NS + 4_500_000_000
    here_ns, u_s = known.place(np.array([truth_ns + jump_ns]))
    assert abs(int(here_ns[0]) - truth_ns) * 1e-9 <= 2 * u_s


def test_a_small_step_is_noticed_too() -> None:
    """No two clocks come apart by 10 ms within a second."""
    generator = np.random.default_rng(3)
    known = TwoWayClock()
    known.add(batch(START_NS, straight(0, 0), CABLE, generator)[0])
    with pytest.raises(DataError, match=r"jumped by (9\.[5-9]|10\.)\d* ms"):
        known.add(batch(START_NS + 10**9, straight(10_000_000, 0), CABLE, generator)[0])


def test_exchanges_that_no_clock_can_have_made() -> None:
    """Batches that allow each jump but not all of them."""
    generator = np.random.default_rng(4)
    batches = [
        batch(START_NS + n * 10**7, straight(sign * 10**6, 0), CABLE, generator, count=4)[0]
        for n, sign in enumerate((1, -1, 1, -1))
    ]
    with pytest.raises(DataError, match="too unevenly"):
        relate(batches, START_NS)


def test_order_and_durations_are_kept() -> None:
    clock = straight(10**13, -150e-6)
    generator = np.random.default_rng(6)
    known = TwoWayClock()
    for place in range(10):
        known.add(batch(START_NS + place * 10**9, clock, WIFI, generator)[0])
    truth_ns = START_NS + np.arange(0, 9 * 10**9, 24_000, dtype=np.int64)
    here_ns, _ = known.place(np.array([clock(int(at)) for at in truth_ns], dtype=np.int64))
    steps_ns = np.diff(here_ns)
    assert np.all(steps_ns > 0)
    assert np.abs(steps_ns / 24_000 - 1).max() < 1e-3 + 2 / 24_000
