"""A load of known energy through every simulated meter: is the result within the uncertainty that it states.

    python results/measured/meters.py [KEY...] > results/measured/meters.md

Each meter's simulator draws the load that its INFO names; `joulemeter measure` records it as a user would, and the
median energy of a pulse is held against the closed form. The simulated meters are without error of gain and offset, so
what shows here are mistakes of time, of scale and of arithmetic, and what slow meters lose at the edges of a window.
Oscilloscopes alone are off by a part of a division, as real ones are, and nobody tells them where zero is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from joulemeter import registry, units
from joulemeter.capture import Channel, Quantity
from joulemeter.instrument import Info
from joulemeter.synthetic import Load, parse_load

CYCLES, LEAST_S = 7, 6.0
SUPPLY_V = 3.0
# A gauge that shows something new twice a minute would take most of an hour: it is made quicker.
QUICKER = {"power_supply": ("1500mA/12s/d0,500mA/6s", ["--set", "refresh=1s"])}
AT_ONCE = 4
HEAD = ("meter", "model", "trigger", "windows", "exact", "measured, ± at k = 2", "off by", "inside 95 %")


def main() -> int:
    keys = sys.argv[1:] or registry.keys(registry.INSTRUMENTS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows = list(pool.map(measure, keys))
    lines = ["# Known energy through every simulated meter", "", f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if all(row[-1] == "yes" for row in rows) else 1


def measure(key: str) -> list[str]:
    info = registry.instrument(key).INFO
    trigger, text = trigger_of(info)
    text, settings = QUICKER.get(key, (text, []))
    load = parse_load(text)
    volts = info.load_v or SUPPLY_V
    exact_j = volts * charge_c(load, trigger)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "joulemeter", "measure", "--meter", key, "--simulate", "--load", text]
        command += ["--trigger", trigger, "--duration", f"{max(CYCLES * load.period_s, LEAST_S):g}s"]
        command += ["--json", "--quiet", "--output", folder, *settings]
        if info.supplies is not None:
            command += ["--supply", f"{volts}V"]
        elif info.load_v is None:
            command += ["--assume-voltage", f"{volts}V"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [key, "", trigger, "", units.show(exact_j, "J"), " ".join(done.stderr.split()), "", "no"]
    return row(key, trigger, exact_j, json.loads(done.stdout))


def trigger_of(info: Info) -> tuple[str, str]:
    """The best trigger that the meter sees, and its usual load."""
    if any(channel.quantity is Quantity.SIGNAL for channel in info.channels):
        return "c1@1.65V", info.load
    with_lines: list[Channel] = [channel for channel in info.channels if channel.lines]
    if not with_lines:
        return "shape:above", info.load
    line = with_lines[0].lines[0]
    form = ":falling" if with_lines[0].falls_only else ""
    return f"{line}{form}", info.load


def charge_c(load: Load, trigger: str) -> float:
    """Of one window: the pulse, or the whole cycle from one falling edge to the next."""
    line, _, form = trigger.partition(":")
    pulse = load.pulse_charge_c(int(line[1:]) if line[1:].isdigit() else 0)
    return load.cycle_charge_c if form == "falling" or pulse is None else pulse


def row(key: str, trigger: str, exact_j: float, result: dict[str, Any]) -> list[str]:
    energy = result["energy_per_inference_j"]
    if energy["ci95_total"] is None:
        inside, measured = "not stated", units.show(energy["median"], "J")
    else:
        low, high = energy["ci95_total"]
        inside = "yes" if low <= exact_j <= high else "no"
        measured = units.show_uncertain(energy["median"], energy["expanded_k2"], "J")
    off = f"{(energy['median'] - exact_j) / exact_j:+.3%}"
    windows = str(result["windows"]["used"])
    return [key, result["instrument"]["model"], trigger, windows, units.show(exact_j, "J", 5), measured, off, inside]


if __name__ == "__main__":
    sys.exit(main())
