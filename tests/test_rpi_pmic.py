"""The power chip of a Raspberry Pi 5: published listings, what is made of them, and which boards have none."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_meters import loopback, plant, recorded, settings, stream_of, until_it_ends

import joulemeter as jm
from joulemeter.boardfiles import driver as boardfiles
from joulemeter.boardfiles.wire import Files, Output, Read, Round
from joulemeter.capture import Basis, Header, Quantity
from joulemeter.caveat import Severity
from joulemeter.errors import AccessError, DataError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import rpi_pmic
from joulemeter.instruments.rpi_pmic import channels, driver, wire
from joulemeter.physics.integrate import integrate
from joulemeter.synthetic import parse_load
from joulemeter.window import Window

posix_only = pytest.mark.skipif(os.name != "posix", reason="pipes and programs without a suffix are not on this system")

# Figures of a listing in the README of jfikar/RPi5-power: name, channel and amperes, channel and volts.
JFIKAR = (
    ("3V7_WL_SW", 0, "0.00000000", 8, "3.79999600"),
    ("3V3_SYS", 1, "0.06245952", 9, "3.30632200"),
    ("1V8_SYS", 2, "0.16102850", 10, "1.79828900"),
    ("DDR_VDD2", 3, "0.00780744", 11, "1.10292900"),
    ("DDR_VDDQ", 4, "0.00000000", 12, "0.60476130"),
    ("1V1_SYS", 5, "0.17566740", 13, "1.10439400"),
    ("0V8_SW", 6, "0.32791250", 14, "0.80256330"),
    ("VDD_CORE", 7, "10.87674000", 15, "0.89745940"),
    ("3V3_DAC", 17, "0.00036630", 20, "3.30494200"),
    ("3V3_ADC", 18, "0.00042735", 21, "3.30219400"),
    ("0V8_AON", 16, "0.00579975", 19, "0.79736190"),
    ("HDMI", 22, "0.01367520", 23, "5.07056000"),
)
EXT5V, BATT = "5.06788000", "3.01110800"


def listing(indented: bool = True) -> str:
    """As it was printed: names to the right, or flush left as other firmware does."""
    rows = [(f"{name}_A", f"current({at})={amperes}A") for name, at, amperes, _, _ in JFIKAR]
    rows += [(f"{name}_V", f"volt({at})={volts}V") for name, _, _, at, volts in JFIKAR]
    rows += [("EXT5V_V", f"volt(24)={EXT5V}V"), ("BATT_V", f"volt(25)={BATT}V")]
    return "".join(f"{name:>12} {rest}\n" if indented else f"{name} {rest}\n" for name, rest in rows)


# Each rail by hand: 0.2065 + 0.2896 + 0.0086 + 0.1940 + 0.2632 + 9.7614 + 0.0012 + 0.0014 + 0.0046 + 0.0693 W.
TOTAL_W = 10.7998
PI_5 = "Raspberry Pi 5 Model B Rev 1.0"


def test_the_listing_has_26_lines() -> None:
    assert len(listing().splitlines()) == 26
    # The first and the last line as they stand in that README.
    assert listing().splitlines()[0] == " 3V7_WL_SW_A current(0)=0.00000000A"
    assert listing().splitlines()[-1] == "      BATT_V volt(25)=3.01110800V"


@pytest.mark.parametrize("indented", [True, False])
def test_rails_of_a_published_listing(indented: bool) -> None:
    found = wire.parse(listing(indented))
    assert found is not None
    assert found.pairs == tuple(name for name, *_ in JFIKAR)
    assert found.volts["EXT5V"] == 5.06788 and "BATT" in found.volts
    assert sum(found.power_w(rail) for rail in found.pairs) == pytest.approx(TOTAL_W, abs=1e-3)
    assert found.power_w("VDD_CORE") == pytest.approx(10.87674 * 0.8974594)


def test_a_shorter_listing() -> None:
    """Figures of geerlingguy.com on overclocking a Pi 5, which shows currents alone: nothing to multiply with."""
    currents = " 3V7_WL_SW_A current(0)=0.00780744A\n   3V3_SYS_A current(1)=0.12199130A\n"
    assert wire.parse(currents) is None
    found = wire.parse(currents + "   3V3_SYS_V volt(9)=3.30000000V\n")
    assert found is not None and found.pairs == ("3V3_SYS",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        'error=1 error_msg="Command not registered"',
        "3V3_SYS_A current(1)=0.12A\n3V3_SYS_V volt(9)=3.30A\n",  # a voltage in amperes
        "3V3_SYS_A current(1)=A\n3V3_SYS_V volt(9)=3.3V\n",
        "3V3_SYS_A current(1)=0.12A\n1V8_SYS_V volt(9)=1.8V\n",
    ],
)
def test_what_is_no_listing(text: str) -> None:
    assert wire.parse(text) is None


# -- what a round is worth --------------------------------------------------------------------------------------------


def survey(text: str = "", model: str | None = PI_5, code: int | None = 0, said: str = "") -> boardfiles.Survey:
    output = Output(code=code, text=text or listing(), said=said)
    texts = {} if model is None else {"/proc/device-tree/model": model}
    return boardfiles.Survey(hello={}, files=Files(texts=texts, failures={}, outputs=(output,)), root="")


def worth(power: str, text: str) -> dict[str, float] | None:
    of_it = driver.plan(survey(), power)
    header = Header(
        instrument="rpi_pmic",
        model=of_it.model,
        wire=wire.FORMAT,
        rate_hz=5.0,
        word_bytes=2106,
        channels=of_it.channels,
        parameters=dict(of_it.parameters),
    )
    read = Read(before_ns=0, after_ns=1, text=text.strip(), failure=None)
    values = wire.Rails(header)(Round(slot=0, reads=(read,)))
    return None if values is None else dict(zip([each.name for each in of_it.channels], values, strict=True))


def test_the_sum_of_the_rails_and_each_of_them() -> None:
    values = worth("rails", listing())
    assert values is not None
    assert values["power"] == pytest.approx(TOTAL_W, abs=1e-3)
    assert values["power VDD_CORE"] == pytest.approx(9.76144, abs=1e-4)
    assert values["EXT5V"] == 5.06788
    assert len(values) == 1 + 12 + 1


def test_the_estimate_keeps_the_sum_beside_it() -> None:
    values = worth("estimate", listing())
    assert values is not None
    # pi-top: 1.1451 times the sum and 0.5879 W.
    assert values["power"] == pytest.approx(1.1451 * TOTAL_W + 0.5879, abs=2e-3)
    assert values["power rails"] == pytest.approx(TOTAL_W, abs=1e-3)


@pytest.mark.parametrize("cut", ["VDD_CORE_V", "HDMI_A", "EXT5V_V"])
def test_a_listing_that_lacks_a_rail_is_worth_nothing(cut: str) -> None:
    assert worth("rails", "\n".join(line for line in listing().splitlines() if cut not in line)) is None


def test_an_estimate_is_said_to_be_one() -> None:
    rails, estimate = (driver.plan(survey(), power) for power in ("rails", "estimate"))
    assert (rails.channels[0].basis, estimate.channels[0].basis) == (Basis.MEASURED, Basis.ESTIMATED)
    for of_it, word, gain, offset_w in ((rails, "20-35 %", 0.10, 0.1), (estimate, "estimate", 0.15, 0.5)):
        (caveat,) = of_it.caveats
        assert caveat.severity is Severity.DOUBT and word in caveat.text
        (row,) = of_it.channels[0].accuracy
        assert (row.gain.standard, row.gain.dof, row.offset.value, row.verified) == (gain, 4, offset_w, False)
        assert word in row.source
    assert [channel.name for channel in estimate.channels][:2] == ["power", "power rails"]
    assert estimate.channels[1].accuracy == rails.channels[0].accuracy
    assert rails.channels[-1].quantity is Quantity.VOLTAGE


# -- which boards -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [PI_5, "Raspberry Pi 500 Rev 1.0", "Raspberry Pi Compute Module 5 Rev 1.0", "Raspberry Pi 5 Model B Rev 1.1"],
)
def test_boards_that_have_it(model: str) -> None:
    assert driver.plan(survey(model=model), "rails").model == model


@pytest.mark.parametrize(
    ("said", "error", "says"),
    [
        (
            {"model": "Raspberry Pi 4 Model B Rev 1.4"},
            NotFoundError,
            "Raspberry Pi 4 Model B Rev 1.4 has no power chip",
        ),
        ({"model": "Raspberry Pi Zero 2 W Rev 1.0"}, NotFoundError, "only the 5, the 500"),
        ({"model": "Raspberry Pi 400 Rev 1.0"}, NotFoundError, "only the 5, the 500"),
        ({"model": None}, NotFoundError, "This machine has no power chip"),
        ({"code": None, "text": " ", "said": "ENOENT"}, NotFoundError, "apt install raspi-utils"),
        ({"code": 255, "text": " ", "said": "Can't open device file: /dev/vcio"}, AccessError, "usermod -aG video"),
        ({"code": 255, "text": "VCHI initialization failed\n"}, AccessError, "usermod -aG video"),
        ({"text": 'error=1 error_msg="Command not registered"'}, DataError, "Command not registered"),
        ({"code": None, "text": " ", "said": "ETIMEDOUT"}, DataError, "ETIMEDOUT"),
    ],
)
def test_what_stands_in_the_way(said: dict[str, Any], error: type[JouleMeterError], says: str) -> None:
    with pytest.raises(error, match=says):
        driver.plan(survey(**said), "rails")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(supply_v=5.0), "cannot supply one"),
        (Options(declared_v=5.0), "needs no voltage"),
        (Options(settings={"interval": "1ms"}), "starts a program"),
        (Options(settings={"interval": "5s"}), "polled every"),
        (Options(settings={"power": "wall"}), "power cannot be 'wall'"),
    ],
)
def test_impossible_wishes(options: Options, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        rpi_pmic.open("", options)


def test_a_name_is_no_board() -> None:
    with pytest.raises(NotFoundError, match="no board 'VDD_CORE'"):
        rpi_pmic.open("VDD_CORE", Options())


# -- the simulated Pi -------------------------------------------------------------------------------------------------


def simulated(load: str, faults: str = "", **changed: str) -> boardfiles.FilesDriver:
    link = loopback(rpi_pmic.simulate(parse_load(load), Options()), faults)
    made: boardfiles.FilesDriver = driver.driver_on(link, Options(), settings(rpi_pmic, **changed))
    return made


@pytest.mark.parametrize("power", ["rails", "estimate"])
def test_the_energy_of_windows_is_the_loads(power: str) -> None:
    """5 W for 4 s, 2.5 W for 6 s; a reading is of an instant, so an edge between two of them is a ramp."""
    with simulated("1A/4s,500mA/6s", power=power) as meter:
        header, blocks = recorded(meter, rpi_pmic, 32.0)
    assert header.simulated and header.rate_hz == 5.0
    begins = [round((10 * k - 0.2) * 1e9) for k in (1, 2)]
    windows = [Window(start_ns=at, stop_ns=at + 4_000_000_000, index=k) for k, at in enumerate(begins)]
    high_w, low_w = (5.0, 2.5) if power == "rails" else (1.1451 * 5 + 0.5879, 1.1451 * 2.5 + 0.5879)
    stream = stream_of(header, blocks)
    for one in integrate(stream, windows):
        assert one.energy_j == pytest.approx(high_w * 4, abs=(high_w - low_w) * 0.2 + 0.01)
    (whole,) = integrate(stream, [Window(start_ns=begins[0], stop_ns=begins[1], index=0)])
    assert whole.energy_j == pytest.approx(high_w * 4 + low_w * 6, rel=2e-3)


def test_the_whole_way_through(tmp_path: Path) -> None:
    with jm.measure(meter="rpi_pmic", simulate=True, load="1A/1s", output=tmp_path / "runs") as m:
        for _ in range(3):
            with m.inference():
                time.sleep(1.1)
    energy, latency_s = m.result.energy_per_inference_j, m.result.latency_s.median
    assert latency_s is not None and energy.median is not None and energy.expanded_k2 is not None
    assert abs(energy.median - 5.0 * latency_s) <= min(energy.expanded_k2, 0.01 * energy.median)
    assert any("below what the Pi draws" in caveat.text for caveat in m.result.caveats)


@pytest.mark.parametrize("faults", ["stall@3s", "unplug@3s", "noise@3s", "drop@3s:3000"])
def test_faults(faults: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boardfiles, "STOP_S", 0.2)
    with simulated("1A/1s", faults) as meter:
        made = meter.start()
        raw, gone = until_it_ends(meter, 400)
    assert gone == faults.startswith("unplug")
    blocks = rpi_pmic.decoder(made).feed(raw[: 30 * made.word_bytes])
    assert 8 <= sum(len(block) for block in blocks) <= 30
    assert bool(sum(block.lost_before for block in blocks)) == faults.startswith("drop")


# -- a real agent -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree that says it is a Pi 5, and a program of that name on the path, which prints the published listing."""
    root = plant(tmp_path / "root", {"proc/device-tree/model": f"{PI_5}\0"})
    (tmp_path / "bin").mkdir()
    (tmp_path / "listing").write_text(listing())
    program = tmp_path / "bin" / "vcgencmd"
    program.write_text(f'#!/bin/sh\n[ "$1" = pmic_read_adc ] && exec cat {tmp_path / "listing"}\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return root


@posix_only
def test_a_board_of_this_host_is_recorded(pi: Path, tmp_path: Path) -> None:
    options = {"root": str(pi), "interval": "100ms"}
    run = jm.open("rpi_pmic", settings=options, output=tmp_path / "runs").record("1.2s")
    (stream,) = run.recording.streams
    assert (stream.header.model, stream.header.simulated) == (PI_5, False)
    watts = run.signal("power")
    assert np.isfinite(watts).sum() >= 5 and watts[np.isfinite(watts)] == pytest.approx(TOTAL_W, abs=1e-3)
    (cost,) = [caveat for caveat in stream.header.caveats if "reading_s" in caveat.data]
    assert 0 < cost.data["reading_s"] < 0.1
    # The listing is in the recording as it was printed, line by line.
    words = next((tmp_path / "runs").rglob("words.raw")).read_bytes()
    assert rb"VDD_CORE_A current(7)=10.87674000A\n" in words


@posix_only
def test_readings_that_fail_are_lost(pi: Path, tmp_path: Path) -> None:
    """The program fails for a while, then prints again."""
    with rpi_pmic.open("", Options(settings={"root": str(pi), "interval": "50ms"})) as meter:
        made = meter.start()
        raw, _ = until_it_ends(meter, 6)
        (tmp_path / "listing").rename(tmp_path / "away")
        raw += until_it_ends(meter, 6)[0]
        (tmp_path / "away").rename(tmp_path / "listing")
        raw += until_it_ends(meter, 6)[0]
    blocks = rpi_pmic.decoder(made).feed(raw)
    assert sum(block.lost_before for block in blocks) >= 3 and b',null,"EIO"]' in raw
    values = np.concatenate([block.data["power"] for block in blocks])
    assert values == pytest.approx(TOTAL_W, abs=1e-3)


@posix_only
def test_discovery(pi: Path, tmp_path: Path) -> None:
    from joulemeter.instruments.rpi_pmic import discovery

    (one,) = discovery.discover("rpi_pmic", str(pi))
    assert (one.description, one.problem) == (PI_5, None)
    (tmp_path / "bin" / "vcgencmd").write_text('#!/bin/sh\necho "Can\'t open device file: /dev/vcio" >&2\nexit 255\n')
    (one,) = discovery.discover("rpi_pmic", str(pi))
    assert one.problem and "/dev/vcio" in one.problem and one.remedy and "video" in one.remedy
    assert discovery.discover("rpi_pmic", str(tmp_path / "nowhere")) == []


def test_channels_for_info_are_what_every_board_has() -> None:
    assert [channel.name for channel in channels.channels((), wire.RAILS)] == ["power", "EXT5V"]
