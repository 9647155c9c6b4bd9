"""Rigs: every recipe makes a plan, what a person says wins, and the simulated boards cost what their figures say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulemeter import profile, registry, rigs, session
from joulemeter.errors import UsageError
from joulemeter.instrument import Options
from joulemeter.plan import Meter, Plan, parse_meter
from joulemeter.profile import Device, Rig
from joulemeter.synthetic import parse_load
from joulemeter.trigger import parse_trigger

RIGS = [name for name in profile.names("rig") if name != "demo"]
# What the sources of this project measured, each by the rig that measures it.
REFERENCE = {
    *("stm32f4-tflite-micro", "stm32f4-cube-ai", "stm32f4-nnom", "stm32f4-uart", "sparkfun-edge", "sparkfun-artemis"),
    *("nrf52840", "esp32", "openmv-cam-h7", "pi-3b-plus", "pi-3b-plus-tensorflow", "pi-4b", "pi-5"),
    *("coral-usb-pi3", "coral-usb-pi4", "coral-usb-pi4-usb2", "coral-usb-notebook", "coral-dev-board"),
    *("ncs-pi3", "ncs2-pi3", "jetson-nano", "jetson-nano-tensorrt", "jetson-tx2", "jetson-tx2-tensorrt"),
    *("jetson-agx-xavier", "jetson-agx-xavier-tensorrt", "quadro-k620", "pi-3b-plus-ai2go", "mlperf-tiny-l4r5zi"),
    "pi-4b-um25c",
}

RIG = """
name = "bench"
device = "stm32f4discovery"
meter = "ppk2"
supply = "3.0V"
trigger = "d0"
"""
INFERENCE = '[inference]\nmodel = "conv3dense1"\nruntime = "nnom+CMSIS-NN"\nprecision = "int8"\n'
SIMULATION = '[simulation]\nperiod = "{}"\nidle_state = "stop"\n'
ASSUMED = '[simulation.assumed]\nbecause = "there is no other"\n'


def built(name: str | Path, **changes: Any) -> Plan:
    """What `joulemeter measure --rig NAME --simulate` does with further options."""
    rig = profile.find(Rig, name)
    meter = parse_meter(rig.profile.meter, Options())
    assert meter is not None
    plan = Plan(meters=(meter,), output=Path("nowhere"), name="bench", simulate=True)
    return rigs.complete(replace(plan, **changes), rig)


def bench(tmp_path: Path, *parts: str) -> Path:
    path = tmp_path / "bench.toml"
    path.write_text("".join(parts))
    return path


def joulemeter(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-P", "-m", "joulemeter", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


# --- every profile and recipe in the package


def test_every_reference_system_has_a_rig() -> None:
    assert set(RIGS) >= REFERENCE


def test_every_device_has_a_rig() -> None:
    used = {profile.find(Device, profile.load("rig", name).device).path for name in RIGS}
    assert used == {f"profiles/devices/{name}.toml" for name in profile.names("device")}


@pytest.mark.parametrize("name", profile.names("device"))
def test_a_device_names_instruments_and_triggers_that_there_are(name: str) -> None:
    device = profile.load("device", name)
    assert device.instruments and device.triggers
    assert set(device.instruments) <= set(registry.keys(registry.INSTRUMENTS))
    for trigger in device.triggers:
        parse_trigger(trigger)


@pytest.mark.parametrize("name", RIGS)
def test_every_rig_makes_a_plan(name: str) -> None:
    rig = profile.load("rig", name)
    supplies = registry.instrument(rig.meter.partition("@")[0]).INFO.supplies
    given = Options(supply_v=rig.supply_v) if supplies else Options()
    real = rigs.plan(name, output=Path("nowhere"), options=given)
    session.check(real)
    assert (real.trigger, real.workload, real.load) == (rig.trigger, rig.workload, None)
    assert real.meters[0].key in profile.load("device", rig.device).instruments

    plan = rigs.plan(name, output=Path("nowhere"), simulate=True)
    session.check(plan)
    load = parse_load(plan.load or "")
    assert load.steps[0].current_a > load.steps[1].current_a > 0
    assert load.steps[0].duration_s >= load.steps[1].duration_s * 1e-3
    if not parse_trigger(plan.trigger or "").countable:
        # Windows told from the power alone: enough readings in each, and enough of them.
        info = registry.instrument(plan.meters[0].key).INFO
        assert load.steps[0].duration_s * max(info.rates_hz) >= 20
        assert load.steps[1].duration_s * max(info.rates_hz) >= 8
        assert plan.duration_s is not None and plan.duration_s >= 5 * load.period_s


def test_no_recipe_powers_a_real_board_by_itself() -> None:
    with pytest.raises(UsageError, match="powers the board with 3 V") as refused:
        rigs.plan("nrf52840", output=Path("nowhere"))
    assert "--supply 3V" in refused.value.remedy and "--assume-voltage 3V" in refused.value.remedy
    own = rigs.plan("nrf52840", output=Path("nowhere"), options=Options(declared_v=3.0))
    assert own.meters[0].options.supply_v is None
    assert rigs.plan("nrf52840", output=Path("nowhere"), simulate=True).meters[0].options.supply_v == 3.0


# --- what a rig becomes


def test_figures_are_the_devices_and_the_assumed_ones_say_so() -> None:
    # 8 W are assumed; 4,916 us an inference, 200 to a window, at the 5 V of the simulated meter.
    plan = rigs.plan("jetson-nano", output=Path("nowhere"), simulate=True)
    load = parse_load(plan.load or "")
    assert load.steps[0].current_a == pytest.approx(8 / 5)
    assert load.steps[0].duration_s == pytest.approx(200 * 4916e-6)
    assert plan.truth == pytest.approx({"energy_per_inference_j": 8 * 4916e-6, "latency_s": 4916e-6})
    assert plan.note is not None and "assumed: no measured power was found" in plan.note
    # Measured watts of the device: 27.6 W and 4.6 W on VDD_IN.
    orin = parse_load(rigs.plan("jetson-orin-nx", output=Path("nowhere"), simulate=True).load or "")
    assert [step.current_a for step in orin.steps] == pytest.approx([27.6 / 5, 4.6 / 5])


def test_what_a_person_says_wins() -> None:
    plain = built("stm32f4-nnom")
    assert (plain.trigger, plain.windows, plain.inferences_per_window) == ("d0", 10, 1)
    assert plain.meters[0].options == Options(supply_v=3.0)
    assert plain.board_runs is not None and plain.board_runs["runtime"] == "nnom+CMSIS-NN"

    asked = built("stm32f4-nnom", trigger="d3", windows=3, note="mine", battery={"cell": "aa", "every_s": 1.0})
    assert (asked.trigger, asked.windows, asked.note) == ("d3", 3, "mine")
    assert plain.truth is not None and asked.truth is None, "other windows hold another energy"
    assert asked.battery == {"cell": "aa", "every_s": 1.0}
    assert built("pi-4b", duration_s=2.0).duration_s == 2.0

    fed = built("stm32f4-nnom", meters=(Meter(key="ppk2", address="", options=Options(supply_v=3.3)),))
    assert fed.meters[0].options.supply_v == 3.3
    assert fed.truth is not None and fed.truth["energy_per_inference_j"] == pytest.approx(40e-3 * 3.3 * 104.6e-3)

    other = built("stm32f4-nnom", load="1mA/1s/d0,1uA/1s")
    assert (other.load, other.board_runs, other.truth) == ("1mA/1s/d0,1uA/1s", None, None)

    workload = built("pi-4b", workload="python:bench:infer", simulate=False)
    assert (workload.workload, workload.trigger, workload.workload_options) == ("python:bench:infer", None, {})


def test_another_meter_is_given_the_voltage_or_told_it() -> None:
    def options(key: str, rig: str) -> Options:
        return built(rig, meters=(Meter(key=key, address=""),)).meters[0].options

    assert options("joulescope", "stm32f4-nnom") == Options(), "it sees the voltage and cannot give it"
    assert options("lpm01a", "stm32f4-nnom") == Options(supply_v=3.0)
    assert options("lpm01a", "pico") == Options(declared_v=5.0), "it gives 3.3 V at most"
    assert options("nvml", "h100-sxm") == Options(settings={"boards": "h100"}), "settings of the rig's own meter"
    assert options("hwmon", "h100-sxm") == Options()


def test_a_real_rig_brings_the_workload_with_its_options() -> None:
    plan = built("coral-usb-notebook", simulate=False, workload_options={"threads": "2"})
    assert plan.workload == "tflite:ssd_mobilenet_v2_coco_quant_postprocess_edgetpu.tflite"
    assert plan.workload_options == {"delegate": "libedgetpu.so.1", "threads": "2"}
    assert plan.meters[0].options.settings == {}
    assert plan.board_runs is not None and plan.truth is None


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((INFERENCE,), r"'bench' has no simulated board\. Give it \[simulation\]"),
        ((INFERENCE, SIMULATION.format("100ms")), r"a window takes 0\.1046 s, the period is 0\.1 s\. Give it a longer"),
        ((SIMULATION.format("1s"),), r"does not say how long an inference takes"),
        ((INFERENCE, SIMULATION.format("1s").replace("stop", "coma")), r"no current for the state 'coma'"),
        ((SIMULATION.format("1s"), ASSUMED), r"nothing is assumed"),
        ((SIMULATION.format("1s"), ASSUMED, 'active = "1A"\nactive_power = "1W"'), r"either active or active_power"),
        ((SIMULATION.format("1s"), ASSUMED, 'actve = "1A"'), r"simulation\.assumed\.actve .* Did you mean 'active'"),
    ],
)
def test_a_rig_that_does_not_fit_together(tmp_path: Path, parts: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        built(bench(tmp_path, RIG, *parts))


# --- end to end


def test_a_board_by_its_published_time(tmp_path: Path) -> None:
    """40 mA at 3.0 V for the 104.6 ms of the ZHAW slides."""
    done = joulemeter("measure", "--rig", "stm32f4-nnom", "--simulate", "--windows", "4", "--json", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["simulated"] and result["device"]["name"] == "STM32F4DISCOVERY"
    assert result["energy_per_inference_j"]["median"] == pytest.approx(40e-3 * 3.0 * 104.6e-3, rel=2e-3)
    assert result["latency_s"]["median"] == pytest.approx(104.6e-3, rel=1e-3)
    (run,) = tmp_path.iterdir()
    kept = json.loads((run / "run.json").read_text())["provenance"]["profiles"]
    assert set(kept) == {"profiles/rigs/stm32f4-nnom.toml", "profiles/devices/stm32f4discovery.toml"}


def test_a_module_by_its_own_sensor(tmp_path: Path) -> None:
    """No line: 200 inferences of 4.916 ms at 8 W stand out from 2 W, and each is 39.3 mJ."""
    plan = replace(rigs.plan("jetson-nano", output=tmp_path, simulate=True), duration_s=6.5)
    result = session.measure(plan, lambda text: None).analysis.result
    assert result.energy_per_inference_j.median == pytest.approx(8 * 4916e-6, rel=0.02)
    assert result.workload is not None and result.workload["runtime"] == "TFLite"


def test_without_meter_and_rig_there_is_nothing_to_measure(tmp_path: Path) -> None:
    done = joulemeter("measure", "--simulate", "-o", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--meter" in done.stderr and "--rig" in done.stderr
    done = joulemeter("measure", "--rig", "jetson-nanu", "--simulate", "-o", tmp_path)
    assert done.returncode == 2 and "Did you mean jetson-nano" in " ".join(done.stderr.split())
