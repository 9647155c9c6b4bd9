"""python results/measured/battery.py: battery life beside published results, worked examples and brute force."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from joulemeter.battery import Capacitor, Event, Kind, Life, Load, Profile, Supply, constant, project, steps
from joulemeter.battery.harvest import energy_life_s
from joulemeter.battery.spread import population
from joulemeter.battery.whatif import capacitor_by_charge, largest_resistance, mean_current_for, period_for, recharge_s
from joulemeter.cells import cell

# The stepper and its random circuits are those of the tests. This folder leaves the path for them: numba would take
# its coverage.py for the package of that name.
sys.path[0] = str(Path(__file__).parents[2] / "tests")
from battery_witness import compiled  # noqa: E402
from battery_witness import life as stepped  # noqa: E402
from test_battery_circuit import cases, model  # noqa: E402

MAH, DAY_S, YEAR_S = 3.6, 86400.0, 365.25 * 86400.0
GOOD, POOR = cell("CR2032"), cell("cr2032-poor")
FAST = replace(GOOD, slow=None)
AT_2V = Supply(cutoff_v=2.0)
BUFFERED = replace(AT_2V, capacitor=Capacitor(farad=100e-6))

HEADING = """\
# Battery life beside what others measured

Made by `python results/measured/battery.py`, with the cells of `profiles/batteries` and no figure chosen per row. The
two CR2032 (good and poor brand) were fitted once: to the ratios of V6 and V7, and the slow term to V2; those rows show
that the fit holds, the others are predictions. Loads of V4 to V7 are resistors sized at 2.5 V, as in the source.

## Published results

