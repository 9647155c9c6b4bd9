"""Batteries: which of them feed a machine, what they show while they discharge, and what is refused."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_meters import lines, loopback, plant, recorded, settings, stream_of, survey, until_it_ends
from hwmon_trees import put

import joulemeter as jm
from joulemeter import store
from joulemeter.boardfiles import driver as boardfiles
from joulemeter.boardfiles.wire import Files
from joulemeter.capture import Header, Kind, Quantity, Status
from joulemeter.caveat import Code
from joulemeter.errors import AccessError, DataError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import power_supply
from joulemeter.instruments.power_supply import channels, discovery, driver, wire
from joulemeter.physics.integrate import integrate
from joulemeter.physics.witness import cross_check
from joulemeter.synthetic import parse_load
from joulemeter.window import Window

posix_only = pytest.mark.skipif(os.name != "posix", reason="sysfs and pipes are not on this system")


def supply(name: str, **files: str | int) -> dict[str, str | int]:
    return {f"class/power_supply/{name}/{file}": content for file, content in files.items()}


# The uevent of a ThinkPad's battery, as published: 19.195 W.
THINKPAD = supply(
    "BAT0",
    type="Battery",
    status="Discharging",
    present=1,
    model_name="LNV-5B10W13895",
    voltage_now=11_206_000,
    power_now=19_195_000,
    energy_full_design=45_280_000,
    energy_now=32_940_000,
)
AC = supply("AC", type="Mains", online=0)
# What a phone's gauge shows (a Xiaomi's `bms`, published): the current is negative.
PHONE = supply(
    "bms",
    type="Battery",
    status="Discharging",
    voltage_now=4_137_440,
    current_now=-1_202_147,
    charge_full_design=3_350_000,
    charge_now=317_457,
)
# A USB-C port says what was agreed on, not what flows (rbonghi/jetson_stats, pull request 900).
PORT = supply(
    "ucsi-source-psy-USBC000:001", type="USB", online=1, scope="System", voltage_now=5_000_000, current_now=3_000_000
)
MOUSE = supply("hidpp_battery_0", type="Battery", scope="Device", status="Discharging", voltage_now=3_900_000)

MACHINES: dict[str, Mapping[str, str | int]] = {
    "laptop": THINKPAD | AC | PORT | MOUSE,
    # The same with a driver that has current in place of power, positive as it was until Linux 6.15.
    "older laptop": supply(
        "BAT1",
        type="Battery",
        status="Discharging",
        voltage_now=14_888_000,
        current_now=1_000_000,
        energy_full_design=52_500_000,
        energy_now=9_430_000,
    ),
    "phone": PHONE,
    "two batteries": THINKPAD
    | supply(
        "BAT1",
        type="Battery",
        status="Not charging",
        voltage_now=12_000_000,
        power_now=0,
        energy_full_design=23_000_000,
        energy_now=20_000_000,
    ),
    "desktop": AC | MOUSE,
    "gone": supply("BAT0", type="Battery", present=0, status="Unknown"),
    "mute": supply("BAT0", type="Battery", status="Discharging", voltage_now=4_000_000),
}


def found(tmp_path: Path, machine: str, **changed: str | int) -> list[wire.Supply]:
    tree = dict(MACHINES[machine]) | {f"class/power_supply/BAT0/{name}": text for name, text in changed.items()}
    told: list[wire.Supply] = wire.supplies(survey(plant(tmp_path, tree), wire.PATTERNS))
    return told


def plan(tmp_path: Path, machine: str, supply: str = "auto", refresh_s: float = 30.0) -> boardfiles.Plan:
    files = survey(plant(tmp_path, MACHINES[machine]), wire.PATTERNS)
    made: boardfiles.Plan = driver.plan(boardfiles.Survey(hello={}, files=files, root=str(tmp_path)), supply, refresh_s)
    return made


def header(of_it: boardfiles.Plan) -> Header:
    size = 40 + sum({"text": 130, "number": 88}[source.kind] for source in of_it.sources)
    return Header(
        instrument="power_supply",
        model=of_it.model,
        wire=wire.FORMAT,
        rate_hz=4.0,
        word_bytes=size,
        channels=of_it.channels,
        parameters={
            "sources": [source.asked for source in of_it.sources],
            "interval_ns": 250_000_000,
            "first_ns": 1_000_000_000,
            "age_ns": 0,
            **of_it.parameters,
        },
    )


def shown(of_it: boardfiles.Plan, *rounds: dict[str, str]) -> Any:
    """The first block of rounds in which the files hold what the tree does, but for those that are named."""
    tree = {source.path: Path(source.path).read_text().strip() for source in of_it.sources}
    made = header(of_it)
    texts = {
        slot: [changed.get("/".join(path.split("/")[-2:]), text) for path, text in tree.items()]
        for slot, changed in enumerate(rounds)
    }
    return power_supply.decoder(made).feed(b"".join(lines(made, texts)))[0]


# -- which batteries, and what they show ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "names", "watts", "kinds"),
    [
        ("laptop", ["BAT0"], 19.195, ["power", "voltage", "counted"]),
        ("older laptop", ["BAT1"], 14.888, ["power", "current", "voltage", "counted"]),
        ("phone", ["bms"], 4.13744 * 1.202147, ["power", "current", "voltage", "counted"]),
        ("two batteries", ["BAT0", "BAT1"], 19.195, ["power", "counted"]),
    ],
)
def test_the_power_of_a_machine(tmp_path: Path, machine: str, names: list[str], watts: float, kinds: list[str]) -> None:
    of_it = plan(tmp_path, machine)
    assert of_it.subject == "+".join(names)
    assert [channel.name for channel in of_it.channels] == kinds
    block = shown(of_it, {}, {})
    assert block.data["power"] == pytest.approx([watts, watts], rel=1e-9)
    assert block.data["counted"].tolist() == [0.0, 0.0]
    if "current" in kinds:
        assert (block.data["current"] * block.data["voltage"]).tolist() == pytest.approx([watts, watts])


def test_the_sign_of_a_driver_does_not_matter(tmp_path: Path) -> None:
    """ACPI batteries show a negative current since Linux 6.16, and a positive one before."""
    block = shown(plan(tmp_path, "older laptop"), {}, {"BAT1/current_now": "-1000000"}, {"BAT1/current_now": "2000000"})
    assert block.data["power"] == pytest.approx([14.888, 14.888, 29.776])


def test_the_gauges_own_counter_is_a_witness(tmp_path: Path) -> None:
    of_it = plan(tmp_path, "laptop")
    block = shown(of_it, {}, {"BAT0/energy_now": "32930000"}, {"BAT0/energy_now": "32920000"})
    # 10 mWh are 36 J.
    assert block.data["counted"].tolist() == pytest.approx([0.0, 36.0, 72.0])
    counted = of_it.channels[-1]
    assert counted.witness and counted.kind is Kind.CUMULATIVE and counted.quantity is Quantity.ENERGY
    charge = plan(tmp_path / "phone", "phone").channels[-1]
    assert charge.witness and (charge.quantity, charge.unit) == (Quantity.CHARGE, "C")
    block = shown(plan(tmp_path / "phone", "phone"), {}, {"bms/charge_now": "316457"})
    assert block.data["counted"].tolist() == pytest.approx([0.0, 3.6])


@pytest.mark.parametrize(
    "changed",
    [
        {"BAT0/status": "Charging"},
        {"BAT0/status": "Full"},
        {"BAT0/status": "Not charging"},
        {"BAT0/status": "Unknown"},
        {"BAT0/power_now": "0"},
        {"BAT0/status": "Charging", "BAT0/power_now": "45000000"},
    ],
)
def test_what_is_shown_on_the_charger_is_no_measurement(tmp_path: Path, changed: dict[str, str]) -> None:
    block = shown(plan(tmp_path, "laptop"), {}, changed, changed, {})
    assert block.status is not None
    assert block.status.tolist() == [Status.GOOD, Status.INVALID, Status.INVALID, Status.GOOD]
    assert np.isnan(block.data["power"]).tolist() == [False, True, True, False]


def test_one_battery_that_charges_spoils_the_sum(tmp_path: Path) -> None:
    block = shown(plan(tmp_path, "two batteries"), {}, {"BAT1/status": "Charging"}, {"BAT1/status": "Discharging"})
    assert block.data["power"].tolist() == pytest.approx([19.195, np.nan, 19.195], nan_ok=True)


@pytest.mark.parametrize(
    ("machine", "supply", "error", "says"),
    [
        ("desktop", "auto", NotFoundError, "That is normal for a desktop"),
        ("gone", "auto", NotFoundError, "no battery of its own"),
        ("mute", "auto", NotFoundError, "neither its power nor its current"),
        ("laptop", "BAT7", NotFoundError, "There are: BAT0"),
        ("laptop", "ucsi-source-psy-USBC000:001", UsageError, "only what it was agreed to give"),
        ("laptop", "AC", UsageError, "no battery of this machine but Mains"),
        ("laptop", "hidpp_battery_0", UsageError, "no battery of this machine"),
    ],
)
def test_what_cannot_be_chosen(
    tmp_path: Path, machine: str, supply: str, error: type[JouleMeterError], says: str
) -> None:
    with pytest.raises(error, match=says):
        driver.choose(found(tmp_path, machine), supply)


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_on_the_charger_it_is_refused(tmp_path: Path, status: str) -> None:
    with pytest.raises(UsageError, match=f"BAT0 says '{status}'") as told:
        driver.choose(found(tmp_path, "laptop", status=status), "auto")
    assert "Unplug the charger" in told.value.remedy
    (one,) = discovery.discover("power_supply", str(tmp_path))
    assert one.problem and status in one.problem and one.remedy


def test_discovery(tmp_path: Path) -> None:
    (one,) = discovery.discover("power_supply", str(plant(tmp_path, MACHINES["laptop"])))
    assert (one.description, one.problem) == ("BAT0 LNV-5B10W13895", None)
    assert discovery.discover("power_supply", str(plant(tmp_path / "desktop", MACHINES["desktop"]))) == []


def test_a_file_that_nobody_may_read_is_told() -> None:
    folder = "/sys/class/power_supply/BAT0"
    texts = {f"{folder}/type": "Battery", f"{folder}/status": "Discharging"}
    denied = wire.supplies(Files(texts=texts, failures={f"{folder}/power_now": "EACCES"}))
    with pytest.raises(AccessError, match=r"No permission to read .*power_now") as told:
        driver.choose(denied, "auto")
    assert f"sudo chmod a+r {folder}/power_now" in told.value.remedy


def test_what_a_gauge_may_be_wrong_by(tmp_path: Path) -> None:
    """1 % of 45.28 Wh over an hour is 0.45 W; of two batteries, as independent."""
    (row,) = plan(tmp_path, "laptop").channels[0].accuracy
    assert row.gain.value == 0.01 and not row.verified
    assert row.offset.standard == pytest.approx(0.4528 / 3**0.5)
    (row,) = plan(tmp_path / "two", "two batteries").channels[0].accuracy
    assert row.offset.standard == pytest.approx((0.4528**2 / 3 + 0.23**2 / 3) ** 0.5)
    unsaid = wire.Supply(name="BAT0", folder="", texts={"power_now": "1"}, failures={})
    assert channels.power([unsaid], 1.0).accuracy == ()


# -- the simulated laptop ---------------------------------------------------------------------------------------------


def simulated(load: str, faults: str = "", **changed: str) -> boardfiles.FilesDriver:
    link = loopback(power_supply.simulate(parse_load(load), Options()), faults)
    made: boardfiles.FilesDriver = driver.driver_on(link, Options(), settings(power_supply, **changed))
    return made


def test_energy_of_windows_is_within_what_a_slow_gauge_leaves_open() -> None:
    """17.1 W for 20 s, 5.7 W for 20 s; the gauge averages for a second, of which it is told by the user."""
    with simulated("1500mA/20s,500mA/20s", refresh="1s") as meter:
        header, blocks = recorded(meter, power_supply, 125.0)
    assert header.parameters["age_ns"] == 500_000_000 and header.channels[0].refresh_s == 1.0
    stream = stream_of(header, blocks)
    # The load begins one interval before stream time 0.
    begins = [round((40 * k - 1 / header.rate_hz) * 1e9) for k in (1, 2)]
    windows = [Window(start_ns=at, stop_ns=at + 20_000_000_000, index=k) for k, at in enumerate(begins)]
    for one in integrate(stream, windows):
        assert one.energy_j is not None
        assert abs(one.energy_j - 11.4 * 1.5 * 20) <= one.resolution_j
    (whole,) = integrate(stream, [Window(start_ns=begins[0], stop_ns=begins[1], index=0)])
    assert whole.energy_j == pytest.approx(11.4 * 2.0 * 20, rel=5e-3)
    found = cross_check(stream)
    assert found is not None and found.agrees


def test_the_whole_way_through(tmp_path: Path) -> None:
    """Windows of 0.4 s of a gauge that may take a second are refused; of one that takes 0.2 s they would not be."""
    options: dict[str, Any] = {"meter": "power_supply", "simulate": True, "load": "1A/1s"}
    slow: dict[str, Any] = {"settings": {"refresh": "1s"}, "output": tmp_path / "slow"}
    with pytest.raises(DataError, match="too short"), jm.measure(**options, **slow) as m:
        for _ in range(3):
            with m.inference():
                time.sleep(0.4)
        # What is shown now is of a while ago.
        time.sleep(0.8)
    with jm.measure(**options, settings={"refresh": "200ms"}, output=tmp_path / "quick") as m:
        for _ in range(3):
            with m.inference():
                time.sleep(1.1)
    energy, latency_s = m.result.energy_per_inference_j, m.result.latency_s.median
    assert latency_s is not None and energy.median is not None and energy.expanded_k2 is not None
    assert abs(energy.median - 11.4 * latency_s) <= min(energy.expanded_k2, 0.01 * energy.median)


@pytest.mark.parametrize("faults", ["stall@3s", "unplug@3s", "noise@3s", "drop@3s:1000"])
def test_faults(faults: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boardfiles, "STOP_S", 0.2)
    with simulated("1A/1s", faults) as meter:
        made = meter.start()
        raw, gone = until_it_ends(meter, 400)
    assert gone == faults.startswith("unplug")
    blocks = power_supply.decoder(made).feed(raw[: 30 * made.word_bytes])
    assert 8 <= sum(len(block) for block in blocks) <= 30
    assert bool(sum(block.lost_before for block in blocks)) == faults.startswith("drop")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(supply_v=5.0), "cannot supply one"),
        (Options(declared_v=12.0), "needs no voltage"),
        (Options(settings={"interval": "5s"}), "polled every"),
        (Options(settings={"refresh": "1h"}), "none that is known"),
    ],
)
def test_impossible_wishes(tmp_path: Path, options: Options, says: str) -> None:
    wishes = {"root": str(plant(tmp_path, MACHINES["laptop"])), **options.settings}
    with pytest.raises(UsageError, match=says):
        power_supply.open("", Options(supply_v=options.supply_v, declared_v=options.declared_v, settings=wishes))


# -- a real agent -----------------------------------------------------------------------------------------------------


@posix_only
def test_a_charger_that_is_plugged_in_meanwhile_is_told(tmp_path: Path) -> None:
    root = plant(tmp_path / "sys", MACHINES["laptop"])
    status = root / "class/power_supply/BAT0/status"
    chosen = {"root": str(root), "refresh": "100ms", "interval": "20ms"}
    with jm.measure(meter="power_supply", settings=chosen, output=tmp_path / "runs") as m:
        for window in range(6):
            if window == 4:
                put(status, "Charging")
            with m.inference():
                time.sleep(0.55)
    assert m.result.power_w.inference == pytest.approx(19.195, rel=1e-6)
    assert m.result.windows.used in (3, 4) and m.result.windows.found == 6
    (told,) = [caveat for caveat in m.result.caveats if caveat.code is Code.INVALID_SAMPLES]
    assert "a charger was connected" in told.text
    (stream,) = store.open_run(next((tmp_path / "runs").iterdir())).streams
    marked = [block.status for block in stream.blocks() if block.status is not None]
    assert sum(int((status == Status.INVALID).sum()) for status in marked) >= 30


@posix_only
def test_a_battery_that_shows_nothing_is_told(tmp_path: Path) -> None:
    """As one did for a while after it was unplugged: Discharging, and power_now 0 (published)."""
    tree = dict(MACHINES["laptop"]) | {"class/power_supply/BAT0/power_now": 0}
    options = Options(settings={"root": str(plant(tmp_path, tree))})
    with power_supply.open("", options) as meter, pytest.raises(DataError, match="shows no power"):
        meter.start()


@posix_only
def test_what_the_header_says(tmp_path: Path) -> None:
    options = Options(settings={"root": str(plant(tmp_path, MACHINES["laptop"]))})
    with power_supply.open("BAT0", options) as meter:
        made = meter.start()
    assert made.model == "LNV-5B10W13895 BAT0" and not made.simulated and made.rate_hz == 4.0
    assert [caveat.code for caveat in made.caveats] == [Code.FEW_SAMPLES]
    assert {channel.refresh_s for channel in made.channels} == {30.0}
