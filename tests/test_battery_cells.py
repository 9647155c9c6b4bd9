"""Cells as data: figures against their sources, packs, Otii's profiles, and what is not known."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from battery_cells import ti_load

from joulemeter import cells, profile
from joulemeter.battery import Capacitor, Cause, Cell, Kind, Supply, constant, project
from joulemeter.battery.cell import GRADES
from joulemeter.caveat import Code
from joulemeter.cells import cell
from joulemeter.cells.otii import BINS, _falling
from joulemeter.errors import UsageError

EVERY = cells.names()
MAH_C = 3.6
TO_2V = Supply(cutoff_v=2.0)
TO_2V_100UF = Supply(cutoff_v=2.0, capacitor=Capacitor(farad=100e-6))

PLAIN = """
name = "Mine"
chemistry = "Li/MnO2"
nominal = "3.0V"
[capacity]
charge = "200mAh"
source = "its maker"
grade = "datasheet"
"""
OCV = '[ocv]\ndepth = [0, 0.5, 1]\nvoltage = ["3.2V", "2.9V", "2.0V"]\nsource = "me"\ngrade = "derived"\n'
TABLE = '[resistance]\ndepth = [0, 1]\nresistance = ["11ohm", "33ohm"]\nfast_share = 0.1\nfast_time = "10ms"\n'
KNEE = '[resistance]\nfresh = "10ohm"\nknee = 0.8\nwidth = 0.1\nslope = 0.4\n'
SLOW = '[slow]\nat_hand = 0.2\ntime_constant = "7.6h"\n'
RATE = '[rate]\ncurrent = ["1mA", "10mA"]\ncharge = ["200mAh", "100mAh"]\n'
SOURCE = 'source = "me"\ngrade = "derived"\n'


def write(path: Path, *parts: str) -> Path:
    path.write_text("".join(parts))
    return path


def ohm(known: Cell, dod: float, celsius: float = 25.0) -> float:
    """R0 and R1 together."""
    assert known.resistance is not None
    r0, r1 = known.resistance.ohm(np.array([dod]), celsius)
    return float(r0[0] + r1[0])


def delivered_mah(known: Cell, amperes: float) -> float:
    return project(known, constant(amperes), TO_2V).delivered_c / MAH_C


# --- the cells that ship


@pytest.mark.parametrize("name", EVERY)
def test_every_figure_has_a_grade_and_a_source(name: str) -> None:
    known = cell(name)
    assert known.grades.keys() == known.sources.keys()
    assert set(known.grades.values()) <= set(GRADES)
    assert all(known.sources.values())
    told = {
        "resistance": known.resistance,
        "arrhenius": known.resistance and known.resistance.arrhenius_k,
        "slow": known.slow,
        "rate": known.rate,
        "loss": known.loss_per_year,
        "loss_doubling": known.loss_doubling_k,
        "shelf": known.shelf_s,
        "limits": known.limits.continuous_a or known.limits.pulse_a,
    }
    graded = {figure for figure, value in told.items() if value is not None}
    assert known.grades.keys() == graded | {"capacity", "ocv"}, "what is graded is known, what is known is graded"


@pytest.mark.parametrize("name", EVERY)
def test_every_cell_can_be_projected(name: str) -> None:
    """A hundredth of its hourly rate down to half its voltage; where no resistance is known, the life says so."""
    known = cell(name)
    drain_a = known.capacity_c / 3600 / 1000
    life = project(known, constant(drain_a), Supply(cutoff_v=known.ocv.y[0] / 2))
    assert life.life_s is not None
    assert 0.5 * known.capacity_c / drain_a < life.life_s <= known.capacity_c / drain_a * 1.001
    bound = [caveat for caveat in life.caveats if caveat.code is Code.BATTERY_ASSUMED and "upper bound" in caveat.text]
    assert bool(bound) is (known.resistance is None)


def test_the_asked_sizes_are_there() -> None:
    """Charge in mAh as the sources state it."""
    stated = {
        "CR2032": 235, "CR2032-poor": 220, "CR2025": 163, "CR2450": 620, "CR2477": 1000, "CR1632": 125, "CR2016": 100,
        "CR2032R": 200, "CR2450R": 500, "CR123A": 1500, "AA": 2800, "AAA": 1250, "L91": 3500, "LS14500": 2600,
        "ER10450": 800, "LiPo": 1000, "18650": 3400, "NiMH AA": 2000,
    }  # fmt: skip
    assert {name: round(cell(name).capacity_c / MAH_C) for name in stated} == stated


def test_the_two_archetypes_are_the_fits() -> None:
    """R0 = 10 ohm (1 + 0.4 D + exp((D - Dk) / w)) and R1 = 0.6 R0; at D = Dk the exponential is 1."""
    assert ohm(cell("CR2032"), 0.80) == pytest.approx(1.6 * 10 * (1 + 0.32 + 1))
    assert ohm(cell("CR2032-poor"), 0.42) == pytest.approx(1.6 * 10 * (1 + 0.168 + 1))
    assert ohm(cell("CR2032"), 1.0) == pytest.approx(1.6 * 10 * (1.4 + math.exp(2)))


@pytest.mark.parametrize(("name", "volts"), [("CR2032", 3.2), ("AA", 1.603), ("LiPo", 4.2), ("CR123A", 3.2)])
def test_fresh_voltage(name: str, volts: float) -> None:
    assert cell(name).ocv.y[0] == pytest.approx(volts, abs=0.01)


@pytest.mark.parametrize(
    ("name", "watt_hours"), [("CR2032", 0.68), ("CR123A", 4.35), ("CR2450", 1.80), ("L91", 5.08), ("LiPo", 3.7)]
)
def test_energy_by_the_curve_is_the_rated_one(name: str, watt_hours: float) -> None:
    """Charge times the mean of the curve against the energies commonly stated (2.9 V for lithium coins, 1.45 V L91)."""
    known = cell(name)
    depth = np.linspace(0, 1, 1001)
    energy_wh = known.capacity_c / 3600 * float(np.trapezoid(known.ocv.at(depth), depth))
    assert energy_wh == pytest.approx(watt_hours, rel=0.04)


def test_rate_table_of_aa() -> None:
    """Energizer E91: 2800, 2500, 1800, 1300 mAh at 25, 100, 250, 500 mA; straight in between in logarithms."""
    amperes = np.array([0.001, 0.025, 0.05, 0.1, 0.25, 0.5])
    stated = [2800, 2800, math.sqrt(2800 * 2500), 2500, 1800, 1300]
    assert cell("AA").charge_at(amperes) / MAH_C == pytest.approx(stated)


def test_rated_current_of_a_resistor() -> None:
    """15 kohm at about 2.9 V is the 0.19 mA of Energizer's sheet; 25 mA is stated as such."""
    assert cell("CR2032").rated_a == pytest.approx(0.19e-3, rel=0.02)
    assert cell("AA").rated_a == pytest.approx(25e-3)
    assert cell("CR2477").rated_a is None


