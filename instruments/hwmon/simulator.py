"""A simulated board: one INA226 behind a shunt of 10 milliohms at 5 V, read through Linux's driver.

The chip averages the shunt's and the bus's voltage over 2.2 ms, again and again; a reading is the last average that was
complete (INA226 data sheet, update interval of 2 ms).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from joulemeter.boardfiles.simulator import BoardSimulator
from joulemeter.synthetic import Draw

CONVERSION_S = 2.2e-3
SHUNT_OHM = 0.01
SHUNT_STEP_V = 2.5e-6
SHUNT_TOP = 0x7FFF
BUS_STEP_V = 1.25e-3
# What a read over I2C takes.
READ_NS = 250_000

FOLDER = "/sys/class/hwmon/hwmon0"


class Ina226Simulator(BoardSimulator):
    def __init__(self, load: Draw, volts: float) -> None:
        super().__init__(load)
        self.read_ns = READ_NS
        self._volts = volts

    def texts(self, at_s: float) -> Mapping[str, str]:
        # The last whole conversion, counted from the beginning of the load.
        whole = math.floor(at_s / CONVERSION_S + 1e-9) - 1
        flow_a = self.drawn.mean_current_a(whole, 1, 1 / CONVERSION_S)[0] if whole >= 0 else 0.0
        shunt = min(round(flow_a * SHUNT_OHM / SHUNT_STEP_V), SHUNT_TOP)
        milliamperes = round(shunt * SHUNT_STEP_V / SHUNT_OHM * 1e3)
        return {
            f"{FOLDER}/name": "ina226",
            f"{FOLDER}/device": "/sys/devices/platform/soc/i2c-1/1-0040",
            f"{FOLDER}/shunt_resistor": "10000",
            f"{FOLDER}/update_interval": "2",
            f"{FOLDER}/curr1_input": str(milliamperes),
            f"{FOLDER}/in1_input": str(round(round(self._volts / BUS_STEP_V) * BUS_STEP_V * 1e3)),
            # The register holds 25 times the step of the current: 25 mW.
            f"{FOLDER}/power1_input": str(round(milliamperes * self._volts / 25) * 25_000),
        }
