from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import CURRENT, header

from joulemeter.capture import Accuracy, ArrayStream, Basis, Distribution, Gap, Limit, Timebase, Voltage
from joulemeter.errors import DataError, UsageError
from joulemeter.physics.agreement import agree
from joulemeter.physics.lag import find_offset, host_offset_s
from joulemeter.synthetic import Load, Step, parse_load
from joulemeter.window import Window

EXACT = Accuracy(
    range=None,
    gain=Limit(value=0.003, distribution=Distribution.NORMAL),
    offset=Limit(value=0.0),
    source="made up for a test",
    verified=True,
)


def board(seed: int, seconds: float = 15.0) -> Load:
    """Busy for 20 to 300 ms at some current, again and again: no two moments look alike."""
    rng = np.random.default_rng(seed)
    steps, total = [], 0.0
    while total < seconds:
        steps.append(Step(duration_s=rng.uniform(0.02, 0.3), current_a=rng.uniform(1e-3, 20e-3)))
        total += steps[-1].duration_s
    return Load(steps=tuple(steps))


def meter(
    name: str,
    load: Load,
    rate_hz: float,
    *,
    began_s: float = 1.0,
    seconds: float = 10.0,
    gain: float = 1.0,
    noise_a: float = 1e-4,
    ppm: float = 0.0,
    seed: int = 0,
) -> ArrayStream:
    """What a meter that began at `began_s` of the load's time reads; its clock counts `ppm` too fast."""
    count = round(seconds * rate_hz)
    rate = rate_hz * (1 + ppm * 1e-6)
    edges = began_s + np.arange(count + 1) / rate
    true = np.diff(load.charge_c(edges)) * rate
    current = gain * true + np.random.default_rng(seed).normal(0, noise_a, count)
    head = replace(header(rate_hz), channels=(replace(CURRENT, accuracy=(EXACT,)),), clock=Limit(value=0.0))
    return ArrayStream(name=name, header=head, timebase=Timebase(rate_hz=rate_hz), data={"current": current})


@pytest.mark.parametrize("rate_b", [10_000.0, 1_000.0, 100.0])
def test_the_offset_lies_in_its_interval_for_any_pair_of_rates(rate_b: float) -> None:
    held, trials = 0, 20
    for seed in range(trials):
        true = np.random.default_rng(seed).uniform(-0.5, 0.5)
        a = meter("a", board(seed), 10_000.0, began_s=1.0, seed=seed)
        b = meter("b", board(seed), rate_b, began_s=1.0 - true, seed=seed + 100, gain=1.02)
        found = find_offset(a, b)
        assert found is not None
        held += abs(found.offset_s - true) <= 2 * found.u_s
        assert found.u_s < 0.1 / rate_b
        assert found.rival_s is None
    assert held >= 18


def test_two_drifting_clocks() -> None:
    a = meter("a", board(1, 70), 1000.0, seconds=60, seed=1)
    b = meter("b", board(1, 70), 500.0, began_s=0.8, seconds=60, ppm=80, seed=2)
    found = find_offset(a, b)
    assert found is not None
    assert found.drift_ppm == pytest.approx(80, abs=3 * (found.u_drift_ppm or 0.0))
    # 0.2 s at the beginning of b, and 80 ppm faster from there to the middle.
    assert found.offset_s == pytest.approx(0.2 + 80e-6 * 30.2, abs=2 * found.u_s)
    assert found.at(0.0) == pytest.approx(0.2 + 80e-6 * 0.2, abs=1e-4)


def test_a_steady_load_gives_no_offset_and_the_hosts_word_is_taken() -> None:
    steady = parse_load("5mA/1s")
    a, b = meter("a", steady, 1000.0), meter("b", steady, 1000.0, seed=5)
    assert find_offset(a, b) is None
    assert host_offset_s(a, b) is None
    assert agree(a, b).offset is None
    early = replace(a, timebase=Timebase(rate_hz=1000.0, monotonic_ns=7 * 10**9))
    late = replace(b, timebase=Timebase(rate_hz=1000.0, monotonic_ns=6 * 10**9))
    assert host_offset_s(early, late) == 1.0
    assert agree(early, late).duration_s == pytest.approx(9.0, abs=0.01)