def test_cold() -> None:
    """Coin cells: five to ten times from 20 C to -20 C. E91: 0.1 ohm at 40 C, 0.9 ohm at -40 C."""
    coin, alkaline = cell("CR2032"), cell("AA")
    assert 5 < ohm(coin, 0.3, -20) / ohm(coin, 0.3, 20) < 10
    assert ohm(alkaline, 0, -40) / ohm(alkaline, 0, 40) == pytest.approx(9, rel=0.03)


@pytest.mark.parametrize(("celsius", "measured"), [(20, 0.465), (5, 1.05), (-10, 3.20)])
def test_lipo_in_the_cold_as_measured(celsius: float, measured: float) -> None:
    """Half discharged; the three temperatures were profiled by Qoitech one by one."""
    assert ohm(cell("lipo-icp632136"), 0.5, celsius) == pytest.approx(measured, rel=0.11)


# --- what published runs say of the CR2032 that ship


def test_rated_charge_and_continuous_drain() -> None:
    """15 kohm: 235 to 240 mAh. 3 mA: 144 and 155 mAh are reported. 0.5 mA: most of it."""
    by_resistor = project(cell("CR2032"), constant(15e3, kind=Kind.RESISTANCE), TO_2V)
    assert by_resistor.delivered_c / MAH_C == pytest.approx(237.5, rel=0.02)
    assert 140 < delivered_mah(cell("CR2032"), 3e-3) < 160
    assert delivered_mah(cell("CR2032"), 0.5e-3) >= 215