| | load | reported | bar | here | |
|---|---|---|---|---|---|"""


def mah(life: Life) -> float:
    return life.delivered_c / MAH


def ti_load(peak_a: float) -> Load:
    currents = np.array([8e-3, peak_a, 8e-3, 0.1e-3])
    durations = np.array([2e-3, 1e-3, 2e-3, 0.2])
    return Load(profile=Profile(durations_s=durations, values=2.5 / currents, kind=Kind.RESISTANCE))


def verdict(value: float, low: float, high: float) -> str:
    return "inside" if low <= value <= high else "OUTSIDE"


def published() -> Iterator[str]:
    rated = mah(project(GOOD, constant(15e3, kind=Kind.RESISTANCE), AT_2V))
    yield f"| V1 | 15 kohm | 235 to 240 mAh | 2 % | {rated:.1f} mAh | {verdict(rated, 230.3, 244.8)} |"
    three, half = (mah(project(GOOD, constant(amps), AT_2V)) for amps in (3e-3, 0.5e-3))
    yield f"| V2 | 3 mA continuous | 144, 155 mAh | 140 to 160 | {three:.1f} mAh | {verdict(three, 140, 160)} |"
    yield f"| V3 | 0.5 mA continuous | most of it | at least 215 | {half:.1f} mAh | {verdict(half, 215, 240)} |"
    given = {
        (one.name, peak, supply is BUFFERED): mah(project(one, ti_load(peak * 1e-3), supply))
        for one in (GOOD, POOR)
        for peak in (15, 30)
        for supply in (AT_2V, BUFFERED)
    }
    good, poor = GOOD.name, POOR.name
    low, high = given[poor, 30, False] / 220, given[good, 30, False] / 220
    inside = "inside" if low <= 0.55 and high >= 0.9 else "OUTSIDE"
    here = f"{low:.0%} to {high:.0%} | {inside} |"
    yield f"| V4 | 8, 30, 8 mA pulses | 50 % (worst) to 100 % (best) of 220 mAh | spanned to within 10 % | {here}"
    for name in (good, poor):
        ratio = given[name, 30, False] / given[name, 15, False]
        yield f"| V5 | 30 against 15 mA, {name} | 0.91 | 0.88 to 0.96 | {ratio:.3f} | {verdict(ratio, 0.88, 0.96)} |"
    for row, name, peak, reported, least, most in (
        ("V6", good, 30, "+13 %", 1.10, 1.15),
        ("V6", good, 15, "+5 %", 1.03, 1.07),
        ("V7", poor, 30, "more than +40 %", 1.35, 1.50),
    ):
        gain = given[name, peak, True] / given[name, peak, False]
        bar = f"{least:.2f} to {most:.2f}"
        yield f"| {row} | 100 uF, {peak} mA, {name} | {reported} | {bar} | {gain:.3f} | {verdict(gain, least, most)} |"
    maxell = Load(
        profile=Profile(durations_s=np.array([0.5, 4.5]), values=np.array([300.0, 1e9]), kind=Kind.RESISTANCE)
    )
    good_share, poor_share = (mah(project(one, maxell, AT_2V)) / (one.capacity_c / MAH) for one in (GOOD, POOR))
    spanned = "spanned" if poor_share <= 0.8 and good_share >= 0.7 else "OUTSIDE"
    here = f"{poor_share:.2f} to {good_share:.2f} | {spanned}; the pulse's length is not in the source |"
    yield f"| V10 | 300 ohm, 0.5 s (assumed) each 5 s | 25 % less | 0.70 to 0.80 | {here}"
    nine = mah(project(GOOD, constant(9e-3), AT_2V))
    yield f"| V11 | 9 mA | 18 to 108 mAh at 2.0 V | same | {nine:.0f} mAh, and refused | {verdict(nine, 18, 108)} |"
    badge = project(GOOD, constant(13e-3), AT_2V)
    yield (
        f"| V12 | 13 mA | stops after 35 min; naive 18 h | must warn | {badge.cause.value}; naive "
        f"{badge.naive_life_s / 3600:.0f} h | {'inside' if badge.life_s is None else 'OUTSIDE'} |"
    )
    watch = project(cell("CR2016"), constant(97e-6), Supply(cutoff_v=2.0)).curves
    hours = np.interp([-2.99, -2.6], -watch.rail_min_v, watch.age_s) / 3600
    yield f"| V14 | CR2016, 97 uA | 600, 900 h to 3.0, 2.6 V | by construction | {hours[0]:.0f}, {hours[1]:.0f} h | |"
    ruuvi = [project(cell("CR2477"), constant(amps * 1e-6), AT_2V) for amps in (13, 15, 18)]
    years = ", ".join(f"{(life.life_s or 0) / YEAR_S:.1f}" for life in ruuvi)
    here = f"{years} years | its resistance is not known: an upper bound |"
    yield f"| V15 | CR2477, 13, 15, 18 uA | 7, 6, 5 years (maker's estimate) | none | {here}"
    poor_days, good_days = (project(one, constant(213e-6), AT_2V).model_life_s / DAY_S for one in (POOR, GOOD))
    here = f"{poor_days:.1f} to {good_days:.1f} days | of the average alone: its pulses are not in the source |"
    yield f"| V17 | 213 uA average | over a month; 43 days predicted by others | 30 to 43 days | {here}"


def row(name: str, what: str, expected: str, here: str) -> str:
    return f"| {name} | {what} | {expected} | {here} |"


def days(life: Life) -> str:
    return f"{life.model_life_s / DAY_S:.1f} d" if life.life_s is not None else life.cause.value


def examples() -> Iterator[str]:
    watts = ", ".join(f"{amps * 3.3:.2f}" for amps in (0.288, 0.480))
    yield row("E1", "6 to 10 uA/MHz at 48 MHz", "0.288 to 0.480 mA", f"0.288 to 0.480 mA, {watts} mW at 3.3 V")
    flat_out = [project(FAST, constant(amps * 1e-3), AT_2V) for amps in (0.3, 0.4, 0.5)]
    yield row("E2", "0.3 / 0.4 / 0.5 mA", "32.6 / 24.5 / 19.6 d", " / ".join(map(days, flat_out)))
    allowed = [mean_current_for(FAST, years * YEAR_S) for years in (0.25, 1, 2, 5, 10)]
    yield row(
        "E3",
        "mean current for 3 months, 1, 2, 5, 10 years",
        "107, 26.5, 13.1, 5.1, 2.4 uA",
        ", ".join(f"{amps * 1e6:.3g}" for amps in allowed) + " uA",
    )
    duty = [(amps - 1e-6) / 0.399e-3 for amps in allowed[:4]]
    yield row(
        "E4",
        "duty at 0.4 mA over 1 uA for 3 months, 1, 2, 5 years",
        "26.6, 6.4, 3.0, 1.0 %",
        ", ".join(f"{share:.1%}" for share in duty),
    )
    asleep = project(FAST, constant(1e-6), AT_2V)
    clipped = next(caveat.data["unclipped_s"] for caveat in asleep.caveats if "unclipped_s" in caveat.data)
    yield row(
        "E5",
        "1 uA",
        "26.8 y naive, 21.1 y with loss, report 10 y",
        f"{asleep.naive_life_s / YEAR_S:.1f} y naive, {clipped / YEAR_S:.1f} y with loss, "
        f"{(asleep.life_s or 0) / YEAR_S:.0f} y ({asleep.cause.value})",
    )
    e6 = Load(profile=steps((0.4e-3, 0.05, "inference")), rest_a=1e-6, every_s=1.0)
    life = project(FAST, e6, AT_2V)
    yield row(
        "E6",
        "50 ms each s at 0.4 mA",
        "naive 467 d, 460 d, of charge",
        f"naive {life.naive_life_s / DAY_S:.0f} d, {days(life)}, {life.cause.value}",
    )
    e7 = replace(e6, events=(Event(label="radio", profile=steps((10e-3, 3e-3)), every_s=10.0),))
    at = Supply(cutoff_v=1.8)
    lives = [project(FAST, e7, at), project(FAST, e7, replace(at, capacitor=Capacitor(farad=100e-6)))]
    for scale in (2, 4, 0.5):
        other = FAST.resistance and replace(FAST.resistance, fresh_ohm=FAST.resistance.fresh_ohm * scale)
        lives.append(project(replace(FAST, resistance=other), e7, at))
    yield row(
        "E7",
        "E6 + radio; with 100 uF; resistance x 2, x 4, x 0.5",
        "naive 409; 388 (96 % used); 402; 368, 331, 398 d",
        f"naive {lives[0].naive_life_s / DAY_S:.0f}; {days(lives[0])} ({lives[0].dod_end:.0%} used, "
        f"{lives[0].cause.value} at {lives[0].sag_label}); {days(lives[1])}; " + ", ".join(map(days, lives[2:])),
    )
    e8 = project(FAST, constant(17e-3), Supply(cutoff_v=1.7))
    yield row(
        "E8",
        "17 mA continuous",
        "naive 13.8 h; refuse; model 12 h",
        f"naive {e8.naive_life_s / 3600:.1f} h; {e8.cause.value}; model {e8.model_life_s / 3600:.1f} h",
    )
    e9 = project(FAST, Load(profile=steps((17e-3, 0.02)), rest_a=2e-6, every_s=1.0), Supply(cutoff_v=1.7))
    yield row(
        "E9",
        "17 mA, 20 ms each s",
        "naive 28.6 d; 26.7 d; sag 0.18 V fresh",
        f"naive {e9.naive_life_s / DAY_S:.1f} d; {days(e9)}; sag {3.2 - e9.rail_fresh_v:.2f} V; doubted (pulse limit)",
    )
    e10 = Load(profile=steps((120e-3, 0.01, "upload")), rest_a=10e-6, every_s=60.0)
    dead = project(FAST, e10, Supply(cutoff_v=2.3))
    saved = project(FAST, e10, Supply(cutoff_v=2.3, capacitor=Capacitor(farad=1e-3)))
    yield row(
        "E10",
        "120 mA, 10 ms a minute, 2.3 V",
        "naive 326 d; 0 d (1.98 V fresh); 1 mF: 8 d",
        f"naive {dead.naive_life_s / DAY_S:.0f} d; {days(dead)}, {dead.cause.value} ({dead.rail_fresh_v:.2f} V fresh); "
        f"1 mF: {days(saved)}",
    )
    yield row(
        "E11",
        "2 W from two L91 (10.2 Wh), 85 %",
        "about 4.3 h",
        f"{energy_life_s(10.2 * 3600, 2.0, efficiency=0.85, loss_per_year=0.01) / 3600:.2f} h",
    )
    for name, watt_hours, loss, plain, converted in (
        ("CR2032", 0.68, 0.01, 28, 24),
        ("CR2450", 1.80, 0.01, 75, 64),
        ("CR2477", 2.90, 0.01, 120, 102),
        ("AAA alkaline", 1.50, 0.03, 62, 53),
        ("AA alkaline", 3.0, 0.03, 124, 105),
        ("CR123A", 4.35, 0.01, 180, 153),
        ("AA L91", 5.08, 0.01, 210, 179),
        ("2 x AA alkaline", 6.0, 0.03, 245, 209),
        ("3 x AA alkaline", 9.0, 0.03, 364, 311),
        ("2 x L91", 10.15, 0.01, 418, 356),
        ("AA Li-SOCl2", 9.36, 0.01, 386, 329),
        ("18650", 12.2, 0.24, 382, 337),
        ("LiPo 1000 mAh", 3.7, 0.24, 140, 121),
        ("AA NiMH", 2.4, 0.15, 96, 82),
    ):
        here = [
            energy_life_s(watt_hours * 3600, 1e-3, efficiency=share, loss_per_year=loss) / DAY_S for share in (1, 0.85)
        ]
        yield row(
            "E12", f"1 mW from {name} ({watt_hours} Wh)", f"{plain}, {converted} d", f"{here[0]:.0f}, {here[1]:.0f} d"
        )
    charge = project(FAST, constant(1e-3, kind=Kind.POWER), AT_2V)
    yield row("E12", "1 mW from a CR2032 by charge", "29.3 d at a flat 3 V", days(charge))


def appendix() -> Iterator[str]:
    farad = capacitor_by_charge([(8e-3, 2e-3), (30e-3, 1e-3), (8e-3, 2e-3)], high_v=2.6, low_v=2.0, resistance_ohm=1e3)
    wait_s = recharge_s(farad, 1e3, source_v=2.7, low_v=2.0, high_v=2.6)
    yield row("TI", "capacitor, recharge", "87 uF, 169 ms", f"{farad * 1e6:.0f} uF, {wait_s * 1e3:.0f} ms")
    ohms = [largest_resistance(2.7, 2.0, 0.8 * peak) for peak in (30e-3, 15e-3)]
    yield row("TI", "largest resistance", "29.2, 58.3 ohm", f"{ohms[0]:.1f}, {ohms[1]:.1f} ohm")


def against_brute_force(count: int) -> Iterator[str]:
    for kind in ("current", "resistance", "power"):
        differences, brute_s, fast_s, cycles = [], 0.0, 0.0, 0.0
        for case, _ in zip(cases(kind, seed=17), range(count), strict=False):
            began = time.perf_counter()
            age_s, _, _ = stepped(case)
            brute_s += time.perf_counter() - began
            asked = model(case)
            began = time.perf_counter()
            life = project(*asked)
            fast_s += time.perf_counter() - began
            differences.append(abs(life.model_life_s / age_s - 1))
            cycles += life.cycles or 0.0
        yield (
            f"| {kind} | {count} | {max(differences):.4%} | {np.median(differences):.4%} | {cycles:,.0f} "
            f"| {fast_s / count * 1e3:.1f} ms | {brute_s / fast_s:.0f} |"
        )


def timed(what: str, ask: Callable[[], object], times: int) -> str:
    ask()
    began = time.perf_counter()
    for _ in range(times):
        ask()
    return f"| {what} | {(time.perf_counter() - began) / times * 1e3:.1f} ms |"


def main() -> None:
    out = [HEADING, *published()]
    out += ["", "## Worked examples", ""]
    out += ["A good CR2032 without its slow term, as they were computed by others. E12 is plain energy.", ""]
    out += ["| | what | expected | here |", "|---|---|---|---|", *appendix(), *examples()]
    out += ["", "## Brute force", ""]
    out += [
        "Random circuits and loads whose life is stepped through cycle by cycle (Runge-Kutta, compiled by numba, depth",
        "of discharge moving at every step, constant power truly constant), with cells scaled down to some thousand",
        "cycles. A real cell has thousands of times as many, and takes the stepper as much longer.",
        "",
        "| load | lives | largest difference | median | cycles stepped | projection | times as fast as the stepper |",
        "|---|---|---|---|---|---|---|",
    ]
    if compiled():
        # The first call compiles.
        stepped(next(cases("current", seed=1)))
        out += against_brute_force(20)
    out += ["", "## Speed", "", "On the machine that made this file; only the orders matter.", "", "| | |", "|---|---|"]
    radio = Load(profile=steps((5e-3, 0.1, "inference"), (15e-3, 0.01, "radio")), rest_a=2e-6, every_s=10.0)
    buck = replace(radio, profile=steps((10e-3, 0.1), (40e-3, 0.01), kind=Kind.POWER))
    out += [
        timed("projection, no capacitor", lambda: project(GOOD, radio, AT_2V), 50),
        timed("projection, 100 uF", lambda: project(GOOD, radio, BUFFERED), 50),
        timed("projection, 100 uF, constant power", lambda: project(GOOD, buck, BUFFERED), 20),
        timed("10,000 cells, 100 uF", lambda: population(GOOD, radio, BUFFERED), 5),
        timed("10,000 cells of two brands, 100 uF", lambda: population([(GOOD, 1), (POOR, 1)], radio, BUFFERED), 5),
        timed("period for one year", lambda: period_for(GOOD, radio, BUFFERED, YEAR_S), 3),
    ]
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
