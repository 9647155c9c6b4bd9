"""Sensors of boards: what is found in their trees, what is chosen, and lines made by hand."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hwmon_trees import BOARDS, build, old_jetson_nano

from joulemeter.boardfiles import wire
from joulemeter.boardfiles.driver import FilesDriver
from joulemeter.capture import Header, Kind, Quantity
from joulemeter.caveat import Code
from joulemeter.errors import AccessError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import hwmon
from joulemeter.instruments.hwmon import channels, discovery, driver, rails, simulator
from joulemeter.instruments.hwmon import wire as hwmon_wire
from joulemeter.synthetic import parse_load
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.loopback import LoopbackLink
from joulemeter.workload import agent

SETTINGS = {name: setting.default for name, setting in hwmon.INFO.settings.items()}


def found(root: Path) -> list[rails.Rail]:
    """What an agent on that board would tell."""
    files = agent.files([f"{root}/{pattern}" for pattern in rails.PATTERNS])
    told: list[rails.Rail] = rails.rails(wire.parse_files(files))
    return told


# -- trees ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("board", "names", "watts"),
    [
        ("pi with ina226", ["ina226@1-0040:1"], 5.012 * 0.812),
        ("ina219", ["ina219@1-0041:1"], 5.012 * 0.812),
        ("ina238", ["ina238@0-0044:1"], 4.0692),
        ("orin nx", ["VDD_IN"], 4.968 * 0.920),
        ("agx orin", ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"], 3.2 + 0.96 + 4.0 + 0.6),
        (
            "agx xavier",
            ["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"],
            19.0 * (0.008 + 0.024 + 0.072 + 0.008 + 0.016) + 5.0 * 0.280,
        ),
        ("powerz", ["IBUS"], 5.087 * -0.431),
        ("amdgpu", ["PPT"], 23.145),
    ],
)
def test_the_power_of_a_board(tmp_path: Path, board: str, names: list[str], watts: float) -> None:
    chosen = rails.choose(found(build(tmp_path, board)), "", rails.AUTO)
    assert [rail.name for rail in chosen] == names
    total = 0.0
    for rail in chosen:
        values = [int(Path(source.path).read_text()) / source.per_si for source in rail.sources]
        total += values[0] if rail.power else float(np.prod(values))
    assert total == pytest.approx(watts, rel=1e-12)


def test_the_older_layout_of_jetsons(tmp_path: Path) -> None:
    (rail,) = rails.choose(found(old_jetson_nano(tmp_path)), "", rails.AUTO)
    assert (rail.name, rail.sensor) == ("POM_5V_IN", "ina3221x@6-0040")
    assert [Path(source.path).read_text() for source in rail.sources] == ["412\n", "5040\n"]


def test_unused_channels_and_sums_of_the_chip_are_no_rails(tmp_path: Path) -> None:
    assert {rail.name for rail in found(build(tmp_path, "agx orin"))} == rails.SUMS["Jetson AGX Orin"]


@pytest.mark.parametrize(
    ("sensor", "rail", "names"),
    [
        ("", "vdd_soc", ["VDD_SOC"]),
        ("ina3221@40", "VDD_SOC", ["VDD_SOC"]),
        ("1-0040", "VDD_CPU_GPU_CV+VDD_SOC", ["VDD_CPU_GPU_CV", "VDD_SOC"]),
        ("VDD_SOC", "auto", ["VDD_SOC"]),
    ],
)
def test_a_rail_by_name(tmp_path: Path, sensor: str, rail: str, names: list[str]) -> None:
    chosen = rails.choose(found(build(tmp_path, "orin nx")), sensor, rail)
    assert [each.name for each in chosen] == names


@pytest.mark.parametrize(
    ("board", "sensor", "rail", "error", "says"),
    [
        ("nothing", "", "auto", NotFoundError, "no power sensor"),
        ("orin nx", "ina226", "auto", NotFoundError, r"VDD_IN \(ina3221@1-0040\), VDD_CPU_GPU_CV"),
        ("orin nx", "", "VDD_GPU", NotFoundError, "There are: VDD_IN"),
        ("orin nx", "", "sum", UsageError, "VDD_IN already holds"),
        ("orin nx", "", "VDD_IN+VDD_SOC", UsageError, "count it twice"),
        ("two strangers", "", "auto", UsageError, "ina226@1-0040:1, ina226@1-0045:1"),
    ],
)
def test_what_cannot_be_chosen(
    tmp_path: Path, board: str, sensor: str, rail: str, error: type[JouleMeterError], says: str
) -> None:
    with pytest.raises(error, match=says):
        rails.choose(found(build(tmp_path, board)), sensor, rail)


def test_two_of_a_kind_are_told_apart_by_their_address(tmp_path: Path) -> None:
    (rail,) = rails.choose(found(build(tmp_path, "two strangers")), "ina226@45", rails.AUTO)
    assert rail.place == "1-0045"
    both = rails.choose(found(tmp_path), "", rails.SUM)
    assert len(both) == 2


def test_a_file_that_nobody_may_read_is_told_with_its_remedy() -> None:
    folder = "/sys/class/hwmon/hwmon0"
    texts = {f"{folder}/name": "ina226", f"{folder}/in1_input": "5000"}
    denied = wire.Files(texts=texts, failures={f"{folder}/curr1_input": "EACCES"})
    with pytest.raises(AccessError, match=r"No permission to read .*curr1_input") as told:
        rails.choose(rails.rails(denied), "", rails.AUTO)
    assert f"sudo chmod a+r {folder}/curr1_input" in told.value.remedy
    assert f"z {folder}/curr1_input 0444 - - -" in told.value.remedy
    # A channel without power says EIO: another one may be chosen.
    broken = wire.Files(texts=texts, failures={f"{folder}/curr1_input": "EIO"})
    with pytest.raises(NotFoundError, match="says EIO"):
        rails.choose(rails.rails(broken), "", rails.AUTO)


def test_discovery_shows_every_rail_and_what_stands_in_its_way(tmp_path: Path) -> None:
    root = build(tmp_path, "orin nx")
    units = discovery.discover("hwmon", str(root))
    assert [unit.address for unit in units] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]
    assert all(unit.problem is None for unit in units)
    # An address is one that can be opened.
    options = Options(settings={"root": str(root)})
    for unit in units:
        with hwmon.open(unit.address, options) as meter:
            assert [rail["name"] for rail in meter.plan.parameters["rails"]] == [unit.address]
    (root / "class/hwmon/hwmon4/curr3_input").write_text("\n")
    spoilt = discovery.discover("hwmon", str(root))[2]
    assert spoilt.problem is not None and "curr3_input" in spoilt.problem and spoilt.remedy
    assert discovery.discover("hwmon", str(tmp_path / "nowhere")) == []


def test_every_tree_is_used() -> None:
    """A board that no test opens would say nothing."""
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{board}"' in text for board in BOARDS)


# -- what the header says ---------------------------------------------------------------------------------------------


def header(root: Path, **settings: str) -> Header:
    options = Options(settings={"root": str(root), **settings})
    with hwmon.open("", options) as meter:
        made: Header = meter.start()
    return made


def test_current_times_voltage_where_the_power_file_is_coarser(tmp_path: Path) -> None:
    """INA226: the driver's power comes in steps of 25 mW, current times voltage in steps of 5 mW at 5 V."""
    made = header(build(tmp_path, "pi with ina226"))
    assert [channel.name for channel in made.channels] == ["current", "voltage"]
    assert all(channel.kind is Kind.INSTANT and channel.refresh_s == 2e-3 for channel in made.channels)
    assert made.firmware is not None and made.firmware.startswith(platform.system())
    assert (made.model, made.simulated, made.rate_hz) == ("ina226@1-0040:1", False, 100.0)
    (row,) = made.channels[0].accuracy
    # 0.1 % and a shunt of 1.2 %; 10 uV over 10 milliohms and half a milliampere: rectangular, so a third of squares.
    assert row.gain.standard == pytest.approx(((0.001**2 + 0.012**2) / 3) ** 0.5)
    assert row.offset.standard == pytest.approx(((1e-3**2 + 0.5e-3**2) / 3) ** 0.5)
    assert not row.verified


