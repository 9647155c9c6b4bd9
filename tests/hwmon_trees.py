"""Sysfs trees of boards, made by hand after the kernel's documents, with what each shows.

Names and units of files: Linux, Documentation/hwmon/{ina2xx,ina238,ina3221,powerz,sysfs-interface}.rst. Rails and
addresses of the Jetsons: NVIDIA's device trees tegra234-p3701.dtsi and tegra234-p3767.dtsi; the Nano's older layout:
ml-energy/zeus, zeus/device/soc/jetson.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

Chips = Mapping[str, tuple[str, Mapping[str, str | int]]]

# ina2xx: in0 shunt (mV), in1 bus (mV), curr1 (mA), power1 (uW), shunt_resistor (uOhm), update_interval (ms).
INA226 = {
    "in0_input": 10,
    "in1_input": 5012,
    "curr1_input": 812,
    "power1_input": 4_075_000,
    "shunt_resistor": 10_000,
    "update_interval": 2,
}
INA219 = {name: value for name, value in INA226.items() if name != "update_interval"}


def ina3221(labels: Mapping[int, str], readings: Mapping[int, tuple[int, int]]) -> dict[str, str | int]:
    """Three channels of (mV, mA); in4 to in6 are shunt voltages (uV), in7 and curr4 their sums."""
    files: dict[str, str | int] = {"samples": 4, "update_interval": 26, "in7_label": "sum of shunt voltages"}
    files["in7_input"] = sum(milliamperes * 5 for _, milliamperes in readings.values())
    files["curr4_input"] = sum(milliamperes for _, milliamperes in readings.values())
    for channel, (millivolts, milliamperes) in readings.items():
        files[f"in{channel}_input"] = millivolts
        files[f"in{channel}_enable"] = 1
        files[f"curr{channel}_input"] = milliamperes
        files[f"shunt{channel}_resistor"] = 5000
        files[f"in{channel + 3}_input"] = milliamperes * 5
    return files | {f"in{channel}_label": label for channel, label in labels.items()}


BOARDS: dict[str, Chips] = {
    "pi with ina226": {"hwmon0": ("cpu_thermal", {"temp1_input": 42_000}), "hwmon1": ("ina226@1-0040", INA226)},
    "ina219": {"hwmon3": ("ina219@1-0041", INA219)},
    # 4.069 W, in steps of 0.2 mW * 20 mOhm / 10 mOhm.
    "ina238": {
        "hwmon0": ("ina238@0-0044", {"in0_input": 8, "in1_input": 5012, "curr1_input": 811, "power1_input": 4_069_200})
    },
    "orin nx": {
        "hwmon4": (
            "ina3221@1-0040",
            ina3221({1: "VDD_IN", 2: "VDD_CPU_GPU_CV", 3: "VDD_SOC"}, {1: (4968, 920), 2: (4960, 152), 3: (4960, 272)}),
        )
    },
    "agx orin": {
        "hwmon2": (
            "ina3221@1-0040",
            ina3221(
                {1: "VDD_GPU_SOC", 2: "VDD_CPU_CV", 3: "VIN_SYS_5V0"},
                {1: (20_000, 160), 2: (20_000, 48), 3: (5_000, 800)},
            ),
        ),
        "hwmon3": ("ina3221@1-0041", ina3221({1: "NC", 2: "VDDQ_VDD2_1V8AO"}, {1: (0, 0), 2: (5_000, 120), 3: (0, 0)})),
    },
    "agx xavier": {
        "hwmon0": (
            "ina3221@1-0040",
            ina3221({1: "GPU", 2: "CPU", 3: "SOC"}, {1: (19_000, 8), 2: (19_000, 24), 3: (19_000, 72)}),
        ),
        "hwmon1": (
            "ina3221@1-0041",
            ina3221({1: "CV", 2: "VDDRQ", 3: "SYS5V"}, {1: (19_000, 8), 2: (19_000, 16), 3: (5_000, 280)}),
        ),
    },
    "two strangers": {"hwmon0": ("ina226@1-0040", INA226), "hwmon1": ("ina226@1-0045", INA226)},
    # in0 is VBUS, in1 to in5 are the pins; curr1 is IBUS. No power file, no update_interval.
    "powerz": {
        "hwmon5": (
            "powerz@1-2:1.0",
            {
                "in0_input": 5087,
                "in0_average": 5086,
                "in0_label": "VBUS",
                "in1_input": 1680,
                "in1_label": "VCC1",
                "curr1_input": -431,
                "curr1_average": -430,
                "curr1_label": "IBUS",
                "temp1_input": 31_000,
            },
        )
    },
    "amdgpu": {"hwmon1": ("amdgpu", {"power1_average": 23_145_000, "power1_label": "PPT", "in0_input": 731})},
    "nothing": {"hwmon0": ("cpu_thermal", {"temp1_input": 42_000})},
}


def build(root: Path, board: str) -> Path:
    """The tree of a board below `root`, which is what `--set root=` takes."""
    (root / "class" / "hwmon").mkdir(parents=True)
    for folder, (chip, files) in BOARDS[board].items():
        name, _, place = chip.partition("@")
        home = root / "devices" / (place or folder)
        home.mkdir(parents=True)
        here = root / "class" / "hwmon" / folder
        here.mkdir()
        if place:
            (here / "device").symlink_to(home)
        for file, content in {"name": name, **files}.items():
            (here / file).write_text(f"{content}\n")
    return root


def old_jetson_nano(root: Path) -> Path:
    """L4T up to 32: mW, mV and mA below the bus's driver."""
    folder = root / "bus" / "i2c" / "drivers" / "ina3221x" / "6-0040" / "iio:device0"
    folder.mkdir(parents=True)
    rows = {0: ("POM_5V_IN", 5_040, 412), 1: ("POM_5V_GPU", 5_040, 24), 2: ("POM_5V_CPU", 5_032, 120)}
    for number, (label, millivolts, milliamperes) in rows.items():
        (folder / f"rail_name_{number}").write_text(f"{label}\n")
        (folder / f"in_voltage{number}_input").write_text(f"{millivolts}\n")
        (folder / f"in_current{number}_input").write_text(f"{milliamperes}\n")
        (folder / f"in_power{number}_input").write_text(f"{millivolts * milliamperes // 1000}\n")
    return root


def put(path: Path, value: int | str) -> None:
    """A value in place, at once, as a driver shows it: whoever reads sees the old one or the new one."""
    handle = os.open(path, os.O_WRONLY)
    try:
        size = path.stat().st_size
        os.pwrite(handle, f"{value}".ljust(size - 1).encode() + b"\n", 0)
    finally:
        os.close(handle)