def test_what_a_capacitor_gained_in_swra349() -> None:
    """TI: Sony +13 % at 30 mA and +5 % at 15 mA, no-name over 40 %; 30 mA gives 9 % less than 15 mA."""

    def gain(name: str, peak_a: float) -> float:
        bare, helped = (project(cell(name), ti_load(peak_a), supply) for supply in (TO_2V, TO_2V_100UF))
        return helped.model_life_s / bare.model_life_s

    assert 1.10 < gain("CR2032", 30e-3) < 1.15
    assert 1.03 < gain("CR2032", 15e-3) < 1.07
    assert 1.35 < gain("CR2032-poor", 30e-3) < 1.50
    large, small = (project(cell("CR2032"), ti_load(peak), TO_2V).delivered_c for peak in (30e-3, 15e-3))
    assert 0.88 < large / small < 0.96


def test_a_measured_cell_lies_between_the_archetypes() -> None:
    """The Varta cell that Qoitech profiled knows nothing of TI's cells; TI saw half to all of the charge by brand."""
    poor, measured = (
        project(cell(name), ti_load(30e-3), TO_2V).delivered_c / MAH_C for name in ("CR2032-poor", "CR2032-varta")
    )
    assert poor < measured < 220


def test_continuous_load_of_an_nrf52840_is_refused() -> None:
    life = project(cell("CR2032"), constant(17e-3), Supply(cutoff_v=1.7))
    assert (life.life_s, life.cause) == (None, Cause.REFUSED)


# --- what is not known


def test_unknown_stays_unknown() -> None:
    known = cell("CR2477")
    assert (known.resistance, known.slow, known.rate) == (None, None, None)
    assert (known.limits.continuous_a, known.limits.pulse_a) == (None, None)
    assert known.ocv.y == (3.0,)
    assert known.grades["ocv"] == "D"
    assert "not known" in known.sources["ocv"]
    assert any("is not known; 3 V is taken throughout" in text for text in known.notes)
    assert cell("NiMH AA").shelf_s is None


def test_letters_cover_every_grade() -> None:
    assert cells.LETTERS.keys() == set(get_args(profile.Grade))
    assert "".join(sorted(set(cells.LETTERS.values()))) == GRADES


def test_the_smallest_profile(tmp_path: Path) -> None:
    known = cell(write(tmp_path / "mine.toml", PLAIN))
    assert (known.name, known.grades["capacity"]) == ("Mine", "A")
    assert known.capacity_c == pytest.approx(720)
    assert (known.loss_per_year, known.shelf_s, known.rated_a, known.rechargeable) == (None, None, None, False)


def test_a_table_holds_both_parts_of_the_resistance(tmp_path: Path) -> None:
    known = cell(write(tmp_path / "mine.toml", PLAIN, OCV, TABLE, 'temperature = "20C"\n', SOURCE))
    assert known.resistance is not None
    assert known.resistance.fresh_ohm == pytest.approx(10)
    assert known.resistance.tau1_s == pytest.approx(0.01)
    assert known.resistance.reference_c == pytest.approx(20)
    assert ohm(known, 0.5, -20) == pytest.approx(22), "no temperature law is known, so none is applied"


