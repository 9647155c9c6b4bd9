"""A simulated Raspberry Pi 5 whose rails together draw the load. It prints the listing by its own code.

Rails have the voltages, shares and channels of a real listing's kind; currents come in steps of the converter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from joulemeter.boardfiles.simulator import BoardSimulator
from joulemeter.synthetic import Draw

STEP_A, TICK_S = 0.97593e-3, 1e-3
# Name, channel of the current and of the voltage, volts, share of the power.
RAILS = (
    ("3V7_WL_SW", 0, 8, 3.7, 0.06),
    ("3V3_SYS", 1, 9, 3.31, 0.08),
    ("1V8_SYS", 2, 10, 1.8, 0.1),
    ("DDR_VDD2", 3, 11, 1.1, 0.05),
    ("DDR_VDDQ", 4, 12, 0.6, 0.0),
    ("1V1_SYS", 5, 13, 1.1, 0.08),
    ("0V8_SW", 6, 14, 0.8, 0.1),
    ("VDD_CORE", 7, 15, 0.9, 0.52),
    ("3V3_DAC", 17, 20, 3.3, 0.0),
    ("3V3_ADC", 18, 21, 3.3, 0.0),
    ("0V8_AON", 16, 19, 0.8, 0.0),
    ("HDMI", 22, 23, 5.1, 0.01),
)


class PmicSimulator(BoardSimulator):
    # To start a program and ask the firmware.
    read_ns = 4_000_000

    def __init__(self, load: Draw, volts: float) -> None:
        super().__init__(load)
        self._volts = volts

    def texts(self, at_s: float) -> Mapping[str, str]:
        del at_s
        return {"/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0"}

    def output(self, argv: Sequence[str], at_s: float) -> str | None:
        if [*argv] != ["vcgencmd", "pmic_read_adc"]:
            return None
        power_w = float(self.drawn.mean_current_a(max(int(at_s / TICK_S), 0), 1, 1 / TICK_S)[0]) * self._volts
        lines = []
        for name, channel, _, volts, share in RAILS:
            amperes = round(power_w * share / volts / STEP_A) * STEP_A
            lines.append(f"{name + '_A':>12} current({channel})={amperes:.8f}A")
        lines += [f"{name + '_V':>12} volt({channel})={volts:.8f}V" for name, _, channel, volts, _ in RAILS]
        lines += [f"{'EXT5V_V':>12} volt(24)={self._volts:.8f}V", f"{'BATT_V':>12} volt(25)=0.00341880V"]
        return "\n".join(lines) + "\n"
