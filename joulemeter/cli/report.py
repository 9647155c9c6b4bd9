"""joulemeter report"""

from __future__ import annotations

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
    quiet: common.Quiet = False,
) -> None:
    """A result as one HTML file that opens offline."""
    from joulemeter import loading
    from joulemeter.lifetime import analyzed
    from joulemeter.physics.analyze import Request
    from joulemeter.report.build import write

    request = Request(trigger=trigger, inferences_per_window=inferences_per_window, convention=convention)
    with common.progress(quiet=quiet) as progress, loading.opened(path) as recording:
        analysis = analyzed(recording, request, common.battery(cell, every))
        progress("drawing the report")
        write(recording, request, output, analysis)
    emit(str(output))
