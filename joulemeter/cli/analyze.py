"""joulemeter analyze"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from joulemeter import units
from joulemeter.cli import common, text
from joulemeter.cli.common import emit

app = common.app("Recompute a result from a recording.")


@app.command()
def analyze(
    path: Annotated[Path, typer.Argument(help="A run directory, a zip of one, or another program's recording.")],
    trigger: Annotated[str | None, typer.Option(help="Instead of the one recorded: d0, d0:low, d0:rising, ...")] = None,
    phase: common.Phases = None,
    add: Annotated[
        bool | None, typer.Option("--add/--compare", help="What several meters are for, instead of what was recorded.")
    ] = None,
    max_alignment: common.MaxAlignment = None,
    ambient: common.Ambient = None,
    calibrated_ago: common.CalibratedAgo = None,
    decoupling: common.Decoupling = None,
    cell: common.Cell = None,
    every: common.Every = None,
    inferences_per_window: common.PerWindow = None,
    convention: Annotated[
        str, typer.Option(help="native shares samples at the edges; eembc sums as EnergyRunner does.")
    ] = "native",
    debounce: common.Debounce = None,
    format_: Annotated[str, typer.Option("--format", help="text, json, or mlperf.")] = "text",
    windows_csv: Annotated[Path | None, typer.Option("--windows-csv", help="Write a row per window here.")] = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Recompute a result from a run directory, a zip of one, or a foreign recording.

    In a run directory result.json and windows.csv are written again; nothing else is touched.
    """
    from joulemeter import loading, store
    from joulemeter.lifetime import analyzed
    from joulemeter.physics.analyze import Request

    if format_ not in text.FORMATS:
        raise typer.BadParameter(f"--format is one of {', '.join(text.FORMATS)}.")
    request = Request(
        trigger=trigger,
        phases=common.settings(phase) if phase else None,
        max_alignment=units.parse_positive(max_alignment, "1") if max_alignment else None,
        conditions=common.conditions(ambient, calibrated_ago, decoupling),
        inferences_per_window=inferences_per_window,
        convention=convention,
        add=add,
        debounce_s=units.parse(debounce, "s") if debounce else None,
    )
    with common.progress(quiet=quiet) as progress:
        progress(f"reading {path}")
        with loading.opened(path) as recording:
            analysis = analyzed(recording, request, common.battery(cell, every))
    folder = path if path.is_dir() and store.is_run(path) else None
    if folder is not None:
        store.write_result(folder, analysis.result, analysis.rows)
    if windows_csv is not None:
        store.write_windows(windows_csv, analysis.rows)
    emit(text.present(analysis.result, "json" if json else format_, folder))
