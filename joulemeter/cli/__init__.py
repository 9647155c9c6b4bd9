"""The command line: one module per command, each with its arguments, its help and its function.

Commands are imported only when they are called, so that `--help` costs little more than the interpreter.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

# command -> what it does, in the words of --help; the module is joulemeter.cli.COMMAND
COMMANDS = {
    "demo": "The whole chain on a simulated board and meter: numbers, run directory, report.",
    "scan": "Meters that are connected, and what could be used if something were installed or permitted.",
    "doctor": "Why a device cannot be opened, with the exact remedy.",
    "measure": "Record a meter and a workload, and print energy per inference.",
    "record": "Record only.",
    "watch": "Live power in the terminal.",
    "analyze": "Recompute a result from a run directory, a zip of one, or a foreign recording.",
    "compare": "Results beside each other and beside published ones: efficiency, ranks, plots.",
    "check": "Hold a result to a baseline and to limits, for CI.",
    "report": "A result as one HTML file that opens offline.",
    "export": "A run as a file that other programs open.",
    "battery": "How long a battery lasts under a measured run or a table of currents.",
    "calibrate": "Gain and offset of a meter from a known load, kept by serial number.",
    "simulate": "A simulated instrument that other programs can talk to.",
    "conform": "Hold a driver to the instrument contract.",
    "profiles": "List, show or validate device, battery, model and rig profiles.",
}

_USAGE = """\
Usage: joulemeter COMMAND [OPTIONS]

Energy per inference, mean power and battery life of machine learning.

Commands:
{commands}

Options:
  --version  Print the version.
  --help     Print this text; `joulemeter COMMAND --help` prints its options.

Exit codes: 0 good, 1 a rule failed, 2 usage or bad input, 3 no such device,
4 busy or no permission, 5 lost or corrupt data or nothing measured,
6 interrupted or incomplete (what was recorded is kept), 7 an extra is missing.
"""


def usage() -> str:
    """The text of `joulemeter --help`, 80 columns wide."""
    import textwrap

    rows = []
    for name, text in COMMANDS.items():
        first, *rest = textwrap.wrap(text, 66)
        rows.append(f"  {name:10} {first}")
        rows += [f"  {'':10} {line}" for line in rest]
    return _USAGE.format(commands="\n".join(rows))


def main() -> Any:
    """Entry point of the program. Ends the process with the exit code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h"):
        sys.stdout.write(usage())
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"joulemeter {version('joulemeter')}\n")
        sys.exit(0)
    name = arguments[0]
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean {near[0]}?" if near else "`joulemeter --help` lists the commands."
        sys.stderr.write(f"joulemeter: there is no command {name!r}. {hint}\n")
        sys.exit(2)
    from joulemeter.cli.common import run

    run(import_module(f"joulemeter.cli.{name}").app, name, arguments[1:])