def test_power_where_its_file_is_finer(tmp_path: Path) -> None:
    made = header(build(tmp_path, "ina238"))
    assert [channel.name for channel in made.channels] == ["power", "current", "voltage"]
    # No update_interval: 16 averages of three conversions of 1.052 ms, and a poll for each half of that.
    assert made.channels[0].refresh_s == 50.5e-3
    assert made.rate_hz == pytest.approx(1 / 25.25e-3)
    assert any(caveat.code is Code.ACCURACY_UNVERIFIED and "shunt" in caveat.text for caveat in made.caveats)


def test_a_total_has_its_rails_beside_it(tmp_path: Path) -> None:
    made = header(build(tmp_path, "agx orin"))
    names = ["power", "power VDD_GPU_SOC", "power VDD_CPU_CV", "power VIN_SYS_5V0", "power VDDQ_VDD2_1V8AO"]
    assert [channel.name for channel in made.channels] == names
    assert {channel.quantity for channel in made.channels} == {Quantity.POWER}
    # 80 uV over 5 milliohms are 16 mA; rails at 20, 20, 5 and 5 V, and half a milliampere of each.
    (row,) = made.channels[0].accuracy
    squares = sum((volts * amperes) ** 2 for volts in (20, 20, 5, 5) for amperes in (16e-3, 0.5e-3))
    assert row.offset.standard == pytest.approx((squares / 3) ** 0.5)
    assert not made.caveats


