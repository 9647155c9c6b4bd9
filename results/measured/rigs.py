"""Every recipe on simulators of its meter and its board: does it run to the end, and is the energy right.

    python results/measured/rigs.py [NAME...] > results/measured/rigs.md

`joulemeter measure --rig NAME --simulate`, as a user would; the median energy per inference is held against the closed
form of what the board draws by its profile. The simulated meters are without error of gain and offset.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from joulemeter import profile, rigs, units
from joulemeter.profile import Rig
from joulemeter.synthetic import parse_load

AT_ONCE = 3
TRIES = 2
HEAD = ("recipe", "meter", "trigger", "windows", "exact", "measured, ± at k = 2", "off by", "inside 95 %")


def main() -> int:
    names = sys.argv[1:] or [name for name in profile.names("rig") if name != "demo"]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows = list(pool.map(measure, names))
    lines = ["# Every recipe on a simulated meter and board", "", f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if all(row[-1] == "yes" for row in rows) else 1


def measure(name: str) -> list[str]:
    exact_j = truth_j(name)
    command = [sys.executable, "-m", "joulemeter", "measure", "--rig", name, "--simulate", "--json", "--quiet"]
    for _ in range(TRIES):  # a busy host may lose readings of a meter that is polled
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([*command, "--output", folder], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
    rig = profile.load("rig", name)
    if done.returncode:
        return [name, rig.meter, "", "", units.show(exact_j, "J"), " ".join(done.stderr.split()), "", "no"]
    result = json.loads(done.stdout)
    energy = result["energy_per_inference_j"]
    low, high = energy["ci95_total"]
    return [
        name,
        result["instrument"]["model"],
        rig.simulation.trigger or rig.trigger or "" if rig.simulation else "",
        str(result["windows"]["used"]),
        units.show(exact_j, "J"),
        units.show_uncertain(energy["median"], energy["expanded_k2"], "J"),
        f"{energy['median'] / exact_j - 1:+.3%}",
        "yes" if low <= exact_j <= high else "no",
    ]


def truth_j(name: str) -> float:
    """Energy of one inference of the simulated board, in joules, in closed form."""
    plan = rigs.plan(name, output=Path("nowhere"), simulate=True)
    rig = profile.find(Rig, name).profile
    if plan.load is None or rig.simulation is None:
        raise ValueError(f"{name} has no simulated board")
    charge_c = parse_load(plan.load).pulse_charge_c(0) or 0.0
    return charge_c * rigs.volts(rig, plan.meters) / rig.simulation.inferences_per_window


if __name__ == "__main__":
    sys.exit(main())