# --- names and packs


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("cr2032", "CR2032"), ("coin cell", "CR2032"), ("Coin-Cell", "CR2032"), ("LR6", "AA alkaline"),
        ("aa", "AA alkaline"), ("LR03", "AAA alkaline"), ("FR6", "L91 (AA lithium)"), ("CR123", "CR123A"),
        ("AA Li-SOCl2", "LS 14500 (AA Li-SOCl2)"), ("lipo 1s", "LiPo 1S"), ("Li-ion 18650", "18650 Li-ion"),
    ],
)  # fmt: skip
def test_aliases(alias: str, name: str) -> None:
    assert cell(alias).name == name


@pytest.mark.parametrize(
    ("text", "series", "parallel"),
    [
        ("2xL91", 2, 1), ("2x L91", 2, 1), ("2 x L91 series", 2, 1), ("3X L91 in series", 3, 1),
        ("2x L91 parallel", 1, 2), ("2s L91", 2, 1), ("3s1p L91", 3, 1), ("2S2P L91", 2, 2), ("4p L91", 1, 4),
        (" 2s  L91 ", 2, 1), ("1x L91", 1, 1),
    ],
)  # fmt: skip
def test_packs(text: str, series: int, parallel: int) -> None:
    one, many = cell("L91"), cell(text)
    assert many.capacity_c == pytest.approx(one.capacity_c * parallel)
    assert many.ocv.y == pytest.approx([volts * series for volts in one.ocv.y])


def test_a_pack_of_coin_cells_halves_resistance_and_doubles_limits() -> None:
    one, two = cell("CR2032"), cell("2p CR2032")
    assert ohm(two, 0.5) == pytest.approx(ohm(one, 0.5) / 2)
    assert two.limits.pulse_a == pytest.approx(30e-3)


