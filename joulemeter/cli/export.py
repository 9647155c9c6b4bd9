"""joulemeter export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from joulemeter import units
from joulemeter.cli import common
from joulemeter.cli.common import emit

app = common.app("A run as a file that other programs open.")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run directory, a zip of one, or another program's recording.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="FILE.csv or FILE.ppk2.")],
    step: Annotated[
        str | None, typer.Option(metavar="1ms", help="One CSV row per step: lowest, mean, highest.")
    ] = None,
    quiet: common.Quiet = False,
) -> None:
    """A run as a file that other programs open."""
    from joulemeter import loading
    from joulemeter.export import export as write

    with common.progress(quiet=quiet) as progress, loading.opened(run) as recording:
        progress(f"writing {output}")
        count = write(recording, output, units.parse_positive(step, "s") if step else None)
    emit(f"{count} rows in {output}")
