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

app = common.app("A simulated instrument or board that other programs can talk to.")


@app.command()
def simulate(
    key: Annotated[str, typer.Argument(help="The instrument or board, such as ppk2 or mlperf-tiny.")],
    pty: Annotated[bool, typer.Option("--pty", help="On a pseudo-terminal (the default).")] = False,
    tcp: Annotated[str | None, typer.Option(metavar="[HOST:]PORT", help="On a TCP port; 0 picks a free one.")] = None,
    load: common.LoadText = None,
    faults: common.Faults = None,
    supply: Annotated[str, typer.Option(metavar="3.0V", help="Voltage at which the load's energy is told.")] = "3.0V",
    setting: common.Setting = None,
    board: Annotated[
        str | None, typer.Option(metavar="KIND", help="A board that the meter sees, such as mlperf-tiny.")
    ] = None,
    board_set: Annotated[
        list[str] | None, typer.Option("--board-set", metavar="NAME=VALUE", help="A setting of the board's own.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="As fast as it is read, instead of in real time.")] = False,
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
) -> None:
    """A simulated instrument or board that other programs can talk to, until Ctrl-C.

    The first line on stdout is its address, the second its board's where it has one; the closed-form charge and energy
    of its load follow.
    """
    from joulemeter import registry, simulation
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

    alone = key in registry.keys(registry.WORKLOADS) and key not in registry.keys(registry.INSTRUMENTS)
    if alone and board is not None:
        raise UsageError(f"{key} is a board itself.", "Leave --board out, or name a meter.")
    kind = key if alone else board
    simulation.serve(
        None if alone else key,
        board=simulation.Board(kind=kind, options=common.settings(board_set)) if kind else None,
        load=load,
        faults=faults,
        settings=common.settings(setting),
        tcp=tcp,
        supply_v=units.parse_positive(supply, "V"),
        fast=fast,
        announce=announce,
        stopped=stop.is_set,
    )
