"""joulemeter simulate"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Annotated

import typer

from joulemeter import units
from joulemeter.cli import common
from joulemeter.cli.common import emit

app = common.app("A simulated instrument that other programs can talk to.")


@app.command()
def simulate(
    key: Annotated[str, typer.Argument(help="The instrument, such as ppk2.")],
    pty: Annotated[bool, typer.Option("--pty", help="On a pseudo-terminal (the default).")] = False,
    tcp: Annotated[str | None, typer.Option(metavar="[HOST:]PORT", help="On a TCP port; 0 picks a free one.")] = None,
    load: common.LoadText = None,
    faults: common.Faults = None,
    supply: Annotated[str, typer.Option(metavar="3.0V", help="Voltage at which the load's energy is told.")] = "3.0V",
    setting: common.Setting = None,
    fast: Annotated[bool, typer.Option("--fast", help="As fast as it is read, instead of in real time.")] = False,
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
) -> None:
    """A simulated instrument that other programs can talk to, until Ctrl-C.

    The first line on stdout is its address; the closed-form charge and energy of its load follow.
    """
    from joulemeter import simulation
    from joulemeter.errors import UsageError

    if pty and tcp is not None:
        raise UsageError("--pty and --tcp exclude each other.", "Give one of them.")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if until_eof:

        def wait_for_parent() -> None:
            sys.stdin.read()
            stop.set()

        threading.Thread(target=wait_for_parent, daemon=True).start()

    def announce(text: str) -> None:
        emit(text)
        sys.stdout.flush()

    simulation.serve(
        key,
        load=load,
        faults=faults,
        settings=common.settings(setting),
        tcp=tcp,
        supply_v=units.parse_positive(supply, "V"),
        fast=fast,
        announce=announce,
        stopped=stop.is_set,
    )