def test_rails_of_one_name_are_told_apart(tmp_path: Path) -> None:
    root = build(tmp_path, "two strangers")
    for folder in ("hwmon0", "hwmon1"):
        (root / "class/hwmon" / folder / "label").write_text("5V\n")
    made = header(root, rail="sum")
    assert [channel.name for channel in made.channels] == ["power", "power 5V ina226@1-0040", "power 5V ina226@1-0045"]
    with pytest.raises(UsageError, match="2 rails are called"):
        header(root, rail="5v")


def test_a_stranger_has_no_accuracy_and_no_refresh(tmp_path: Path) -> None:
    made = header(build(tmp_path, "amdgpu"))
    assert made.channels[0].accuracy == () and made.channels[0].refresh_s is None
    assert any("is not known" in caveat.text for caveat in made.caveats)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(supply_v=5.0), "cannot supply one"),
        (Options(declared_v=-1.0), "no supply voltage"),
        (Options(declared_v=5.0), "measure their voltage"),
        (Options(settings={"interval": "1us"}), "polled every"),
        (Options(settings={"interval": "2s"}), "polled every"),
        (Options(settings={"interval": "often"}), "often"),
    ],
)
def test_impossible_wishes(tmp_path: Path, options: Options, says: str) -> None:
    root = str(build(tmp_path, "ina219"))
    with pytest.raises(UsageError, match=says):
        hwmon.open("", Options(**_with(options, root)))


def _with(options: Options, root: str) -> dict[str, Any]:
    settings = {"root": root, **options.settings}
    return {"supply_v": options.supply_v, "declared_v": options.declared_v, "settings": settings}


def test_the_usual_interval_is_half_a_refresh_within_limits() -> None:
    wanted = {None: 10e-3, 2e-3: 10e-3, 35e-3: 17.5e-3, 2.253: 100e-3}
    assert {refresh_s: driver.usual_s(refresh_s) for refresh_s in wanted} == wanted


# -- what a round is worth --------------------------------------------------------------------------------------------


