"""joulemeter report"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from joulemeter.cli import common
from joulemeter.cli.common import emit

app = common.app("A result as one HTML file that opens offline.")


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="A run directory, a zip of one, or another program's recording.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="FILE.html")],
    trigger: Annotated[str | None, typer.Option(help="Instead of the one recorded.")] = None,
    inferences_per_window: common.PerWindow = None,
    convention: Annotated[str, typer.Option(help="native or eembc.")] = "native",
    cell: common.Cell = None,
    every: common.Every = None,
    published: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE[:WORD...]",
            help="Show it among rows that others published: mlperf-tiny:ic, inference:jetson. By itself that is done "
            "for a measured model whose file is one of MLPerf Tiny's; none leaves it out.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="For --published: what ran, where the result does not say: ic.")
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(metavar="SCOPE", help="For --published: what the meter saw: mcu_supply, system_ac, ..."),
    ] = None,
    quiet: common.Quiet = False,
) -> None:
    """A result as one HTML file that opens offline."""
    from joulemeter import loading
    from joulemeter.lifetime import analyzed
    from joulemeter.physics.analyze import Request
    from joulemeter.report import standing
    from joulemeter.report.build import write

    request = Request(trigger=trigger, inferences_per_window=inferences_per_window, convention=convention)
    asked = standing.asked(published, model, scope)
    with common.progress(quiet=quiet) as progress, loading.opened(path) as recording:
        analysis = analyzed(recording, request, common.battery(cell, every))
        progress("drawing the report")
        found = standing.among(analysis.result, asked, str(path))
        write(recording, request, output, analysis, found, sys.argv)
    emit(str(output))