def test_a_load_that_repeats_itself_names_another_offset() -> None:
    square = parse_load("9mA/300ms,1mA/700ms")
    a, b = meter("a", square, 1000.0), meter("b", square, 1000.0, began_s=0.98, seed=5)
    found = find_offset(a, b, search_s=3.0)
    assert found is not None
    assert found.offset_s == pytest.approx(0.02, abs=1e-4)
    assert found.rival_s is not None
    assert abs(found.rival_s - found.offset_s) == pytest.approx(1.0, abs=0.01)
    assert "fits nearly as well" in agree(a, b, search_s=3.0).verdict


def test_agreement_is_the_difference_over_what_both_claim() -> None:
    """0.3 % each, voltage common to both: E_n = 1 % / (2 sqrt(2) 0.3 %)."""
    a = meter("ppk2", board(3), 10_000.0, noise_a=0.0)
    b = meter("js220", board(3), 1_000.0, noise_a=0.0, gain=1.01, began_s=0.9)
    found = agree(a, b)
    assert found.relative == pytest.approx(0.01, rel=0.02)
    assert found.u_a_w == pytest.approx(0.003 * found.power_a_w, rel=0.01)
    assert found.en == pytest.approx(0.01 / (2 * 2**0.5 * 0.003), rel=0.03)
    assert found.cancelled == ("voltage",)
    assert found.windows == 20
    assert found.difference_j == pytest.approx(found.difference_w * found.duration_s)
    assert found.verdict.startswith("They disagree: js220 reads")
    assert "above ppk2" in found.verdict
    assert "The clock of js220 is 100.0 ms ahead of that of ppk2" in found.verdict
    close = agree(a, meter("js220", board(3), 1_000.0, noise_a=0.0, gain=0.998, began_s=0.9))
    assert close.en is not None
    assert close.en < 1
    assert close.verdict.startswith("They agree: js220 reads")
    assert "below ppk2" in close.verdict


def test_meters_that_claim_what_they_keep_agree_in_95_of_100_cases() -> None:
    agreeing, trials = 0, 100
    rng = np.random.default_rng(7)
    load = board(9)
    for k in range(trials):
        a, b = (
            meter(name, load, 1000.0, seconds=4.0, gain=1 + rng.normal(0, 0.003), seed=2 * k + place)
            for place, name in enumerate("ab")
        )
        found = agree(a, b, offset_s=0.0)
        assert found.en is not None
        agreeing += found.en <= 1
    # Two-sided 99.9 % of a binomial around 95.4 %.
    assert agreeing >= 88


def test_windows_are_those_of_the_first_and_holes_leave_theirs_out() -> None:
    load = parse_load("9mA/300ms,1mA/450ms,4mA/110ms,2mA/340ms")
    a, b = meter("a", load, 1000.0), meter("b", load, 1000.0, began_s=0.75, noise_a=0.0)
    windows = [Window(start_ns=k * 10**9, stop_ns=k * 10**9 + 5 * 10**8, index=k) for k in range(1, 9)]
    assert agree(a, b, windows).windows == 8
    at = slice(3300, 3310)  # inside the fourth window of a, third of b
    holed = replace(b, data={"current": np.delete(b.data["current"], at)}, gaps=(Gap(index=3310, lost=10),))
    found = agree(a, holed, windows)
    assert found.windows == 7
    assert found.relative == pytest.approx(0.0, abs=2e-3)


def test_what_is_not_known_is_not_judged() -> None:
    a, b = meter("a", board(1), 1000.0), meter("b", board(1), 1000.0, seed=4)
    blind = replace(b, header=replace(b.header, channels=(replace(CURRENT, accuracy=()),)))
    found = agree(a, blind)
    assert (found.en, found.u_difference_w) == (None, None)
    assert found.reason == "the accuracy of b is not known"
    assert "cannot be said" in found.verdict
    with pytest.raises(UsageError, match="b holds no power"):
        agree(a, replace(b, header=replace(b.header, voltage=None)))
    with pytest.raises(DataError, match="no time in common"):
        agree(a, b, offset_s=100.0)
    own = Voltage(volts=2.9, basis=Basis.SET, limit=Limit(value=0.06))
    assert agree(a, replace(b, header=replace(b.header, voltage=own))).cancelled == ()