def test_a_round_by_hand() -> None:
    """Two rails of mA and mV, one of uW: 0.812 A * 5.012 V + 2.5 W; -0.3 A * 5 V."""
    made = Header(
        instrument="hwmon",
        model="by hand",
        wire=wire.FORMAT,
        rate_hz=100.0,
        word_bytes=304,
        channels=(channels.power((), None), channels.power((), None, "power one")),
        parameters={"per_si": [1e3, 1e3, 1e6], "channels": {"power one": [[0, 1]], "power": [[0, 1], [2]]}},
    )
    worth = hwmon_wire.Sums(made)

    def a_round(*texts: str) -> wire.Round:
        return wire.Round(
            slot=0, reads=tuple(wire.Read(before_ns=0, after_ns=1, text=text, failure=None) for text in texts)
        )

    assert worth(a_round("812", "5012", "2500000")) == pytest.approx([0.812 * 5.012 + 2.5, 0.812 * 5.012])
    assert worth(a_round("-300", "5000", "0")) == pytest.approx([-1.5, -1.5])
    assert worth(a_round("-300", "5000", "n/a")) is None


# -- the simulated board ----------------------------------------------------------------------------------------------


def simulated(load: str, faults: str = "", **settings: str) -> FilesDriver:
    device = FaultyDevice(hwmon.simulate(parse_load(load), Options()), parse_faults(faults))
    made: FilesDriver = driver.driver_on(LoopbackLink(device), Options(), SETTINGS | settings)
    return made


def gathered(meter: FilesDriver, seconds: float) -> tuple[Header, Any]:
    """Header and the first block."""
    made = meter.start()
    raw = b""
    while len(raw) < seconds * made.rate_hz * made.word_bytes:
        raw += meter.read(0.1)
    return made, hwmon.decoder(made).feed(raw)


def test_the_simulated_chip_shows_averages_in_its_steps() -> None:
    """1234.56 mA is 1235 mA to the driver; its power is not looked at."""
    with simulated("1234.56mA/1s") as meter:
        made, (block,) = gathered(meter, 0.5)
        assert made.simulated and made.parameters["board"]["simulator"] == "joulemeter"
        assert set(block.data["current"]) == {1.235} and set(block.data["voltage"]) == {5.0}
    # 81.92 mV over 10 milliohms is where the chip ends.
    with simulated("9A/1s") as meter:
        _, (block,) = gathered(meter, 0.1)
        assert set(block.data["current"]) == {8.192}


def test_the_simulated_energy_is_the_loads() -> None:
    load = "800mA/70ms,200mA/130ms"
    with simulated(load, interval="2ms") as meter:
        made, blocks = gathered(meter, 2.0)
    current = np.concatenate([block.data["current"] for block in blocks])
    assert current.mean() == pytest.approx(parse_load(load).mean_a, rel=0.01)
    assert made.rate_hz == 500.0


def test_unplugged_and_dropped() -> None:
    with simulated("1A/1s", "drop@0.5s:500") as meter:
        _, blocks = gathered(meter, 1.0)
        # 500 bytes are two lines and a part of a third, and what follows that.
        assert 3 <= sum(block.lost_before for block in blocks) <= 4
    with simulated("1A/1s", "unplug@0.5s") as meter:
        meter.start()
        with pytest.raises(IncompleteError):
            for _ in range(100):
                meter.read(0.1)


def test_a_round_that_takes_too_long_is_polled_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of 6 ms do not fit into 10 ms; into 18 ms they do."""
    monkeypatch.setattr(simulator, "READ_NS", 6_000_000)
    with simulated("1A/1s") as meter:
        made, (block,) = gathered(meter, 0.5)
        assert made.rate_hz == pytest.approx(1 / 18e-3)
        assert len(block) >= 27
    with simulated("1A/1s", interval="10ms") as meter, pytest.raises(UsageError, match=r"takes 12\.00 ms") as told:
        meter.start()
    assert "--set interval=18.00ms" in told.value.remedy