def test_the_charge_marked_on_a_cell() -> None:
    known = cell("2s lipo 500mAh")
    assert known.capacity_c == pytest.approx(500 * MAH_C)
    assert known.ocv.y[0] == pytest.approx(8.4)
    assert cell("18650 2.6Ah").capacity_c == pytest.approx(2600 * MAH_C)
    smaller = cell("AA 2100mAh")
    assert smaller.charge_at(np.array([0.1]))[0] / MAH_C == pytest.approx(2500 * 2100 / 2800)
    assert smaller.grades["capacity"] == "B"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CR2033", r"'CR2033'.*Did you mean cr2032"),
        ("2xL19", r"'L19'.*Did you mean l91"),
        ("3s1p AB", r"'AB'.*Did you mean aa"),
        ("qqqq", r"'qqqq'.*Known are 18650, aa, "),
        ("0x L91", r"A pack of 0 in series"),
        ("lipo 0mAh", r"'0mAh' must be greater than zero"),
        ("lipo 3.7Wh", r"'3\.7Wh' is not a quantity in coulombs.*225mAh"),
        ("nowhere.toml", r"nowhere\.toml cannot be read"),
        ("nowhere.json", r"nowhere\.json cannot be read: No such file"),
    ],
)
def test_what_is_no_cell_is_explained(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cell(text)


def test_voltage_down_to_which_the_charge_is_stated(tmp_path: Path) -> None:
    assert cells.cutoff_v("CR2032") == pytest.approx(2.0)
    assert cells.cutoff_v("3s2p AA") == pytest.approx(2.4)
    assert cells.cutoff_v(str(otii(tmp_path, recorded(10, cutoffvoltage=1.8)))) == pytest.approx(1.8)
    with pytest.raises(UsageError, match="CR2477 is stated is not known"):
        cells.cutoff_v("CR2477")


def test_found_tells_file_and_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", PLAIN)
    found = cells.find(f"2x {path}")
    assert (found.path, found.sha256) == (str(path), hashlib.sha256(PLAIN.encode()).hexdigest())
    assert cells.find("2xL91").path == "profiles/batteries/l91.toml"


# --- profiles with mistakes


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((PLAIN, OCV.replace("depth", "depht")), r"ocv\.depht is not a known key\. Did you mean 'depth'\?"),
        ((PLAIN, OCV.replace("[ocv]", "[ovc]")), r"ovc is not a known key\. Did you mean 'ocv'\?"),
        ((PLAIN.replace("200mAh", "200mWh"),), r"capacity\.charge: '200mWh' is not a quantity in coulombs"),
        ((PLAIN.replace('"200mAh"', '"200mAh"\nenergy = "600Wh"'),), r"check mAh and Wh"),
        ((PLAIN, OCV.replace("0.5", "1.5")), r"ocv\.depth\[1\]: Expected `float` <= 1"),
        ((PLAIN, OCV.replace("[0, 0.5, 1]", "[0, 1, 0.5]")), r"ocv: depth must rise"),
        ((PLAIN, OCV.replace(", 1]", "]")), r"ocv: depth and voltage must be as long as each other"),
        ((PLAIN, OCV.replace("2.9V", "3.3V")), r"ocv: voltage must not rise"),
        ((PLAIN, KNEE.replace("knee", "# knee"), SOURCE), r"resistance: give either fresh, knee, width and slope, or"),
        ((PLAIN, TABLE, 'fresh = "1ohm"\n', SOURCE), r"resistance: give either fresh"),
        ((PLAIN, KNEE, "fast_share = 0.6\n", SOURCE), r"fast_share and fast_time go together"),
        ((PLAIN, KNEE), r"resistance: Object missing required field `source`"),
        ((PLAIN, '[arrhenius]\nconstant = "3000K"\n', SOURCE), r"arrhenius needs a resistance"),
        ((PLAIN, SLOW, SOURCE, RATE, SOURCE), r"slow and rate tell the same loss"),
        ((PLAIN, RATE.replace('"100mAh"', '"300mAh"'), SOURCE), r"rate: charge must not rise"),
        ((PLAIN, '[limits]\ncontinuous = "15mA"\npulse = "3mA"\n', SOURCE), r"limits: pulse is below continuous"),
        ((PLAIN, '[loss_doubling]\nstep = "10K"\n', SOURCE), r"loss_doubling needs a loss_per_year"),
        ((PLAIN, SLOW.replace("0.2", "1.0"), SOURCE), r"slow\.at_hand: Expected `float` < 1"),
    ],
)
def test_bad_profiles_are_named_by_key(tmp_path: Path, parts: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        profile.validate(write(tmp_path / "bad.toml", *parts), "battery")


# --- Otii

# The rows that Qoitech's manual shows (battery profile manager), and the charge it states with them.
MANUAL: dict[str, Any] = {
    "id": "273c2632-c7ce-4c90-accc-ea095c2f0d5e",
    "dischargetables": [
        {
            "id": "4a8a56cc-309a-47d9-9997-adccd0a13cb7",
            "table": [
                {"voltage": 3.2014355659484863, "resistance": 10.413976669311523, "capacity": 0.0041708676144480705},
                {"voltage": 3.1991329193115234, "resistance": 10.606740951538086, "capacity": 0.008341789556046328},
                {"voltage": 3.1971662044525146, "resistance": 10.62671947479248, "capacity": 0.01251272236307462},
            ],
        }
    ],
}


def otii(path: Path, told: object) -> Path:
    return write(path / "recorded.json", json.dumps(told))


def test_otii_profile_of_the_manual(tmp_path: Path) -> None:
    """One resistance becomes R0 and a fast tenth of it; only the required fields are there."""
    known = cell(otii(tmp_path, MANUAL))
    assert (known.name, known.chemistry) == ("recorded", "unknown")
    assert known.capacity_c == pytest.approx(0.01251272236307462 * MAH_C)
    assert known.ocv.y == pytest.approx((3.2014355659484863, 3.1991329193115234, 3.1971662044525146))
    assert known.ocv.x == pytest.approx((1 / 3, 2 / 3, 1), abs=1e-5)
    assert [ohm(known, dod) for dod in (1 / 3, 2 / 3, 1)] == pytest.approx([10.414, 10.607, 10.627], abs=1e-3)
    assert known.resistance is not None
    assert known.resistance.fresh_ohm == pytest.approx(10.413976669311523 / 1.1)
    assert (known.limits.pulse_a, known.loss_per_year, known.shelf_s) == (None, None, None)
    assert set(known.grades.values()) == {"C"}


def recorded(rows: int, **battery: object) -> dict[str, Any]:
    """A straight line from 3.2 V to 2.2 V and from 11 ohm to 33 ohm over 0.2 of a unit of charge."""
    depth = [(row + 1) / rows for row in range(rows)]
    table = [{"voltage": 3.2 - d, "resistance": 11 + 22 * d, "capacity": 0.2 * d} for d in depth]
    return {"battery": battery, "dischargetables": [{"temperature": 5, "temperatureunit": "°C", "table": table}]}


def test_otii_profile_with_everything(tmp_path: Path) -> None:
    told = recorded(13_500, manufacturer="Varta", model="CR2032", size="D20 H3.2", capacityunit="Ah", capacity=0.2)
    found = cells.find(str(otii(tmp_path, told)))
    known = found.cell
    assert (known.name, known.chemistry) == ("Varta CR2032", "Li/MnO2")
    assert known.capacity_c == pytest.approx(720)
    assert found.sha256 == hashlib.sha256(json.dumps(told).encode()).hexdigest()
    assert len(known.ocv.x) == BINS
    middle = np.linspace(0.01, 0.99, 99)
    assert known.ocv.at(middle) == pytest.approx(3.2 - middle, abs=1e-9)
    assert ohm(known, 0.5, 5) == pytest.approx(22)
    assert known.resistance is not None
    assert known.resistance.reference_c == 5


@pytest.mark.parametrize(("model", "chemistry"), [("LR03", "alkaline"), ("FR6", "Li/FeS2"), ("Industrial", "unknown")])
def test_chemistry_by_designation(tmp_path: Path, model: str, chemistry: str) -> None:
    """IEC 60086-1. The size is not asked: a lithium AAA is called LR03 in a published profile."""
    assert cell(otii(tmp_path, recorded(10, model=model, size="LR03 10x44"))).chemistry == chemistry


def test_recovery_is_held_level() -> None:
    """Isotonic regression, by hand: 2.9 and 3.0 pool to 2.95, then 2.0, 2.2 and 2.4 to 2.2."""
    assert _falling((3.0, 2.9, 3.0, 2.8)) == pytest.approx((3.0, 2.95, 2.95, 2.8))
    assert _falling((3.0, 2.0, 2.2, 2.4)) == pytest.approx((3.0, 2.2, 2.2, 2.2))


def changed(**row: object) -> dict[str, Any]:
    told = recorded(10)
    told["dischargetables"][0]["table"][4].update(row)
    return told


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["nothing"], r"recorded\.json is not a battery profile of Otii: Expected `object`"),
        ({"battery": {}}, r"missing required field `dischargetables`"),
        ({"dischargetables": []}, r"holds 0 discharge tables"),
        ({"dischargetables": [{"table": []}]}, r"a table of 0 rows"),
        (changed(resistance="low"), r"Expected `float`, got `str` - at `\$\.dischargetables\[0\]\.table\[4\]"),
        (changed(resistance=0), r"row 4 has 2\.7 V, 0\.0 ohm"),
        (changed(capacity=0.01), r"in row 4 the charge taken does not rise"),
        (recorded(10, capacityunit="mWh"), r"'1mWh' is not a quantity in coulombs"),
    ],
)
def test_what_is_no_otii_profile_is_explained(tmp_path: Path, told: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cell(otii(tmp_path, told))


def test_two_tables_and_fahrenheit_are_refused(tmp_path: Path) -> None:
    twice = recorded(10)
    twice["dischargetables"] *= 2
    with pytest.raises(UsageError, match="holds 2 discharge tables"):
        cell(otii(tmp_path, twice))
    warm = recorded(10)
    warm["dischargetables"][0]["temperatureunit"] = "°F"
    with pytest.raises(UsageError, match="temperature is in '°F'"):
        cell(otii(tmp_path, warm))
    with pytest.raises(UsageError, match=r"is not a battery profile of Otii"):
        cell(write(tmp_path / "half.json", '{"dischargetables": ['))
