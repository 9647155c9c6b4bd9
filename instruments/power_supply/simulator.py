"""A simulated laptop on its battery, whose gauge shows averages of a second. It works by its own code.

Power is shown in mW and energy in steps of 10 mWh, as ACPI batteries do.
"""

from __future__ import annotations

from collections.abc import Mapping

from joulemeter.boardfiles.simulator import BoardSimulator
from joulemeter.synthetic import Draw

GAUGE_S = 1.0
FOLDER = "/sys/class/power_supply/BAT0"
LEFT_WH, DESIGN_WH, STEP_WH = 38.5, 50.0, 0.01


class BatterySimulator(BoardSimulator):
    def __init__(self, load: Draw, volts: float) -> None:
        super().__init__(load)
        self._volts = volts

    def texts(self, at_s: float) -> Mapping[str, str]:
        second = max(int(at_s / GAUGE_S + 1e-6) - 1, 0)
        power_w = float(self.drawn.mean_current_a(second, 1, 1 / GAUGE_S)[0]) * self._volts
        left_wh = LEFT_WH - self.charge_c(GAUGE_S, at_s) * self._volts / 3600
        files = {
            "type": "Battery",
            "scope": "System",
            "present": "1",
            "status": "Discharging",
            "model_name": "simulated",
            "energy_full_design": str(round(DESIGN_WH * 1e6)),
            "voltage_now": str(round(self._volts * 1e3) * 1000),
            "power_now": str(round(power_w * 1e3) * 1000),
            "energy_now": str(int(left_wh / STEP_WH) * round(STEP_WH * 1e6)),
        }
        return {f"{FOLDER}/{name}": text for name, text in files.items()} | {"/sys/class/power_supply/AC/type": "Mains"}
